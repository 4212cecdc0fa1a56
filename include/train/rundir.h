/* rundir: the directory of a run: creation, status.json, provenance, the files of interface.md. */
#ifndef EIGENTRAIN_TRAIN_RUNDIR_H
#define EIGENTRAIN_TRAIN_RUNDIR_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"
#include "dist/h5.h"

#include <stdbool.h>
#include <stdint.h>

/* What describes a run; the same on every rank. */
struct rundir {
    char *path;  /* without a final slash; owned */
    char *input; /* [input_length + 1] the input file, byte for byte, and a zero; owned */
    size_t input_length;
    char *resolved;          /* owned */
    char start[32];          /* start time, ISO 8601 UTC */
    char host[256];          /* of rank 0 */
    const struct grid *grid; /* borrowed */
};

/* Collective on the grid. Creates the directory (parents too) and writes input.yaml and resolved.yaml. A directory that
 * holds something is refused (EXIT_INPUT) unless overwrite, then it is moved aside to PATH.old-N, not deleted. What the
 * system refuses is EXIT_ENVIRONMENT. NULL with problems on every rank. */
struct rundir *rundir_create(const struct grid *grid, const char *path, bool overwrite, const char *input,
                             size_t input_length, const struct spec *spec, struct problems *problems);

/* Local. Frees it and sets *rundir to NULL; the files stay. */
void rundir_destroy(struct rundir **rundir);

/* Root only. Replaces status.json atomically; a failure is only warned of. state: running, stopped, done, diverged,
 * failed. reason may be NULL. A loss that is not finite is written as null. */
void rundir_status(const struct rundir *rundir, const char *state, const char *reason, int64_t step, int64_t steps,
                   double loss);

/* Collective on the file's comm. Writes the provenance group: both input texts, build facts (blanks in their names
 * become underscores), ranks, grid, block, threads, host, job, start time. */
void rundir_provenance(const struct rundir *rundir, struct h5 *file);

/* Local. PATH/name with printf (memory_free). */
char *rundir_file(const struct rundir *rundir, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Root only. Writes a whole small file: temporary name, fsync, rename, fsync of the folder. False with a problem
 * (EXIT_ENVIRONMENT), and the old file untouched, if that fails. */
bool rundir_write(const char *path, const char *bytes, size_t length, struct problems *problems);

#endif
