#include "train/parts.h"

#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char format[] = "eigentrain metrics";

static char *path_of(const struct rundir *rundir, int64_t number)
{
    return rundir_file(rundir, "metrics/part-%04lld.h5", (long long)number);
}

static void append(struct part **list, int *count, struct part part)
{
    *list = memory_grow(*list, (size_t)*count, (size_t)*count + 1, sizeof **list);
    (*list)[(*count)++] = part;
}

/* A new part takes the place of those that begin where it begins or later. */
static void add(struct parts *parts, struct part part)
{
    while (parts->count && parts->part[parts->count - 1].from >= part.from)
        append(&parts->retired, &parts->nretired, parts->part[--parts->count]);
    append(&parts->part, &parts->count, part);
}

static void delete_file(const struct rundir *rundir, int64_t number)
{
    char *path = path_of(rundir, number);
    if (unlink(path) != 0) log_warn("%s cannot be removed", path);
    memory_free(path);
}

void parts_clear(struct parts *parts)
{
    memory_free(parts->part);
    memory_free(parts->retired);
    *parts = (struct parts){0};
}

/* ---------------------------------------------------------------- writing */

static bool write_file(const struct rundir *rundir, const struct record *record, struct part part,
                       struct problems *problems)
{
    char *folder = rundir_file(rundir, "metrics"), *path = path_of(rundir, part.number);
    mkdir(folder, 0777); /* if that fails, h5_create says why */
    struct h5 *file = h5_create(MPI_COMM_SELF, path, format, problems);
    if (file) {
        h5_attribute_int(file, "", "from_step", part.from);
        h5_attribute_int(file, "", "to_step", part.to);
        record_write_from(record, file, part.from);
        rundir_provenance(rundir, file);
    }
    const bool ok = file && h5_commit(&file, problems);
    memory_free(path);
    memory_free(folder);
    return ok;
}

static int64_t highest(const struct parts *parts)
{
    int64_t number = parts->count ? parts->part[parts->count - 1].number : 0;
    for (int i = 0; i < parts->nretired; i++)
        if (parts->retired[i].number > number) number = parts->retired[i].number;
    return number;
}

/* One as long as the new part, or shorter, is written again with it: so n checkpoints leave about log n files, and each
 * row is written about log n times. */
bool parts_write(struct parts *parts, const struct rundir *rundir, const struct record *record, int64_t step,
                 struct problems *problems)
{
    int kept = parts->count;
    struct part new = {.number = highest(parts) + 1, .from = kept ? parts->part[kept - 1].to : 0, .to = step};
    parts->fresh = (struct part){0};
    if (!record_has_from(record, new.from)) return true;
    while (kept > 0 && new.to - new.from >= parts->part[kept - 1].to - parts->part[kept - 1].from)
        new.from = parts->part[--kept].from;
    if (!write_file(rundir, record, new, problems)) return false;
    parts->fresh = new;
    return true;
}

static void delete_retired(struct parts *parts, const struct rundir *rundir)
{
    for (int i = 0; i < parts->nretired; i++) delete_file(rundir, parts->retired[i].number);
    parts->nretired = 0;
}

void parts_settle(struct parts *parts, const struct rundir *rundir, bool complete)
{
    const struct part fresh = parts->fresh;
    parts->fresh = (struct part){0};
    if (complete) delete_retired(parts, rundir);
    if (complete && fresh.number) add(parts, fresh);
    if (!complete && fresh.number) delete_file(rundir, fresh.number);
}

/* ---------------------------------------------------------------- reading */

static int by_number(const void *a, const void *b)
{
    const int64_t x = ((const struct part *)a)->number, y = ((const struct part *)b)->number;
    return (x > y) - (x < y);
}

/* All files, by number; their steps are not known yet. */
static struct part *list_files(const struct rundir *rundir, int *count)
{
    struct part *list = NULL;
    char *path = rundir_file(rundir, "metrics");
    DIR *folder = opendir(path);
    *count = 0;
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        long long number;
        int end = 0;
        if (sscanf(entry->d_name, "part-%lld.h5%n", &number, &end) == 1 && end && !entry->d_name[end])
            append(&list, count, (struct part){.number = number});
    }
    if (folder) closedir(folder);
    memory_free(path);
    if (*count) qsort(list, (size_t)*count, sizeof *list, by_number);
    return list;
}

/* Rows before `step` of a part (or, with part NULL, of metrics.h5). */
static void read_file(const char *path, struct part *part, struct record *record, int64_t step,
                      struct problems *problems)
{
    struct h5 *file = h5_open(MPI_COMM_SELF, path, format, problems);
    if (!file) return;
    if (part) part->from = h5_get_int(file, "", "from_step");
    if (part) part->to = h5_get_int(file, "", "to_step");
    record_read(record, file, step);
    h5_done(&file, problems);
}

/* All rows before `step` in one part, in place of the `count` files that are there. */
static void replace_files(struct parts *parts, const struct rundir *rundir, const struct record *record, int64_t step,
                          const struct part *list, int count, struct problems *problems)
{
    const struct part new = {.number = count ? list[count - 1].number + 1 : 1, .to = step};
    if (record_has_from(record, 0) && !write_file(rundir, record, new, problems)) return;
    for (int i = 0; i < count; i++) delete_file(rundir, list[i].number);
    parts_clear(parts);
    if (record_has_from(record, 0)) add(parts, new);
}

void parts_read(struct parts *parts, const struct rundir *rundir, struct record *record, int64_t step,
                struct problems *problems)
{
    struct problems bad = {0};
    bool beyond = false;
    int count;
    struct part *list = list_files(rundir, &count);
    parts_clear(parts);
    record_clear(record);
    for (int i = 0; i < count; i++) {
        char *path = path_of(rundir, list[i].number);
        read_file(path, &list[i], record, step, &bad);
        beyond = beyond || list[i].to > step;
        add(parts, list[i]);
        memory_free(path);
    }
    char *whole = rundir_file(rundir, "metrics.h5");
    const bool finished = !record_complete(record) && access(whole, F_OK) == 0;
    if (finished) read_file(whole, NULL, record, step, &bad);
    memory_free(whole);
    if (!record_complete(record))
        problems_add(problems, EXIT_ENVIRONMENT, "%s",
                     bad.count ? bad.text[0] : "the metrics before its step are not complete");
    else if (finished || beyond || bad.count)
        replace_files(parts, rundir, record, step, list, count, problems);
    problems_clear(&bad);
    memory_free(list);
}

void parts_remove(struct parts *parts, const struct rundir *rundir)
{
    int count;
    char *folder = rundir_file(rundir, "metrics");
    struct part *list = list_files(rundir, &count);
    for (int i = 0; i < count; i++) delete_file(rundir, list[i].number);
    rmdir(folder); /* only if it is empty */
    parts_clear(parts);
    memory_free(list);
    memory_free(folder);
}
