/* h5: HDF5 files, serial ones written by one rank and parallel ones written by all. netCDF-4 rules (dimension scales),
 * so that xarray, h5py, ncdump and HDFView open them. A file gets its final name only when it is complete: it is
 * written under a temporary name, flushed, closed, fsynced and renamed, and its folder is fsynced.
 *
 * Whatever fails between h5_create and h5_commit is remembered, agreed on by all ranks and reported by h5_commit; calls
 * after a failure do nothing. So a writer is a plain sequence of calls with one place where it looks for trouble.
 *
 * Every rank makes every call, but what matters in all but h5_write_matrix and h5_write_vectors are rank 0's arguments:
 * it writes groups, attributes and small arrays, and all ranks together write matrices. */
#ifndef EIGENTRAIN_DIST_H5_H
#define EIGENTRAIN_DIST_H5_H

#include "base/error.h"
#include "dist/dmat.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

struct h5; /* an open file */

/* Collective on comm (MPI_COMM_SELF: a serial file of one rank), which must outlive the file. Creates `path` under the
 * temporary name .NAME.partial in the same folder, over what a killed run may have left there. NULL with a problem on
 * every rank of comm if that fails. `format` becomes the root attribute "format" ("eigentrain metrics"),
 * format_version = 1. */
struct h5 *h5_create(MPI_Comm comm, const char *path, const char *format, struct problems *problems);

/* Collective on the file's comm. Flush, close, read every distributed array back and compare its checksum with the one
 * taken from memory, seal, fsync, rename to the final name, fsync the folder. If anything failed since h5_create, on
 * any rank, the temporary file is removed, the final name is untouched, a problem is added and false returned. Sets
 * *file to NULL. */
bool h5_commit(struct h5 **file, struct problems *problems);

/* Collective on the file's comm. Gives the file up: removes the temporary file. */
void h5_abandon(struct h5 **file);

/* Collective on the file's comm. Creates a group, its parents too; one that exists is left as it is. */
void h5_group(struct h5 *file, const char *group);

/* Collective on the file's comm. Attribute of a group or dataset ("" is the root). Rank 0's value is taken: hosts
 * differ in what they know of themselves. Texts are UTF-8 of any length. */
void h5_attribute_text(struct h5 *file, const char *object, const char *name, const char *value);

/* Collective on the file's comm. A real attribute. */
void h5_attribute_real(struct h5 *file, const char *object, const char *name, double value);

/* Collective on the file's comm. An integer attribute. */
void h5_attribute_int(struct h5 *file, const char *object, const char *name, int64_t value);

/* What a dataset says of itself, beside its values. NULL fields are left out. */
struct h5_about {
    const char *units, *long_name, *formula, *reference;
};

/* Collective on the file's comm. A dimension scale, "group/name", of `size`
 * coordinate values, or without any (values NULL). */
void h5_dimension(struct h5 *file, const char *path, int64_t size, const int64_t *values, const struct h5_about *about);

/* Collective on the file's comm. The same with real coordinates, or with texts. */
void h5_dimension_reals(struct h5 *file, const char *path, int64_t size, const double *values,
                        const struct h5_about *about);

/* Collective on the file's comm. The same with texts. */
void h5_dimension_texts(struct h5 *file, const char *path, int64_t size, const char *const *values,
                        const struct h5_about *about);

/* Collective on the file's comm. A small array that rank 0 holds. `path` is "group/name"; `dims` are names of dimension
 * scales of these sizes in the same group, created by h5_dimension before; NULL (for all or for one) makes a dimension
 * of its own, "name_dim0". ndims = 0 is a scalar. At most 8 dimensions. */
void h5_write_reals(struct h5 *file, const char *path, int ndims, const char *const *dims, const int64_t *sizes,
                    const double *values, const struct h5_about *about);
void h5_write_ints(struct h5 *file, const char *path, int ndims, const char *const *dims, const int64_t *sizes,
                   const int64_t *values, const struct h5_about *about);
void h5_write_texts(struct h5 *file, const char *path, const char *dim, int64_t size, const char *const *values,
                    const struct h5_about *about);

/* Collective on the file's comm = the matrix's grid. Writes A as the dataset `path` (m × n, row-major as C readers
 * expect), each rank one contiguous row slab, at most 1 GiB a call. Dimension names as above. */
void h5_write_matrix(struct h5 *file, const char *path, const char *row_dim, const char *col_dim, const struct dmat *A,
                     const struct h5_about *about);

/* Collective on the file's comm. Writes `count` distributed columns of length m as a dataset m × count. `vectors` is
 * [mloc × count], column-major; global[il] is the global index of local row il; every index belongs to one rank.
 * Vectors are small beside matrices: they are gathered on rank 0 in pieces of 64 MiB. */
