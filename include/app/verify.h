/* verify: whether what is on the disk is whole: each HDF5 file by itself (verify_file.c), the files of a run beside one
 * another (verify_run.c), and the command with its report (verify.c). */
#ifndef EIGENTRAIN_APP_VERIFY_H
#define EIGENTRAIN_APP_VERIFY_H

#include "base/error.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

/* The report; the root prints and counts. */
struct verify {
    MPI_Comm comm;
    bool root;
    int files, broken;
};

/* Local (the root acts). A line for a file, or for several that do not go together. printf style. */
void verify_say(const struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local (the root acts). The same for a file that counts as broken. It must have been counted as a file. */
void verify_say_broken(struct verify *verify, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- one HDF5 file (verify_file.c) */

enum verify_kind { VERIFY_METRICS, VERIFY_PART, VERIFY_SNAPSHOT, VERIFY_CHECKPOINT, VERIFY_SWEEP, VERIFY_KINDS };

/* What a file tells of itself. Path, kind and number are given, the rest is found out. */
struct verify_file {
    char *path; /* owned */
    enum verify_kind kind;
    int64_t number;                 /* in its name: the part, or the step of a snapshot or checkpoint; else −1 */
    bool broken;                    /* reported; the rest says nothing */
    int64_t first, last;            /* metrics: steps of the first and the last row of `train`; −1: none */
    double loss;                    /* metrics: in the last row */
    char *start, *input, *resolved; /* provenance: when its process began, both input texts; owned, or NULL */
};

/* Collective on the comm. Reads the file, reports if it is broken, and fills the facts, the same on every rank. A file
 * that has vanished in the meantime, in a run that goes on, counts for nothing. */
void verify_file(struct verify *verify, struct verify_file *file);

/* Local. Frees what the facts own. */
void verify_file_clear(struct verify_file *file);

/* ---- the files of a run (verify_run.c) */

/* Collective on the comm. All files of the run in DIR, and whether they go together. */
void verify_run(struct verify *verify, const char *dir);

#endif
