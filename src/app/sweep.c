/* sweep: the command that runs the members of a sweep, several at a time in one allocation, or one of them. */
#include "app/sweep.h"

#include "app/commands.h"
#include "app/directory.h"
#include "base/build.h"
#include "base/log.h"
#include "base/memory.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "train/stop.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the user asked for. */
struct wish {
    const char *out, *groups_text, *member_text, *wall, *stop_at; /* borrowed, or NULL */
    struct argument_list sets, rest;                              /* owned */
    bool list, overwrite, quiet;
    int groups;
    int member; /* from 0; −1: all */
};

static const double PATIENCE = 60; /* seconds that the tables at the end may wait for other processes */

/* ---------------------------------------------------------------- the command line */

static bool read_count(const char *text, const char *option, int *value, struct problems *problems)
{
    char *end;
    errno = 0;
    const long number = strtol(text, &end, 10);
    const bool good = end > text && *end == '\0' && errno == 0 && number >= 1 && number <= INT_MAX;
    if (!good) problems_add(problems, EXIT_INPUT, "%s: expected a number from 1 on, found '%s'", option, text);
    *value = good ? (int)number : 1;
    return good;
}

static const char *read_wish(int argc, char **argv, struct wish *wish, struct problems *problems)
{
    const struct argument_option options[] = {{.name = "--out", .text = &wish->out},
                                              {.name = "--set", .list = &wish->sets},
                                              {.name = "--groups", .text = &wish->groups_text},
                                              {.name = "--member", .text = &wish->member_text},
                                              {.name = "--list", .flag = &wish->list},
                                              {.name = "--overwrite", .flag = &wish->overwrite},
                                              {.name = "--quiet", .flag = &wish->quiet},
                                              {.name = "--wall", .text = &wish->wall},
                                              {.name = "--stop-at", .text = &wish->stop_at},
                                              {0}};
    int ranks;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    arguments_parse(argc, argv, options, &wish->rest, problems);
    arguments_limit(wish->wall, wish->stop_at, problems);
    wish->groups = 1;
    wish->member = -1;
    if (wish->groups_text && read_count(wish->groups_text, "--groups", &wish->groups, problems) &&
        ranks % wish->groups != 0)
        problems_add(problems, EXIT_INPUT, "%d rank%s cannot be split into %d equal groups", ranks,
                     ranks > 1 ? "s" : "", wish->groups);
    if (wish->member_text && read_count(wish->member_text, "--member", &wish->member, problems)) wish->member--;
    if (wish->member >= 0 && wish->groups > 1)
        problems_add(problems, EXIT_INPUT, "--member takes all ranks for one member: there is nothing for %d groups",
                     wish->groups);
    return arguments_input(&wish->rest, "sweep", problems);
}

/* ---------------------------------------------------------------- the sweep */

static void check_sets(const struct sweep *sweep, struct problems *problems)
{
    for (int i = 0; i < sweep->sets->count; i++)
        for (int a = 0; a < sweep->axes->count; a++)
            for (int k = 0; k < sweep->axes->axis[a].keys; k++) {
                const char *set = sweep->sets->text[i], *key = sweep->axes->axis[a].key[k];
                const size_t length = strlen(key);
                if (strncmp(set, key, length) == 0 && set[length] == '=')
                    problems_add(problems, EXIT_INPUT, "--set %s: the sweep gives %s its values; change them there",
                                 set, key);
            }
}

/* Drops from `common` what is not in `other`. */
static void intersect(struct problems *common, const struct problems *other)
{
    struct problems kept = {0};
    for (int i = 0; i < common->count; i++) {
        bool found = false;
        for (int j = 0; j < other->count && !found; j++) found = strcmp(common->text[i], other->text[j]) == 0;
        if (found) problems_add(&kept, EXIT_INPUT, "%s", common->text[i]);
    }
    problems_clear(common);
    *common = kept;
}

