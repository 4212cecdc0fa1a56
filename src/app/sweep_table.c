/* What all members of a sweep came to: members.csv for people and spreadsheets, sweep.h5 with arrays over the swept
 * axes. Both are made from the status.json of all members, so that whoever writes them last writes all there is. */
#include "app/sweep.h"

#include "base/build.h"
#include "base/memory.h"
#include "dist/h5.h"
#include "train/lock.h"
#include "train/rundir.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The statuses of all members, and the names of their final scalars. */
struct table {
    const struct sweep *sweep;   /* borrowed */
    struct sweep_status *status; /* [members], owned */
    char **column;               /* [columns] "train/loss", owned */
    int columns;
};

/* ---------------------------------------------------------------- columns */

static int find_column(const struct table *table, const char *name)
{
    for (int c = 0; c < table->columns; c++)
        if (strcmp(table->column[c], name) == 0) return c;
    return -1;
}

/* The union over all members, in the order in which they appear. */
static void collect_columns(struct table *table)
{
    for (int i = 0; i < table->sweep->members; i++)
        for (int f = 0; f < table->status[i].finals; f++) {
            const char *name = table->status[i].key[f];
            const size_t count = (size_t)table->columns;
            if (find_column(table, name) >= 0) continue;
            table->column = memory_grow(table->column, count, count + 1, sizeof *table->column);
            table->column[table->columns++] = memory_text("%s", name);
        }
}

static double final_of(const struct sweep_status *status, const char *column)
{
    for (int f = 0; f < status->finals; f++)
        if (strcmp(status->key[f], column) == 0) return status->final[f];
    return NAN;
}

static struct table table_read(const struct sweep *sweep)
{
    struct table table = {.sweep = sweep, .status = NEW(struct sweep_status, sweep->members)};
    for (int i = 0; i < sweep->members; i++) table.status[i] = sweep_status(sweep, i);
    collect_columns(&table);
    return table;
}

static void table_clear(struct table *table)
{
    for (int i = 0; i < table->sweep->members; i++) sweep_status_clear(&table->status[i]);
    for (int c = 0; c < table->columns; c++) memory_free(table->column[c]);
    memory_free(table->status);
    memory_free(table->column);
}

/* ---------------------------------------------------------------- members.csv */

