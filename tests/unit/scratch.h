/* scratch: a folder of its own for a test that writes files, the same on every rank. */
#ifndef EIGENTRAIN_TESTS_SCRATCH_H
#define EIGENTRAIN_TESTS_SCRATCH_H

#include <ftw.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[256];

/* Collective on comm. */
static inline void scratch_create(MPI_Comm comm)
{
    int rank;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) {
        const char *parent = getenv("TMPDIR");
        snprintf(scratch, sizeof scratch, "%s/eigentrain-test-XXXXXX", parent ? parent : "/tmp");
        if (!mkdtemp(scratch)) MPI_Abort(comm, 1);
    }
    MPI_Bcast(scratch, sizeof scratch, MPI_CHAR, 0, comm);
}

static inline int scratch_unlink(const char *path, const struct stat *info, int kind, struct FTW *at)
{
    (void)info, (void)kind, (void)at;
    return remove(path);
}

/* Collective on MPI_COMM_WORLD. */
static inline void scratch_remove(void)
{
    int rank;
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) nftw(scratch, scratch_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

/* Local. The path of a file in the folder; static storage, four at a time. */
static inline const char *scratch_file(const char *format, ...)
{
    static char paths[4][512];
    static int next;
    char *path = paths[next++ % 4];
    int length = snprintf(path, sizeof paths[0], "%s/", scratch);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(path + length, sizeof paths[0] - (size_t)length, format, arguments);
    va_end(arguments);
    return path;
}

static inline bool scratch_holds(const char *name)
{
    return access(scratch_file("%s", name), F_OK) == 0;
}

#endif
