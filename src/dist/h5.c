/* h5: files, groups, attributes, dimension scales and small arrays. Distributed arrays and reading: h5_matrix.c.
 *
 * Rank 0 alone writes what HDF5 has to say of itself (metadata), through a serial handle, in files of many ranks too;
 * all ranks open the file together only to write the values of one matrix into space that is there already. Otherwise a
 * full disk is a deadlock: HDF5 1.10.8 leaves its collective metadata writes on the rank where one fails [run], and
 * MPI_Finalize, which closes what is still open, hangs or crashes. */
#include "h5_private.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <hdf5_hl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const int64_t PIECE = (int64_t)1 << 30; /* bytes a transfer: ROMIO counts in 32 bits */

/* ---------------------------------------------------------------- errors */

enum { REASON = 2 * PATH_MAX }; /* what HDF5 says may hold the path of the file */

static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *text)
{
    if (n == 0) snprintf(text, REASON, "%s", entry->desc ? entry->desc : "unknown reason");
    return 0;
}

const char *h5_reason(void)
{
    static char text[REASON];
    snprintf(text, sizeof text, "unknown reason");
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, text);
    /* The POSIX driver buries the system's words in a paragraph with time stamps and addresses. */
    static const char mark[] = "error message = '";
    char *system = strstr(text, mark);
    if (system) {
        memmove(text, system + strlen(mark), strlen(system + strlen(mark)) + 1);
        text[strcspn(text, "'")] = 0;
    }
    for (char *c = text; *c; c++)
        if (*c == '\n') *c = ' ';
    return text;
}

bool h5_check(struct h5 *file, bool ok, const char *doing, const char *what)
{
    if (!ok && !file->error) file->error = memory_text("cannot %s %s: %s", doing, what, h5_reason());
    return ok;
}

void h5_close(struct h5 *file, hid_t id)
{
    if (id < 0) return;
    /* A small dataset is written when it is closed. If that fails, H5Dclose forgets the handle all the same; the
     * general H5Idec_ref leaves it behind, pointing to freed memory. */
    herr_t status = H5Iget_type(id) == H5I_DATASET ? H5Dclose(id) : H5Idec_ref(id);
    h5_check(file, status >= 0, "write or close", "a part of the file");
}

bool h5_acting(const struct h5 *file)
{
    return file->rank == 0 && !file->error && !file->broken;
}

bool h5_agreed(struct h5 *file)
{
    int broken = file->broken || file->error;
    MPI_Allreduce(MPI_IN_PLACE, &broken, 1, MPI_INT, MPI_MAX, file->comm);
    file->broken = broken;
    return !broken;
}

void h5_report(struct h5 *file, int code, struct problems *problems)
{
    struct problems own = {0};
    if (file->error) problems_add(&own, code, "%s: %s", file->path, file->error);
    problems_join(&own, file->comm, problems);
}

/* ---------------------------------------------------------------- files */

char *h5_partial(const char *path)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash + 1 - path) : 0;
    return memory_text("%.*s.%s.partial", folder, path, path + folder);
}

struct h5 *h5_new(MPI_Comm comm, const char *path)
{
    struct h5 *file = NEW(struct h5, 1);
    file->comm = comm;
    MPI_Comm_rank(comm, &file->rank);
    MPI_Comm_size(comm, &file->size);
    file->path = memory_text("%s", path);
    file->partial = h5_partial(path);
    file->id = file->anchor = file->all = H5I_INVALID_HID;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* errors come out at h5_commit, in our words */
    return file;
}

/* The file is closed by the last of its two handles, the anchor. If that fails, HDF5 forgets a dataset handle, while it
 * keeps a file handle that points to freed memory and crashes on it at the end of the program [run]. */
static bool close_handles(struct h5 *file)
{
    bool ok = file->id < 0 || H5Fclose(file->id) >= 0;
    if (file->all >= 0) ok = H5Fclose(file->all) >= 0 && ok;
    if (file->anchor >= 0) ok = H5Dclose(file->anchor) >= 0 && ok;
    file->id = file->anchor = file->all = H5I_INVALID_HID;
    return ok;
}

void h5_free(struct h5 **file)
{
    struct h5 *f = *file;
    close_handles(f);
    for (int i = 0; i < f->nsums; i++) memory_free(f->sums[i].path);
    memory_free(f->sums);
    memory_free(f->path);
    memory_free(f->partial);
    memory_free(f->error);
    memory_free(f);
    *file = NULL;
}

