#include "app/verify.h"

#include "app/directory.h"
#include "base/memory.h"
#include "base/spec.h"
#include "train/rundir.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What status.json says; without a file, or with a broken one, `known` is false. */
struct status {
    bool known;
    char *state, *started;    /* owned, or NULL */
    int64_t step, checkpoint; /* −1: none */
    double loss;              /* NaN: none */
};

struct run {
    struct verify *verify;    /* borrowed */
    const char *dir;          /* borrowed */
    bool live;                /* a process is at work: what is not there yet may come */
    struct verify_file *file; /* [count], owned */
    int count;
    struct status status;
};

/* ---------------------------------------------------------------- which files there are (root) */

/* Where numbered files lie, and how they are named. */
static const struct folder {
    const char *name, *format;
    enum verify_kind kind;
} folders[] = {{"metrics", "part-%04lld.h5", VERIFY_PART},
               {"snapshots", "step_%09lld.h5", VERIFY_SNAPSHOT},
               {"checkpoints", "step_%09lld.h5", VERIFY_CHECKPOINT}};
enum { FOLDERS = sizeof folders / sizeof *folders };

static bool ends_with(const char *name, const char *end)
{
    const size_t length = strlen(name), tail = strlen(end);
    return length >= tail && strcmp(name + length - tail, end) == 0;
}

static void add_file(struct run *run, char *path, enum verify_kind kind, int64_t number)
{
    const size_t count = (size_t)run->count;
    run->file = memory_grow(run->file, count, count + 1, sizeof *run->file);
    run->file[run->count++] = (struct verify_file){.path = path, .kind = kind, .number = number};
}

/* The number in a name of this format, or −1. */
static int64_t number_in(const char *format, const char *name)
{
    char again[64];
    const char *digits = name + strcspn(name, "0123456789");
    const long long number = strtoll(digits, NULL, 10);
    snprintf(again, sizeof again, format, number);
    return *digits && strcmp(again, name) == 0 ? number : -1;
}

static void list_leftover(const struct run *run, const char *folder, const char *name)
{
    if (name[0] == '.' && ends_with(name, ".partial") && !run->live)
        verify_say(run->verify, "%s/%s is what a killed run left of a file: harmless", folder, name);
}

static void list_folder(struct run *run, const struct folder *folder)
{
    char *inside = memory_text("%s/%s", run->dir, folder->name);
    struct directory_names names = directory_entries(inside);
    for (int i = 0; i < names.count; i++) {
        const char *name = names.name[i];
        const int64_t number = number_in(folder->format, name);
        char *path = memory_text("%s/%s", inside, name);
        list_leftover(run, inside, name);
        if (number >= 0) {
            add_file(run, path, folder->kind, number);
            continue;
        }
        if (ends_with(name, ".h5")) {
            run->verify->files++;
            verify_say_broken(run->verify, "%s has no name that eigentrain gives: a copy?", path);
        }
        memory_free(path);
    }
    directory_names_free(&names);
    memory_free(inside);
}

static void list_files(struct run *run)
{
    struct directory_names names = directory_entries(run->dir);
    for (int i = 0; i < names.count; i++) list_leftover(run, run->dir, names.name[i]);
    directory_names_free(&names);
    if (directory_holds(run->dir, "metrics.h5"))
        add_file(run, memory_text("%s/metrics.h5", run->dir), VERIFY_METRICS, -1);
    for (int i = 0; i < FOLDERS; i++) list_folder(run, &folders[i]);
}

