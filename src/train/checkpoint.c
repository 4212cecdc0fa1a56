#include "train/checkpoint.h"

#include "base/build.h"
#include "base/launch.h"
#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format[] = "eigentrain checkpoint";

/* ---------------------------------------------------------------- the folder (root) */

/* Steps of the checkpoints that are there, newest first. */
struct steps {
    int64_t *step; /* [count], owned */
    int count;
};

static int descending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

static char *file_of(const struct rundir *rundir, int64_t step)
{
    return rundir_file(rundir, "checkpoints/step_%09lld.h5", (long long)step);
}

static void list_steps(const struct rundir *rundir, struct steps *steps)
{
    char *path = rundir_file(rundir, "checkpoints");
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        long long step;
        int end = 0;
        if (sscanf(entry->d_name, "step_%lld.h5%n", &step, &end) != 1 || end == 0 || entry->d_name[end]) continue;
        steps->step = memory_grow(steps->step, (size_t)steps->count, (size_t)steps->count + 1, sizeof *steps->step);
        steps->step[steps->count++] = step;
    }
    if (folder) closedir(folder);
    memory_free(path);
    if (steps->count) qsort(steps->step, (size_t)steps->count, sizeof *steps->step, descending);
}

static void share_steps(MPI_Comm comm, int rank, struct steps *steps)
{
    MPI_Bcast(&steps->count, 1, MPI_INT, 0, comm);
    if (rank != 0) steps->step = NEW(int64_t, steps->count);
    MPI_Bcast(steps->step, steps->count, MPI_INT64_T, 0, comm);
}

/* What killed processes have left of files that they were writing. */
static void remove_partial(const struct rundir *rundir)
{
    char *path = rundir_file(rundir, "checkpoints");
    DIR *folder = opendir(path);
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        const size_t length = strlen(entry->d_name);
        static const char end[] = ".partial";
        if (entry->d_name[0] != '.' || length < sizeof end || strcmp(entry->d_name + length + 1 - sizeof end, end) != 0)
            continue;
        char *file = rundir_file(rundir, "checkpoints/%s", entry->d_name);
        unlink(file);
        memory_free(file);
    }
    if (folder) closedir(folder);
    memory_free(path);
}

/* Those later than `step` are of a future that this run has left: it went back behind them. */
static void prune(const struct rundir *rundir, int64_t step, int keep)
{
    struct steps steps = {0};
    list_steps(rundir, &steps);
    for (int i = 0, kept = 0; i < steps.count; i++) {
        if (steps.step[i] <= step && kept++ < keep) continue;
        char *path = file_of(rundir, steps.step[i]);
        if (unlink(path) != 0) log_warn("%s: cannot be removed: %s", path, strerror(errno));
        memory_free(path);
    }
    memory_free(steps.step);
}

/* ---------------------------------------------------------------- saving */

bool checkpoint_save(const struct rundir *rundir, int64_t step, int keep, checkpoint_state *state, void *context,
                     struct problems *problems)
{
    const struct grid *grid = rundir->grid;
    char *path = file_of(rundir, step), *folder = rundir_file(rundir, "checkpoints");
    if (grid->rank == 0) mkdir(folder, 0777); /* if that fails, h5_create says why */
    struct archive *archive = archive_save(grid->comm, path, format, problems);
    if (archive) {
        state(archive, context, problems);
        rundir_provenance(rundir, archive_file(archive));
    }
    const bool ok = archive && archive_end(&archive, problems);
    if (ok && grid->rank == 0) prune(rundir, step, keep);
    memory_free(folder);
    memory_free(path);
    return ok;
}

/* ---------------------------------------------------------------- loading */

/* One line "name: now, was then" for a fact that has changed. */
static void compare_fact(struct problems *changed, const char *name, const char *then, const char *now)
{
    if (then && strcmp(then, now) != 0) problems_add(changed, EXIT_ENVIRONMENT, "%s is %s, was %s", name, now, then);
}

/* What decides about the order of sums and the instructions used, and differs from what the checkpoint says of itself.
 */