/* The first member whose parameters are possible; −1 with problems if there is none: those that all members have in
 * common are the input's, and otherwise the first member's stand for all. */
static int find_possible(const struct sweep *sweep, struct spec **spec, struct problems *problems)
{
    struct problems first = {0}, common = {0};
    for (int i = 0; i < sweep->members; i++) {
        struct problems own = {0};
        *spec = sweep_spec(sweep, i, &own);
        if (*spec) {
            problems_clear(&own);
            problems_clear(&first);
            problems_clear(&common);
            return i;
        }
        for (int p = 0; p < own.count && i == 0; p++) {
            problems_add(&first, EXIT_INPUT, "%s", own.text[p]);
            problems_add(&common, EXIT_INPUT, "%s", own.text[p]);
        }
        intersect(&common, &own);
        problems_clear(&own);
    }
    const struct problems *told = common.count ? &common : &first;
    for (int p = 0; p < told->count; p++) problems_add(problems, EXIT_INPUT, "%s", told->text[p]);
    if (common.count == 0)
        problems_add(problems, EXIT_INPUT,
                     "%s: the parameters of all %d members are impossible (these are the first's)", sweep->input,
                     sweep->members);
    problems_clear(&first);
    problems_clear(&common);
    return -1;
}

/* DIR without slashes behind it; runs/NAME if none was given. */
static void choose_directory(struct sweep *sweep, const char *out, struct problems *problems)
{
    struct spec *spec = NULL;
    const int possible = find_possible(sweep, &spec, problems);
    if (possible >= 0) {
        const char *name = spec_text(spec, "run.name");
        if (!out && (!name[0] || strchr(name, '/') || name[0] == '.'))
            spec_problem(spec, problems, "run.name", "'%s' cannot be the name of a folder: give a word without slashes",
                         name);
        sweep->dir = out ? memory_text("%s", out) : memory_text("runs/%s", name);
        for (size_t end = strlen(sweep->dir); end > 1 && sweep->dir[end - 1] == '/'; end--) sweep->dir[end - 1] = '\0';
    }
    spec_destroy(&spec);
}

/* Reads the section `sweep` and what follows from it. False with problems. */
static bool sweep_open(struct sweep *sweep, const struct wish *wish, struct problems *problems)
{
    sweep->axes = spec_sweep(sweep->text, sweep->length, sweep->input, problems);
    if (!sweep->axes && problems->count == 0)
        problems_add(problems, EXIT_INPUT, "%s holds no section `sweep`: use eigentrain run", sweep->input);
    if (!sweep->axes) return false;
    sweep->members = to_int(sweep->axes->members);
    sweep->end = NEW(struct sweep_end, sweep->members);
    check_sets(sweep, problems);
    if (wish->member >= sweep->members)
        problems_add(problems, EXIT_INPUT, "there is no member %d: they are numbered from 1 to %d", wish->member + 1,
                     sweep->members);
    if (problems->count == 0) choose_directory(sweep, wish->out, problems);
    if (problems->count == 0) sweep->name = sweep_names(sweep->axes);
    return problems->count == 0;
}

static void sweep_close(struct sweep *sweep)
{
    for (int i = 0; i < sweep->members; i++) {
        if (sweep->name) memory_free(sweep->name[i]);
        memory_free(sweep->end[i].reason);
    }
    memory_free(sweep->name);
    memory_free(sweep->end);
    memory_free(sweep->dir);
    sweep_axes_destroy(&sweep->axes);
}

static int list_members(const struct sweep *sweep)
{
    for (int i = 0; i < sweep->members; i++) {
        struct problems problems = {0};
        struct spec *spec = sweep_spec(sweep, i, &problems);
        struct sweep_status status = sweep_status(sweep, i);
        printf("%4d  %s  %s\n", i + 1, sweep->name[i],
               sweep_state_name(spec || status.state != SWEEP_WAITING ? status.state : SWEEP_INVALID));
        sweep_status_clear(&status);
        spec_destroy(&spec);
        problems_clear(&problems);
    }
    return EXIT_DONE;
}

