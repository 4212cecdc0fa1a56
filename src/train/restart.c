/* restart: what of a run must survive it: when a checkpoint is due, what it holds, and the parts of the metrics that
 * are written with it. */
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "train/checkpoint.h"
#include "train/stop.h"

#include "trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
    archive_real(archive, "budget", &t->budget);
    archive_clocks(t, archive);
    params_archive(t->model->params, "weights", archive);
    t->has_previous = archive_flag(archive, "has_previous", t->has_previous);
    if (t->has_previous && !t->previous) t->previous = params_create(t->model);
    if (t->has_previous) params_archive(t->previous, "previous", archive);
    optimizer_archive(t->optimizer, archive);
    if (t->jt) jt_archive(t->jt, archive);
    probes_archive(t->probes, t->model, archive);
    if (t->project) project_archive(t->project, archive);
    twins_archive(t->twins, archive);
    if (t->reduction) reduction_archive(t->reduction, t->data->train, archive);
    record_archive(t->record, archive);
    if (!archive_loading(archive)) return;
    struct problems own = {0};
    if (t->grid->rank == 0) parts_read(&t->parts, ((struct context *)context)->rundir, t->record, t->step, &own);
    problems_join(&own, t->grid->comm, problems);
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
    /* Some MPIs answer one-sided accesses only within calls of the target: those of other groups of a sweep to the
     * counter of its members, which must not wait for the end of this run. */
    int flag;
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, t->grid->comm, &flag, MPI_STATUS_IGNORE);
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
    const bool root = t->grid->rank == 0;
    struct problems own = {0}, wrong = {0};
    if (root) parts_write(&t->parts, rundir, t->record, t->step, &wrong);
    const bool ok = problems_join(&wrong, t->grid->comm, &own) &&
                    checkpoint_save(rundir, t->step, to_int(spec_int(t->spec, "checkpoint.keep")), archive_state,
                                    &(struct context){t, rundir}, &own);
    if (root) parts_settle(&t->parts, rundir, ok); /* without it its part goes, too: what is short is often space */
    if (ok)
        t->saved = t->step;
    else
        log_warn("no checkpoint of step %lld: %s; the run goes on", (long long)t->step, own.text[0]);
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
    if (step < 0 && t->grid->rank == 0) parts_remove(&t->parts, rundir); /* of a run that got to no checkpoint */
    t->first_step = t->step;
    return true;
}

void restart_end(struct trainer *t, const struct rundir *rundir)
{
    if (t->grid->rank != 0) return;
    parts_remove(&t->parts, rundir);
    stop_set_file(STOP_FILE_RUN, NULL);
}
