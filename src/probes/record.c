/* record: the series of a run in memory, and how they become groups of a netCDF-4 file. */
#include "probes/record.h"

#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { DIMS = sizeof(((struct quantity *)0)->dims) / sizeof(char *) };

struct dimension {
    char *name, *long_name; /* owned */
    int64_t size;
};

struct series {
    char *name, *units, *long_name, *formula, *reference; /* owned; the last two may be NULL */
    int dim[DIMS];                                        /* [ndims] numbers of the group's dimensions */
    int ndims;
    int64_t width; /* values a row */
    bool integer;
    double *reals; /* [capacity × width], owned; NULL if integer */
    int64_t *ints; /* the same; NULL if not integer */
};

struct record_group {
    char *name, *axis, *about; /* owned */
    char **texts;              /* [2 × ntexts] names and values of attributes, owned */
    int ntexts;
    bool keep;                    /* on the root */
    struct dimension *dimensions; /* [ndimensions], owned */
    struct series *series;        /* [nseries], owned */
    int ndimensions, nseries;
    int64_t rows, capacity;
    int64_t written;  /* rows that are in parts already */
    int64_t expected; /* rows that a checkpoint says there should be */
    int64_t *step;    /* [capacity], owned */
    double *time;     /* [capacity], owned */
};

struct check {
    char *name, *reference; /* owned */
    double measured, bound;
    bool passed;
};

struct record {
    bool root;
    struct record_group **groups; /* [ngroups], owned */
    struct check *checks;         /* [nchecks], owned */
    int ngroups, nchecks;
};

static char *copy(const char *text)
{
    return text ? memory_text("%s", text) : NULL;
}

/* ---------------------------------------------------------------- life */

struct record *record_create(bool root)
{
    struct record *record = NEW(struct record, 1);
    record->root = root;
    return record;
}

static void series_free(struct series *series)
{
    memory_free(series->name);
    memory_free(series->units);
    memory_free(series->long_name);
    memory_free(series->formula);
    memory_free(series->reference);
    memory_free(series->reals);
    memory_free(series->ints);
}

static void group_free(struct record_group *group)
{
    for (int i = 0; i < group->ndimensions; i++) {
        memory_free(group->dimensions[i].name);
        memory_free(group->dimensions[i].long_name);
    }
    for (int i = 0; i < group->nseries; i++) series_free(&group->series[i]);
    for (int i = 0; i < 2 * group->ntexts; i++) memory_free(group->texts[i]);
    memory_free(group->texts);
    memory_free(group->dimensions);
    memory_free(group->series);
    memory_free(group->step);
    memory_free(group->time);
    memory_free(group->name);
    memory_free(group->axis);
    memory_free(group->about);
    memory_free(group);
}

void record_destroy(struct record **record)
{
    struct record *r = *record;
    if (!r) return;
    for (int i = 0; i < r->ngroups; i++) group_free(r->groups[i]);
    for (int i = 0; i < r->nchecks; i++) {
        memory_free(r->checks[i].name);
        memory_free(r->checks[i].reference);
    }
    memory_free(r->groups);
    memory_free(r->checks);
    memory_free(r);
    *record = NULL;
}

/* ---------------------------------------------------------------- declarations */

struct record_group *record_group(struct record *record, const char *name, const char *axis, const char *about)
{
    for (int i = 0; i < record->ngroups; i++)
        if (strcmp(record->groups[i]->name, name) == 0 && strcmp(record->groups[i]->axis, axis) == 0)
            bug("the record has a group %s along %s already", name, axis);
    struct record_group *group = NEW(struct record_group, 1);
    group->name = copy(name);
    group->axis = copy(axis);
    group->about = copy(about);
    group->keep = record->root;
    size_t count = (size_t)record->ngroups;
    record->groups = memory_grow(record->groups, count, count + 1, sizeof(struct record_group *));
    record->groups[record->ngroups++] = group;
    return group;
}