/* Collective. Every rank gets the root's list. */
static void share_files(struct run *run)
{
    const struct verify *v = run->verify;
    MPI_Bcast(&run->count, 1, MPI_INT, 0, v->comm);
    if (!v->root) run->file = NEW(struct verify_file, run->count);
    for (int i = 0; i < run->count; i++) {
        struct verify_file *file = &run->file[i];
        int64_t facts[3] = {v->root ? (int64_t)strlen(file->path) : 0, file->kind, file->number};
        MPI_Bcast(facts, 3, MPI_INT64_T, 0, v->comm);
        if (!v->root) file->path = NEW(char, facts[0] + 1);
        MPI_Bcast(file->path, to_int(facts[0]), MPI_CHAR, 0, v->comm);
        file->kind = (enum verify_kind)facts[1];
        file->number = facts[2];
    }
}

/* ---------------------------------------------------------------- reports (root) */

static void say_missing(const struct run *run, const char *file, const char *why)
{
    run->verify->files++;
    verify_say_broken(run->verify, "%s/%s is missing%s%s", run->dir, file, why[0] ? ": " : "", why);
}

static void say_missing_step(const struct run *run, enum verify_kind kind, int64_t step, const char *why)
{
    char *file =
        memory_text("%ss/step_%09lld.h5", kind == VERIFY_SNAPSHOT ? "snapshot" : "checkpoint", (long long)step);
    say_missing(run, file, why);
    memory_free(file);
}

/* The whole file of this kind with the largest number, or NULL. */
static const struct verify_file *newest(const struct run *run, enum verify_kind kind)
{
    const struct verify_file *found = NULL;
    for (int i = 0; i < run->count; i++) {
        const struct verify_file *file = &run->file[i];
        if (file->kind == kind && !file->broken && (!found || file->number > found->number)) found = file;
    }
    return found;
}

static bool any_broken(const struct run *run, enum verify_kind kind)
{
    for (int i = 0; i < run->count; i++)
        if (run->file[i].kind == kind && run->file[i].broken) return true;
    return false;
}

static bool state_is(const struct run *run, const char *state)
{
    return run->status.known && strcmp(run->status.state, state) == 0;
}

/* All rows have gone to metrics.h5; parts that are still there are what a kill at the end has left. */
static bool has_ended(const struct run *run)
{
    return state_is(run, "done") || state_is(run, "diverged");
}

/* ---------------------------------------------------------------- status.json (root) */

static int64_t int_of(const char *text, size_t length, const char *key)
{
    char *value = spec_flat(text, length, key), *end = NULL;
    long long number = value ? strtoll(value, &end, 10) : -1;
    if (value && (end == value || *end || number < 0)) number = -1;
    memory_free(value);
    return number;
}

static double real_of(const char *text, size_t length, const char *key)
{
    char *value = spec_flat(text, length, key);
    const double x = value ? strtod(value, NULL) : NAN;
    memory_free(value);
    return x;
}

/* The first key that is not there, or without a value that it must have; NULL if there is none. */
static const char *incomplete(const char *text, size_t length)
{
    static const char *const needed[] = {"state", "step", "steps", "seconds", "started", "updated", "host", "ranks"};
    static const char *const others[] = {"reason", "loss", "seconds_left", "checkpoint", "job_id"};
    const char *lacking = NULL;
    for (size_t k = 0; k < sizeof needed / sizeof *needed && !lacking; k++) {
        char *value = spec_flat(text, length, needed[k]);
        if (!value) lacking = needed[k];
        memory_free(value);
    }
    int count;
    char **keys = spec_flat_keys(text, length, &count);
    for (size_t k = 0; k < sizeof others / sizeof *others && !lacking; k++) {
        bool there = false;
        for (int i = 0; i < count && !there; i++) there = strcmp(keys[i], others[k]) == 0;
        if (!there) lacking = others[k];
    }
    for (int i = 0; i < count; i++) memory_free(keys[i]);
    memory_free(keys);
    return lacking;
}

static bool is_state(const char *word)
{
    static const char *const states[] = {"running", "stopped", "done", "diverged", "failed", "invalid"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++)
        if (strcmp(word, states[i]) == 0) return true;
    return false;
}

