/* A pass over the members of a sweep: groups of ranks that take one member after the other. Nothing here waits for
 * another group before the end: a member that goes wrong concerns its own group alone. */
#include "app/sweep.h"

#include "app/session.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "train/rundir.h"
#include "train/stop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A group of ranks. */
struct group {
    const struct sweep_pass *pass; /* borrowed */
    struct sweep *sweep;           /* borrowed */
    MPI_Comm comm;                 /* owned */
    bool leader;
    int size;
    MPI_Win window;    /* a counter on rank 0 of the world, of the members that are taken; owned */
    double tables_due; /* when the tables may be written again */
    bool stopped;      /* takes no new member */
};

/* ---------------------------------------------------------------- one member */

static void remember(struct sweep *sweep, int member, enum sweep_state state, const char *reason)
{
    struct sweep_end *end = &sweep->end[member];
    memory_free(end->reason);
    *end = (struct sweep_end){true, state, reason ? memory_text("%s", reason) : NULL};
}

/* All problems in one line (memory_free), or NULL. */
static char *join(const struct problems *problems)
{
    char *all = problems->count ? memory_text("%s", problems->text[0]) : NULL;
    for (int i = 1; i < problems->count; i++) {
        char *longer = memory_text("%s; %s", all, problems->text[i]);
        memory_free(all);
        all = longer;
    }
    return all;
}

