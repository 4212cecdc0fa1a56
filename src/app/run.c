#include "app/run.h"

#include "base/build.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "net/layout.h"
#include "train/rundir.h"
#include "train/trainer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct arguments {
    const char *input, *out; /* borrowed from argv */
    char **sets;             /* [nsets] owned array of borrowed texts */
    int nsets;
    bool overwrite, quiet;
};

static const char *const options[] = {"--out", "--set", "--overwrite", "--quiet"};

/* Says what is meant instead; returns whether the option that is meant takes the next word. */
static bool refuse_option(const char *given, struct problems *problems)
{
    char *name = memory_text("%.*s", (int)strcspn(given, "="), given);
    const char *near = spec_nearest(name, options, 4), *value = given + strlen(name);
    const bool takes_value = near && (strcmp(near, "--out") == 0 || strcmp(near, "--set") == 0);
    value += takes_value && *value;
    if (near)
        problems_add(problems, EXIT_INPUT, "there is no option %s (did you mean %s%s%s?)", given, near,
                     takes_value && *value ? " " : "", takes_value ? value : "");
    else
        problems_add(problems, EXIT_INPUT, "there is no option %s (`eigentrain help` lists those there are)", given);
    const bool takes_next = takes_value && !strchr(given, '=');
    memory_free(name);
    return takes_next;
}

static void parse(int argc, char **argv, struct arguments *a, struct problems *problems)
{
    a->sets = NEW(char *, argc);
    for (int i = 0; i < argc; i++) {
        const bool takes_value = strcmp(argv[i], "--out") == 0 || strcmp(argv[i], "--set") == 0;
        if (takes_value && (i + 1 == argc || !argv[i + 1][0]))
            problems_add(problems, EXIT_INPUT, "%s needs a value", argv[i++]);
        else if (strcmp(argv[i], "--out") == 0)
            a->out = argv[++i];
        else if (strcmp(argv[i], "--set") == 0)
            a->sets[a->nsets++] = argv[++i];
        else if (strcmp(argv[i], "--overwrite") == 0)
            a->overwrite = true;
        else if (strcmp(argv[i], "--quiet") == 0)
            a->quiet = true;
        else if (argv[i][0] == '-')
            i += refuse_option(argv[i], problems);
        else if (a->input)
            problems_add(problems, EXIT_INPUT, "one input file at a time, not both %s and %s", a->input, argv[i]);
        else
            a->input = argv[i];
    }
    if (!a->input && problems->count == 0)
        problems_add(problems, EXIT_INPUT, "run needs an input file: eigentrain run INPUT.yaml");
}

/* Root only. The bytes of the input file. */
static char *slurp(const char *path, long *length, struct problems *problems)
{
    struct stat about;
    ensure(path); /* parse() has seen to it */
    errno = 0;
    FILE *file = stat(path, &about) == 0 && S_ISDIR(about.st_mode) ? (errno = EISDIR, NULL) : fopen(path, "rb");
    if (!file) {
        problems_add(problems, EXIT_INPUT, "%s: %s", path, strerror(errno));
        return NULL;
    }
    const long most = 16L << 20;
    char *text = NEW(char, most + 1);
    *length = (long)fread(text, 1, (size_t)most + 1, file);
    if (ferror(file)) problems_add(problems, EXIT_INPUT, "%s: %s", path, strerror(errno));
    if (*length > most) problems_add(problems, EXIT_INPUT, "%s: larger than 16 MiB: not an input file", path);
    fclose(file);
    return text;
}

/* Collective. Every rank gets the same text. */
static char *read_input(MPI_Comm comm, const char *path, long *length, struct problems *problems)
{
    int rank;
    char *text = NULL;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) text = slurp(path, length, problems);
    if (!problems_none(problems, comm)) {
        memory_free(text);
        return NULL;
    }
    MPI_Bcast(length, 1, MPI_LONG, 0, comm);
    if (rank != 0) text = NEW(char, *length + 1);
    MPI_Bcast(text, to_int(*length), MPI_CHAR, 0, comm);
    return text;
}

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

/* Everything that can be wrong is found before the directory is made: a rejected input leaves nothing behind. */
static int train(const struct grid *grid, const struct spec *spec, const struct arguments *a, const char *text,
                 size_t length, struct problems *problems)
{
    char *path = a->out ? memory_text("%s", a->out) : memory_text("runs/%s", spec_text(spec, "run.name"));
    struct rundir *rundir = NULL;
    say_start(grid, spec);
    struct trainer *trainer = trainer_create(grid, spec, problems);
    if (trainer) rundir = rundir_create(grid, path, a->overwrite, text, length, spec, problems);
    if (rundir) {
        char *log = rundir_file(rundir, "run.log");
        if (!log_copy_to(log)) log_warn("%s cannot be written", log);
        memory_free(log);
        trainer_run(trainer, rundir, problems);
        log_copy_to(NULL);
    }
    rundir_destroy(&rundir);
    trainer_destroy(&trainer);
    memory_free(path);
    return problems->code;
}

int run_command(int argc, char **argv)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    struct arguments arguments = {0};
    struct problems problems = {0};
    int rank;
    long length = 0;
    MPI_Comm_rank(comm, &rank);
    parse(argc, argv, &arguments, &problems);
    log_start(rank == 0, arguments.quiet);
    char *text = problems.count ? NULL : read_input(comm, arguments.input, &length, &problems);
    struct spec *spec = NULL;
    struct grid *grid = NULL;
    if (text) spec = spec_read(text, (size_t)length, arguments.input, arguments.nsets, arguments.sets, &problems);
    if (spec && check_name(spec, &problems)) grid = layout_create(comm, spec, &problems);
    if (grid) {
        krylov_start(comm);
        build_facts();
        build_add("hdf5", "%s", h5_version());
        train(grid, spec, &arguments, text, (size_t)length, &problems);
        krylov_end();
    }
    grid_destroy(&grid);
    spec_destroy(&spec);
    memory_free(text);
    memory_free(arguments.sets);
    const int code = problems.code;
    log_copy_to(NULL); /* forgets what was kept for a run.log that never came */
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    return code;
}
