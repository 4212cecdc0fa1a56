/* rundir: the directory of a run: creation, status.json, provenance, the files of interface.md. */
#ifndef EIGENTRAIN_TRAIN_RUNDIR_H
#define EIGENTRAIN_TRAIN_RUNDIR_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"
#include "dist/h5.h"
#include "probes/record.h"
#include "train/lock.h"

#include <stdbool.h>
#include <stdint.h>

/* What describes a run; the same on every rank but for the lock. */
struct rundir {
    char *path;  /* without a final slash; owned */
    char *input; /* [input_length + 1] the input file, byte for byte, and a zero; owned */
    size_t input_length;
    char *resolved;          /* owned */
    char start[32];          /* start time of this process, ISO 8601 UTC */
    char host[256];          /* of rank 0 */
    const struct grid *grid; /* borrowed */
    struct lock *lock;       /* of the directory, on the root; owned */
    bool resumed;            /* the directory holds an earlier part of this run */
    char *state;        /* how that ended, from its status.json ("done", "running" if it was killed); owned, or NULL */
    char *reason;       /* the reason given there; owned, or NULL */
    int64_t state_step; /* the step it had reached; −1: not known */
};

/* The name of its lock. */
#define RUNDIR_LOCK ".lock"

/* What to do about a directory that holds something. */
enum rundir_mode {
    RUNDIR_NEW,       /* refuse (EXIT_INPUT) */
    RUNDIR_OVERWRITE, /* move it aside to PATH.old-N, not deleted */
    RUNDIR_RESUME,    /* go on with the run in it, if its physics is that of the spec (else EXIT_INPUT); start if it is
                         empty */
};

/* Collective on the grid. Creates or takes the directory (parents too), locks it, and writes input.yaml and
 * resolved.yaml. A directory in which another process works is refused (EXIT_ENVIRONMENT), so is what the system
 * refuses. Says what differs of the control parameters at a resume. NULL with problems on every rank. */
struct rundir *rundir_create(const struct grid *grid, const char *path, enum rundir_mode mode, const char *input,
                             size_t input_length, const struct spec *spec, struct problems *problems);

/* Collective on the grid. The run begins or goes on: writes input.yaml and resolved.yaml. False with a problem
 * (EXIT_ENVIRONMENT) on every rank if that fails. */
bool rundir_begin(const struct rundir *rundir, struct problems *problems);

/* Local. Unlocks the directory, frees the struct and sets *rundir to NULL; the files stay. */
void rundir_destroy(struct rundir **rundir);

/* What status.json says. */
struct rundir_status {
    const char *state;  /* running, stopped, done, diverged, failed */
    const char *reason; /* or NULL */
    int64_t step, steps;
    int64_t checkpoint;         /* step of the last one; negative: none */
    double loss;                /* null if it is not finite */
    double seconds;             /* spent in all parts of the run */
    double seconds_left;        /* NaN: not known */
    const struct record *final; /* the record whose last scalars are listed, or NULL */
};

/* Root only. Replaces status.json atomically; a failure is only warned of. */
void rundir_write_status(const struct rundir *rundir, const struct rundir_status *status);

/* Collective on the file's comm. Writes the provenance group: both input texts, build facts, ranks, grid, block,
 * threads, routes of products, host, job, start time. */
void rundir_provenance(const struct rundir *rundir, struct h5 *file);

/* Local. The attribute in the provenance group that holds a build fact (memory_free). */
char *rundir_fact_key(const char *name);

/* Local. PATH/name with printf (memory_free). */
char *rundir_file(const struct rundir *rundir, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local. The bytes of the small file FOLDER/name and a zero behind them (memory_free), or NULL with errno set. */
char *rundir_read(const char *folder, const char *name, size_t *length);

/* Root only. Writes a whole small file: temporary name, fsync, rename, fsync of the folder. False with a problem
 * (EXIT_ENVIRONMENT), and the old file untouched, if that fails. */
bool rundir_write(const char *path, const char *bytes, size_t length, struct problems *problems);

#endif