/* A run that was rejected leaves no directory behind: it gets one with a status.json, so that everybody sees why. */
static void write_invalid(const struct group *group, int member, const char *reason)
{
    char *path = sweep_path(group->sweep, member, "");
    const struct grid grid = {.size = group->size};
    struct rundir rundir = {.path = path, .grid = &grid};
    const time_t now = time(NULL);
    struct tm utc;
    if (mkdir(path, 0777) == 0) {
        strftime(rundir.start, sizeof rundir.start, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
        gethostname(rundir.host, sizeof rundir.host - 1);
        rundir_write_status(&rundir, &(struct rundir_status){.state = sweep_state_name(SWEEP_INVALID),
                                                             .reason = reason,
                                                             .checkpoint = -1,
                                                             .loss = NAN,
                                                             .seconds_left = NAN});
    }
    memory_free(path);
}

/* Takes away what write_invalid has left: the directory must be empty for a run to begin in it. */
static void forget_invalid(const struct sweep *sweep, int member)
{
    struct sweep_status status = sweep_status(sweep, member);
    char *file = sweep_path(sweep, member, "status.json"), *path = sweep_path(sweep, member, "");
    if (status.state == SWEEP_INVALID && unlink(file) == 0) rmdir(path);
    memory_free(path);
    memory_free(file);
    sweep_status_clear(&status);
}

static bool exists(const struct sweep *sweep, int member)
{
    struct stat info;
    char *path = sweep_path(sweep, member, "");
    const bool there = lstat(path, &info) == 0;
    memory_free(path);
    return there;
}

/* What a session's exit code means for the member. An input that is impossible is found before there is a directory;
 * what is wrong with a directory that is there concerns the directory. */
static enum sweep_state state_after(const struct sweep *sweep, int member, int code)
{
    switch (code) {
    case EXIT_DONE:
        return SWEEP_DONE;
    case EXIT_DIVERGED:
        return SWEEP_DIVERGED;
    case EXIT_STOPPED:
        return SWEEP_STOPPED;
    case EXIT_INPUT:
        return exists(sweep, member) ? SWEEP_FAILED : SWEEP_INVALID;
    default:
        return sweep_is_live(sweep, member) ? SWEEP_RUNNING : SWEEP_FAILED;
    }
}

/* One line in one piece: the groups share a terminal. */
static void say(const struct group *group, int member, const char *what)
{
    if (group->pass->quiet) return;
    printf("[%d/%d] %s: %s\n", member + 1, group->sweep->members, group->sweep->name[member], what);
    fflush(stdout);
}

static void say_end(const struct group *group, int member, const struct problems *problems, double seconds)
{
    struct sweep_status status = sweep_status(group->sweep, member);
    const char *state = sweep_state_name(status.state), *reason = problems->count ? problems->text[0] : status.reason;
    const bool told = reason && strncmp(reason, state, strlen(state)) == 0; /* "diverged: the loss is …" */
    char *what = status.state == SWEEP_DONE ? memory_text("%s, loss %.4g (%.1f s)", state, status.loss, seconds)
                                            : memory_text("%s%s%s (%.1f s)", told ? "" : state,
                                                          reason && !told ? ": " : "", reason ? reason : "", seconds);
    say(group, member, what);
    memory_free(what);
    sweep_status_clear(&status);
}

/* Root of the group. The tables cost time that grows with the members: at most a twentieth of it all. */
static void update_tables(struct group *group)
{
    struct problems problems = {0};
    const double since = timer_now();
    if (since < group->tables_due) return;
    sweep_tables(group->sweep, 0, &problems); /* else at the end, or by whoever is writing them */
    problems_clear(&problems);
    group->tables_due = timer_now() + 20 * (timer_now() - since);
}

/* Collective on the group. Returns the exit code of the session, with its problems. */
static int run_member(struct group *group, int member, struct problems *problems)
{
    struct sweep *sweep = group->sweep;
    const double since = timer_now();
    if (group->leader && !group->pass->alone) say(group, member, "begins");
    char *path = sweep_path(sweep, member, "");
    const struct session session = {.out = path,
                                    .input = sweep->text,
                                    .length = sweep->length,
                                    .overwrite = group->pass->overwrite,
                                    .resume = !group->pass->overwrite};
    struct spec *spec = sweep_spec(sweep, member, problems);
    int code = EXIT_INPUT;
    if (group->leader) forget_invalid(sweep, member);
    if (spec) {
        log_copy_to(NULL); /* what was said between two members belongs to neither */
        log_start(group->leader, group->pass->quiet || !group->pass->alone);
        timer_set(NULL);
        code = session_run(group->comm, spec, &session, problems);
    }
    spec_destroy(&spec);
    memory_free(path);
    if (group->leader) {
        const enum sweep_state state = state_after(sweep, member, code);
        char *reason = join(problems);
        remember(sweep, member, state, reason);
        if (state == SWEEP_INVALID) write_invalid(group, member, reason);
        memory_free(reason);
        if (!group->pass->alone) {
            say_end(group, member, problems, timer_now() - since);
            update_tables(group);
        }
    }
    return code;
}

/* ---------------------------------------------------------------- a pass over all members */

/* Root of the group. The next place in the order; each is given out once in the world. */
static int64_t next_place(const struct group *group)
{
    const int64_t one = 1;
    int64_t place;
    MPI_Win_lock(MPI_LOCK_SHARED, 0, 0, group->window);
    MPI_Fetch_and_op(&one, &place, MPI_INT64_T, 0, 0, MPI_SUM, group->window);
    MPI_Win_unlock(0, group->window);
    return place;
}

/* Whether another process has it, or has finished it since the pass began. */
static bool is_taken(const struct group *group, int member)
{
    struct problems problems = {0};
    if (sweep_is_live(group->sweep, member)) return true;
    if (group->pass->overwrite) return false;
    struct spec *spec = sweep_spec(group->sweep, member, &problems);
    const bool taken = spec && sweep_finished(group->sweep, member, spec, &problems);
    spec_destroy(&spec);
    problems_clear(&problems);
    return taken;
}

/* Collective on the group. The next member, or −1. */
static int take(struct group *group)
{
    int member = -1;
    while (group->leader && member < 0) {
        const int64_t place = next_place(group);
        if (place >= group->pass->count) break;
        if (stop_wanted(true, 0)) {
            printf("no new member is begun: %s\n", stop_reason());
            fflush(stdout);
            group->stopped = true;
            break;
        }
        if (group->pass->alone || !is_taken(group, group->pass->order[place])) member = group->pass->order[place];
    }
    MPI_Bcast(&member, 1, MPI_INT, 0, group->comm);
    return member;
}

/* Collective on the world. */
static void open_counter(struct group *group, int world_rank)
{
    int64_t *counter;
    MPI_Win_allocate(world_rank == 0 ? sizeof *counter : 0, sizeof *counter, MPI_INFO_NULL, MPI_COMM_WORLD, &counter,
                     &group->window);
    if (world_rank == 0) {
        MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, group->window);
        *counter = 0;
        MPI_Win_unlock(0, group->window);
    }
    MPI_Barrier(MPI_COMM_WORLD);
}