hid_t h5_access(struct h5 *file, bool together)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    /* Weak: see close_handles. V18: attributes above 64 KiB (lists of references); every HDF5 since 2008 reads it. */
    bool ok = access >= 0 && H5Pset_fclose_degree(access, H5F_CLOSE_WEAK) >= 0 &&
              H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_LATEST) >= 0;
    if (ok && together)
        ok = H5Pset_fapl_mpio(access, file->comm, MPI_INFO_NULL) >= 0 &&
             H5Pset_all_coll_metadata_ops(access, true) >= 0 && H5Pset_coll_metadata_write(access, true) >= 0;
    h5_check(file, ok, "prepare", "access");
    return access;
}

/* Links in the order of their creation, and no time stamps: the same run gives the same bytes. */
static hid_t creation(struct h5 *file, hid_t class)
{
    hid_t list = H5Pcreate(class);
    bool ok = list >= 0 && H5Pset_obj_track_times(list, false) >= 0;
    if (class != H5P_DATASET_CREATE)
        ok = ok && H5Pset_link_creation_order(list, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0;
    h5_check(file, ok, "prepare", "creation");
    return list;
}

/* Rank 0's serial handle, and an unnamed dataset (gone when it is closed) for an anchor. */
static void create_file(struct h5 *file)
{
    hid_t access = h5_access(file, false), create = creation(file, H5P_FILE_CREATE);
    file->id = H5Fcreate(file->partial, H5F_ACC_TRUNC, create, access);
    if (h5_check(file, file->id >= 0, "create", "the file")) {
        hid_t space = H5Screate(H5S_NULL);
        file->anchor = H5Dcreate_anon(file->id, H5T_NATIVE_INT, space, H5P_DEFAULT, H5P_DEFAULT);
        h5_check(file, file->anchor >= 0, "create", "the file");
        h5_close(file, space);
    }
    h5_close(file, create);
    h5_close(file, access);
}

struct h5 *h5_create(MPI_Comm comm, const char *path, const char *format, struct problems *problems)
{
    struct h5 *file = h5_new(comm, path);
    if (file->rank == 0) create_file(file);
    if (!h5_agreed(file)) {
        h5_report(file, EXIT_ENVIRONMENT, problems);
        h5_abandon(&file);
        return NULL;
    }
    h5_attribute_text(file, "", "format", format);
    h5_attribute_int(file, "", "format_version", 1);
    return file;
}

static bool sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = fsync(fd) == 0 || errno == EINVAL; /* some file systems cannot fsync a folder, and say so */
    int error = errno;
    close(fd);
    errno = error;
    return ok;
}

bool h5_publish(const char *temporary, const char *path)
{
    if (!sync_path(temporary) || rename(temporary, path)) return false;
    const char *slash = strrchr(path, '/');
    char *folder = slash ? memory_text("%.*s", (int)(slash + 1 - path), path) : memory_text(".");
    bool ok = sync_path(folder);
    memory_free(folder);
    return ok;
}

bool h5_commit(struct h5 **file, struct problems *problems)
{
    struct h5 *f = *file;
    if (h5_acting(f)) {
        h5_check(f, H5Fflush(f->id, H5F_SCOPE_GLOBAL) >= 0, "write", "the file");
        h5_check(f, close_handles(f), "close", "the file");
    }
    if (h5_agreed(f)) h5_read_back(f); /* all ranks have written, rank 0 has closed */
    if (h5_agreed(f)) h5_seal(f);
    if (h5_agreed(f)) {
        if (f->rank == 0 && !h5_publish(f->partial, f->path))
            f->error = memory_text("cannot give the file its name: %s", strerror(errno));
        h5_agreed(f);
    }
    bool ok = !f->broken;
    if (!ok) h5_report(f, EXIT_ENVIRONMENT, problems);
    h5_abandon(file); /* after the rename there is nothing left to remove */
    return ok;
}

void h5_abandon(struct h5 **file)
{
    struct h5 *f = *file;
    if (!f) return;
    close_handles(f);
    if (f->rank == 0) unlink(f->partial);
    h5_free(file);
}

/* ---------------------------------------------------------------- groups and attributes */

/* Creates what is missing of path[0..length), one name after the other: HDF5's own intermediate groups would not keep
 * the order of their links. */
static void make_groups(struct h5 *file, const char *path, size_t length)
{
    hid_t create = creation(file, H5P_GROUP_CREATE);
    for (size_t end = 1; end <= length && !file->error; end++) {
        if (end < length && path[end] != '/') continue;
        char *group = memory_text("%.*s", (int)end, path);
        htri_t exists = H5Lexists(file->id, group, H5P_DEFAULT);
        if (h5_check(file, exists >= 0, "look for group", group) && !exists) {
            hid_t id = H5Gcreate2(file->id, group, H5P_DEFAULT, create, H5P_DEFAULT);
            h5_check(file, id >= 0, "create group", group);
            h5_close(file, id);
        }
        memory_free(group);
    }
    h5_close(file, create);
}

