/* parts: DIR/metrics/part-NNNN.h5, the series of a run as far as it has got. One is written with each checkpoint; as
 * many of the last ones are written again with it as it takes to have few files: each is longer than the next. Parts
 * may overlap; together they hold every row. */
#ifndef EIGENTRAIN_TRAIN_PARTS_H
#define EIGENTRAIN_TRAIN_PARTS_H

#include "base/error.h"
#include "probes/record.h"
#include "train/rundir.h"

#include <stdint.h>

/* The files that are there; the root's. */
struct parts {
    struct part {
        int64_t number;   /* of the file */
        int64_t from, to; /* it holds the rows of the steps from ≤ step < to */
    } * part;             /* [count] that hold everything, by number; owned */
    int count;
    struct part *retired; /* [nretired] that were written again, but are what the checkpoint before needs; owned */
    int nretired;
    struct part fresh; /* written, and waiting for its checkpoint; number 0: none */
};

/* Root only. Writes what the checkpoint of `step` needs that is in no part yet. False with a problem if that fails. */
bool parts_write(struct parts *parts, const struct rundir *rundir, const struct record *record, int64_t step,
                 struct problems *problems);

/* Root only. The checkpoint for which parts_write was called is complete (removes the parts that were written again),
 * or has failed (removes the new part). */
void parts_settle(struct parts *parts, const struct rundir *rundir, bool complete);

/* Root only. Reads all rows before `step` into the record, emptied first, from the parts or, where these are gone or
 * not whole, from metrics.h5. A problem if rows are missing (record_complete). Parts that go beyond `step` are replaced
 * by one that does not: what they hold is of a future that this run has left. */
void parts_read(struct parts *parts, const struct rundir *rundir, struct record *record, int64_t step,
                struct problems *problems);

/* Root only. Removes all files (metrics.h5 holds everything) and frees the list. */
void parts_remove(struct parts *parts, const struct rundir *rundir);

/* Local. Frees the list; the files stay. */
void parts_clear(struct parts *parts);

#endif
