#include "app/session.h"

#include "base/build.h"
#include "base/log.h"
#include "base/memory.h"
#include "net/layout.h"
#include "train/rundir.h"
#include "train/trainer.h"

#include <string.h>

static void say_start(const struct grid *grid, const struct spec *spec)
{
    log_say("eigentrain %s (%s): %s, %d rank%s as %d × %d, block %d", build_version(), build_git(),
            spec_text(spec, "run.name"), grid->size, grid->size > 1 ? "s" : "", grid->nprow, grid->npcol, grid->block);
}

/* The name of the run is the name of a folder. */
static bool check_name(const struct spec *spec, struct problems *problems)
{
    const char *name = spec_text(spec, "run.name");
    if (name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0) return true;
    spec_problem(spec, problems, "run.name", "'%s' cannot be the name of a folder: give a word without slashes", name);
    return false;
}

static int run_in(struct rundir *rundir, struct trainer *trainer, struct problems *problems)
{
    const int ended = trainer_ended(trainer, rundir, problems);
    if (ended >= 0) return ended;
    if (!rundir_begin(rundir, problems)) return problems->code;
    char *log = rundir_file(rundir, "run.log");
    if (!log_copy_to(log)) log_warn("%s cannot be written", log);
    memory_free(log);
    return trainer_run(trainer, rundir, problems);
}

/* Everything that can be wrong is found before the directory is made: a rejected input leaves nothing behind. */
static int train(const struct grid *grid, const struct spec *spec, const struct session *s, struct problems *problems)
{
    const enum rundir_mode mode = s->resume ? RUNDIR_RESUME : s->overwrite ? RUNDIR_OVERWRITE : RUNDIR_NEW;
    char *path = s->out ? memory_text("%s", s->out) : memory_text("runs/%s", spec_text(spec, "run.name"));
    struct rundir *rundir = NULL;
    say_start(grid, spec);
    struct trainer *trainer = trainer_create(grid, spec, problems);
    if (trainer) rundir = rundir_create(grid, path, mode, s->input, s->length, spec, problems);
    const int code = rundir ? run_in(rundir, trainer, problems) : problems->code;
    rundir_destroy(&rundir);
    trainer_destroy(&trainer);
    memory_free(path);
    return code;
}

int session_run(MPI_Comm comm, const struct spec *spec, const struct session *session, struct problems *problems)
{
    struct grid *grid = check_name(spec, problems) ? layout_create(comm, spec, problems) : NULL;
    const int code = grid ? train(grid, spec, session, problems) : problems->code;
    grid_destroy(&grid);
    log_copy_to(NULL); /* ends run.log, or forgets what was kept for one that never came */
    return code;
}