/* At the end of a run, status.json and metrics.h5 tell the same. What is wrong, or NULL (memory_free). */
static char *contradiction(const struct run *run)
{
    const struct status *status = &run->status;
    const struct verify_file *metrics = newest(run, VERIFY_METRICS);
    if (!has_ended(run) || !metrics) return NULL;
    if (status->step != metrics->last)
        return memory_text("says step %lld, but metrics.h5 ends with step %lld", (long long)status->step,
                           (long long)metrics->last);
    const bool both = isfinite(status->loss) && isfinite(metrics->loss);
    if (isfinite(status->loss) != isfinite(metrics->loss) || (both && status->loss != metrics->loss))
        return memory_text("says loss %.17g, but metrics.h5 says %.17g", status->loss, metrics->loss);
    return NULL;
}

static void check_status(struct run *run)
{
    struct status *status = &run->status;
    size_t length = 0;
    char *text = rundir_read(run->dir, "status.json", &length), *wrong = NULL;
    if (!text && errno == ENOENT) {
        if (run->count > 0 && !run->live) say_missing(run, "status.json", "");
        return;
    }
    run->verify->files++;
    const char *lacking = text ? incomplete(text, length) : NULL;
    if (!text) {
        wrong = memory_text("cannot be read: %s", strerror(errno));
    } else if (lacking) {
        wrong = memory_text("is damaged: it has no '%s'", lacking);
    } else {
        status->state = spec_flat(text, length, "state");
        status->started = spec_flat(text, length, "started");
        status->step = int_of(text, length, "step");
        status->checkpoint = int_of(text, length, "checkpoint");
        status->loss = real_of(text, length, "loss");
        status->known = is_state(status->state) && status->step >= 0 && int_of(text, length, "steps") >= 0;
        wrong = status->known ? contradiction(run) : memory_text("is damaged: its state or step is none");
    }
    if (wrong) verify_say_broken(run->verify, "%s/status.json %s", run->dir, wrong);
    if (wrong) status->known = false;
    memory_free(wrong);
    memory_free(text);
}

/* ---------------------------------------------------------------- the input (root) */

/* A file that was written by the process that wrote input.yaml and resolved.yaml, or NULL. */
static const struct verify_file *of_this_session(const struct run *run)
{
    const char *started = run->status.started;
    for (int i = 0; i < run->count && started; i++) {
        const struct verify_file *file = &run->file[i];
        if (!file->broken && file->start && strcmp(file->start, started) == 0) return file;
    }
    return NULL;
}

/* The first whole file that holds an input of the run, as a spec, or NULL. */
static struct spec *any_spec(const struct run *run)
{
    struct problems problems = {0};
    struct spec *spec = NULL;
    for (int i = 0; i < run->count && !spec; i++) {
        const struct verify_file *file = &run->file[i];
        if (!file->broken && file->resolved)
            spec = spec_read(file->resolved, strlen(file->resolved), file->path, 0, NULL, &problems);
    }
    problems_clear(&problems);
    return spec;
}

/* Whether the text, read without --set, is an input that has this resolved.yaml. */
static bool leads_to(const char *text, size_t length, const char *resolved)
{
    struct problems problems = {0};
    struct spec *spec = spec_read(text, length, "", 0, NULL, &problems);
    char *own = spec ? spec_resolved(spec) : NULL;
    const bool same = own && resolved && strcmp(own, resolved) == 0;
    memory_free(own);
    spec_destroy(&spec);
    problems_clear(&problems);
    return same;
}

/* A resolved.yaml that no file has may be that of a later request: then it is complete, as the program writes it, and
 * has the physics of the run. What is wrong with it, or NULL (memory_free). */