void h5_group(struct h5 *file, const char *group)
{
    if (h5_acting(file)) make_groups(file, group, strlen(group));
}

static void write_attribute(struct h5 *file, hid_t object, const char *name, hid_t type, const void *value)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    h5_check(file, attribute >= 0 && H5Awrite(attribute, type, value) >= 0, "write attribute", name);
    h5_close(file, attribute);
    h5_close(file, space);
}

/* UTF-8 of `length` bytes, or of any length with H5T_VARIABLE. */
static hid_t text_type(struct h5 *file, size_t length)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool ok = type >= 0 && H5Tset_size(type, length) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    if (length != H5T_VARIABLE) ok = ok && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0;
    h5_check(file, ok, "prepare", "a text type");
    return type;
}

/* Variable length: the text lives in the global heap, where it may be longer than 64 KiB. */
static void write_text(struct h5 *file, hid_t object, const char *name, const char *value)
{
    hid_t type = text_type(file, H5T_VARIABLE);
    write_attribute(file, object, name, type, &value);
    h5_close(file, type);
}

static hid_t open_object(struct h5 *file, const char *path)
{
    hid_t object = H5Oopen(file->id, *path ? path : "/", H5P_DEFAULT);
    h5_check(file, object >= 0, "open", path);
    return object;
}

void h5_attribute_text(struct h5 *file, const char *object, const char *name, const char *value)
{
    if (!h5_acting(file)) return;
    hid_t id = open_object(file, object);
    write_text(file, id, name, value);
    h5_close(file, id);
}

void h5_attribute_real(struct h5 *file, const char *object, const char *name, double value)
{
    if (!h5_acting(file)) return;
    hid_t id = open_object(file, object);
    write_attribute(file, id, name, H5T_NATIVE_DOUBLE, &value);
    h5_close(file, id);
}

void h5_attribute_int(struct h5 *file, const char *object, const char *name, int64_t value)
{
    if (!h5_acting(file)) return;
    hid_t id = open_object(file, object);
    write_attribute(file, id, name, H5T_NATIVE_INT64, &value);
    h5_close(file, id);
}

/* ---------------------------------------------------------------- datasets */

static void describe(struct h5 *file, hid_t dataset, const struct h5_about *about)
{
    static const struct h5_about nothing;
    if (!about) about = &nothing;
    if (about->units) write_text(file, dataset, "units", about->units);
    if (about->long_name) write_text(file, dataset, "long_name", about->long_name);
    if (about->formula) write_text(file, dataset, "formula", about->formula);
    if (about->reference) write_text(file, dataset, "reference", about->reference);
}

static hid_t create_dataset(struct h5 *file, const char *path, hid_t type, int ndims, const int64_t *sizes,
                            H5D_alloc_time_t when)
{
    ensure(ndims <= H5_DIMS);
    const char *slash = strrchr(path, '/');
    if (slash) make_groups(file, path, (size_t)(slash - path));
    hsize_t shape[H5_DIMS];
    for (int i = 0; i < ndims; i++) shape[i] = (hsize_t)sizes[i];
    hid_t space = ndims ? H5Screate_simple(ndims, shape, NULL) : H5Screate(H5S_SCALAR);
    hid_t create = creation(file, H5P_DATASET_CREATE);
    /* Space that is reserved early is a matrix's: filling it would write everything twice. What is never written (a
     * scale without values) must read as zeros. */
    const H5D_fill_time_t fill = when == H5D_ALLOC_TIME_EARLY ? H5D_FILL_TIME_NEVER : H5D_FILL_TIME_IFSET;
    h5_check(file, H5Pset_alloc_time(create, when) >= 0 && H5Pset_fill_time(create, fill) >= 0, "prepare", "creation");
    hid_t dataset = H5Dcreate2(file->id, path, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    h5_check(file, dataset >= 0, "create dataset", path);
    h5_close(file, create);
    h5_close(file, space);
    return dataset;
}

/* Creates the scale `path` with coordinates of that type. One without coordinates (type negative) follows netCDF-4's
 * convention for it (NAME says so; type float). */
static hid_t create_scale(struct h5 *file, const char *path, int64_t size, hid_t type)
{
    const char *slash = strrchr(path, '/');
    char name[128];
    if (type >= 0)
        snprintf(name, sizeof name, "%s", slash ? slash + 1 : path);
    else
        snprintf(name, sizeof name, "This is a netCDF dimension but not a netCDF variable.%10lld", (long long)size);
    hid_t scale = create_dataset(file, path, type >= 0 ? type : H5T_IEEE_F32BE, 1, &size, H5D_ALLOC_TIME_LATE);
    if (scale >= 0) h5_check(file, H5DSset_scale(scale, name) >= 0, "make a dimension of", path);
    return scale;
}

/* Attaches the scale `dim`, a sibling of `path`, as dimension i; with dim NULL one of its own. */
static void attach(struct h5 *file, hid_t dataset, const char *path, int i, const char *dim, int64_t size)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash + 1 - path) : 0;
    char *name = dim ? memory_text("%.*s%s", folder, path, dim) : memory_text("%s_dim%d", path, i);
    hid_t scale = dim ? H5Dopen2(file->id, name, H5P_DEFAULT) : create_scale(file, name, size, H5I_INVALID_HID);
    if (h5_check(file, scale >= 0, "open dimension", name)) {
        hid_t space = H5Dget_space(scale);
        if (H5Sget_simple_extent_npoints(space) != size) bug("dimension %s has not the size that %s says", name, path);
        h5_close(file, space);
        h5_check(file, H5DSattach_scale(dataset, scale, (unsigned)i) >= 0, "attach dimension", name);
    }
    h5_close(file, scale);
    memory_free(name);
}

