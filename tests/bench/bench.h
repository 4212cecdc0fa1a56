/* bench: what the benchmark programs share. */
#ifndef EIGENTRAIN_TESTS_BENCH_H
#define EIGENTRAIN_TESTS_BENCH_H

#include "base/launch.h"
#include "base/memory.h"

#include <mpi.h>
#include <stdlib.h>

/* Collective on MPI_COMM_WORLD. Starts as the program itself does. */
static inline void bench_start(int argc, char **argv)
{
    launch_prepare(argv);
    MPI_Init(&argc, &argv);
    memory_start();
}

static inline int bench_compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Local. Median of n values (sorted in place). */
static inline double bench_median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, bench_compare);
    return n % 2 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* Collective on comm. Seconds of one call, from a common start to the end of the slowest rank. */
static inline double bench_time(MPI_Comm comm, void (*work)(void *), void *context)
{
    MPI_Barrier(comm);
    double seconds = -MPI_Wtime();
    work(context);
    seconds += MPI_Wtime();
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, comm);
    return seconds;
}

#endif