void record_group_text(struct record_group *group, const char *name, const char *value)
{
    size_t count = 2 * (size_t)group->ntexts++;
    group->texts = memory_grow(group->texts, count, count + 2, sizeof(char *));
    group->texts[count] = copy(name);
    group->texts[count + 1] = copy(value);
}

void record_dimension(struct record_group *group, const char *name, int64_t size, const char *long_name)
{
    size_t count = (size_t)group->ndimensions;
    group->dimensions = memory_grow(group->dimensions, count, count + 1, sizeof *group->dimensions);
    group->dimensions[group->ndimensions++] = (struct dimension){copy(name), copy(long_name), size};
}

static int find_dimension(const struct record_group *group, const char *name)
{
    for (int i = 0; i < group->ndimensions; i++)
        if (strcmp(group->dimensions[i].name, name) == 0) return i;
    bug("group %s has no dimension %s", group->name, name);
}

int record_quantity(struct record_group *group, const struct quantity *quantity)
{
    ensure(group->rows == 0);
    struct series series = {.name = copy(quantity->name),
                            .units = copy(quantity->units),
                            .long_name = copy(quantity->long_name),
                            .formula = copy(quantity->formula),
                            .reference = copy(quantity->reference),
                            .width = 1,
                            .integer = quantity->integer};
    for (; series.ndims < DIMS && quantity->dims[series.ndims]; series.ndims++) {
        int d = find_dimension(group, quantity->dims[series.ndims]);
        series.dim[series.ndims] = d;
        series.width *= group->dimensions[d].size;
    }
    size_t count = (size_t)group->nseries;
    group->series = memory_grow(group->series, count, count + 1, sizeof *group->series);
    group->series[group->nseries] = series;
    return group->nseries++;
}

/* ---------------------------------------------------------------- rows */

static void grow(struct record_group *group)
{
    size_t old = (size_t)group->capacity, new = old ? 2 * old : 64;
    group->step = memory_grow(group->step, old, new, sizeof *group->step);
    group->time = memory_grow(group->time, old, new, sizeof *group->time);
    for (int i = 0; i < group->nseries; i++) {
        struct series *s = &group->series[i];
        size_t width = (size_t)s->width;
        if (s->integer)
            s->ints = memory_grow(s->ints, old * width, new *width, sizeof *s->ints);
        else
            s->reals = memory_grow(s->reals, old * width, new *width, sizeof *s->reals);
    }
    group->capacity = (int64_t) new;
}

void record_row(struct record_group *group, int64_t step, double time)
{
    if (!group->keep) return;
    ensure(group->rows == 0 || step > group->step[group->rows - 1]);
    if (group->rows == group->capacity) grow(group);
    int64_t row = group->rows++;
    group->step[row] = step;
    group->time[row] = time;
    for (int i = 0; i < group->nseries; i++) {
        struct series *s = &group->series[i];
        if (s->integer) continue;
        for (int64_t j = 0; j < s->width; j++) s->reals[row * s->width + j] = NAN;
    }
}

/* The series with this number, ready to take a value at `index` of the current row. */
static struct series *current(struct record_group *group, int quantity, int64_t index, bool integer)
{
    ensure(quantity >= 0 && quantity < group->nseries && group->rows > 0);
    struct series *series = &group->series[quantity];
    if (series->integer != integer) bug("%s/%s is put with the wrong type", group->name, series->name);
    if (index < 0 || index >= series->width)
        bug("%s/%s has no index %lld", group->name, series->name, (long long)index);
    return series;
}

void record_put(struct record_group *group, int quantity, const double *values)
{
    if (!group->keep) return;
    ensure(quantity >= 0 && quantity < group->nseries);
    for (int64_t j = 0; j < group->series[quantity].width; j++) record_put_at(group, quantity, j, values[j]);
}

void record_put_at(struct record_group *group, int quantity, int64_t index, double value)
{
    if (!group->keep) return;
    struct series *series = current(group, quantity, index, false);
    series->reals[(group->rows - 1) * series->width + index] = value;
}

