/* restart: what of a run must survive it: when a checkpoint is due, what it holds, and the parts of the metrics that
 * are written with it. */
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "train/checkpoint.h"
#include "train/stop.h"

#include "trainer_private.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- parts of the metrics (root) */

static char *part_path(const struct rundir *rundir, int64_t part)
{
    return rundir_file(rundir, "metrics/part-%04lld.h5", (long long)part);
}

/* The rows that no checkpoint knows of yet, as the next part. */
static void write_part(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    if (!record_has_new(t->record)) return;
    char *folder = rundir_file(rundir, "metrics"), *path = part_path(rundir, t->parts + 1);
    mkdir(folder, 0777); /* if that fails, h5_create says why */
    struct h5 *file = h5_create(MPI_COMM_SELF, path, "eigentrain metrics", problems);
    if (file) {
        record_write_new(t->record, file);
        rundir_provenance(rundir, file);
        if (h5_commit(&file, problems)) t->parts++;
    }
    memory_free(path);
    memory_free(folder);
}

static void read_metrics(struct trainer *t, const char *path, struct problems *problems)
{
    struct h5 *file = h5_open(MPI_COMM_SELF, path, "eigentrain metrics", problems);
    if (!file) return;
    record_read(t->record, file, t->step);
    h5_done(&file, problems);
}

/* All rows before the step of the checkpoint, from the parts or, when these are gone because the run was finished, from
 * metrics.h5; then new parts begin. */
static void read_rows(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    record_clear(t->record);
    for (int64_t part = 1; part <= t->parts && problems->count == 0; part++) {
        char *path = part_path(rundir, part);
        read_metrics(t, path, problems);
        memory_free(path);
    }
    if (problems->count == 0 && record_complete(t->record)) {
        record_set_written(t->record, true);
        return;
    }
    char *whole = rundir_file(rundir, "metrics.h5");
    if (access(whole, F_OK) == 0) {
        struct problems own = {0};
        record_clear(t->record);
        read_metrics(t, whole, &own);
        if (own.count == 0 && record_complete(t->record)) {
            problems_clear(problems);
            t->parts = 0;
        }
        problems_clear(&own);
    }
    memory_free(whole);
    if (problems->count == 0 && !record_complete(t->record))
        problems_add(problems, EXIT_ENVIRONMENT, "the metrics before step %lld are not complete", (long long)t->step);
}

/* Parts behind the last one that counts: all of them, once metrics.h5 holds everything. */
static void remove_parts(const struct rundir *rundir, int64_t after)
{
    bool there = true;
    for (int64_t part = after + 1; there; part++) {
        char *path = part_path(rundir, part);
        there = unlink(path) == 0;
        memory_free(path);
    }
    char *folder = rundir_file(rundir, "metrics");
    rmdir(folder); /* only if it is empty */
    memory_free(folder);
}

/* ---------------------------------------------------------------- the state */

struct context {
    struct trainer *t;
    const struct rundir *rundir;
};

static void archive_clocks(struct trainer *t, struct archive *archive)
{
    double seconds[TIMER_PARTS];
    for (int part = 0; part < TIMER_PARTS; part++) seconds[part] = timer_seconds((enum timer_part)part);
    double spent = observe_seconds(t);
    archive_reals(archive, "timing", TIMER_PARTS, seconds);
    archive_real(archive, "seconds", &spent);
    if (!archive_loading(archive)) return;
    seconds[TIMER_SETUP] += timer_seconds(TIMER_SETUP);
    timer_set(seconds);
    t->spent_before = spent;
}

static void archive_state(struct archive *archive, void *context, struct problems *problems)
{
    struct trainer *t = ((struct context *)context)->t;
    archive_int(archive, "step", &t->step);
    archive_real(archive, "time", &t->time);
    archive_int(archive, "parts", &t->parts);
    archive_clocks(t, archive);
    params_archive(t->model->params, "weights", archive);
    t->has_previous = archive_flag(archive, "has_previous", t->has_previous);
    if (t->has_previous && !t->previous) t->previous = params_create(t->model);
    if (t->has_previous) params_archive(t->previous, "previous", archive);
    optimizer_archive(t->optimizer, archive);
    probes_archive(t->probes, t->model, archive);
    record_archive(t->record, archive);
    if (!archive_loading(archive)) return;
    struct problems own = {0};
    if (t->grid->rank == 0) read_rows(t, ((struct context *)context)->rundir, &own);
    problems_join(&own, t->grid->comm, problems);
    MPI_Bcast(&t->parts, 1, MPI_INT64_T, 0, t->grid->comm);
}

