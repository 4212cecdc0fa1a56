/* record_file: how the series of a run become groups of a netCDF-4 file, and come back from it. */
#include "record_private.h"

#include "base/memory.h"

#include <string.h>

/* ---------------------------------------------------------------- writing */

/* A dimension with the coordinate values 1…size. */
static void write_counted(struct h5 *file, const char *group, const char *name, int64_t size, const char *long_name)
{
    int64_t *values = NEW(int64_t, size);
    for (int64_t i = 0; i < size; i++) values[i] = i + 1;
    char *path = memory_text("%s/%s", group, name);
    h5_dimension(file, path, size, values, &(struct h5_about){.units = "1", .long_name = long_name});
    memory_free(path);
    memory_free(values);
}

static void write_series(struct h5 *file, const struct record_group *group, const struct series *series, int64_t first)
{
    const char *dims[1 + DIMS] = {group->axis};
    int64_t sizes[1 + DIMS] = {group->rows - first};
    for (int i = 0; i < series->ndims; i++) {
        dims[1 + i] = group->dimensions[series->dim[i]].name;
        sizes[1 + i] = group->dimensions[series->dim[i]].size;
    }
    struct h5_about about = {series->units, series->long_name, series->formula, series->reference};
    char *path = memory_text("%s/%s", group->name, series->name);
    if (series->integer)
        h5_write_ints(file, path, 1 + series->ndims, dims, sizes, series->ints + first * series->width, &about);
    else
        h5_write_reals(file, path, 1 + series->ndims, dims, sizes, series->reals + first * series->width, &about);
    memory_free(path);
}

/* Training time beside the axis: `time` of `step`, `evaluated_time` of `evaluated_step` (memory_free). */
static char *time_path(const struct record_group *group)
{
    const char *end = strstr(group->axis, "step");
    return memory_text("%s/%.*stime", group->name, end ? (int)(end - group->axis) : 0, group->axis);
}

static void write_axis(struct h5 *file, const struct record_group *group, int64_t first)
{
    const char *dims[] = {group->axis};
    const int64_t rows = group->rows - first;
    char *path = memory_text("%s/%s", group->name, group->axis);
    h5_dimension(file, path, rows, group->step + first, &(struct h5_about){.units = "1", .long_name = "step"});
    memory_free(path);
    path = time_path(group);
    h5_write_reals(file, path, 1, dims, &rows, group->time + first,
                   &(struct h5_about){.units = "1", .long_name = "training time: sum of learning rates"});
    memory_free(path);
}

/* Two axes of one group are two record_groups: the group itself is made with the first. */
static void write_group(struct h5 *file, const struct record_group *group, int64_t first_row, bool first)
{
    if (first) {
        h5_group(file, group->name);
        if (group->about) h5_attribute_text(file, group->name, "long_name", group->about);
        for (int i = 0; i < group->ntexts; i++)
            h5_attribute_text(file, group->name, group->texts[2 * i], group->texts[2 * i + 1]);
    }
    write_axis(file, group, first_row);
    for (int i = 0; i < group->ndimensions; i++) {
        const struct dimension *d = &group->dimensions[i];
        write_counted(file, group->name, d->name, d->size, d->long_name);
    }
    for (int i = 0; i < group->nseries; i++) write_series(file, group, &group->series[i], first_row);
}

static void write_check_values(struct h5 *file, const struct record *record)
{
    const char *dims[] = {"check"};
    int64_t n = record->nchecks;
    double *measured = NEW(double, n), *bound = NEW(double, n);
    int64_t *passed = NEW(int64_t, n);
    for (int64_t i = 0; i < n; i++) {
        measured[i] = record->checks[i].measured;
        bound[i] = record->checks[i].bound;
        passed[i] = record->checks[i].passed;
    }
    h5_write_reals(file, "checks/measured", 1, dims, &n, measured,
                   &(struct h5_about){.units = "1", .long_name = "measured value"});
    h5_write_reals(file, "checks/bound", 1, dims, &n, bound,
                   &(struct h5_about){.units = "1", .long_name = "value that the theory allows"});
    h5_write_ints(file, "checks/passed", 1, dims, &n, passed,
                  &(struct h5_about){.units = "1", .long_name = "whether the measured value respects the bound"});
    memory_free(measured);
    memory_free(bound);
    memory_free(passed);
}

