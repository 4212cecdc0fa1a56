/* linop: a linear map as a callback. A weight matrix, a product of them, a Hessian: all are linops; `krylov` solves for
 * any of them and knows none of them. */
#ifndef EIGENTRAIN_DIST_LINOP_H
#define EIGENTRAIN_DIST_LINOP_H

#include "dist/dmat.h"

#include <mpi.h>
#include <stdint.h>

/* y = A x with x of global size n (nloc here) and y of global size m (mloc here). Each global entry belongs to exactly
 * one rank; which one is the operator's own affair. */
struct linop {
    MPI_Comm comm;                                                            /* borrowed */
    int64_t m, n;                                                             /* global size */
    int mloc, nloc;                                                           /* entries of y and of x on this rank */
    void *context;                                                            /* owned by whoever made the operator */
    void (*apply)(const struct linop *A, const double *x, double *y);         /* Collective on comm. y = A x */
    void (*apply_adjoint)(const struct linop *A, const double *y, double *x); /* Collective on comm. x = Aᵀ y */
    /* Collective on comm. The same for `count` vectors at once (columns), where that is cheaper; NULL: one by one. */
    void (*apply_block)(const struct linop *A, int count, const double *X, double *Y);
    void (*apply_adjoint_block)(const struct linop *A, int count, const double *Y, double *X);
    int64_t (*row_index)(const struct linop *A, int il); /* Local. Global index of local y entry */
    int64_t (*col_index)(const struct linop *A, int jl); /* Local. Global index of local x entry */
    void (*destroy)(struct linop *A);                    /* Local. Frees the context; may be NULL */
};

/* Local. The linop of a distributed matrix (borrowed, must outlive the linop). Column index j of x belongs to one
 * process of its process column, split evenly; rows of y likewise along the process row: one product costs an
 * allgather down the column, a local DGEMV and a reduce-scatter along the row, and gathers nothing of matrix size. */
struct linop *linop_of_matrix(const struct dmat *A);

/* Collective on the grid. The product A_{count−1} ··· A_1 A_0 of matrices (borrowed) as one operator; the products are
 * never formed. */
struct linop *linop_of_product(const struct dmat *const *A, int count);

/* Collective on A->comm. Y = A X for `count` columns, by the block callback if there is one. */
void linop_apply_block(const struct linop *A, int count, const double *X, double *Y);

/* Collective on A->comm. X = Aᵀ Y for `count` columns. */
void linop_apply_adjoint_block(const struct linop *A, int count, const double *Y, double *X);

/* Local. Frees the operator and sets *A to NULL. */
void linop_destroy(struct linop **A);

#endif