hid_t h5_new_array(struct h5 *file, const char *path, hid_t type, int ndims, const char *const *dims,
                   const int64_t *sizes, const struct h5_about *about)
{
    if (!h5_acting(file)) return H5I_INVALID_HID;
    hid_t dataset = create_dataset(file, path, type, ndims, sizes, H5D_ALLOC_TIME_EARLY);
    for (int i = 0; i < ndims && !file->error; i++) attach(file, dataset, path, i, dims ? dims[i] : NULL, sizes[i]);
    if (!file->error) describe(file, dataset, about);
    return dataset;
}

/* Selects rows first…first+count−1 of `space`; nothing with count 0. */
static bool select_rows(hid_t space, int64_t first, int64_t count)
{
    if (count == 0) return H5Sselect_none(space) >= 0;
    hsize_t start[H5_DIMS] = {0}, block[H5_DIMS];
    int ndims = H5Sget_simple_extent_dims(space, block, NULL);
    if (ndims == 0) return H5Sselect_all(space) >= 0;
    start[0] = (hsize_t)first;
    block[0] = (hsize_t)count;
    return ndims > 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, block, NULL) >= 0;
}

/* One transfer. Every rank gets here, whatever failed before: the others would wait for it. */
static void move_piece(struct h5 *file, const struct h5_rows *piece, const void *from, void *to)
{
    hid_t space = H5Dget_space(piece->dataset);
    hsize_t elements = 0;
    if (h5_check(file, space >= 0 && select_rows(space, piece->first, piece->count), "select rows of", piece->path))
        elements = (hsize_t)H5Sget_select_npoints(space);
    hid_t memory = H5Screate_simple(1, &elements, NULL);
    if (from)
        h5_check(file, H5Dwrite(piece->dataset, piece->type, memory, space, piece->transfer, from) >= 0,
                 "write dataset", piece->path);
    else
        h5_check(file, H5Dread(piece->dataset, piece->type, memory, space, piece->transfer, to) >= 0, "read dataset",
                 piece->path);
    h5_close(file, memory);
    h5_close(file, space);
}

/* Bytes in memory of one row: of one index of the first dimension. */
static int64_t row_bytes(struct h5 *file, const struct h5_rows *rows)
{
    hid_t space = H5Dget_space(rows->dataset);
    hsize_t shape[H5_DIMS];
    int ndims = H5Sget_simple_extent_dims(space, shape, NULL);
    h5_check(file, ndims >= 0, "measure dataset", rows->path);
    h5_close(file, space);
    int64_t bytes = (int64_t)H5Tget_size(rows->type);
    for (int i = 1; i < ndims; i++) bytes *= (int64_t)shape[i];
    return bytes;
}

/* Exactly one of from, to is set, on every rank. */
static void move_rows(struct h5 *file, const struct h5_rows *rows, const char *from, char *to)
{
    int64_t bytes = row_bytes(file, rows);
    int64_t most = bytes == 0 || bytes > PIECE ? 1 : PIECE / bytes;
    int64_t pieces = bytes == 0 ? 0 : (rows->count + most - 1) / most;
    MPI_Allreduce(MPI_IN_PLACE, &pieces, 1, MPI_INT64_T, MPI_MAX, rows->comm);
    struct h5_rows piece = *rows;
    for (int64_t p = 0, done = 0; p < pieces; p++, done += piece.count) {
        piece.first = rows->first + done;
        piece.count = rows->count - done < most ? rows->count - done : most;
        move_piece(file, &piece, from ? from + done * bytes : NULL, to ? to + done * bytes : NULL);
    }
}

