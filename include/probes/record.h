/* record: the series of a run, kept on the root until they are written to metrics.h5 (netCDF-4 rules).
 *
 * A group has one coordinate along which rows are added (`step`) and quantities of a fixed shape a row. Scalars and
 * small arrays only: matrices go to snapshots. */
#ifndef EIGENTRAIN_PROBES_RECORD_H
#define EIGENTRAIN_PROBES_RECORD_H

#include "base/error.h"
#include "dist/archive.h"
#include "dist/h5.h"

#include <stdbool.h>
#include <stdint.h>

struct record;
struct record_group;

/* A quantity of a group. */
struct quantity {
    const char *name;
    const char *units;                           /* "1" for pure numbers */
    const char *long_name, *formula, *reference; /* what a reader needs to trust it; all but long_name may be NULL */
    const char *dims[3]; /* names of the dimensions after the row coordinate, "layer", "index"; NULL-terminated early */
    bool integer;        /* stored as 64-bit integers (counts, flags); else doubles, NaN = missing */
};

/* Local. An empty record; only the process with root = true keeps values, on others all calls that put or write them do
 * nothing. record_destroy sets *record to NULL. */
struct record *record_create(bool root);

/* Local. Frees it and sets *record to NULL. */
void record_destroy(struct record **record);

/* Local. A group `name` whose rows lie along the coordinate `axis` ("step"), with a variable `time` beside it. A second
 * axis of the same group ("evaluated_step") is a record_group of its own, with `evaluated_time`. All texts are copied.
 */
struct record_group *record_group(struct record *record, const char *name, const char *axis, const char *about);

/* Local. A text attribute of the group, beside its values. */
void record_group_text(struct record_group *group, const char *name, const char *value);

/* Local. A dimension of the group with the coordinate values 1…size, e.g. "layer" 1…L, "index" 1…k. */
void record_dimension(struct record_group *group, const char *name, int64_t size, const char *long_name);

/* Local. Declares a quantity; its dims must be declared before. All declarations come before the first row (a bug
 * otherwise). Returns its number, counted from 0 in the order of declaration. */
int record_quantity(struct record_group *group, const struct quantity *quantity);

/* Local. The same for a pure number, along up to two dimensions (NULL: fewer). */
int record_number(struct record_group *group, const char *name, const char *first, const char *second,
                  const char *long_name, const char *formula, const char *reference);

/* Local. Bytes of a row of the group, in memory and in a file. */
int64_t record_row_bytes(const struct record_group *group);

/* Local. Begins the row of `step`; quantities not put stay NaN (doubles) or 0 (integers). Steps must increase. */
void record_row(struct record_group *group, int64_t step, double time);

/* Local. All values of a quantity in the current row. The first two are for doubles,
 * the last is for integers (a bug otherwise). */
void record_put(struct record_group *group, int quantity, const double *values);

/* Local. One value at a flat index of the current row. */
void record_put_at(struct record_group *group, int quantity, int64_t index, double value);

/* Local. The same for an integer quantity. */
void record_put_int_at(struct record_group *group, int quantity, int64_t index, int64_t value);

/* Root only. The value of a quantity in the latest row, by names, at a flat index, for the summary at the end; NaN if
 * there is no such value. */
double record_last(const struct record *record, const char *group, const char *quantity, int64_t index);

/* Local. One theory check: `passed` compares measured with bound. Goes to the `checks` group and the closing table. */
void record_check(struct record *record, const char *name, const char *reference, double measured, double bound,
                  bool passed);

/* Local (the root speaks). A table of the checks, if there are any. */
void record_say_checks(const struct record *record);

/* Root only. Writes all groups that have rows, and the checks if there are any, into an open serial file. */
void record_write(const struct record *record, struct h5 *file);

/* ---- parts: what has been written with checkpoints while the run goes on */

/* Root only. Whether there are rows of `step` or later. */
bool record_has_from(const struct record *record, int64_t step);

/* Root only. Writes the rows of `step` and later into an open serial file. */
void record_write_from(const struct record *record, struct h5 *file, int64_t step);

/* Root only. Appends the rows with a step below `before` from a part or a metrics.h5, opened by the root alone. Rows
 * that are there already are passed over. A quantity of another shape is a failure of the file (see h5_done). */
void record_read(struct record *record, struct h5 *file, int64_t before);

/* Local. Forgets all rows. */
void record_clear(struct record *record);

/* Collective on the archive's comm. Saves how many rows each group has, or restores how many it should have. */
void record_archive(struct record *record, struct archive *archive);

/* Root only. Whether every group has as many rows as the archive said. */
bool record_complete(const struct record *record);

/* Root only. Calls each("group/quantity", value) for the latest value of every quantity that is one number a row. */
void record_scalars(const struct record *record, void (*each)(const char *name, double value, void *context),
                    void *context);

#endif