/* ---------------------------------------------------------------- before the first member (root) */

static void make_directory(const struct sweep *sweep, struct problems *problems)
{
    struct stat info;
    char *path = memory_text("%s", sweep->dir);
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0777);
        *slash = '/';
    }
    if (mkdir(path, 0777) != 0 && errno != EEXIST)
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be created: %s", path, strerror(errno));
    else if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        problems_add(problems, EXIT_INPUT, "%s exists and is not a directory: choose another --out", path);
    else if (directory_holds(path, "resolved.yaml"))
        problems_add(problems, EXIT_INPUT, "%s holds a run, not a sweep: choose another --out", path);
    memory_free(path);
}

struct due {
    int member;
    double cost;
};

/* The longest first; members of the same cost in their order. */
static int compare_due(const void *a, const void *b)
{
    const struct due *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? 1 : -1;
    return x->member - y->member;
}

/* Fills order with the members that need work and returns their number. Directories that hold other runs are problems,
 * before anything is computed. */
static int plan(const struct sweep *sweep, const struct wish *wish, int *order, struct problems *problems)
{
    enum { TELL = 5 };
    struct due *due = NEW(struct due, sweep->members);
    struct problems others = {0};
    int count = 0;
    for (int i = 0; i < sweep->members; i++) {
        struct problems own = {0};
        struct spec *spec = sweep_spec(sweep, i, &own);
        const bool finished = spec && !wish->overwrite && sweep_finished(sweep, i, spec, &others);
        if (!finished) due[count++] = (struct due){i, spec ? sweep_cost(spec) : 0};
        spec_destroy(&spec);
        problems_clear(&own);
    }
    for (int p = 0; p < others.count && p < TELL; p++) problems_add(problems, EXIT_INPUT, "%s", others.text[p]);
    if (others.count > TELL)
        problems_add(problems, EXIT_INPUT, "… and %d more members whose directories hold another run",
                     others.count - TELL);
    problems_clear(&others);
    qsort(due, (size_t)count, sizeof *due, compare_due);
    for (int i = 0; i < count; i++) order[i] = due[i].member;
    memory_free(due);
    return count;
}

/* The tables of a sweep that begins tell which members it will have. */
static void begin_tables(const struct sweep *sweep)
{
    struct problems problems = {0};
    if (!directory_holds(sweep->dir, "members.csv")) sweep_tables(sweep, 0, &problems);
    problems_clear(&problems); /* what cannot be written now is told at the end, if it still cannot */
}

static void prepare(const struct sweep *sweep, const struct wish *wish, int *order, int *count,
                    struct problems *problems)
{
    const bool alone = wish->member >= 0;
    make_directory(sweep, problems);
    if (problems->count == 0 && !alone) *count = plan(sweep, wish, order, problems);
    if (problems->count) return;
    begin_tables(sweep);
    if (alone) { /* a stop file in DIR stays: it holds back the others, too */
        order[0] = wish->member;
        *count = 1;
        return;
    }
    char *stop = memory_text("%s/stop", sweep->dir);
    unlink(stop); /* of an earlier pass */
    memory_free(stop);
    if (wish->quiet) return;
    printf("sweep %s: %d members, %d of them to run, in %d group%s\n", sweep->dir, sweep->members, *count, wish->groups,
           wish->groups > 1 ? "s" : "");
    fflush(stdout);
}

/* ---------------------------------------------------------------- after the last member (root) */

/* Says how many members are in which state. Returns EXIT_DONE if all have reached an end, EXIT_INPUT if that is for all
 * of them to be impossible, and EXIT_ENVIRONMENT if there is work left. */
