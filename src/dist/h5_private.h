/* h5_private: what h5.c (files, attributes, small arrays) and h5_matrix.c (distributed arrays, reading) share. */
#ifndef EIGENTRAIN_DIST_H5_PRIVATE_H
#define EIGENTRAIN_DIST_H5_PRIVATE_H

#include "dist/h5.h"

#include <hdf5.h>

enum { H5_DIMS = 8 };

struct h5 {
    MPI_Comm comm; /* borrowed */
    int rank, size;
    char *path, *partial; /* final and temporary name; owned */
    hid_t id;             /* negative while the file is not open */
    hid_t transfer;       /* transfer properties: collective if there is more than one rank */
    char *error;          /* the first thing that failed on this rank, owned; or NULL */
    bool broken;          /* something failed on some rank; the same on every rank */
};

/* Local. A file object that is not open yet, and its end (closes the file, removes nothing). */
struct h5 *h5_new(MPI_Comm comm, const char *path);
void h5_free(struct h5 **file);

/* Local. File access properties for the ranks of the file; close them with h5_close. */
hid_t h5_access(struct h5 *file);

/* Local. Returns ok. If not ok, remembers "cannot DOING WHAT: HDF5's reason" as this rank's error. To be called right
 * after the call in question: the next HDF5 call forgets the reason. */
bool h5_check(struct h5 *file, bool ok, const char *doing, const char *what);

/* Local. Closes any HDF5 object; a negative id is passed over. */
void h5_close(struct h5 *file, hid_t id);

/* Local. HDF5's innermost description of what went wrong last, on one line; static storage. */
const char *h5_reason(void);

/* Collective on the file's comm. True if nothing has failed on any rank; otherwise the file is broken on all. Every
 * public call ends with it, so that all ranks skip the same calls afterwards. */
bool h5_agreed(struct h5 *file);

/* Collective on the file's comm. Adds the error of the lowest rank that has one to the problems of all ranks. */
void h5_report(struct h5 *file, int code, struct problems *problems);

/* Collective on the file's comm. Creates a contiguous dataset with its parents, dimension scales and attributes. The
 * caller closes it. Negative if the file is broken. */
hid_t h5_new_array(struct h5 *file, const char *path, hid_t type, int ndims, const char *const *dims,
                   const int64_t *sizes, const struct h5_about *about);

/* Collective on the file's comm. Moves `count` rows (indices of the first dimension) beginning with `first` between
 * memory and a dataset. Row ranges of the ranks don't overlap; a count may be 0, `rows` then NULL. One contiguous
 * hyperslab of at most 1 GiB a call, the same number of calls on every rank. */
void h5_write_rows(struct h5 *file, hid_t dataset, const char *path, hid_t type, int64_t first, int64_t count,
                   const void *rows);
void h5_read_rows(struct h5 *file, hid_t dataset, const char *path, hid_t type, int64_t first, int64_t count,
                  void *rows);

#endif
