/* rundir: the directory of a run. */
#include "train/rundir.h"

#include "base/build.h"
#include "base/launch.h"
#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- small files */

bool rundir_write(const char *path, const char *bytes, size_t length, struct problems *problems)
{
    char *temporary = h5_partial(path);
    FILE *stream = fopen(temporary, "wbe");
    bool ok = stream && fwrite(bytes, 1, length, stream) == length;
    if (stream) ok = fclose(stream) == 0 && ok; /* what the buffer still holds may not fit either */
    ok = ok && h5_publish(temporary, path);
    if (!ok) {
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot write: %s", path, strerror(errno));
        unlink(temporary);
    }
    memory_free(temporary);
    return ok;
}

char *rundir_file(const struct rundir *rundir, const char *format, ...)
{
    char name[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    ensure(length >= 0 && (size_t)length < sizeof name);
    return memory_text("%s/%s", rundir->path, name);
}

/* ---------------------------------------------------------------- the directory (root) */

/* Entries besides . and .. and the lock, or −1 with errno set. */
static int count_entries(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) return -1;
    int count = 0;
    for (const struct dirent *entry; (entry = readdir(folder));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strcmp(entry->d_name, RUNDIR_LOCK) != 0;
    closedir(folder);
    return count;
}

/* mkdir -p; a directory that can't be made takes the parents that were made for it away again. */
static bool make_directories(const char *path)
{
    struct stat info;
    char *parent = memory_text("%s", path), *slash = strrchr(parent, '/');
    bool made_parent = false, ok = true;
    if (slash && slash != parent) {
        *slash = '\0';
        made_parent = stat(parent, &info) != 0;
        ok = !made_parent || make_directories(parent);
    }
    ok = ok && (mkdir(path, 0777) == 0 || errno == EEXIST);
    const int reason = errno;
    if (!ok && made_parent) rmdir(parent); /* only if it is empty */
    errno = reason;
    memory_free(parent);
    return ok;
}

static bool move_aside(const char *path)
{
    bool moved = false, next = true;
    for (int n = 1; next; n++) {
        struct stat info;
        char *old = memory_text("%s.old-%d", path, n);
        next = lstat(old, &info) == 0;
        if (!next) moved = rename(path, old) == 0;
        memory_free(old);
    }
    return moved;
}

/* Makes the directory if it is not there. Returns the number of entries it has, or −1 with a problem. */
static int reach_directory(const char *path, struct problems *problems)
{
    struct stat info;
    if (stat(path, &info) == 0 && !S_ISDIR(info.st_mode)) {
        problems_add(problems, EXIT_INPUT, "%s exists and is not a directory: choose another --out", path);
        return -1;
    }
    if (!make_directories(path)) {
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be created: %s", path, strerror(errno));
        return -1;
    }
    const int entries = count_entries(path);
    if (entries < 0) problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be read: %s", path, strerror(errno));
    return entries;
}

static struct lock *lock_directory(const char *path, struct problems *problems)
{
    char *name = memory_text("%s/%s", path, RUNDIR_LOCK);
    struct lock *lock = lock_take(name, 0, problems);
    memory_free(name);
    return lock;
}

/* Moves the locked directory aside, and makes and locks an empty one in its place. */
static void replace_directory(struct rundir *rundir, struct problems *problems)
{
    lock_drop(&rundir->lock);
    if (!move_aside(rundir->path))
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be moved aside: %s", rundir->path, strerror(errno));
    else if (reach_directory(rundir->path, problems) >= 0)
        rundir->lock = lock_directory(rundir->path, problems);
}

/* ---------------------------------------------------------------- what is there already (root) */

char *rundir_read(const char *path, const char *name, size_t *length)
{
    char *file = memory_text("%s/%s", path, name), *text = NULL;
    FILE *stream = fopen(file, "re");
    struct stat info;
    int reason = errno;
    if (stream && fstat(fileno(stream), &info) == 0) {
        text = NEW(char, (int64_t)info.st_size + 1);
        *length = fread(text, 1, (size_t)info.st_size, stream);
        if (ferror(stream)) { /* a folder of that name, a bad disk */
            reason = errno;
            memory_free(text);
            text = NULL;
        }
    }
    if (stream) fclose(stream);
    memory_free(file);
    errno = reason;
    return text;
}

static void read_state(struct rundir *rundir)
{
    size_t length = 0;
    char *text = rundir_read(rundir->path, "status.json", &length);
    if (!text) return;
    char *step = spec_flat(text, length, "step");
    rundir->state = spec_flat(text, length, "state");
    rundir->reason = spec_flat(text, length, "reason");
    rundir->state_step = step ? atoll(step) : -1;
    memory_free(step);
    memory_free(text);
}

/* Physics must be what it was; what else differs is said. */
static void compare(const struct rundir *rundir, const struct spec *spec, const char *text, size_t length,
                    struct problems *problems)
{
    struct problems control = {0};
    const int before = problems->count;
    char *name = rundir_file(rundir, "resolved.yaml");
    struct spec *old = spec_read(text, length, name, 0, NULL, problems);
    if (old) spec_differences(old, spec, problems, &control);
    if (problems->count > before)
        problems_add(problems, EXIT_INPUT, "%s: this run cannot go on with another input: %s", rundir->path,
                     "choose another --out, or --overwrite to move it aside and start anew");
    else
        for (int i = 0; i < control.count; i++) log_say("changed: %s", control.text[i]);
    problems_clear(&control);
    spec_destroy(&old);
    memory_free(name);
}

/* A directory with something in it, to be resumed: is it a run of ours, and the same one? */
static void recognise(struct rundir *rundir, const struct spec *spec, struct problems *problems)
{
    size_t length = 0;
    char *resolved = rundir_read(rundir->path, "resolved.yaml", &length);
    if (resolved) {
        compare(rundir, spec, resolved, length, problems);
        rundir->resumed = true;
        read_state(rundir);
        memory_free(resolved);
        return;
    }
    char *input = rundir_file(rundir, "input.yaml");
    const int entries = count_entries(rundir->path);
    if (access(input, F_OK) != 0 || entries > 2) /* not just what a start that was killed at once leaves behind */
        problems_add(problems, EXIT_INPUT,
                     "%s is not empty and holds no run to go on with (no resolved.yaml): choose another --out",
                     rundir->path);
    memory_free(input);
}

/* Everything that the root does at the start. */
static void take_directory(struct rundir *rundir, enum rundir_mode mode, const struct spec *spec,
                           struct problems *problems)
{
    const int entries = reach_directory(rundir->path, problems);
    if (entries < 0) return;
    if (entries > 0 && mode == RUNDIR_NEW) {
        problems_add(problems, EXIT_INPUT,
                     "%s is not empty: choose another --out, --resume to go on with the run in it, or --overwrite to "
                     "move it aside",
                     rundir->path);
        return;
    }
    rundir->lock = lock_directory(rundir->path, problems);
    if (rundir->lock && entries > 0 && mode == RUNDIR_OVERWRITE) replace_directory(rundir, problems);
    if (rundir->lock && entries > 0 && mode == RUNDIR_RESUME) recognise(rundir, spec, problems);
}

/* A text that the root has, or NULL, on every rank. */
static void share_text(const struct rundir *rundir, char **text)
{
    int length = *text ? to_int((int64_t)strlen(*text)) : -1;
    MPI_Bcast(&length, 1, MPI_INT, 0, rundir->grid->comm);
    if (length < 0) return;
    if (rundir->grid->rank != 0) *text = NEW(char, length + 1);
    MPI_Bcast(*text, length, MPI_CHAR, 0, rundir->grid->comm);
}

static void share_state(struct rundir *rundir)
{
    int64_t numbers[2] = {rundir->resumed, rundir->state_step};
    MPI_Bcast(numbers, 2, MPI_INT64_T, 0, rundir->grid->comm);
    rundir->resumed = numbers[0] != 0;
    rundir->state_step = numbers[1];
    share_text(rundir, &rundir->state);
    share_text(rundir, &rundir->reason);
}

/* ---------------------------------------------------------------- life */

static void time_text(char text[32])
{
    time_t now = time(NULL);
    struct tm utc;
    strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
}

/* Without the slashes behind it: temporary and .old names are made by appending. */
static char *plain_path(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') length--;
    return memory_text("%.*s", (int)length, path);
}

struct rundir *rundir_create(const struct grid *grid, const char *path, enum rundir_mode mode, const char *input,
                             size_t input_length, const struct spec *spec, struct problems *problems)
{
    struct rundir *rundir = NEW(struct rundir, 1);
    rundir->grid = grid;
    rundir->path = plain_path(path);
    rundir->input = NEW(char, input_length + 1);
    memcpy(rundir->input, input, input_length);
    rundir->input_length = input_length;
    rundir->resolved = spec_resolved(spec);
    rundir->state_step = -1;
    time_text(rundir->start);
    gethostname(rundir->host, sizeof rundir->host - 1);
    MPI_Bcast(rundir->start, sizeof rundir->start, MPI_CHAR, 0, grid->comm);
    MPI_Bcast(rundir->host, sizeof rundir->host, MPI_CHAR, 0, grid->comm);

    struct problems own = {0};
    if (grid->rank == 0) take_directory(rundir, mode, spec, &own);
    if (problems_join(&own, grid->comm, problems))
        share_state(rundir);
    else
        rundir_destroy(&rundir);
    return rundir;
}

static void write_inputs(const struct rundir *rundir, struct problems *problems)
{
    char *input = rundir_file(rundir, "input.yaml"), *resolved = rundir_file(rundir, "resolved.yaml");
    if (rundir_write(input, rundir->input, rundir->input_length, problems))
        rundir_write(resolved, rundir->resolved, strlen(rundir->resolved), problems);
    memory_free(input);
    memory_free(resolved);
}

bool rundir_begin(const struct rundir *rundir, struct problems *problems)
{
    struct problems own = {0};
    if (rundir->grid->rank == 0) write_inputs(rundir, &own);
    return problems_join(&own, rundir->grid->comm, problems);
}

void rundir_destroy(struct rundir **rundir)
{
    struct rundir *r = *rundir;
    if (!r) return;
    lock_drop(&r->lock);
    memory_free(r->state);
    memory_free(r->reason);
    memory_free(r->path);
    memory_free(r->input);
    memory_free(r->resolved);
    memory_free(r);
    *rundir = NULL;
}

/* ---------------------------------------------------------------- status.json */

/* `text` as a JSON string, or null. Bytes above 127 pass as they are: UTF-8 in, UTF-8 out. */
static void json_text(FILE *out, const char *text)
{
    if (!text) {
        fputs("null", out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if (*c < 0x20)
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

static void json_entry(FILE *out, const char *key, const char *text)
{
    fprintf(out, "  \"%s\": ", key);
    json_text(out, text);
    fputs(",\n", out);
}

/* JSON knows no NaN. */
static void json_real(FILE *out, const char *key, double value, const char *digits)
{
    fprintf(out, "  \"%s\": ", key);
    if (isfinite(value))
        fprintf(out, digits, value);
    else
        fputs("null", out);
    fputs(",\n", out);
}

struct json_list {
    FILE *out; /* borrowed */
    int count;
};

static void json_scalar(const char *name, double value, void *context)
{
    struct json_list *list = context;
    fprintf(list->out, "%s\n    ", list->count++ ? "," : "");
    json_text(list->out, name);
    if (isfinite(value))
        fprintf(list->out, ": %.17g", value);
    else
        fputs(": null", list->out);
}

static char *status_text(const struct rundir *rundir, const struct rundir_status *status)
{
    char *text = NULL, updated[32];
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    time_text(updated);
    fputs("{\n", out);
    json_entry(out, "state", status->state);
    json_entry(out, "reason", status->reason);
    fprintf(out, "  \"step\": %lld,\n  \"steps\": %lld,\n", (long long)status->step, (long long)status->steps);
    json_real(out, "loss", status->loss, "%.17g");
    json_real(out, "seconds", status->seconds, "%.3f");
    json_real(out, "seconds_left", status->seconds_left, "%.0f");
    json_real(out, "checkpoint", status->checkpoint < 0 ? NAN : (double)status->checkpoint, "%.0f");
    json_entry(out, "started", rundir->start);
    json_entry(out, "updated", updated);
    json_entry(out, "job_id", getenv("SLURM_JOB_ID"));
    json_entry(out, "host", rundir->host);
    fprintf(out, "  \"ranks\": %d", rundir->grid->size);
    if (status->final) {
        struct json_list list = {out, 0};
        fputs(",\n  \"final\": {", out);
        record_scalars(status->final, json_scalar, &list);
        fputs("\n  }", out);
    }
    fputs("\n}\n", out);
    fclose(out);
    return text;
}

void rundir_write_status(const struct rundir *rundir, const struct rundir_status *status)
{
    struct problems problems = {0};
    char *path = rundir_file(rundir, "status.json"), *text = status_text(rundir, status);
    if (!rundir_write(path, text, strlen(text), &problems)) log_warn("%s", problems.text[0]);
    free(text);
    memory_free(path);
    problems_clear(&problems);
}

/* ---------------------------------------------------------------- provenance */

char *rundir_fact_key(const char *name)
{
    char *key = memory_text("%s", name);
    for (char *c = key; *c; c++)
        if (*c == ' ') *c = '_';
    return key;
}

static void write_fact(struct h5 *file, const char *name, const char *value)
{
    char *key = rundir_fact_key(name);
    h5_attribute_text(file, "provenance", key, value);
    memory_free(key);
}

void rundir_provenance(const struct rundir *rundir, struct h5 *file)
{
    const struct grid *grid = rundir->grid;
    const char *job = getenv("SLURM_JOB_ID");
    char *shape = memory_text("%d x %d", grid->nprow, grid->npcol);
    h5_group(file, "provenance");
    for (const struct build_fact *fact = build_facts(); fact->name; fact++) write_fact(file, fact->name, fact->value);
    write_fact(file, "input", rundir->input);
    write_fact(file, "resolved", rundir->resolved);
    write_fact(file, "grid", shape);
    write_fact(file, "host", rundir->host);
    write_fact(file, "job_id", job ? job : "");
    write_fact(file, "gemm", grid->gemm == GRID_GEMM_PANEL ? "panel" : "pdgemm");
    char *chunk = spec_flat(rundir->resolved, strlen(rundir->resolved), "train.microbatch");
    write_fact(file, "microbatch", chunk ? chunk : "");
    memory_free(chunk);
    write_fact(file, "start", rundir->start);
    h5_attribute_int(file, "provenance", "ranks", grid->size);
    h5_attribute_int(file, "provenance", "block", grid->block);
    h5_attribute_int(file, "provenance", "threads", launch_threads());
    memory_free(shape);
}
