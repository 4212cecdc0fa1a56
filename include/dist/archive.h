/* archive: the state of a run in one HDF5 file. The same calls save and restore, in the same order, so that what is
 * saved and what is restored cannot differ:
 *
 *     archive_enter(a, "optimizer");
 *     archive_int(a, "steps", &o->steps);
 *     archive_matrix(a, "momentum", V);
 *     archive_leave(a);
 *
 * Global arrays: any number of ranks, grid and block size can read what another wrote. All calls are collective on the
 * archive's comm and get the same scalars on every rank. A failure is remembered and reported by archive_end; calls
 * after it do nothing, so that what a failed restore leaves behind must not be used. */
#ifndef EIGENTRAIN_DIST_ARCHIVE_H
#define EIGENTRAIN_DIST_ARCHIVE_H

#include "base/error.h"
#include "dist/dmat.h"
#include "dist/h5.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

struct archive;

/* Collective on comm. Begins a file (see h5_create), or opens a complete one (see h5_open). NULL with a problem
 * (EXIT_ENVIRONMENT) on every rank. */
struct archive *archive_save(MPI_Comm comm, const char *path, const char *format, struct problems *problems);

/* Collective on comm. The same for a complete file. */
struct archive *archive_load(MPI_Comm comm, const char *path, const char *format, struct problems *problems);

/* Collective on the comm. Completes the file, or ends the reading. False with a problem on every rank if anything
 * failed; a file that was there under the name is then untouched. Sets *archive to NULL. */
bool archive_end(struct archive **archive, struct problems *problems);

/* Local. Whether values are restored rather than saved. */
bool archive_loading(const struct archive *archive);

/* Local. The file below, borrowed: for what is only for the reader's eyes (provenance). */
struct h5 *archive_file(struct archive *archive);

/* Collective on the comm. Opens a group within the current one, and goes back. Names must not hold slashes. */
void archive_enter(struct archive *archive, const char *name);

/* Local. Back to the group around the current one. */
void archive_leave(struct archive *archive);

/* Collective on the comm. A number in the current group; the root's is saved. */
void archive_int(struct archive *archive, const char *name, int64_t *value);

/* Collective on the comm. The same for a real. */
void archive_real(struct archive *archive, const char *name, double *value);

/* Collective on the comm. Whether something optional is there: saves `there` and returns it, or returns what was saved
 * (false after a failure). */
bool archive_flag(struct archive *archive, const char *name, bool there);

/* Collective on the comm. A small array that every rank holds whole; the root's is saved. */
void archive_reals(struct archive *archive, const char *name, int64_t count, double *values);

/* Collective on the comm = the matrix's grid. A distributed matrix; its shape must be the one that was saved. */
void archive_matrix(struct archive *archive, const char *name, struct dmat *A);

/* Collective on the comm. `count` distributed columns of length m (see h5_write_vectors). */
void archive_vectors(struct archive *archive, const char *name, int64_t m, int count, int mloc, const int64_t *global,
                     double *vectors);

#endif
