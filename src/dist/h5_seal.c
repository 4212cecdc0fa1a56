/* h5_seal: proof that a file is what was written. Distributed arrays carry a checksum taken from memory, and are read
 * back and compared before the file gets its name; the whole file, metadata included, ends with a seal: a line behind
 * the HDF5 data with the length and a checksum of all bytes before it. Both sums run over hashes of (index, value), so
 * they do not depend on how many ranks take part. */
#include "h5_private.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEAL_LENGTH = 80, WORD = 8 };
static const int64_t BYTES = (int64_t)1 << 22; /* read at a time: a multiple of WORD */
static const int64_t READ = (int64_t)1 << 23;  /* elements read back at a time: 64 MiB */

/* ---------------------------------------------------------------- sums */

/* The finaliser of SplitMix64: every bit of the input changes half of the output. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static uint64_t hash(uint64_t index, uint64_t bits)
{
    return mix(bits + mix(index + 0x9e3779b97f4a7c15u));
}

uint64_t h5_checksum(int64_t first, int64_t count, const double *values)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < count; i++) {
        uint64_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        sum += hash((uint64_t)(first + i), bits);
    }
    return sum;
}

uint64_t h5_total(const struct h5 *file, uint64_t part)
{
    MPI_Allreduce(MPI_IN_PLACE, &part, 1, MPI_UINT64_T, MPI_SUM, file->comm);
    return part;
}

void h5_share(int size, int rank, int64_t rows, int64_t *first, int64_t *count)
{
    const int64_t share = (rows + size - 1) / size;
    *first = share * rank < rows ? share * rank : rows;
    *count = rows - *first < share ? rows - *first : share;
}

/* ---------------------------------------------------------------- distributed arrays */

void h5_remember(struct h5 *file, const char *path, uint64_t sum)
{
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)sum);
    h5_attribute_text(file, path, "checksum", text);
    file->sums = memory_grow(file->sums, (size_t)file->nsums, (size_t)file->nsums + 1, sizeof *file->sums);
    file->sums[file->nsums++] = (struct h5_sum){memory_text("%s", path), sum};
}

/* This rank's part of the checksum of a dataset, read in pieces. */
static uint64_t sum_dataset(struct h5 *file, hid_t id, const char *path)
{
    hsize_t shape[2] = {0, 1};
    uint64_t sum = 0;
    hid_t dataset = H5Dopen2(id, path, H5P_DEFAULT), space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    if (h5_check(file, space >= 0 && H5Sget_simple_extent_dims(space, shape, NULL) == 2, "read back", path)) {
        const int64_t width = (int64_t)shape[1] > 0 ? (int64_t)shape[1] : 1;
        const int64_t most = width < READ ? READ / width : 1;
        struct h5_rows rows = {dataset, H5T_NATIVE_DOUBLE, H5P_DEFAULT, MPI_COMM_SELF, path, 0, 0};
        int64_t first, count;
        h5_share(file->size, file->rank, (int64_t)shape[0], &first, &count);
        double *piece = NEW(double, (count < most ? count : most) * (int64_t)shape[1]);
        for (int64_t done = 0; done < count && !file->error; done += rows.count) {
            rows.first = first + done;
            rows.count = count - done < most ? count - done : most;
            h5_read_rows(file, &rows, piece);
            sum += h5_checksum(rows.first * (int64_t)shape[1], rows.count * (int64_t)shape[1], piece);
        }
        memory_free(piece);
    }
    h5_close(file, space);
    h5_close(file, dataset);
    return sum;
}

void h5_read_back(struct h5 *file)
{
    if (file->nsums == 0) return;
    hid_t access_list = h5_access(file, file->size > 1);
    file->all = H5Fopen(file->partial, H5F_ACC_RDONLY, access_list);
    h5_check(file, file->all >= 0, "open", "the file to read it back");
    h5_close(file, access_list);
    for (int i = 0; i < file->nsums && h5_agreed(file); i++) {
        const uint64_t sum = h5_total(file, sum_dataset(file, file->all, file->sums[i].path));
        if (h5_agreed(file) && sum != file->sums[i].sum)
            file->error = memory_text("dataset %s does not hold what was written: the file system or MPI-IO changed it",
                                      file->sums[i].path);
    }
    h5_agreed(file);
    if (file->all >= 0) H5Fclose(file->all);
    file->all = H5I_INVALID_HID;
}

/* ---------------------------------------------------------------- the whole file */

