/* eigentrain: the command line. */
#include "base/build.h"
#include "base/error.h"
#include "base/launch.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "train/stop.h"

#include "app/commands.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_root(void)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank == 0;
}

static int command_keys(int argc, char **argv)
{
    if (!is_root()) return EXIT_DONE;
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

static int command_info(int argc, char **argv)
{
    int ranks;
    krylov_start(MPI_COMM_WORLD);
    build_facts();
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    build_add("hdf5", "%s", h5_version());
    build_add("ranks", "%d", ranks);
    for (const struct build_fact *fact = build_facts(); is_root() && fact->name; fact++)
        printf("%-22s %s\n", fact->name, fact->value);
    krylov_end();
    return EXIT_DONE;
}

static int command_help(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage, *meaning;
} commands[] = {
    {"run", command_run,
     "run INPUT.yaml [--out DIR] [--set KEY=VALUE]… [--resume | --overwrite] [--stop-at EPOCH | --wall HH:MM:SS] "
     "[--quiet]",
     "train the network that INPUT.yaml describes; DIR is runs/NAME unless given"},
    {"sweep", command_sweep,
     "sweep INPUT.yaml [--groups G | --member I | --list] [--out DIR] [--set KEY=VALUE]… [--overwrite] [--stop-at "
     "EPOCH | --wall HH:MM:SS] [--quiet]",
     "run what is unfinished of INPUT.yaml's section `sweep`, G members at a time, or one member"},
    {"plan", command_plan,
     "plan INPUT.yaml [--ranks N] [--latency SECONDS] [--bandwidth BYTES/S] [--flops FLOP/S] [--json] "
     "[--set KEY=VALUE]…",
     "what a run on N ranks would take: memory, flops, bytes, files, a predicted time; trains and writes nothing. "
     "Latency and bandwidth of messages, and flop/s of a rank, take the place of measured ones"},
    {"laws", command_laws, "laws INPUT.yaml [--point start | random] [--set KEY=VALUE]…",
     "what gradient flow conserves in a small linear or relu network: counts, ranks, whether its dynamics is "
     "intrinsic"},
    {"status", command_status, "status DIR…", "where runs and sweeps stand, how they ended, time left"},
    {"verify", command_verify, "verify DIR…",
     "read every file of runs and sweeps again: whether they are whole, and all there"},
    {"keys", command_keys, "keys [KEY]", "every key of the input file: type, default, bounds, unit, meaning"},
    {"info", command_info, "info", "version, libraries, BLAS kernel in use, MPI, CPU"},
    {"help", command_help, "help [COMMAND]", "this text, or that of one command (also: COMMAND --help)"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(name, commands[i].name) == 0) return &commands[i];
    return NULL;
}

/* Of one command, or of all. */
static void print_usage(FILE *out, const struct command *command)
{
    fprintf(out, "usage: [mpirun -n RANKS] eigentrain COMMAND …\n\n");
    for (int i = 0; i < COMMANDS; i++)
        if (!command || command == &commands[i])
            fprintf(out, "  %s\n        %s\n", commands[i].usage, commands[i].meaning);
    fprintf(out, "\nexit codes: 0 done, 2 the input is wrong, 3 the environment, 4 diverged, 70 a bug,\n"
                 "            85 stopped early with a valid checkpoint (go on with --resume)\n");
}

static int refuse_command(const char *name)
{
    const char *names[COMMANDS];
    if (!is_root()) return EXIT_INPUT;
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    if (*name) {
        const char *near = spec_nearest(name, names, COMMANDS);
        fprintf(stderr, "eigentrain: there is no command '%s'%s%s%s\n", name, near ? " (did you mean '" : "",
                near ? near : "", near ? "'?)" : "");
    }
    print_usage(stderr, NULL);
    return EXIT_INPUT;
}

static int command_help(int argc, char **argv)
{
    const struct command *one = argc > 0 ? find_command(argv[0]) : NULL;
    if (argc > 0 && !one) return refuse_command(argv[0]);
    if (is_root()) print_usage(stdout, one);
    return EXIT_DONE;
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* A command that trains must not die of a signal that comes while it starts. */
static bool trains(const char *name)
{
    return strcmp(name, "run") == 0 || strcmp(name, "sweep") == 0;
}

static int command(int argc, char **argv)
{
    char *name = argc > 1 ? argv[1] : "";
    const struct command *found = find_command(name);
    if (asks_for_help(name)) return command_help(0, NULL);
    if (!found) return refuse_command(name);
    for (int i = 2; i < argc; i++)
        if (asks_for_help(argv[i])) return command_help(1, &name);
    return found->run(argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    launch_prepare(argv);
    if (argc > 1 && trains(argv[1])) stop_watch_signals();
    MPI_Init(&argc, &argv);
    memory_start();
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    launch_check_world(size);
    const int code = command(argc, argv);
    MPI_Finalize();
    return code;
}