/* RFC 4180: quotes where a reader would stumble, doubled within. */
static void csv_text(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"') fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

/* A comma and the shortest decimal that reads back as the number, or nothing behind the comma where there is none. */
static void csv_real(FILE *out, double value)
{
    char text[32] = "";
    for (int digits = 15; digits <= 17 && !isnan(value) && !(text[0] && strtod(text, NULL) == value); digits++)
        snprintf(text, sizeof text, "%.*g", digits, value);
    fprintf(out, ",%s", text);
}

static void csv_head(FILE *out, const struct table *table)
{
    const struct sweep_axes *axes = table->sweep->axes;
    fputs("member,name", out);
    for (int a = 0; a < axes->count; a++)
        for (int k = 0; k < axes->axis[a].keys; k++) fprintf(out, ",%s", axes->axis[a].key[k]);
    fputs(",state,reason,step,steps,seconds", out);
    for (int c = 0; c < table->columns; c++) {
        fputc(',', out);
        csv_text(out, table->column[c]);
    }
    fputc('\n', out);
}

static void csv_member(FILE *out, const struct table *table, int member)
{
    const struct sweep_axes *axes = table->sweep->axes;
    const struct sweep_status *status = &table->status[member];
    fprintf(out, "%d,%s", member + 1, table->sweep->name[member]);
    for (int a = 0; a < axes->count; a++) {
        const struct sweep_axis *axis = &axes->axis[a];
        for (int k = 0; k < axis->keys; k++) {
            char *plain = sweep_plain(axis->value[k * axis->size + sweep_index(axes, member, a)]);
            fputc(',', out);
            csv_text(out, plain);
            memory_free(plain);
        }
    }
    fprintf(out, ",%s,", sweep_state_name(status->state));
    csv_text(out, status->reason ? status->reason : "");
    fprintf(out, ",%lld,%lld", (long long)status->step, (long long)status->steps);
    csv_real(out, status->seconds);
    for (int c = 0; c < table->columns; c++) csv_real(out, final_of(status, table->column[c]));
    fputc('\n', out);
}

static void write_csv(const struct table *table, struct problems *problems)
{
    char *text = NULL, *path = memory_text("%s/members.csv", table->sweep->dir);
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    csv_head(out, table);
    for (int i = 0; i < table->sweep->members; i++) csv_member(out, table, i);
    fclose(out);
    rundir_write(path, text, length, problems);
    free(text);
    memory_free(path);
}

/* ---------------------------------------------------------------- sweep.h5: the axes */

static const char *const member_quantities[] = {"member", "state", "step", "steps", "seconds"};
enum { MEMBER_QUANTITIES = sizeof member_quantities / sizeof *member_quantities };

/* The name of a swept key in sweep.h5: short, unless a quantity has that name. */
static const char *scale_name(const struct table *table, const char *key)
{
    const char *label = sweep_label(table->sweep->axes, key);
    for (int q = 0; q < MEMBER_QUANTITIES; q++)
        if (strcmp(label, member_quantities[q]) == 0) return key;
    for (int c = 0; c < table->columns; c++)
        if (strcmp(label, strchr(table->column[c], '/') + 1) == 0) return key;
    return strcmp(label, "zip") == 0 ? key : label;
}

static const char *axis_name(const struct table *table, int axis)
{
    const struct sweep_axis *x = &table->sweep->axes->axis[axis];
    return x->keys > 1 ? "zip" : scale_name(table, x->key[0]);
}

/* The unit of a swept key, from the table of parameters. */
static const char *unit_of(const char *key)
{
    char *plain = memory_text("%s", key), *end = plain;
    const char *unit = NULL;
    bool inside = false;
    for (const char *c = key; *c; c++) { /* "probes[0].rank" is the row "probes[].rank" */
        inside = inside && *c != ']';
        if (!inside) *end++ = *c;
        inside = inside || *c == '[';
    }
    *end = '\0';
    for (const struct parameter *row = parameter_table; row->key && !unit; row++)
        if (strcmp(row->key, plain) == 0) unit = row->unit;
    memory_free(plain);
    return unit;
}

/* Whether all the texts are numbers; *whole: integers. */
static bool are_numbers(char *const *text, int count, bool *whole)
{
    bool numbers = true;
    *whole = true;
    for (int i = 0; i < count; i++) {
        char *end;
        numbers = numbers && text[i][0] && strspn(text[i], "0123456789+-.eE") == strlen(text[i]);
        strtod(text[i], &end);
        numbers = numbers && *end == '\0';
        strtoll(text[i], &end, 10);
        *whole = *whole && *end == '\0';
    }
    return numbers;
}

/* The values of one key, as the scale of a dimension, or with `dim` as a variable along it. */
static void write_values(struct h5 *file, const char *path, const char *dim, const struct sweep_axis *axis, int k)
{
    const struct h5_about about = {.units = unit_of(axis->key[k]), .long_name = axis->key[k]};
    const int64_t size = axis->size;
    char **text = NEW(char *, size);
    double *real = NEW(double, size);
    int64_t *integer = NEW(int64_t, size);
    bool whole;
    for (int i = 0; i < axis->size; i++) {
        text[i] = sweep_plain(axis->value[k * axis->size + i]);
        real[i] = strtod(text[i], NULL);
        integer[i] = strtoll(text[i], NULL, 10);
    }
    const bool numbers = are_numbers(text, axis->size, &whole);
    if (numbers && whole && dim)
        h5_write_ints(file, path, 1, &dim, &size, integer, &about);
    else if (numbers && whole)
        h5_dimension(file, path, size, integer, &about);
    else if (numbers && dim)
        h5_write_reals(file, path, 1, &dim, &size, real, &about);
    else if (numbers)
        h5_dimension_reals(file, path, size, real, &about);
    else if (dim)
        h5_write_texts(file, path, dim, size, (const char *const *)text, &about);
    else
        h5_dimension_texts(file, path, size, (const char *const *)text, &about);
    for (int i = 0; i < axis->size; i++) memory_free(text[i]);
    memory_free(text);
    memory_free(real);
    memory_free(integer);
}

/* A zip is counted, and its parameters are variables along it. */
static void write_zip(struct h5 *file, const struct table *table, const char *group, const struct sweep_axis *axis)
{
    char *path = memory_text("%s/zip", group);
    int64_t *number = NEW(int64_t, axis->size);
    for (int i = 0; i < axis->size; i++) number[i] = i + 1;
    h5_dimension(file, path, axis->size, number, &(struct h5_about){.units = "1", .long_name = "number in the zip"});
    memory_free(number);
    memory_free(path);
    for (int k = 0; k < axis->keys; k++) {
        path = memory_text("%s/%s", group, scale_name(table, axis->key[k]));
        write_values(file, path, "zip", axis, k);
        memory_free(path);
    }
}

static void write_axes(struct h5 *file, const struct table *table, const char *group)
{
    h5_group(file, group);
    for (int a = 0; a < table->sweep->axes->count; a++) {
        const struct sweep_axis *axis = &table->sweep->axes->axis[a];
        char *path = memory_text("%s/%s", group, axis_name(table, a));
        if (axis->keys > 1)
            write_zip(file, table, group, axis);
        else
            write_values(file, path, NULL, axis, 0);
        memory_free(path);
    }
}

/* ---------------------------------------------------------------- sweep.h5: the quantities */

/* The dimensions of all arrays. */
struct shape {
    int ndims;
    const char *dim[16];
    int64_t size[16];
};

static struct shape shape_of(const struct table *table)
{
    struct shape shape = {.ndims = table->sweep->axes->count};
    ensure(shape.ndims <= 16);
    for (int a = 0; a < shape.ndims; a++) {
        shape.dim[a] = axis_name(table, a);
        shape.size[a] = table->sweep->axes->axis[a].size;
    }
    return shape;
}

/* "0 waiting, 1 running, …" or "waiting running …" (memory_free). */
static char *state_meanings(bool numbered)
{
    char *all = memory_text("%s", "");
    for (int s = 0; s < SWEEP_STATES; s++) {
        const char *name = sweep_state_name((enum sweep_state)s);
        char *longer = numbered ? memory_text("%s%s%d %s", all, s ? ", " : "", s, name)
                                : memory_text("%s%s%s", all, s ? " " : "", name);
        memory_free(all);
        all = longer;
    }
    return all;
}

static void write_members(struct h5 *file, const struct table *table)
{
    const struct shape shape = shape_of(table);
    const int members = table->sweep->members;
    int64_t *value[4];
    double *seconds = NEW(double, members);
    for (int q = 0; q < 4; q++) value[q] = NEW(int64_t, members);
    for (int i = 0; i < members; i++) {
        const struct sweep_status *status = &table->status[i];
        value[0][i] = i + 1;
        value[1][i] = status->state;
        value[2][i] = status->step;
        value[3][i] = status->steps;
        seconds[i] = status->seconds;
    }
    char *states = state_meanings(true), *words = state_meanings(false);
    char *state = memory_text("state of the member: %s", states);
    const struct h5_about about[] = {{.units = "1", .long_name = "number of the member"},
                                     {.units = "1", .long_name = state},
                                     {.units = "steps", .long_name = "steps made"},
                                     {.units = "steps", .long_name = "steps asked for"},
                                     {.units = "s", .long_name = "wall-clock time, all sessions"}};
    write_axes(file, table, "members");
    for (int q = 0; q < MEMBER_QUANTITIES; q++) {
        char *path = memory_text("members/%s", member_quantities[q]);
        if (q < 4)
            h5_write_ints(file, path, shape.ndims, shape.dim, shape.size, value[q], &about[q]);
        else
            h5_write_reals(file, path, shape.ndims, shape.dim, shape.size, seconds, &about[q]);
        memory_free(path);
    }
    h5_attribute_text(file, "members/state", "flag_meanings", words);
    for (int q = 0; q < 4; q++) memory_free(value[q]);
    memory_free(seconds);
    memory_free(state);
    memory_free(states);
    memory_free(words);
}

/* One array of final scalars; the axes come with the first of a group. */
static void write_column(struct h5 *file, const struct table *table, int c)
{
    const struct shape shape = shape_of(table);
    const char *column = table->column[c];
    const int length = (int)strcspn(column, "/");
    char *group = memory_text("%.*s", length, column), *meaning = memory_text("%s at the end of the run", column);
    bool first = true;
    for (int other = 0; other < c; other++)
        first = first && strncmp(table->column[other], column, (size_t)length + 1) != 0;
    if (first) write_axes(file, table, group);
    double *value = NEW(double, table->sweep->members);
    for (int i = 0; i < table->sweep->members; i++) value[i] = final_of(&table->status[i], column);
    h5_write_reals(file, column, shape.ndims, shape.dim, shape.size, value, &(struct h5_about){.long_name = meaning});
    memory_free(value);
    memory_free(meaning);
    memory_free(group);
}

static void write_provenance(struct h5 *file, const struct sweep *sweep)
{
    h5_group(file, "provenance");
    for (const struct build_fact *fact = build_facts(); fact->name; fact++) {
        char *key = memory_text("%s", fact->name);
        for (char *c = key; *c; c++)
            if (*c == ' ') *c = '_';
        h5_attribute_text(file, "provenance", key, fact->value);
        memory_free(key);
    }
    h5_attribute_text(file, "provenance", "input", sweep->text);
    for (int i = 0; i < sweep->sets->count; i++) {
        char *key = memory_text("set_%d", i + 1);
        h5_attribute_text(file, "provenance", key, sweep->sets->text[i]);
        memory_free(key);
    }
}

static void write_h5(const struct table *table, struct problems *problems)
{
    char *path = memory_text("%s/sweep.h5", table->sweep->dir);
    struct h5 *file = h5_create(MPI_COMM_SELF, path, "eigentrain sweep", problems);
    if (file) {
        write_members(file, table);
        for (int c = 0; c < table->columns; c++) write_column(file, table, c);
        write_provenance(file, table->sweep);
        h5_commit(&file, problems);
    }
    memory_free(path);
}

bool sweep_tables(const struct sweep *sweep, double patience, struct problems *problems)
{
    const int before = problems->count;
    struct problems own = {0};
    char *name = memory_text("%s/.members.lock", sweep->dir);
    struct lock *lock = lock_take(name, patience, &own);
    memory_free(name);
    if (!lock) problems_add(problems, EXIT_ENVIRONMENT, "members.csv and sweep.h5 are not up to date: %s", own.text[0]);
    problems_clear(&own);
    if (!lock) return false;
    struct table table = table_read(sweep); /* under the lock: what others write later is theirs to enter */
    write_csv(&table, problems);
    write_h5(&table, problems);
    table_clear(&table);
    lock_drop(&lock);
    return problems->count == before;
}