static char *look_at_resolved(const struct run *run, const char *text, size_t length)
{
    struct problems problems = {0};
    char *name = memory_text("%s/resolved.yaml", run->dir);
    struct spec *spec = spec_read(text, length, name, 0, NULL, &problems), *other = any_spec(run);
    if (spec && other) spec_differences(other, spec, &problems, NULL);
    if (spec && !leads_to(text, length, text))
        problems_add(&problems, EXIT_ENVIRONMENT, "it is not as eigentrain writes it");
    char *wrong = problems.count ? memory_text("is damaged: %s", problems.text[0]) : NULL;
    spec_destroy(&other);
    spec_destroy(&spec);
    problems_clear(&problems);
    memory_free(name);
    return wrong;
}

static bool is_map(const char *text, size_t length)
{
    int count;
    char **key = spec_flat_keys(text, length, &count);
    for (int i = 0; i < count; i++) memory_free(key[i]);
    memory_free(key);
    return count > 0;
}

/* Reads input.yaml or resolved.yaml (memory_free); NULL with a report if it cannot be read, or is needed and missing.
 */
static char *read_input(const struct run *run, const char *name, bool needed, size_t *length)
{
    char *text = rundir_read(run->dir, name, length);
    if (!text && errno == ENOENT && (!needed || run->live)) return NULL;
    if (!text && errno == ENOENT) {
        say_missing(run, name, "");
        return NULL;
    }
    run->verify->files++;
    if (!text) verify_say_broken(run->verify, "%s/%s cannot be read: %s", run->dir, name, strerror(errno));
    return text;
}

/* Every file of a session has both texts, byte for byte; there may have been a later request that led to no file. */
static void check_inputs(const struct run *run)
{
    const struct verify_file *file = of_this_session(run);
    const bool begun = run->count > 0 || (run->status.known && !state_is(run, "invalid"));
    size_t length = 0, resolved_length = 0;
    char *resolved = read_input(run, "resolved.yaml", begun, &resolved_length);
    char *input = read_input(run, "input.yaml", begun || resolved, &length), *wrong = NULL;
    const bool same = resolved && file && file->resolved && strcmp(resolved, file->resolved) == 0;
    if (resolved && !same) wrong = look_at_resolved(run, resolved, resolved_length);
    if (wrong) verify_say_broken(run->verify, "%s/resolved.yaml %s", run->dir, wrong);
    const bool known = file && file->input && (same || wrong);
    if (input && !is_map(input, length))
        verify_say_broken(run->verify, "%s/input.yaml is damaged: it is not YAML", run->dir);
    else if (input && known && strcmp(input, file->input) != 0 && !leads_to(input, length, resolved))
        verify_say_broken(run->verify, "%s/input.yaml is damaged: it is not what the run was made with", run->dir);
    memory_free(wrong);
    memory_free(input);
    memory_free(resolved);
}

/* ---------------------------------------------------------------- files beside one another (root) */