/* ---------------------------------------------------------------- the end of the pass */

/* What this process knows, as texts "member state reason", each with its final zero (free). */
static char *pack_ends(const struct sweep *sweep, int *bytes)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    for (int i = 0; i < sweep->members; i++) {
        const struct sweep_end *end = &sweep->end[i];
        if (end->known) fprintf(out, "%d %d %s%c", i, (int)end->state, end->reason ? end->reason : "", 0);
    }
    fclose(out);
    *bytes = to_int((int64_t)length);
    return text;
}

static void unpack_ends(struct sweep *sweep, const char *text, int bytes)
{
    for (const char *next = text; next < text + bytes; next += strlen(next) + 1) {
        char *rest;
        const int member = (int)strtol(next, &rest, 10), state = (int)strtol(rest, &rest, 10);
        remember(sweep, member, (enum sweep_state)state, rest[1] ? rest + 1 : NULL);
    }
}

/* Collective on the world. Rank 0 learns what all groups know. */
static void gather_ends(struct sweep *sweep, bool leader)
{
    int rank, ranks, bytes = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    char *own = leader ? pack_ends(sweep, &bytes) : NULL;
    int *count = NEW(int, ranks), *start = NEW(int, ranks + 1);
    MPI_Gather(&bytes, 1, MPI_INT, count, 1, MPI_INT, 0, MPI_COMM_WORLD);
    for (int r = 0; r < ranks; r++) start[r + 1 < ranks ? r + 1 : ranks] = start[r] + count[r];
    char *all = NEW(char, rank == 0 ? start[ranks] : 0);
    MPI_Gatherv(own, bytes, MPI_CHAR, all, count, start, MPI_CHAR, 0, MPI_COMM_WORLD);
    if (rank == 0) unpack_ends(sweep, all, start[ranks]);
    memory_free(all);
    memory_free(start);
    memory_free(count);
    free(own);
}

int sweep_pass(struct sweep *sweep, const struct sweep_pass *pass, struct problems *problems)
{
    struct group group = {.pass = pass, .sweep = sweep};
    int rank, ranks, group_rank, code = EXIT_DONE;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Comm_split(MPI_COMM_WORLD, rank / (ranks / pass->groups), rank, &group.comm);
    MPI_Comm_rank(group.comm, &group_rank);
    MPI_Comm_size(group.comm, &group.size);
    group.leader = group_rank == 0;
    open_counter(&group, rank);
    log_start(group.leader, true);
    for (int member; !group.stopped && (member = take(&group)) >= 0;) {
        struct problems own = {0};
        code = run_member(&group, member, &own);
        if (code == EXIT_STOPPED) group.stopped = true;
        for (int i = 0; i < own.count && pass->alone; i++) problems_add(problems, own.code, "%s", own.text[i]);
        problems_clear(&own);
    }
    log_copy_to(NULL);
    int stopped = group.stopped;
    MPI_Allreduce(MPI_IN_PLACE, &stopped, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    gather_ends(sweep, group.leader);
    MPI_Win_free(&group.window);
    MPI_Comm_free(&group.comm);
    return stopped ? EXIT_STOPPED : pass->alone ? code : EXIT_DONE;
}
