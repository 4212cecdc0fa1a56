/* h5_read: reading what this program wrote. Small values are read by rank 0 and handed on; matrices by all ranks
 * together, each its row slab, from a handle of MPI-IO. */
#include "h5_private.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t SPREAD = (int64_t)1 << 23; /* elements that rank 0 hands on at a time: 64 MiB */

/* ---------------------------------------------------------------- files */

static void check_format(struct h5 *file, const char *format)
{
    char *found = h5_get_text(file, "", "format");
    if (found && strcmp(found, format) != 0 && !file->error)
        file->error = memory_text("is an '%s' file, not an '%s' file", found, format);
    memory_free(found);
    h5_agreed(file);
}

struct h5 *h5_open(MPI_Comm comm, const char *path, const char *format, struct problems *problems)
{
    if (!h5_sealed(comm, path, problems)) return NULL;
    struct h5 *file = h5_new(comm, path);
    if (file->rank == 0) {
        hid_t access_list = h5_access(file, false);
        file->id = H5Fopen(path, H5F_ACC_RDONLY, access_list);
        h5_check(file, file->id >= 0, "open", "the file");
        h5_close(file, access_list);
    }
    if (h5_agreed(file)) check_format(file, format);
    if (file->broken) h5_done(&file, problems);
    return file;
}

bool h5_done(struct h5 **file, struct problems *problems)
{
    const bool ok = h5_agreed(*file);
    if (!ok) h5_report(*file, EXIT_ENVIRONMENT, problems);
    h5_free(file);
    return ok;
}

/* ---------------------------------------------------------------- attributes (rank 0 reads) */

bool h5_exists(struct h5 *file, const char *object, const char *attribute)
{
    int there = 0;
    if (file->broken) return false;
    if (h5_acting(file)) {
        there = 1;
        /* HDF5 wants to be asked for each name along the path. */
        for (size_t end = 1; there && end <= strlen(object); end++) {
            if (object[end] != '/' && object[end] != '\0') continue;
            char *path = memory_text("%.*s", (int)end, object);
            there = H5Lexists(file->id, path, H5P_DEFAULT) > 0;
            memory_free(path);
        }
        if (there && attribute) there = H5Aexists_by_name(file->id, *object ? object : "/", attribute, H5P_DEFAULT) > 0;
    }
    MPI_Bcast(&there, 1, MPI_INT, 0, file->comm);
    return there;
}

/* Reads an attribute as memory type `type`. */
static void read_attribute(struct h5 *file, const char *object, const char *name, hid_t type, void *value)
{
    hid_t attribute = H5Aopen_by_name(file->id, *object ? object : "/", name, H5P_DEFAULT, H5P_DEFAULT);
    if (h5_check(file, attribute >= 0, "find attribute", name))
        h5_check(file, H5Aread(attribute, type, value) >= 0, "read attribute", name);
    h5_close(file, attribute);
}

int64_t h5_get_int(struct h5 *file, const char *object, const char *name)
{
    int64_t value = 0;
    if (h5_acting(file)) read_attribute(file, object, name, H5T_NATIVE_INT64, &value);
    if (h5_agreed(file)) MPI_Bcast(&value, 1, MPI_INT64_T, 0, file->comm);
    return value;
}

double h5_get_real(struct h5 *file, const char *object, const char *name)
{
    double value = 0;
    if (h5_acting(file)) read_attribute(file, object, name, H5T_NATIVE_DOUBLE, &value);
    if (h5_agreed(file)) MPI_Bcast(&value, 1, MPI_DOUBLE, 0, file->comm);
    return value;
}

char *h5_get_text(struct h5 *file, const char *object, const char *name)
{
    char *read = NULL;
    if (h5_acting(file)) {
        hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, H5T_VARIABLE);
        H5Tset_cset(type, H5T_CSET_UTF8);
        read_attribute(file, object, name, type, &read);
        h5_close(file, type);
    }
    if (!h5_agreed(file)) {
        free(read);
        return NULL;
    }
    int length = read ? to_int((int64_t)strlen(read)) : 0;
    MPI_Bcast(&length, 1, MPI_INT, 0, file->comm);
    char *text = NEW(char, length + 1);
    if (read) memcpy(text, read, (size_t)length);
    MPI_Bcast(text, length, MPI_CHAR, 0, file->comm);
    free(read); /* HDF5 allocated it */
    return text;
}

/* ---------------------------------------------------------------- small arrays (rank 0 reads) */

/* Opens a dataset on rank 0; *rows and *width are its shape, width of all dimensions but the first. */
static hid_t open_array(struct h5 *file, const char *path, int64_t *rows, int64_t *width)
{
    hsize_t shape[H5_DIMS] = {1};
    hid_t dataset = H5Dopen2(file->id, path, H5P_DEFAULT),
          space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    const int ndims = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    const bool ok = ndims >= 0 && ndims <= H5_DIMS && H5Sget_simple_extent_dims(space, shape, NULL) >= 0;
    h5_check(file, ok, "open dataset", path);
    *rows = ok ? (int64_t)shape[0] : 0;
    *width = 1;
    for (int i = 1; i < ndims; i++) *width *= (int64_t)shape[i];
    h5_close(file, space);
    return dataset;
}