static int by_number(const void *a, const void *b)
{
    const struct verify_file *x = a, *y = b;
    if (x->kind != y->kind) return x->kind < y->kind ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

/* The first step that neither the parts, which may overlap, nor metrics.h5 hold; all before it are there. */
static int64_t covered(const struct run *run)
{
    int64_t end = 0, before = -1;
    while (end > before) {
        before = end;
        for (int i = 0; i < run->count; i++) {
            const struct verify_file *file = &run->file[i];
            const bool series = file->kind == VERIFY_PART || file->kind == VERIFY_METRICS;
            if (series && !file->broken && file->first <= end && file->last >= end) end = file->last + 1;
        }
    }
    return end;
}

/* All rows are in metrics.h5 at the end, and before in the parts: those before the newest checkpoint, and no gap. */
static void check_metrics(const struct run *run)
{
    if (has_ended(run)) {
        if (!newest(run, VERIFY_METRICS) && !any_broken(run, VERIFY_METRICS))
            say_missing(run, "metrics.h5", "the run has ended");
        return;
    }
    if (any_broken(run, VERIFY_PART) || any_broken(run, VERIFY_METRICS)) return; /* said already */
    const struct verify_file *checkpoint = newest(run, VERIFY_CHECKPOINT);
    const int64_t end = covered(run);
    int64_t wanted = checkpoint ? checkpoint->number : 0;
    for (int i = 0; i < run->count; i++)
        if (run->file[i].kind == VERIFY_PART && run->file[i].first > end && run->file[i].first > wanted)
            wanted = run->file[i].first;
    if (end >= wanted) return;
    char *why = memory_text("steps %lld to %lld are in no file", (long long)end, (long long)wanted - 1);
    say_missing(run, "metrics/part-….h5", why);
    memory_free(why);
}

static void check_checkpoints(const struct run *run)
{
    if (!run->status.known || run->status.checkpoint < 0) return;
    for (int i = 0; i < run->count; i++)
        if (run->file[i].kind == VERIFY_CHECKPOINT && run->file[i].number >= run->status.checkpoint) return;
    say_missing_step(run, VERIFY_CHECKPOINT, run->status.checkpoint, "status.json tells of it");
}

/* The steps between snapshots, 0 for `never` and −1 for `end`. */
static int64_t interval(const char *resolved)
{
    char *every = resolved ? spec_flat(resolved, strlen(resolved), "snapshot.every") : NULL;
    const int64_t steps = !every ? 0 : strcmp(every, "end") == 0 ? -1 : strtoll(every, NULL, 10);
    memory_free(every);
    return steps;
}

static bool has_snapshot(const struct run *run, int64_t step)
{
    for (int i = 0; i < run->count; i++)
        if (run->file[i].kind == VERIFY_SNAPSHOT && run->file[i].number == step) return true;
    return false;
}

/* The interval may have been changed at a restart: then there is nothing to be expected. */
static bool same_interval(const struct run *run, int64_t every)
{
    for (int i = 0; i < run->count; i++) {
        const struct verify_file *file = &run->file[i];
        if (!file->broken && file->resolved && interval(file->resolved) != every) return false;
    }
    return true;
}

static void check_snapshots(const struct run *run)
{
    size_t length;
    char *resolved = rundir_read(run->dir, "resolved.yaml", &length);
    const int64_t every = interval(resolved);
    const bool done = state_is(run, "done");
    int64_t first = -1, last = -1;
    memory_free(resolved);
    if (every == 0 || !same_interval(run, every)) return;
    for (int i = 0; i < run->count; i++) {
        if (run->file[i].kind != VERIFY_SNAPSHOT) continue;
        if (first < 0) first = run->file[i].number;
        last = run->file[i].number;
    }
    if (done) last = run->status.step;
    if (first < 0) first = 0;
    for (int64_t step = first; every > 0 && step < last; step += every - step % every)
        if (step % every == 0 && !has_snapshot(run, step)) say_missing_step(run, VERIFY_SNAPSHOT, step, "");
    if (done && !has_snapshot(run, last)) say_missing_step(run, VERIFY_SNAPSHOT, last, "");
}

/* ---------------------------------------------------------------- a run */

void verify_run(struct verify *verify, const char *dir)
{
    struct run run = {.verify = verify, .dir = dir, .live = directory_is_live(dir)};
    run.status = (struct status){.step = -1, .checkpoint = -1, .loss = NAN};
    if (verify->root) list_files(&run);
    if (verify->root && run.count) qsort(run.file, (size_t)run.count, sizeof *run.file, by_number);
    share_files(&run);
    for (int i = 0; i < run.count; i++) verify_file(verify, &run.file[i]);
    if (verify->root) {
        check_status(&run);
        check_inputs(&run);
        if (run.live)
            verify_say(verify, "%s: a process is at work: what is missing is not looked for", dir);
        else {
            check_metrics(&run);
            check_checkpoints(&run);
            check_snapshots(&run);
        }
    }
    for (int i = 0; i < run.count; i++) verify_file_clear(&run.file[i]);
    memory_free(run.file);
    memory_free(run.status.state);
    memory_free(run.status.started);
}