static void write_checks(struct h5 *file, const struct record *record)
{
    int64_t n = record->nchecks;
    const char **names = NEW(const char *, n), **references = NEW(const char *, n);
    for (int64_t i = 0; i < n; i++) {
        names[i] = record->checks[i].name;
        references[i] = record->checks[i].reference ? record->checks[i].reference : "";
    }
    h5_group(file, "checks");
    h5_attribute_text(file, "checks", "long_name", "theory checks");
    write_counted(file, "checks", "check", n, "number of the check");
    h5_write_texts(file, "checks/name", "check", n, names, &(struct h5_about){.long_name = "what is checked"});
    h5_write_texts(file, "checks/reference", "check", n, references,
                   &(struct h5_about){.long_name = "where the statement is made"});
    write_check_values(file, record);
    memory_free(names);
    memory_free(references);
}

void record_write_from(const struct record *record, struct h5 *file, int64_t step)
{
    for (int i = 0; i < record->ngroups; i++) {
        const struct record_group *group = record->groups[i];
        const int64_t from = record_rows_from(group, step);
        bool first = true;
        if (group->rows == from) continue;
        for (int j = 0; j < i; j++) {
            const struct record_group *other = record->groups[j];
            if (record_rows_from(other, step) < other->rows && strcmp(group->name, other->name) == 0) first = false;
        }
        write_group(file, group, from, first);
    }
}

void record_write(const struct record *record, struct h5 *file)
{
    record_write_from(record, file, 0);
    if (record->nchecks > 0) write_checks(file, record);
}

/* ---------------------------------------------------------------- reading */

/* Values of the rows first…first+rows−1 of the file, to the rows that were just made. */
static void read_series(struct h5 *file, const struct record_group *group, struct series *series, int64_t first,
                        int64_t rows)
{
    const int64_t at = (group->rows - rows) * series->width;
    char *path = memory_text("%s/%s", group->name, series->name);
    if (series->integer)
        h5_read_ints(file, path, first, rows, series->width, series->ints + at);
    else
        h5_read_reals(file, path, first, rows, series->width, series->reals + at);
    memory_free(path);
}

static void read_group(struct record_group *group, struct h5 *file, int64_t before)
{
    char *axis = memory_text("%s/%s", group->name, group->axis), *beside = time_path(group);
    const int64_t there = h5_exists(file, axis, NULL) ? h5_rows(file, axis) : 0;
    int64_t *step = NEW(int64_t, there), first = 0, rows = 0;
    double *time = NEW(double, there);
    if (there) h5_read_ints(file, axis, 0, there, 1, step);
    if (there) h5_read_reals(file, beside, 0, there, 1, time);
    /* The file may begin before the end of what is there already, and end behind `before`. */
    while (group->rows && first < there && step[first] <= group->step[group->rows - 1]) first++;
    while (first + rows < there && step[first + rows] < before) rows++;
    for (int64_t i = 0; i < rows; i++) record_row(group, step[first + i], time[first + i]);
    for (int i = 0; i < group->nseries && rows; i++) read_series(file, group, &group->series[i], first, rows);
    memory_free(time);
    memory_free(step);
    memory_free(beside);
    memory_free(axis);
}

void record_read(struct record *record, struct h5 *file, int64_t before)
{
    for (int i = 0; i < record->ngroups; i++) read_group(record->groups[i], file, before);
}

void record_archive(struct record *record, struct archive *archive)
{
    archive_enter(archive, "rows");
    for (int i = 0; i < record->ngroups; i++) {
        struct record_group *group = record->groups[i];
        char *name = memory_text("%s.%s", group->name, group->axis);
        group->expected = group->rows;
        archive_int(archive, name, &group->expected);
        memory_free(name);
    }
    archive_leave(archive);
}
