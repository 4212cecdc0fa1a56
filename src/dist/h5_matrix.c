/* h5_matrix: distributed matrices and vectors to HDF5 and back. */
#include "h5_private.h"

#include "base/memory.h"
#include "base/spec.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int64_t GATHER = (int64_t)1 << 23; /* elements that rank 0 gathers at a time: 64 MiB */
static const int64_t SMALL = (int64_t)1 << 17;  /* elements of a matrix that rank 0 writes alone: 1 MiB */

/* ---------------------------------------------------------------- writing */

/* Takes the space on the disk that the file has claimed (rank 0). A disk that fills up in the middle of a collective
 * write may fail on one rank only, which HDF5 and ROMIO answer with a deadlock [run]; here it is an ordinary error.
 * False where the file system cannot do it. */
static bool reserve(struct h5 *file)
{
    hsize_t bytes = 0;
    if (!h5_check(file, H5Fflush(file->id, H5F_SCOPE_LOCAL) >= 0, "write", "the file") ||
        !h5_check(file, H5Fget_filesize(file->id, &bytes) >= 0, "measure", "the file"))
        return false;
    int fd = open(file->partial, O_WRONLY | O_CLOEXEC);
    int error = fd >= 0 && fallocate(fd, 0, 0, (off_t)bytes) == 0 ? 0 : errno;
    if (fd >= 0) close(fd);
    if (error && error != EOPNOTSUPP && error != ENOSYS)
        file->error = memory_text("cannot write %.4g MiB: %s", (double)bytes / 1048576, strerror(error));
    return error == 0;
}

/* Collective where the space is known to be there; else every rank for itself, where one may fail without the others.
 */
static hid_t transfer_list(struct h5 *file, bool collective)
{
    hid_t list = H5Pcreate(H5P_DATASET_XFER);
    H5FD_mpio_xfer_t mode = collective ? H5FD_MPIO_COLLECTIVE : H5FD_MPIO_INDEPENDENT;
    h5_check(file, list >= 0 && H5Pset_dxpl_mpio(list, mode) >= 0, "prepare", "transfers");
    return list;
}

/* Every rank its row slab, into the dataset `path` of the file opened by all as `id`. */
static void write_slabs(struct h5 *file, hid_t id, const char *path, bool collective, int64_t m, const double *slab)
{
    hid_t dataset = H5Dopen2(id, path, H5P_DEFAULT), transfer = transfer_list(file, collective);
    h5_check(file, dataset >= 0, "open dataset", path);
    if (h5_agreed(file)) {
        struct h5_rows rows = {dataset, H5T_NATIVE_DOUBLE, transfer, file->comm, path, 0, 0};
        h5_share(file->size, file->rank, m, &rows.first, &rows.count);
        h5_write_rows(file, &rows, slab);
    }
    h5_close(file, transfer);
    h5_close(file, dataset);
}

/* All ranks open the file beside rank 0's serial handle. They change values only, no metadata, so that neither handle
 * holds anything that the other one makes stale, and closing writes nothing. */
static void write_together(struct h5 *file, const char *path, int64_t m, const double *slab)
{
    int reserved = h5_acting(file) && reserve(file);
    if (!h5_agreed(file)) return;
    MPI_Bcast(&reserved, 1, MPI_INT, 0, file->comm);
    hid_t access_list = h5_access(file, true);
    hid_t id = H5Fopen(file->partial, H5F_ACC_RDWR, access_list);
    h5_check(file, id >= 0, "open", "the file on all ranks");
    h5_close(file, access_list);
    if (h5_agreed(file)) write_slabs(file, id, path, reserved, m, slab); /* h5_seal brings it to the disk */
    h5_close(file, id);
    h5_agreed(file);
}