int64_t h5_rows(struct h5 *file, const char *path)
{
    int64_t rows = 0, width;
    if (h5_acting(file)) h5_close(file, open_array(file, path, &rows, &width));
    if (h5_agreed(file)) MPI_Bcast(&rows, 1, MPI_INT64_T, 0, file->comm);
    return rows;
}

/* 64-bit elements, of memory type `type`. */
static void read_small(struct h5 *file, const char *path, hid_t type, int64_t first, int64_t rows, int64_t width,
                       void *values)
{
    if (file->broken) return;
    if (h5_acting(file)) {
        int64_t there, wide;
        hid_t dataset = open_array(file, path, &there, &wide);
        if (!file->error && (wide != width || first + rows > there))
            file->error = memory_text("dataset %s has another shape than expected", path);
        struct h5_rows part = {dataset, type, H5P_DEFAULT, MPI_COMM_SELF, path, first, rows};
        if (!file->error) h5_read_rows(file, &part, values);
        h5_close(file, dataset);
    }
    if (h5_agreed(file)) MPI_Bcast(values, to_int(rows * width), MPI_INT64_T, 0, file->comm);
}

void h5_read_reals(struct h5 *file, const char *path, int64_t first, int64_t rows, int64_t width, double *values)
{
    read_small(file, path, H5T_NATIVE_DOUBLE, first, rows, width, values);
}

void h5_read_ints(struct h5 *file, const char *path, int64_t first, int64_t rows, int64_t width, int64_t *values)
{
    read_small(file, path, H5T_NATIVE_INT64, first, rows, width, values);
}

/* ---------------------------------------------------------------- distributed arrays */

/* The dataset must have this shape, and its values the checksum beside it. */
static void check_shape(struct h5 *file, const char *path, int64_t m, int64_t n)
{
    int64_t rows, width;
    if (h5_acting(file)) {
        h5_close(file, open_array(file, path, &rows, &width));
        if (!file->error && (rows != m || width != n))
            file->error = memory_text("dataset %s is %lld × %lld, not %lld × %lld", path, (long long)rows,
                                      (long long)width, (long long)m, (long long)n);
    }
    h5_agreed(file);
}

static void check_sum(struct h5 *file, const char *path, uint64_t sum)
{
    char *stored = h5_get_text(file, path, "checksum");
    if (stored && strtoull(stored, NULL, 16) != sum && !file->error)
        file->error = memory_text("dataset %s is damaged: its checksum is wrong", path);
    memory_free(stored);
    h5_agreed(file);
}

/* The handle of all ranks. */
static void open_together(struct h5 *file)
{
    if (file->all >= 0 || file->broken) return;
    hid_t access_list = h5_access(file, file->size > 1);
    file->all = H5Fopen(file->path, H5F_ACC_RDONLY, access_list);
    h5_check(file, file->all >= 0, "open", "the file on all ranks");
    h5_close(file, access_list);
    h5_agreed(file);
}

void h5_load_matrix(struct h5 *file, const char *path, struct dmat *A)
{
    check_shape(file, path, A->m, A->n);
    open_together(file);
    if (file->broken) return;
    hid_t dataset = H5Dopen2(file->all, path, H5P_DEFAULT);
    h5_check(file, dataset >= 0, "open dataset", path);
    struct h5_rows rows = {dataset, H5T_NATIVE_DOUBLE, H5P_DEFAULT, file->comm, path, 0, 0};
    dmat_slab_rows(A, &rows.first, &rows.count);
    double *slab = NEW(double, rows.count * A->n);
    if (h5_agreed(file)) h5_read_rows(file, &rows, slab);
    h5_close(file, dataset);
    if (h5_agreed(file)) check_sum(file, path, h5_total(file, h5_checksum(rows.first * A->n, rows.count * A->n, slab)));
    if (!file->broken) dmat_from_slab(A, slab);
    memory_free(slab);
}

/* Rows first…first+rows−1, which every rank has, to the owners. */
static void take_rows(int64_t first, int64_t rows, int count, int mloc, const int64_t *global, const double *piece,
                      double *vectors)
{
    for (int il = 0; il < mloc; il++) {
        const int64_t row = global[il] - first;
        if (row < 0 || row >= rows) continue;
        for (int c = 0; c < count; c++) vectors[il + (int64_t)c * mloc] = piece[row * count + c];
    }
}

void h5_load_vectors(struct h5 *file, const char *path, int64_t m, int count, int mloc, const int64_t *global,
                     double *vectors)
{
    check_shape(file, path, m, count);
    if (file->broken) return;
    int64_t most = count < SPREAD ? SPREAD / (count ? count : 1) : 1;
    if (most > m) most = m;
    double *piece = NEW(double, most *count);
    uint64_t sum = 0;
    for (int64_t first = 0; first < m && !file->broken; first += most) {
        const int64_t rows = m - first < most ? m - first : most;
        h5_read_reals(file, path, first, rows, count, piece);
        sum += h5_checksum(first * count, rows * count, piece);
        take_rows(first, rows, count, mloc, global, piece, vectors);
    }
    memory_free(piece);
    check_sum(file, path, sum);
}