static int say_states(const struct sweep *sweep, bool quiet)
{
    int count[SWEEP_STATES] = {0}, said = 0;
    for (int i = 0; i < sweep->members; i++) {
        struct sweep_status status = sweep_status(sweep, i);
        count[status.state]++;
        sweep_status_clear(&status);
    }
    const int left = sweep->members - count[SWEEP_DONE] - count[SWEEP_DIVERGED] - count[SWEEP_INVALID];
    if (!quiet) {
        printf("sweep %s:", sweep->dir);
        for (int s = 0; s < SWEEP_STATES; s++)
            if (count[s]) printf("%s %d %s", said++ ? "," : "", count[s], sweep_state_name((enum sweep_state)s));
        if (left) printf("\nthe same command goes on with what is unfinished (without --overwrite)");
        printf("\nfiles: %s/members.csv, sweep.h5\nfigures: postprocess/collect.py %s\n", sweep->dir, sweep->dir);
        fflush(stdout);
    }
    return left ? EXIT_ENVIRONMENT : count[SWEEP_INVALID] == sweep->members ? EXIT_INPUT : EXIT_DONE;
}

/* Writes the tables and makes the exit code of the whole from that of the pass. A member alone has its own: others may
 * still be running. */
static int conclude(const struct sweep *sweep, const struct wish *wish, int code, struct problems *problems)
{
    struct problems own = {0};
    const bool alone = wish->member >= 0, written = sweep_tables(sweep, PATIENCE, &own);
    for (int i = 0; i < own.count; i++)
        if (alone)
            log_warn("%s", own.text[i]);
        else
            problems_add(problems, own.code, "%s", own.text[i]);
    problems_clear(&own);
    if (alone) return code;
    const int states = say_states(sweep, wish->quiet);
    if (code == EXIT_DONE) code = states;
    return code == EXIT_DONE && !written ? EXIT_ENVIRONMENT : code;
}

/* Collective on MPI_COMM_WORLD. The command behind the checks of its input. */
static int run_members(struct sweep *sweep, const struct wish *wish, struct problems *problems)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    struct sweep_pass pass = {
        .groups = wish->groups, .overwrite = wish->overwrite, .quiet = wish->quiet, .alone = wish->member >= 0};
    int rank, *order = NEW(int, sweep->members), code = EXIT_DONE;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) prepare(sweep, wish, order, &pass.count, problems);
    if (problems_none(problems, comm)) {
        MPI_Bcast(&pass.count, 1, MPI_INT, 0, comm);
        MPI_Bcast(order, pass.count, MPI_INT, 0, comm);
        pass.order = order;
        char *stop = memory_text("%s/stop", sweep->dir);
        stop_set_file(STOP_FILE_SWEEP, stop);
        code = sweep_pass(sweep, &pass, problems);
        stop_set_file(STOP_FILE_SWEEP, NULL);
        memory_free(stop);
        if (rank == 0) code = conclude(sweep, wish, code, problems);
    } else {
        code = problems->code;
    }
    MPI_Bcast(&code, 1, MPI_INT, 0, comm);
    memory_free(order);
    return code;
}

int command_sweep(int argc, char **argv)
{
    MPI_Comm comm = MPI_COMM_WORLD;
    struct problems problems = {0};
    struct wish wish = {0};
    struct sweep sweep = {.sets = &wish.sets};
    int rank, code = EXIT_DONE;
    long length = 0;
    MPI_Comm_rank(comm, &rank);
    sweep.input = read_wish(argc, argv, &wish, &problems);
    char *text = problems.count ? NULL : arguments_read(comm, sweep.input, &length, &problems);
    sweep.text = text;
    sweep.length = (size_t)length;
    if (text && sweep_open(&sweep, &wish, &problems)) {
        if (wish.list) {
            if (rank == 0) list_members(&sweep);
        } else {
            krylov_start(comm);
            build_facts();
            build_add("hdf5", "%s", h5_version());
            code = run_members(&sweep, &wish, &problems);
            krylov_end();
        }
    }
    if (code == EXIT_DONE) code = problems.code;
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    sweep_close(&sweep);
    memory_free(text);
    arguments_free(&wish.sets);
    arguments_free(&wish.rest);
    return code;
}