static bool read_bytes(int fd, char *bytes, int64_t count, int64_t at)
{
    while (count > 0) {
        const ssize_t got = pread(fd, bytes, (size_t)count, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = EIO; /* shorter than it was a moment ago */
        if (got <= 0) return false;
        bytes += got;
        count -= got;
        at += got;
    }
    return true;
}

/* This rank's part of the sum over the words of the first `length` bytes. False with errno set if they cannot be read.
 */
static bool sum_bytes(int fd, int64_t length, int rank, int size, uint64_t *sum)
{
    const int64_t words = (length + WORD - 1) / WORD, share = (words + size - 1) / size;
    const int64_t begin = share * rank * WORD,
                  end = share * (rank + 1) * WORD < length ? share * (rank + 1) * WORD : length;
    uint64_t *piece = NEW(uint64_t, BYTES / WORD);
    bool ok = true;
    *sum = 0;
    for (int64_t at = begin; ok && at < end; at += BYTES) {
        const int64_t count = end - at < BYTES ? end - at : BYTES;
        piece[(count - 1) / WORD] = 0; /* the last word of the file may be a short one */
        ok = read_bytes(fd, (char *)piece, count, at);
        for (int64_t i = 0; ok && i < (count + WORD - 1) / WORD; i++) *sum += hash((uint64_t)(at / WORD + i), piece[i]);
    }
    memory_free(piece);
    return ok;
}

static void format_seal(char text[SEAL_LENGTH + 1], int64_t length, uint64_t sum)
{
    const int at = snprintf(text, SEAL_LENGTH + 1, "\neigentrain seal 1: %lld bytes, sum %016llx", (long long)length,
                            (unsigned long long)sum);
    memset(text + at, ' ', (size_t)(SEAL_LENGTH - at));
    text[SEAL_LENGTH - 1] = '\n';
    text[SEAL_LENGTH] = '\0';
}

static void append_seal(struct h5 *file, int fd, int64_t length, uint64_t sum)
{
    char text[SEAL_LENGTH + 1];
    format_seal(text, length, sum);
    const ssize_t done = pwrite(fd, text, SEAL_LENGTH, (off_t)length);
    if (done != SEAL_LENGTH) file->error = memory_text("cannot write: %s", done < 0 ? strerror(errno) : "no space");
}

void h5_seal(struct h5 *file)
{
    struct stat about = {0};
    uint64_t sum = 0;
    const int fd = open(file->partial, (file->rank == 0 ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    int64_t length = 0;
    if (fd < 0 || fstat(fd, &about) != 0) file->error = memory_text("cannot be read back: %s", strerror(errno));
    length = (int64_t)about.st_size;
    MPI_Bcast(&length, 1, MPI_INT64_T, 0, file->comm); /* rank 0 has closed it: what it sees is the truth */
    if (!file->error && !sum_bytes(fd, length, file->rank, file->size, &sum))
        file->error = memory_text("cannot be read back: %s", strerror(errno));
    /* Every host must send its pages to the disk: rank 0's fsync at the end speaks for its own host only. */
    if (!file->error && file->rank != 0 && fsync(fd) != 0)
        file->error = memory_text("cannot be written: %s", strerror(errno));
    sum = h5_total(file, sum);
    if (h5_agreed(file) && file->rank == 0) append_seal(file, fd, length, sum);
    if (fd >= 0) close(fd);
    h5_agreed(file);
}

/* What the seal says; NULL, or what is wrong. */
static const char *read_seal(int fd, int64_t size, int64_t *length, uint64_t *sum)
{
    char text[SEAL_LENGTH + 1] = "", again[SEAL_LENGTH + 1];
    long long bytes = 0;
    unsigned long long stored = 0;
    if (size < SEAL_LENGTH || !read_bytes(fd, text, SEAL_LENGTH, size - SEAL_LENGTH))
        return "is cut off: it has no seal at its end";
    if (sscanf(text, " eigentrain seal 1: %lld bytes, sum %16llx", &bytes, &stored) != 2)
        return "is cut off or was written by another program: it has no seal at its end";
    *length = bytes;
    *sum = stored;
    format_seal(again, bytes, stored);
    if (memcmp(text, again, SEAL_LENGTH) != 0) return "is damaged: its seal is not whole";
    return bytes == size - SEAL_LENGTH ? NULL : "is cut off: it is shorter than its seal says";
}

/* Local. Whether the bytes are those that were sealed, as far as this rank's share goes. */
static void check_share(MPI_Comm comm, int fd, const char *path, struct problems *problems)
{
    int rank, size;
    int64_t length = 0;
    uint64_t stored = 0, sum = 0;
    struct stat about;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    const char *wrong =
        fstat(fd, &about) == 0 ? read_seal(fd, (int64_t)about.st_size, &length, &stored) : "cannot be read";
    if (wrong)
        problems_add(problems, EXIT_ENVIRONMENT, "%s %s", path, wrong);
    else if (!sum_bytes(fd, length, rank, size, &sum))
        problems_add(problems, EXIT_ENVIRONMENT, "%s cannot be read: %s", path, strerror(errno));
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_UINT64_T, MPI_SUM, comm);
    if (problems->count == 0 && sum != stored)
        problems_add(problems, EXIT_ENVIRONMENT, "%s is damaged: its bytes are not those that were written", path);
}

bool h5_sealed(MPI_Comm comm, const char *path, struct problems *problems)
{
    struct problems own = {0};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) problems_add(&own, EXIT_ENVIRONMENT, "%s: %s", path, strerror(errno));
    if (problems_none(&own, comm)) check_share(comm, fd, path, &own);
    if (fd >= 0) close(fd);
    return problems_join(&own, comm, problems);
}