/* A small matrix is written by rank 0 alone: opening a file on all ranks takes longer than that. */
static void write_gathered(struct h5 *file, hid_t dataset, const char *path, const struct dmat *A, const double *slab)
{
    int *counts = NEW(int, file->size), *starts = NEW(int, file->size);
    double *whole = file->rank == 0 ? NEW(double, A->m * A->n) : NULL;
    for (int r = 0; r < file->size; r++) {
        int64_t first, count;
        h5_share(file->size, r, A->m, &first, &count);
        counts[r] = to_int(count * A->n);
        starts[r] = to_int(first * A->n);
    }
    MPI_Gatherv(slab, counts[file->rank], MPI_DOUBLE, whole, counts, starts, MPI_DOUBLE, 0, file->comm);
    if (file->rank == 0) h5_write_alone(file, dataset, path, H5T_NATIVE_DOUBLE, 0, A->m, whole);
    memory_free(whole);
    memory_free(starts);
    memory_free(counts);
}

void h5_write_matrix(struct h5 *file, const char *path, const char *row_dim, const char *col_dim, const struct dmat *A,
                     const struct h5_about *about)
{
    const char *dims[] = {row_dim, col_dim};
    const int64_t sizes[] = {A->m, A->n};
    if (file->broken) return;
    hid_t dataset = h5_new_array(file, path, H5T_IEEE_F64LE, 2, dims, sizes, about);
    int64_t first, count;
    dmat_slab_rows(A, &first, &count);
    double *slab = NEW(double, count * A->n);
    dmat_to_slab(A, slab);
    h5_remember(file, path, h5_total(file, h5_checksum(first * A->n, count * A->n, slab)));
    const bool small = A->m * A->n <= SMALL;
    if (file->size == 1) h5_write_alone(file, dataset, path, H5T_NATIVE_DOUBLE, 0, A->m, slab);
    if (file->size > 1 && small) write_gathered(file, dataset, path, A, slab);
    h5_close(file, dataset);
    if (file->size > 1 && !small) write_together(file, path, A->m, slab);
    memory_free(slab);
}

/* Rows first…first+rows−1 of the distributed vectors, row-major, into `piece` on rank 0. Every element has one owner
 * and is zero bits elsewhere, so that a bitwise or is an exact sum (−0 and NaN survive). */
static void gather_rows(const struct h5 *file, int64_t first, int64_t rows, int count, int mloc, const int64_t *global,
                        const double *vectors, double *piece)
{
    memset(piece, 0, (size_t)(rows * count) * sizeof *piece);
    for (int il = 0; il < mloc; il++) {
        int64_t row = global[il] - first;
        if (row < 0 || row >= rows) continue;
        for (int c = 0; c < count; c++) piece[row * count + c] = vectors[il + (int64_t)c * mloc];
    }
    const void *send = file->rank == 0 ? MPI_IN_PLACE : piece;
    MPI_Reduce(send, piece, to_int(rows * count), MPI_UINT64_T, MPI_BOR, 0, file->comm);
}

void h5_write_vectors(struct h5 *file, const char *path, const char *row_dim, const char *col_dim, int64_t m, int count,
                      int mloc, const int64_t *global, const double *vectors, const struct h5_about *about)
{
    const char *dims[] = {row_dim, col_dim};
    const int64_t sizes[] = {m, count};
    if (file->broken) return;
    hid_t dataset = h5_new_array(file, path, H5T_IEEE_F64LE, 2, dims, sizes, about);
    int64_t most = count < GATHER ? GATHER / (count ? count : 1) : 1;
    if (most > m) most = m;
    double *piece = NEW(double, most *count);
    uint64_t sum = 0;
    for (int64_t first = 0; first < m; first += most) {
        int64_t rows = m - first < most ? m - first : most;
        gather_rows(file, first, rows, count, mloc, global, vectors, piece);
        if (file->rank == 0) sum += h5_checksum(first * count, rows * count, piece);
        if (file->rank == 0) h5_write_alone(file, dataset, path, H5T_NATIVE_DOUBLE, first, rows, piece);
    }
    memory_free(piece);
    h5_remember(file, path, h5_total(file, sum));
    h5_close(file, dataset);
}

