/* eigentrain: the command line. */
#include "base/build.h"
#include "base/error.h"
#include "base/launch.h"
#include "base/log.h"
#include "base/spec.h"
#include "dist/h5.h"
#include "dist/krylov.h"

#include "app/run.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: [mpirun -n RANKS] eigentrain COMMAND …\n"
    "\n"
    "  run INPUT.yaml [--out DIR] [--set KEY=VALUE]… [--overwrite] [--quiet]\n"
    "                 train the network that INPUT.yaml describes; DIR is runs/NAME unless given\n"
    "  keys [KEY]     every key of the input file: type, default, bounds, unit, meaning\n"
    "  info           version, libraries, BLAS kernel in use, MPI, CPU\n"
    "  help           this text\n"
    "\n"
    "exit codes: 0 done, 2 the input is wrong, 3 the environment, 4 diverged, 70 a bug\n";

static int command_keys(int argc, char **argv, bool root)
{
    if (!root) return EXIT_DONE;
    if (argc > 1) {
        fprintf(stderr, "eigentrain: keys takes at most one key\n");
        return EXIT_INPUT;
    }
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    const bool found = spec_keys(out, argc ? argv[0] : NULL);
    fclose(out);
    fprintf(found ? stdout : stderr, "%s%s", found ? "" : "eigentrain: ", text);
    free(text);
    return found ? EXIT_DONE : EXIT_INPUT;
}

static int command_info(bool root)
{
    int ranks;
    krylov_start(MPI_COMM_WORLD);
    build_facts();
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    build_add("hdf5", "%s", h5_version());
    build_add("ranks", "%d", ranks);
    for (const struct build_fact *fact = build_facts(); root && fact->name; fact++)
        printf("%-22s %s\n", fact->name, fact->value);
    krylov_end();
    return EXIT_DONE;
}

static int command(int argc, char **argv)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const bool root = rank == 0;
    const char *name = argc > 1 ? argv[1] : "";
    static const char *const names[] = {"run", "keys", "info", "help"};
    if (strcmp(name, "run") == 0) return run_command(argc - 2, argv + 2);
    if (strcmp(name, "keys") == 0) return command_keys(argc - 2, argv + 2, root);
    if (strcmp(name, "info") == 0) return command_info(root);
    const bool help = strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    if (root && argc > 1 && !help) {
        const char *near = spec_nearest(name, names, 4);
        fprintf(stderr, "eigentrain: there is no command '%s'%s%s%s\n", name, near ? " (did you mean '" : "",
                near ? near : "", near ? "'?)" : "");
    }
    if (root) fputs(usage, help ? stdout : stderr);
    return help ? EXIT_DONE : EXIT_INPUT;
}

int main(int argc, char **argv)
{
    launch_prepare(argv);
    MPI_Init(&argc, &argv);
    const int code = command(argc, argv);
    MPI_Finalize();
    return code;
}
