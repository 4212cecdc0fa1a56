/* matrices: distributed ones to test with, and all of one on every rank. */
#ifndef EIGENTRAIN_TESTS_MATRICES_H
#define EIGENTRAIN_TESTS_MATRICES_H

#include "base/memory.h"
#include "dist/dmat.h"
#include "dist/random.h"

static inline double position(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return (double)(ig + 1000 * jg + 1);
}

static inline struct dmat *numbered(const struct grid *grid, int64_t m, int64_t n)
{
    struct dmat *A = dmat_create(grid, m, n);

    dmat_set(A, position, NULL);
    return A;
}

static inline struct dmat *gaussian(const struct grid *grid, int64_t m, int64_t n, uint64_t stream)
{
    struct dmat *A = dmat_create(grid, m, n);

    random_fill_normal(A, 8, stream);
    return A;
}

static inline double *whole(const struct dmat *A)
{
    double *full = NEW(double, A->m * A->n);

    dmat_gather(A, full, -1);
    return full;
}

#endif
