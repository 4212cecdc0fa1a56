/* status: the command that says where runs and sweeps stand. It reads status.json and looks whether somebody holds the
 * lock: a run that says that it is running, and that nobody works at, was killed. */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"

#include "app/arguments.h"
#include "app/commands.h"
#include "app/directory.h"
#include "train/rundir.h"

#include <errno.h>
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* What there is to say of a run. */
struct view {
    const char *state;
    char *reason, *job, *host, *ranks; /* owned, or NULL */
    char *started, *updated;           /* ISO 8601 UTC; owned, or NULL */
    double step, steps, checkpoint;    /* NaN: none, or not known */
    double loss, seconds, left;        /* the same */
    bool live;                         /* a process is at work */
};

/* ---------------------------------------------------------------- words */

/* "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h" (memory_free). */
static char *duration(double seconds)
{
    const long long s = llround(seconds);
    if (s < 60) return memory_text("%lld s", s);
    if (s < 3600) return memory_text("%lld min %lld s", s / 60, s % 60);
    if (s < 86400) return memory_text("%lld h %lld min", s / 3600, s / 60 % 60);
    return memory_text("%lld d %lld h", s / 86400, s / 3600 % 24);
}

/* ", 3 min 20 s ago" behind a time in ISO 8601 (memory_free). */
static char *age(const char *iso)
{
    struct tm utc = {0};
    const char *end = strptime(iso, "%Y-%m-%dT%H:%M:%SZ", &utc);
    const double seconds = end && !*end ? difftime(time(NULL), timegm(&utc)) : -1;
    if (seconds < 0) return memory_text("%s", "");
    char *text = duration(seconds), *whole = memory_text(", %s ago", text);
    memory_free(text);
    return whole;
}

/* ---------------------------------------------------------------- reading */

static double number(const char *text, size_t length, const char *key)
{
    char *value = spec_flat(text, length, key), *end = NULL;
    double x = value ? strtod(value, &end) : NAN;
    if (value && (end == value || *end)) x = NAN;
    memory_free(value);
    return x;
}

static const char *const states[] = {"done",    "running",  "starting", "stopped", "interrupted",
                                     "waiting", "diverged", "failed",   "invalid", "unreadable"};
enum { STATES = sizeof states / sizeof *states };

static bool is(const struct view *view, const char *state)
{
    return strcmp(view->state, state) == 0;
}

static void read_numbers(const char *text, size_t length, struct view *view)
{
    view->step = number(text, length, "step");
    view->steps = number(text, length, "steps");
    view->checkpoint = number(text, length, "checkpoint");
    view->loss = number(text, length, "loss");
    view->seconds = number(text, length, "seconds");
    view->left = number(text, length, "seconds_left");
}

static void read_texts(const char *text, size_t length, struct view *view)
{
    view->reason = spec_flat(text, length, "reason");
    view->started = spec_flat(text, length, "started");
    view->updated = spec_flat(text, length, "updated");
    view->job = spec_flat(text, length, "job_id");
    view->host = spec_flat(text, length, "host");
    view->ranks = spec_flat(text, length, "ranks");
}

/* The state is one of `states`, whatever the file says. */
static struct view read_view(const char *path)
{
    struct view view = {.step = NAN, .checkpoint = NAN, .loss = NAN, .seconds = NAN, .left = NAN};
    size_t length = 0;
    char *text = rundir_read(path, "status.json", &length), *state = NULL;
    view.live = directory_is_live(path);
    view.state = text ? "unreadable" : view.live ? "starting" : "waiting";
    if (text) state = spec_flat(text, length, "state");
    for (int i = 0; state && i < STATES; i++)
        if (strcmp(state, states[i]) == 0) view.state = states[i];
    if (is(&view, "running") && !view.live) view.state = "interrupted";
    if (text) read_numbers(text, length, &view);
    if (text) read_texts(text, length, &view);
    memory_free(state);
    memory_free(text);
    return view;
}

static void view_clear(struct view *view)
{
    char *const texts[] = {view->reason, view->started, view->updated, view->job, view->host, view->ranks};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) memory_free(texts[i]);
}

/* ---------------------------------------------------------------- saying */

static const char *state_words(const struct view *view)
{
    if (is(view, "interrupted")) return "interrupted (killed)";
    if (is(view, "waiting")) return "not begun";
    if (is(view, "unreadable")) return "its status.json cannot be read (see eigentrain verify)";
    return view->state;
}

/* The reason without the state that it may begin with: "diverged: the loss is …". */
static const char *reason_words(const struct view *view)
{
    const size_t told = strlen(view->state);
    const bool twice = strncmp(view->reason, view->state, told) == 0 && strncmp(view->reason + told, ": ", 2) == 0;
    return view->reason + (twice ? told + 2 : 0);
}

/* "stopped at step 12 of 100 (time limit), loss 0.25" (memory_free). */
static char *headline(const struct view *view)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    fputs(state_words(view), out);
    if (isfinite(view->step) && !is(view, "invalid")) fprintf(out, " at step %.0f of %.0f", view->step, view->steps);
    if (view->reason) fprintf(out, " (%s)", reason_words(view));
    if (isfinite(view->loss)) fprintf(out, ", loss %.6g", view->loss);
    fclose(out);
    return text;
}