void h5_write_rows(struct h5 *file, const struct h5_rows *rows, const void *values)
{
    move_rows(file, rows, values, NULL);
}

void h5_read_rows(struct h5 *file, const struct h5_rows *rows, void *values)
{
    move_rows(file, rows, NULL, values);
}

void h5_write_alone(struct h5 *file, hid_t dataset, const char *path, hid_t type, int64_t first, int64_t count,
                    const void *values)
{
    struct h5_rows rows = {dataset, type, H5P_DEFAULT, MPI_COMM_SELF, path, first, count};
    if (!file->error) h5_write_rows(file, &rows, values);
}

static void write_small(struct h5 *file, const char *path, hid_t file_type, hid_t type, int ndims,
                        const char *const *dims, const int64_t *sizes, const void *values, const struct h5_about *about)
{
    if (!h5_acting(file)) return;
    hid_t dataset = h5_new_array(file, path, file_type, ndims, dims, sizes, about);
    h5_write_alone(file, dataset, path, type, 0, ndims == 0 ? 1 : sizes[0], values);
    h5_close(file, dataset);
}

static void write_dimension(struct h5 *file, const char *path, int64_t size, hid_t file_type, hid_t type,
                            const void *values, const struct h5_about *about)
{
    if (!h5_acting(file)) return;
    hid_t scale = create_scale(file, path, size, values ? file_type : H5I_INVALID_HID);
    if (scale >= 0) describe(file, scale, about);
    if (values) h5_write_alone(file, scale, path, type, 0, size, values);
    h5_close(file, scale);
}

void h5_dimension(struct h5 *file, const char *path, int64_t size, const int64_t *values, const struct h5_about *about)
{
    write_dimension(file, path, size, H5T_STD_I64LE, H5T_NATIVE_INT64, values, about);
}

void h5_dimension_reals(struct h5 *file, const char *path, int64_t size, const double *values,
                        const struct h5_about *about)
{
    write_dimension(file, path, size, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, values, about);
}

void h5_write_reals(struct h5 *file, const char *path, int ndims, const char *const *dims, const int64_t *sizes,
                    const double *values, const struct h5_about *about)
{
    write_small(file, path, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, ndims, dims, sizes, values, about);
}

void h5_write_ints(struct h5 *file, const char *path, int ndims, const char *const *dims, const int64_t *sizes,
                   const int64_t *values, const struct h5_about *about)
{
    write_small(file, path, H5T_STD_I64LE, H5T_NATIVE_INT64, ndims, dims, sizes, values, about);
}

/* Texts one after the other, each filled up with zeros to the length of the longest (memory_free). */
static char *pack_texts(int64_t size, const char *const *values, size_t *length)
{
    *length = 1;
    for (int64_t i = 0; i < size; i++)
        if (strlen(values[i]) > *length) *length = strlen(values[i]);
    char *bytes = NEW(char, (size_t)size **length);
    for (int64_t i = 0; i < size; i++) memcpy(bytes + (size_t)i * *length, values[i], strlen(values[i]));
    return bytes;
}

/* Fixed length, which every reader knows; `_Encoding` makes xarray decode the bytes. */
static void write_packed(struct h5 *file, const char *path, const char *dim, int64_t size, const char *const *values,
                         const struct h5_about *about)
{
    if (!h5_acting(file)) return;
    size_t length;
    char *bytes = pack_texts(size, values, &length);
    hid_t type = text_type(file, length);
    if (dim)
        write_small(file, path, type, type, 1, &dim, &size, bytes, about);
    else
        write_dimension(file, path, size, type, type, bytes, about);
    h5_attribute_text(file, path, "_Encoding", "utf-8");
    h5_close(file, type);
    memory_free(bytes);
}

void h5_dimension_texts(struct h5 *file, const char *path, int64_t size, const char *const *values,
                        const struct h5_about *about)
{
    write_packed(file, path, NULL, size, values, about);
}

void h5_write_texts(struct h5 *file, const char *path, const char *dim, int64_t size, const char *const *values,
                    const struct h5_about *about)
{
    ensure(dim);
    write_packed(file, path, dim, size, values, about);
}

const char *h5_version(void)
{
    static char text[32];
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, sizeof text, "%u.%u.%u", major, minor, release);
    return text;
}