/* ---------------------------------------------------------------- looking into a file (one rank) */

/* Names of the datasets in a file, for messages. */
struct names {
    char **name; /* [count], owned */
    int count;
};

static herr_t collect_dataset(hid_t group, const char *name, const H5L_info_t *info, void *context)
{
    struct names *names = context;
    hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    if (object < 0) return 0; /* a dangling link */
    if (H5Iget_type(object) == H5I_DATASET) {
        names->name = memory_grow(names->name, (size_t)names->count, (size_t)names->count + 1, sizeof *names->name);
        names->name[names->count++] = memory_text("%s", name);
    }
    H5Idec_ref(object);
    return 0;
}

static void report_missing(hid_t file, const char *path, const char *name, struct problems *problems)
{
    struct names names = {0};
    H5Lvisit(file, H5_INDEX_NAME, H5_ITER_INC, collect_dataset, &names);
    char list[400] = "no datasets at all";
    size_t length = 0;
    for (int i = 0; i < names.count && length < sizeof list; i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%s", i ? ", " : "", names.name[i]);
    if (length >= sizeof list) strcpy(list + sizeof list - strlen("…") - 1, "…");
    const char *near = spec_nearest(name, (const char *const *)names.name, names.count);
    if (near)
        problems_add(problems, EXIT_INPUT, "%s: no dataset %s (did you mean %s?); the file holds %s", path, name, near,
                     list);
    else
        problems_add(problems, EXIT_INPUT, "%s: no dataset %s; the file holds %s", path, name, list);
    for (int i = 0; i < names.count; i++) memory_free(names.name[i]);
    memory_free(names.name);
}

/* Opens a file for one rank, or says why not. */
static hid_t open_alone(const char *path, struct problems *problems)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t file = H5I_INVALID_HID;
    if (access(path, R_OK) != 0)
        problems_add(problems, EXIT_INPUT, "%s: %s", path, errno == ENOENT ? "no such file" : strerror(errno));
    else if (H5Fis_hdf5(path) <= 0)
        problems_add(problems, EXIT_INPUT, "%s: not an HDF5 file", path);
    else if ((file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT)) < 0)
        problems_add(problems, EXIT_INPUT, "%s: cannot be opened: %s", path, h5_reason());
    return file;
}

/* The shape of a dataset of numbers with one (n: 1 × n) or two dimensions, or a problem. */
static void inspect(hid_t file, const char *path, const char *name, int64_t shape[2], struct problems *problems)
{
    hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    if (dataset < 0) {
        report_missing(file, path, name, problems);
        return;
    }
    hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
    H5T_class_t class = H5Tget_class(type);
    int ndims = H5Sget_simple_extent_ndims(space);
    hsize_t dims[2] = {1, 1};
    if (class != H5T_FLOAT && class != H5T_INTEGER)
        problems_add(problems, EXIT_INPUT, "%s: dataset %s does not hold numbers", path, name);
    else if (ndims != 1 && ndims != 2)
        problems_add(problems, EXIT_INPUT, "%s: dataset %s has %d dimensions; a matrix has 2, a vector 1", path, name,
                     ndims);
    else if (H5Sget_simple_extent_dims(space, dims + 2 - ndims, NULL) < 0)
        problems_add(problems, EXIT_INPUT, "%s: dataset %s: %s", path, name, h5_reason());
    shape[0] = (int64_t)dims[0];
    shape[1] = (int64_t)dims[1];
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
}

bool h5_has(MPI_Comm comm, const char *path, const char *name)
{
    int rank, has = 0;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        struct problems ignored = {0};
        hid_t file = open_alone(path, &ignored);
        if (file >= 0) {
            hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
            has = dataset >= 0;
            if (has) H5Dclose(dataset);
            H5Fclose(file);
        }
        problems_clear(&ignored);
    }
    MPI_Bcast(&has, 1, MPI_INT, 0, comm);
    return has;
}

/* ---------------------------------------------------------------- reading */

