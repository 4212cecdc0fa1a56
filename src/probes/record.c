/* record: the series of a run in memory. */
#include "record_private.h"

#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

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

int record_number(struct record_group *group, const char *name, const char *first, const char *second,
                  const char *long_name, const char *formula, const char *reference)
{
    return record_quantity(group, &(struct quantity){.name = name,
                                                     .units = "1",
                                                     .long_name = long_name,
                                                     .formula = formula,
                                                     .reference = reference,
                                                     .dims = {first, second}});
}

int64_t record_row_bytes(const struct record_group *group)
{
    int64_t values = 2; /* step and time */
    for (int i = 0; i < group->nseries; i++) values += group->series[i].width;
    return 8 * values;
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

/* ---------------------------------------------------------------- parts */

int64_t record_rows_from(const struct record_group *group, int64_t step)
{
    int64_t low = 0, high = group->rows;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (group->step[middle] < step)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool record_has_from(const struct record *record, int64_t step)
{
    for (int i = 0; i < record->ngroups; i++)
        if (record_rows_from(record->groups[i], step) < record->groups[i]->rows) return true;
    return false;
}

void record_clear(struct record *record)
{
    for (int i = 0; i < record->ngroups; i++) record->groups[i]->rows = 0;
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