static void compare_facts(struct h5 *file, const struct rundir *rundir, struct problems *changed)
{
    static const char *const names[] = {"version", "git",   "compiler",    "flags", "libc",  "mpi",
                                        "blas",    "petsc", "blas kernel", "cpu",   "slepc", "blas threads per rank"};
    for (const struct build_fact *fact = build_facts(); fact->name; fact++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            if (strcmp(fact->name, names[i]) != 0) continue;
            char *key = rundir_fact_key(fact->name), *then = NULL;
            if (h5_exists(file, "provenance", key)) then = h5_get_text(file, "provenance", key);
            compare_fact(changed, fact->name, then, fact->value);
            memory_free(then);
            memory_free(key);
        }
    const struct grid *grid = rundir->grid;
    const int64_t old_ranks = h5_get_int(file, "provenance", "ranks"),
                  old_block = h5_get_int(file, "provenance", "block");
    char *shape = memory_text("%d x %d", grid->nprow, grid->npcol),
         *old_shape = h5_get_text(file, "provenance", "grid");
    if (old_ranks != grid->size)
        problems_add(changed, EXIT_ENVIRONMENT, "%d ranks, was %lld", grid->size, (long long)old_ranks);
    compare_fact(changed, "the grid", old_shape, shape);
    if (old_block != grid->block)
        problems_add(changed, EXIT_ENVIRONMENT, "the block is %d, was %lld", grid->block, (long long)old_block);
    memory_free(old_shape);
    memory_free(shape);
}

static void compare_routes(struct h5 *file, const struct rundir *rundir, struct problems *changed)
{
    char *gemm = h5_get_text(file, "provenance", "gemm"), *chunk = h5_get_text(file, "provenance", "microbatch");
    char *now = spec_flat(rundir->resolved, strlen(rundir->resolved), "train.microbatch");
    compare_fact(changed, "grid.gemm", gemm, rundir->grid->gemm == GRID_GEMM_PANEL ? "panel" : "pdgemm");
    compare_fact(changed, "train.microbatch", chunk, now ? now : "");
    memory_free(now);
    memory_free(chunk);
    memory_free(gemm);
}

static void say_restart(const struct problems *changed, int64_t step)
{
    if (changed->count == 0) {
        log_say("resumes from the checkpoint of step %lld, bit for bit", (long long)step);
        return;
    }
    char *list = memory_text("%s", changed->text[0]);
    for (int i = 1; i < changed->count; i++) {
        char *longer = memory_text("%s; %s", list, changed->text[i]);
        memory_free(list);
        list = longer;
    }
    log_say("resumes from the checkpoint of step %lld; not bit-exact because %s", (long long)step, list);
    memory_free(list);
}

static bool load(const struct rundir *rundir, int64_t step, checkpoint_state *state, void *context,
                 struct problems *changed, struct problems *problems)
{
    char *path = file_of(rundir, step);
    struct archive *archive = archive_load(rundir->grid->comm, path, format, problems);
    if (archive) {
        state(archive, context, problems);
        compare_facts(archive_file(archive), rundir, changed);
        compare_routes(archive_file(archive), rundir, changed);
        archive_end(&archive, problems);
    }
    memory_free(path);
    return problems_none(problems, rundir->grid->comm);
}

int64_t checkpoint_load(const struct rundir *rundir, checkpoint_state *state, void *context, struct problems *problems)
{
    struct steps steps = {0};
    struct problems bad = {0};
    int64_t loaded = -1;
    if (rundir->grid->rank == 0) {
        remove_partial(rundir);
        list_steps(rundir, &steps);
    }
    share_steps(rundir->grid->comm, rundir->grid->rank, &steps);
    for (int i = 0; i < steps.count && loaded < 0; i++) {
        struct problems own = {0}, changed = {0};
        if (load(rundir, steps.step[i], state, context, &changed, &own)) {
            loaded = steps.step[i];
            say_restart(&changed, loaded);
        } else {
            log_warn("the checkpoint of step %lld is not used: %s", (long long)steps.step[i], own.text[0]);
            problems_add(&bad, EXIT_ENVIRONMENT, "%s", own.text[0]);
        }
        problems_clear(&changed);
        problems_clear(&own);
    }
    if (loaded < 0 && steps.count) {
        for (int i = 0; i < bad.count; i++) problems_add(problems, EXIT_ENVIRONMENT, "%s", bad.text[i]);
        problems_add(problems, EXIT_ENVIRONMENT,
                     "%s: none of its checkpoints can be used; --overwrite moves the run aside and starts anew",
                     rundir->path);
    }
    memory_free(steps.step);
    problems_clear(&bad);
    return loaded >= 0 ? loaded : steps.count ? -1 : -2;
}