/* Reads this rank's row slab of A. A one-dimensional dataset has its elements for rows, and all of them make up the one
 * row of A. */
static void read_slab(struct h5 *file, const char *name, const struct dmat *A, double *slab)
{
    hid_t dataset = H5Dopen2(file->id, name, H5P_DEFAULT);
    h5_check(file, dataset >= 0, "open dataset", name);
    if (h5_agreed(file)) {
        hid_t space = H5Dget_space(dataset);
        int64_t a_row = H5Sget_simple_extent_ndims(space) == 1 ? A->n : 1;
        h5_close(file, space);
        struct h5_rows rows = {dataset, H5T_NATIVE_DOUBLE, H5P_DEFAULT, file->comm, name, 0, 0};
        dmat_slab_rows(A, &rows.first, &rows.count);
        rows.first *= a_row;
        rows.count *= a_row;
        h5_read_rows(file, &rows, slab);
    }
    h5_close(file, dataset);
}

/* Opens the file on all ranks and reads the slabs, each rank for itself: one may meet a bad block without the others.
 * False with the file's problem if that fails. */
static bool read_together(const struct grid *grid, const char *path, const char *name, const struct dmat *A,
                          double *slab, struct problems *problems)
{
    struct h5 *file = h5_new(grid->comm, path);
    hid_t access_list = h5_access(file, file->size > 1);
    if (h5_agreed(file)) {
        file->id = H5Fopen(path, H5F_ACC_RDONLY, access_list);
        h5_check(file, file->id >= 0, "open", "the file");
    }
    h5_close(file, access_list);
    if (h5_agreed(file)) read_slab(file, name, A, slab);
    bool ok = h5_agreed(file);
    if (!ok) h5_report(file, EXIT_INPUT, problems);
    h5_free(&file);
    return ok;
}

/* True if all elements are finite; otherwise a problem names the first that is not. */
static bool check_finite(const char *path, const char *name, const struct dmat *A, const double *slab,
                         struct problems *problems)
{
    int64_t first, count, bad = INT64_MAX;
    dmat_slab_rows(A, &first, &count);
    for (int64_t i = 0; i < count * A->n && bad == INT64_MAX; i++)
        if (!isfinite(slab[i])) bad = first * A->n + i;
    MPI_Allreduce(MPI_IN_PLACE, &bad, 1, MPI_INT64_T, MPI_MIN, A->grid->comm);
    if (bad == INT64_MAX) return true;
    problems_add(problems, EXIT_INPUT, "%s: dataset %s holds nan or inf at row %lld, column %lld (counted from 0)",
                 path, name, (long long)(bad / A->n), (long long)(bad % A->n));
    return false;
}

/* The dataset's shape, found by rank 0 alone, or its problem, on every rank. */
static bool agree_on_shape(const struct grid *grid, const char *path, const char *name, int64_t shape[2],
                           struct problems *problems)
{
    struct problems own = {0};
    if (grid->rank == 0) {
        hid_t file = open_alone(path, &own);
        if (file >= 0) {
            inspect(file, path, name, shape, &own);
            H5Fclose(file);
        }
    }
    const bool ok = problems_join(&own, grid->comm, problems);
    MPI_Bcast(shape, 2, MPI_INT64_T, 0, grid->comm);
    return ok;
}

struct dmat *h5_read_matrix(const struct grid *grid, const char *path, const char *name, struct problems *problems)
{
    int64_t shape[2] = {0, 0};
    if (!agree_on_shape(grid, path, name, shape, problems)) return NULL;
    struct dmat *A = dmat_create(grid, shape[0], shape[1]);
    int64_t first, count;
    dmat_slab_rows(A, &first, &count);
    double *slab = NEW(double, count * A->n);
    if (read_together(grid, path, name, A, slab, problems) && check_finite(path, name, A, slab, problems))
        dmat_from_slab(A, slab);
    else
        dmat_destroy(&A);
    memory_free(slab);
    return A;
}
