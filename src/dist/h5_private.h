/* h5_private: what h5.c (files, attributes, small arrays) and h5_matrix.c (distributed arrays, reading) share. */
#ifndef EIGENTRAIN_DIST_H5_PRIVATE_H
#define EIGENTRAIN_DIST_H5_PRIVATE_H

#include "dist/h5.h"

#include <hdf5.h>

enum { H5_DIMS = 8 };

/* A distributed array that has been written, and the checksum of what memory held. */
struct h5_sum {
    char *path; /* of the dataset, owned */
    uint64_t sum;
};

struct h5 {
    MPI_Comm comm; /* borrowed */
    int rank, size;
    char *path, *partial; /* final and temporary name; owned */
    hid_t id;             /* rank 0's serial handle (h5_read_matrix: everybody's); negative where there is none */
    hid_t all;            /* reading: the handle of all ranks, opened for the first matrix; else negative */
    hid_t anchor;         /* writing, rank 0: an unnamed dataset that keeps the file open; else negative */
    char *error;          /* the first thing that failed on this rank, owned; or NULL */
    bool broken;          /* something failed on some rank; the same on every rank */
    struct h5_sum *sums;  /* [nsums] writing: of distributed arrays, the same on every rank; owned */
    int nsums;
};

/* Local. A file object that is not open yet, and its end (closes the file, removes nothing). */
struct h5 *h5_new(MPI_Comm comm, const char *path);
void h5_free(struct h5 **file);

/* Local, collective on the file's comm with `together`. File access properties of one rank, or of all through MPI-IO;
 * close them with h5_close. */
hid_t h5_access(struct h5 *file, bool together);

/* Local. Whether this is rank 0 and nothing has failed: the one that writes everything but matrices. */
bool h5_acting(const struct h5 *file);

/* Local. Returns ok. If not ok, remembers "cannot DOING WHAT: HDF5's reason" as this rank's error. To be called right
 * after the call in question: the next HDF5 call forgets the reason. */
bool h5_check(struct h5 *file, bool ok, const char *doing, const char *what);

/* Local. Closes any HDF5 object; a negative id is passed over. */
void h5_close(struct h5 *file, hid_t id);

/* Local. HDF5's innermost description of what went wrong last, on one line; static storage. */
const char *h5_reason(void);

/* Collective on the file's comm. True if nothing has failed on any rank; otherwise the file is broken on all. */
bool h5_agreed(struct h5 *file);

/* Collective on the file's comm. Adds the error of the lowest rank that has one to the problems of all ranks. */
void h5_report(struct h5 *file, int code, struct problems *problems);

/* Local (rank 0 acts). Creates a contiguous dataset, its space allocated, with its parents, dimension scales and
 * attributes. The caller closes it. Negative on other ranks, or after an error. */
hid_t h5_new_array(struct h5 *file, const char *path, hid_t type, int ndims, const char *const *dims,
                   const int64_t *sizes, const struct h5_about *about);

/* This rank's part of a transfer between memory and a dataset. */
struct h5_rows {
    hid_t dataset, type, transfer; /* borrowed; type of an element in memory; transfer properties */
    MPI_Comm comm;                 /* of the ranks that take part */
    const char *path;              /* of the dataset, for messages; borrowed */
    int64_t first, count; /* indices of the first dimension; those of the ranks don't overlap; count may be 0 */
};

/* Collective on rows->comm. One contiguous hyperslab of at most 1 GiB a call, the same number of calls on every rank.
 * `values` is not NULL, with nothing to move neither. */
void h5_write_rows(struct h5 *file, const struct h5_rows *rows, const void *values);
void h5_read_rows(struct h5 *file, const struct h5_rows *rows, void *values);

/* Local. Of the first dimension of a dataset with `rows` rows in all, the part of rank `rank` of `size`: contiguous
 * slabs, those of dmat_slab_rows. */
void h5_share(int size, int rank, int64_t rows, int64_t *first, int64_t *count);

/* Local. This rank's part of a checksum that does not depend on the distribution: Σ hash(index, bits) modulo 2⁶⁴ over
 * `count` numbers whose row-major indices begin at `first`. */
uint64_t h5_checksum(int64_t first, int64_t count, const double *values);

/* Collective on the file's comm. The sum of the parts of all ranks. */
uint64_t h5_total(const struct h5 *file, uint64_t part);

/* Collective on the file's comm. Remembers the checksum of a distributed array that was just written, and writes it
 * beside the array as an attribute. */
void h5_remember(struct h5 *file, const char *path, uint64_t sum);

/* Collective on the file's comm. Closed file, before it gets its name: reads all remembered arrays back and compares.
 */
void h5_read_back(struct h5 *file);

/* Collective on the file's comm. Appends the seal to the closed temporary file. */
void h5_seal(struct h5 *file);

/* Local. h5_write_rows for one rank alone; does nothing after an error. */
void h5_write_alone(struct h5 *file, hid_t dataset, const char *path, hid_t type, int64_t first, int64_t count,
                    const void *values);

#endif
