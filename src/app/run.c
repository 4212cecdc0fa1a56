/* run: the command that trains one network. */
#include "base/build.h"
#include "base/log.h"
#include "base/memory.h"
#include "dist/h5.h"
#include "dist/krylov.h"

#include "app/arguments.h"
#include "app/commands.h"
#include "app/session.h"

static void refuse_sweep(const char *text, size_t length, const char *input, struct problems *problems)
{
    struct sweep_axes *axes = spec_sweep(text, length, input, problems);
    if (axes)
        problems_add(problems, EXIT_INPUT,
                     "%s holds a sweep of %lld members: use eigentrain sweep (--member I for one of them)", input,
                     (long long)axes->members);
    sweep_axes_destroy(&axes);
}

int command_run(int argc, char **argv)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    struct problems problems = {0};
    struct session session = {0};
    struct argument_list sets = {0}, rest = {0};
    const char *wall = NULL, *stop_at = NULL;
    bool quiet = false;
    const struct argument_option options[] = {{.name = "--out", .text = &session.out},
                                              {.name = "--set", .list = &sets},
                                              {.name = "--overwrite", .flag = &session.overwrite},
                                              {.name = "--resume", .flag = &session.resume},
                                              {.name = "--wall", .text = &wall},
                                              {.name = "--stop-at", .text = &stop_at},
                                              {.name = "--quiet", .flag = &quiet},
                                              {0}};
    int rank, code = EXIT_DONE;
    long length = 0;
    MPI_Comm_rank(comm, &rank);
    arguments_parse(argc, argv, options, &rest, &problems);
    arguments_limit(wall, stop_at, &problems);
    if (session.resume && session.overwrite)
        problems_add(&problems, EXIT_INPUT,
                     "--resume goes on with a run, --overwrite moves it aside: give one of them");
    const char *input = arguments_input(&rest, "run", &problems);
    log_start(rank == 0, quiet);
    char *text = problems.count ? NULL : arguments_read(comm, input, &length, &problems);
    struct spec *spec = NULL;
    if (text) refuse_sweep(text, (size_t)length, input, &problems);
    if (text && problems.count == 0) spec = spec_read(text, (size_t)length, input, sets.count, sets.text, &problems);
    if (spec) {
        krylov_start(comm);
        build_facts();
        build_add("hdf5", "%s", h5_version());
        session.input = text;
        session.length = (size_t)length;
        code = session_run(comm, spec, &session, &problems);
        krylov_end();
    }
    spec_destroy(&spec);
    memory_free(text);
    arguments_free(&sets);
    arguments_free(&rest);
    if (problems.count) code = problems.code;
    log_copy_to(NULL);
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    return code;
}
