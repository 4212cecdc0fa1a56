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

/* Entries besides . and .., or −1 with errno set. */
static int count_entries(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) return -1;
    int count = -2;
    while (readdir(folder)) count++;
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

/* Leaves an empty directory under `path`, or a problem. */
static void prepare_directory(const char *path, bool overwrite, struct problems *problems)
{
    struct stat info;
    bool exists = stat(path, &info) == 0;
    if (exists && !S_ISDIR(info.st_mode)) {
        problems_add(problems, EXIT_INPUT, "%s exists and is not a directory: choose another --out", path);
        return;
    }
    int entries = exists ? count_entries(path) : 0;
    if (entries < 0) {
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be read: %s", path, strerror(errno));
        return;
    }
    if (entries > 0 && !overwrite) {
        problems_add(problems, EXIT_INPUT, "%s is not empty: choose another --out, or --overwrite to move it aside",
                     path);
        return;
    }
    if (entries > 0 && !move_aside(path))
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be moved aside: %s", path, strerror(errno));
    else if (!make_directories(path))
        problems_add(problems, EXIT_ENVIRONMENT, "%s: cannot be created: %s", path, strerror(errno));
}

static void write_inputs(const struct rundir *rundir, struct problems *problems)
{
    char *input = rundir_file(rundir, "input.yaml"), *resolved = rundir_file(rundir, "resolved.yaml");
    if (rundir_write(input, rundir->input, rundir->input_length, problems))
        rundir_write(resolved, rundir->resolved, strlen(rundir->resolved), problems);
    memory_free(input);
    memory_free(resolved);
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

struct rundir *rundir_create(const struct grid *grid, const char *path, bool overwrite, const char *input,
                             size_t input_length, const struct spec *spec, struct problems *problems)
{
    struct rundir *rundir = NEW(struct rundir, 1);
    rundir->grid = grid;
    rundir->path = plain_path(path);
    rundir->input = NEW(char, input_length + 1);
    memcpy(rundir->input, input, input_length);
    rundir->input_length = input_length;
    rundir->resolved = spec_resolved(spec);
    time_text(rundir->start);
    gethostname(rundir->host, sizeof rundir->host - 1);
    MPI_Bcast(rundir->start, sizeof rundir->start, MPI_CHAR, 0, grid->comm);
    MPI_Bcast(rundir->host, sizeof rundir->host, MPI_CHAR, 0, grid->comm);

    struct problems own = {0};
    if (grid->rank == 0) prepare_directory(rundir->path, overwrite, &own);
    if (grid->rank == 0 && own.count == 0) write_inputs(rundir, &own);
    if (!problems_none(&own, grid->comm)) rundir_destroy(&rundir);
    for (int i = 0; i < own.count; i++) problems_add(problems, own.code, "%s", own.text[i]);
    problems_clear(&own);
    return rundir;
}

void rundir_destroy(struct rundir **rundir)
{
    struct rundir *r = *rundir;
    if (!r) return;
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

/* A member's state as one JSON object (free). */
static char *status_text(const struct rundir *rundir, const char *state, const char *reason, int64_t step,
                         int64_t steps, double loss)
{
    char *text = NULL, updated[32];
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    time_text(updated);
    fputs("{\n", out);
    json_entry(out, "state", state);
    json_entry(out, "reason", reason);
    fprintf(out, "  \"step\": %lld,\n  \"steps\": %lld,\n", (long long)step, (long long)steps);
    if (isfinite(loss))
        fprintf(out, "  \"loss\": %.17g,\n", loss);
    else
        fputs("  \"loss\": null,\n", out);
    json_entry(out, "started", rundir->start);
    json_entry(out, "updated", updated);
    json_entry(out, "job_id", getenv("SLURM_JOB_ID"));
    json_entry(out, "host", rundir->host);
    fprintf(out, "  \"ranks\": %d\n}\n", rundir->grid->size);
    fclose(out);
    return text;
}

void rundir_status(const struct rundir *rundir, const char *state, const char *reason, int64_t step, int64_t steps,
                   double loss)
{
    struct problems problems = {0};
    char *path = rundir_file(rundir, "status.json");
    char *text = status_text(rundir, state, reason, step, steps, loss);
    if (!rundir_write(path, text, strlen(text), &problems)) log_warn("%s", problems.text[0]);
    free(text);
    memory_free(path);
    problems_clear(&problems);
}

/* ---------------------------------------------------------------- provenance */

static void write_fact(struct h5 *file, const char *name, const char *value)
{
    char *key = memory_text("%s", name);
    for (char *c = key; *c; c++)
        if (*c == ' ') *c = '_';
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
    write_fact(file, "start", rundir->start);
    h5_attribute_int(file, "provenance", "ranks", grid->size);
    h5_attribute_int(file, "provenance", "block", grid->block);
    h5_attribute_int(file, "provenance", "threads", launch_threads());
    memory_free(shape);
}