/* What the user can do; NULL if there is nothing to be done (memory_free). */
static char *advice(const struct view *view)
{
    if (view->live || !(is(view, "interrupted") || is(view, "stopped") || is(view, "failed"))) return NULL;
    if (!isfinite(view->checkpoint)) return memory_text("no checkpoint yet: --resume starts from step 0");
    return memory_text("resume with --resume from step %.0f", view->checkpoint);
}

/* ", about 3 min 20 s left", or "" (memory_free). */
static char *time_left(const struct view *view)
{
    if (!is(view, "running") || !isfinite(view->left)) return memory_text("%s", "");
    char *left = duration(view->left), *text = memory_text(", about %s left", left);
    memory_free(left);
    return text;
}

static void print_times(const struct view *view)
{
    char *spent = duration(isfinite(view->seconds) ? view->seconds : 0), *left = time_left(view);
    char *ago = age(view->updated ? view->updated : "");
    if (isfinite(view->seconds)) printf("    time spent %s%s\n", spent, left);
    if (view->updated) printf("    last update %s%s\n", view->updated, ago);
    memory_free(ago);
    memory_free(left);
    memory_free(spent);
}

static void print_run(const char *path)
{
    struct view view = read_view(path);
    char *line = headline(&view), *hint = advice(&view);
    printf("%s: %s\n", path, line);
    if (hint)
        printf("    %s\n", hint);
    else if (isfinite(view.checkpoint))
        printf("    last checkpoint at step %.0f\n", view.checkpoint);
    print_times(&view);
    if (view.started && view.host && view.ranks)
        printf("    started %s on %s, %s rank%s%s%s\n", view.started, view.host, view.ranks,
               strcmp(view.ranks, "1") == 0 ? "" : "s", view.job ? ", job " : "", view.job ? view.job : "");
    memory_free(hint);
    memory_free(line);
    view_clear(&view);
}

/* ---------------------------------------------------------------- sweeps */

/* A line for a member that has not come to a good end. */
static void print_member(const char *name, const struct view *view)
{
    char *line = headline(view), *hint = advice(view), *left = time_left(view);
    printf("    %s: %s%s%s%s\n", name, line, left, hint ? "; " : "", hint ? hint : "");
    memory_free(left);
    memory_free(hint);
    memory_free(line);
}

/* One line for all that wait: there may be thousands. */
static void print_waiting(const struct directory_names *members, const struct view *view, int waiting)
{
    enum { TELL = 5 };
    int told = 0;
    if (!waiting) return;
    printf("    waiting:");
    for (int i = 0; i < members->count && told < TELL; i++)
        if (is(&view[i], "waiting")) printf("%s %s", told++ ? "," : "", members->name[i]);
    if (waiting > told) printf(" and %d more", waiting - told);
    putchar('\n');
}

/* "18 members: 15 done, 1 diverged, 2 waiting"; returns the number of those that wait. */
static int print_tally(const struct view *view, int members)
{
    int waiting = 0;
    bool first = true;
    printf("%d member%s:", members, members == 1 ? "" : "s");
    for (int s = 0; s < STATES; s++) {
        int count = 0;
        for (int i = 0; i < members; i++) count += is(&view[i], states[s]);
        if (strcmp(states[s], "waiting") == 0) waiting = count;
        if (count) printf("%s %d %s", first ? "" : ",", count, states[s]);
        first = first && !count;
    }
    putchar('\n');
    return waiting;
}

static void print_sweep(const char *path)
{
    struct directory_names members = directory_members(path);
    struct view *view = NEW(struct view, members.count);
    for (int i = 0; i < members.count; i++) {
        char *inside = memory_text("%s/%s", path, members.name[i]);
        view[i] = read_view(inside);
        memory_free(inside);
    }
    printf("%s: ", path);
    const int waiting = print_tally(view, members.count);
    for (int i = 0; i < members.count; i++)
        if (!is(&view[i], "done") && !is(&view[i], "waiting")) print_member(members.name[i], &view[i]);
    print_waiting(&members, view, waiting);
    for (int i = 0; i < members.count; i++) view_clear(&view[i]);
    memory_free(view);
    directory_names_free(&members);
}

/* ---------------------------------------------------------------- the command */

static void print_status(const char *path, struct problems *problems)
{
    struct stat info;
    const enum directory_kind kind = directory_kind(path);
    if (kind == DIRECTORY_RUN)
        print_run(path);
    else if (kind == DIRECTORY_SWEEP)
        print_sweep(path);
    else if (stat(path, &info) != 0)
        problems_add(problems, EXIT_INPUT, "%s: %s", path, strerror(errno));
    else
        problems_add(problems, EXIT_INPUT, "%s holds neither a run nor a sweep", path);
}

int command_status(int argc, char **argv)
{
    struct problems problems = {0};
    struct argument_list paths = {0};
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    arguments_parse(argc, argv, (struct argument_option[]){{0}}, &paths, &problems);
    if (paths.count == 0 && problems.count == 0)
        problems_add(&problems, EXIT_INPUT,
                     "status needs the directory of a run or of a sweep: eigentrain status DIR…");
    const int count = rank == 0 && problems.count == 0 ? paths.count : 0;
    for (int i = 0; i < count; i++) print_status(paths.text[i], &problems);
    const int code = problems.code;
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    arguments_free(&paths);
    return code;
}