/* ---------------------------------------------------------------- when */

void restart_prepare(struct trainer *t)
{
    const struct spec *spec = t->spec;
    t->checkpoint_every = spec_is(spec, "checkpoint.every", "never") ? 0 : spec_int(spec, "checkpoint.every");
    t->checkpoint_seconds =
        spec_is(spec, "checkpoint.minutes", "never") ? INFINITY : 60 * spec_real(spec, "checkpoint.minutes");
    t->saved = -1;
}

/* Seconds until a checkpoint would be complete if this step's chance to stop is let pass: the rest of this step, the
 * next one, and the writing. The first checkpoint is guessed from its size. */
static double seconds_to_safety(const struct trainer *t)
{
    const double bytes = 8 * (double)t->model->params->size * (2 + optimizer_arrays(t->spec));
    const double save = t->save_seconds > 0 ? t->save_seconds : bytes / 1e8;
    return 2 * t->longest_step + 2 * save + 1;
}

void restart_look(struct trainer *t, double wishes[RESTART_WISHES])
{
    const double now = timer_now();
    const bool root = t->grid->rank == 0;
    if (t->step_began > 0 && now - t->step_began > t->longest_step) t->longest_step = now - t->step_began;
    t->step_began = now;
    wishes[0] = stop_wanted(root, seconds_to_safety(t));
    wishes[1] = root && now - t->last_save > t->checkpoint_seconds;
}

void restart_agree(struct trainer *t, const double wishes[RESTART_WISHES])
{
    t->stop = wishes[0] > 0;
    t->checkpoint_wanted = wishes[1] > 0;
}

static bool due(const struct trainer *t)
{
    if (t->step == t->saved) return false;
    if (t->stop || t->checkpoint_wanted) return true;
    if (t->step == t->steps && t->step > 0) return spec_bool(t->spec, "checkpoint.end");
    return t->step > 0 && t->checkpoint_every && t->step % t->checkpoint_every == 0;
}

void restart_save(struct trainer *t, const struct rundir *rundir)
{
    if (!due(t)) return;
    const double since = timer_now();
    const int64_t parts = t->parts;
    struct problems own = {0}, wrong = {0};
    if (t->grid->rank == 0) write_part(t, rundir, &wrong);
    const bool ok = problems_join(&wrong, t->grid->comm, &own) &&
                    checkpoint_save(rundir, t->step, to_int(spec_int(t->spec, "checkpoint.keep")), archive_state,
                                    &(struct context){t, rundir}, &own);
    if (ok) {
        t->saved = t->step;
        record_set_written(t->record, true);
    } else { /* its part goes, too: what is short is often space */
        log_warn("no checkpoint of step %lld: %s; the run goes on", (long long)t->step, own.text[0]);
        t->parts = parts;
        if (t->grid->rank == 0) remove_parts(rundir, parts);
    }
    problems_clear(&own);
    t->last_save = timer_now();
    t->step_began = 0; /* the writing is not part of a step */
    if (t->last_save - since > t->save_seconds) t->save_seconds = t->last_save - since;
    timer_add(TIMER_OUTPUT, since);
    observe_status(t, rundir, true);
}

bool restart_load(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    t->last_save = timer_now();
    char *stop = rundir_file(rundir, "stop");
    if (t->grid->rank == 0 && unlink(stop) == 0) log_say("%s removed: the run goes on", stop);
    if (t->grid->rank == 0) stop_set_file(STOP_FILE_RUN, stop);
    memory_free(stop);
    const int64_t step =
        rundir->resumed ? checkpoint_load(rundir, archive_state, &(struct context){t, rundir}, problems) : -2;
    if (step == -1) return false;
    if (step == -2 && rundir->resumed) log_say("no checkpoint in %s: starts from step 0", rundir->path);
    if (step > t->steps)
        spec_problem(t->spec, problems, "train.steps", "is %lld, but the run is at step %lld already",
                     (long long)t->steps, (long long)step);
    if (problems->count) return false;
    if (step >= 0) t->saved = step;
    if (t->grid->rank == 0) remove_parts(rundir, t->parts);
    t->first_step = t->step;
    return true;
}

void restart_end(struct trainer *t, const struct rundir *rundir)
{
    if (t->grid->rank != 0) return;
    remove_parts(rundir, 0);
    stop_set_file(STOP_FILE_RUN, NULL);
}