void h5_write_vectors(struct h5 *file, const char *path, const char *row_dim, const char *col_dim, int64_t m, int count,
                      int mloc, const int64_t *global, const double *vectors, const struct h5_about *about);

/* ---- reading what this program wrote */

/* Collective on comm. Whether the file is exactly what was written: its seal, a last line behind the HDF5 data with
 * length and checksum of all bytes before it (HDF5 ignores what is behind its data). Each rank reads its share of the
 * file. False with a problem (missing, cut off, no seal, bytes have changed: EXIT_ENVIRONMENT) on every rank. */
bool h5_sealed(MPI_Comm comm, const char *path, struct problems *problems);

/* Collective on comm. Opens a sealed file of that format for reading, its seal checked; a file of another format, or
 * one without or with a broken seal is a problem (EXIT_ENVIRONMENT), NULL, on every rank. As in writing, what goes
 * wrong later is remembered and reported at the end, by h5_done; readers called after a failure change nothing. */
struct h5 *h5_open(MPI_Comm comm, const char *path, const char *format, struct problems *problems);

/* Collective on the file's comm. Ends the reading and sets *file to NULL. False with a problem on every rank if
 * anything failed since h5_open. */
bool h5_done(struct h5 **file, struct problems *problems);

/* Collective on the file's comm. Whether there is a group, dataset or (with attribute not NULL) an attribute of it. */
bool h5_exists(struct h5 *file, const char *object, const char *attribute);

/* Collective on the file's comm. The names of the groups at the root, alphabetically: [*count] owned texts in an owned
 * array on every rank; none after a failure. */
char **h5_groups(struct h5 *file, int *count);

/* Collective on the file's comm. An attribute's value on every rank; a text is owned by the caller (memory_free), NULL
 * after a failure. Numbers are untouched after a failure. */
int64_t h5_get_int(struct h5 *file, const char *object, const char *name);

/* Collective on the file's comm. The same for a real. */
double h5_get_real(struct h5 *file, const char *object, const char *name);

/* Collective on the file's comm. The same for a text. */
char *h5_get_text(struct h5 *file, const char *object, const char *name);

/* Collective on the file's comm. Elements along the first dimension of a dataset (1 for a scalar), 0 after a failure.
 */
int64_t h5_rows(struct h5 *file, const char *path);

/* Collective on the file's comm. Reads rows first … first + rows − 1 of a small array, `width` values a row (a failure
 * if its shape is another), to every rank. */
void h5_read_reals(struct h5 *file, const char *path, int64_t first, int64_t rows, int64_t width, double *values);

/* Collective on the file's comm. The same for integers. */
void h5_read_ints(struct h5 *file, const char *path, int64_t first, int64_t rows, int64_t width, int64_t *values);

/* Collective on the file's comm = the matrix's grid. A ← the dataset, whatever grid wrote it; a checksum that does not
 * match is a failure, and A is then undefined. */
void h5_load_matrix(struct h5 *file, const char *path, struct dmat *A);

/* Collective on the file's comm. The counterpart of h5_write_vectors, for any distribution. */
void h5_load_vectors(struct h5 *file, const char *path, int64_t m, int count, int mloc, const int64_t *global,
                     double *vectors);

/* ---- reading what the user brings */

/* Collective on grid->comm. Reads the dataset `name` of file `path` as a matrix distributed over the grid, as doubles
 * whatever the stored number type; one dimension of n values is read as 1 × n. NULL with a problem (no such file, no
 * such dataset, not one- or two-dimensional, not numbers, not finite: EXIT_INPUT) on every rank. */
struct dmat *h5_read_matrix(const struct grid *grid, const char *path, const char *name, struct problems *problems);

/* Collective on comm. The shape of that matrix, from the head of the file: shape[0] rows, shape[1] columns. False with
 * problems (EXIT_INPUT) on every rank; values are not read. */
bool h5_shape(MPI_Comm comm, const char *path, const char *name, int64_t shape[2], struct problems *problems);

/* Collective on comm. Whether the file holds a dataset of that name (false also when there is no such file). */
bool h5_has(MPI_Comm comm, const char *path, const char *name);

/* Local. Gives a complete file, of any kind, its final name so that a power cut finds the old one or the new one:
 * fsync, rename, fsync of the folder. False with errno set if that fails. */
bool h5_publish(const char *temporary, const char *path);

/* Local. `path` with a dot before its last name and ".partial" behind it: the temporary name (memory_free). */
char *h5_partial(const char *path);

/* Local. Version of the library, for build facts. */
const char *h5_version(void);

#endif