void record_put_int_at(struct record_group *group, int quantity, int64_t index, int64_t value)
{
    if (!group->keep) return;
    struct series *series = current(group, quantity, index, true);
    series->ints[(group->rows - 1) * series->width + index] = value;
}

/* The latest value of a series, or NaN. */
static double latest(const struct record_group *group, const struct series *series, int64_t index)
{
    if (group->rows == 0 || index < 0 || index >= series->width) return NAN;
    int64_t at = (group->rows - 1) * series->width + index;
    return series->integer ? (double)series->ints[at] : series->reals[at];
}

double record_last(const struct record *record, const char *group, const char *quantity, int64_t index)
{
    for (int g = 0; g < record->ngroups; g++) {
        if (strcmp(record->groups[g]->name, group) != 0) continue;
        for (int i = 0; i < record->groups[g]->nseries; i++)
            if (strcmp(record->groups[g]->series[i].name, quantity) == 0)
                return latest(record->groups[g], &record->groups[g]->series[i], index);
    }
    return NAN;
}

void record_check(struct record *record, const char *name, const char *reference, double measured, double bound,
                  bool passed)
{
    if (!record->root) return;
    size_t count = (size_t)record->nchecks;
    record->checks = memory_grow(record->checks, count, count + 1, sizeof *record->checks);
    record->checks[record->nchecks++] = (struct check){copy(name), copy(reference), measured, bound, passed};
}

void record_say_checks(const struct record *record)
{
    if (record->nchecks) log_say("theory checks:");
    for (int i = 0; i < record->nchecks; i++) {
        const struct check *c = &record->checks[i];
        log_say("  %-6s %s: %.3g (bound %.3g), %s", c->passed ? "holds" : "FAILS", c->name, c->measured, c->bound,
                c->reference ? c->reference : "");
    }
}

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

/* All groups that have rows to be written: all of them, or those that are in no part yet. */
static void write_groups(const struct record *record, struct h5 *file, bool new_only)
{
    for (int i = 0; i < record->ngroups; i++) {
        const struct record_group *group = record->groups[i];
        const int64_t from = new_only ? group->written : 0;
        bool first = true;
        if (group->rows == from) continue;
        for (int j = 0; j < i; j++) {
            const struct record_group *other = record->groups[j];
            if (other->rows > (new_only ? other->written : 0) && strcmp(group->name, other->name) == 0) first = false;
        }
        write_group(file, group, from, first);
    }
}

void record_write(const struct record *record, struct h5 *file)
{
    write_groups(record, file, false);
    if (record->nchecks > 0) write_checks(file, record);
}

/* ---------------------------------------------------------------- parts, and reading them */

bool record_has_new(const struct record *record)
{
    for (int i = 0; i < record->ngroups; i++)
        if (record->groups[i]->rows > record->groups[i]->written) return true;
    return false;
}

void record_write_new(const struct record *record, struct h5 *file)
{
    write_groups(record, file, true);
}

void record_set_written(struct record *record, bool written)
{
    for (int i = 0; i < record->ngroups; i++) record->groups[i]->written = written ? record->groups[i]->rows : 0;
}

void record_clear(struct record *record)
{
    for (int i = 0; i < record->ngroups; i++) record->groups[i]->rows = record->groups[i]->written = 0;
}

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

bool record_complete(const struct record *record)
{
    for (int i = 0; i < record->ngroups; i++)
        if (record->groups[i]->rows != record->groups[i]->expected) return false;
    return true;
}

void record_scalars(const struct record *record, void (*each)(const char *name, double value, void *context),
                    void *context)
{
    for (int g = 0; g < record->ngroups; g++) {
        const struct record_group *group = record->groups[g];
        for (int i = 0; i < group->nseries; i++) {
            if (group->series[i].ndims > 0 || group->rows == 0) continue;
            char *name = memory_text("%s/%s", group->name, group->series[i].name);
            each(name, latest(group, &group->series[i], 0), context);
            memory_free(name);
        }
    }
}
