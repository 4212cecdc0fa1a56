/* dmat: a dense matrix, block-cyclically distributed over a grid (ScaLAPACK layout, PBLAS).
 *
 * Element (ig, jg) lives on process row (ig/mb) mod nprow and process column (jg/nb) mod npcol. Local storage is
 * column-major with leading dimension lld. */
#ifndef EIGENTRAIN_DIST_DMAT_H
#define EIGENTRAIN_DIST_DMAT_H

#include "dist/grid.h"

#include <stdbool.h>
#include <stdint.h>

struct dmat {
    const struct grid *grid; /* borrowed */
    int64_t m, n;            /* global size */
    int mb, nb;              /* block size */
    int mloc, nloc, lld;     /* local size; lld = max(1, mloc) unless a view says otherwise */
    double *local; /* [lld × nloc], owned if `owned`, else borrowed; element (il, jl) at local[il + jl·lld] */
    bool owned;
    int desc[9]; /* ScaLAPACK descriptor */

    /* For products without messages, see dmat_hold. */
    enum { DMAT_DEALT, DMAT_HELD, DMAT_COLLECTS } held; /* a matrix does one or the other throughout its life */
    double *whole; /* [m × n] all of it, column-major; of a held one with a thin side (DMAT_THIN) its transpose follows;
                      owned; NULL before the first dmat_hold or dmat_collect */
};

/* Collective on grid->comm. m × n zeros with the grid's block size. m, n ≥ 0. */
struct dmat *dmat_create(const struct grid *grid, int64_t m, int64_t n);

/* Local. The same, laid over `local` memory of at least dmat_local_size elements (borrowed, not zeroed). */
struct dmat *dmat_over(const struct grid *grid, int64_t m, int64_t n, double *local);

/* Local. Number of local elements of an m × n matrix on this rank. */
int64_t dmat_local_size(const struct grid *grid, int64_t m, int64_t n);

/* Local. View of columns j0 ≤ j < j1 of A, borrowed memory, nothing copied; not held, if A is. j0 must be a multiple of
 * nb·npcol (a bug otherwise), so that the view is an ordinary block-cyclic matrix again. */
struct dmat *dmat_columns(const struct dmat *A, int64_t j0, int64_t j1);

/* Local. Frees the header, and the memory if owned; sets *A to NULL. */
void dmat_destroy(struct dmat **A);

/* Local. Global index of local row il, local column jl; and the owner's test. */
static inline int64_t dmat_row(const struct dmat *A, int il)
{
    return grid_global(il, A->mb, A->grid->myrow, A->grid->nprow);
}
static inline int64_t dmat_col(const struct dmat *A, int jl)
{
    return grid_global(jl, A->nb, A->grid->mycol, A->grid->npcol);
}

/* Local. Sets every element. */
void dmat_fill(struct dmat *A, double value);

/* Local. A ← B; same shape and layout (a bug otherwise). */
void dmat_copy(struct dmat *A, const struct dmat *B);

/* Local. A ← a·A. */
void dmat_scale(struct dmat *A, double a);

/* Local. A ← A + a·B; same shape and layout (a bug otherwise). */
void dmat_axpy(struct dmat *A, double a, const struct dmat *B);

/* Local. Sets element (ig, jg) = value(ig, jg, context): the same matrix for every grid. */
void dmat_set(struct dmat *A, double (*value)(int64_t ig, int64_t jg, const void *context), const void *context);

/* Local. A ← value·I (of a rectangle, too). */
void dmat_identity(struct dmat *A, double value);

/* Collective on the grid. max |A|, the same on every rank; NaN if there is one. */
double dmat_largest(const struct dmat *A);

/* Collective on the grid. Σ A∘B. */
double dmat_dot(const struct dmat *A, const struct dmat *B);

/* Collective on the grid. ‖A‖_F. */
double dmat_norm(const struct dmat *A);

/* Collective on the grid. C ← a·op(A) op(B) + b·C. ta, tb are 'N' or 'T'; 'T','T' is not offered. The result is
 * bit-identical for the same grid; on another grid it is equal to rounding. The route is grid->gemm: `panel` gathers
 * panels of one operand and multiplies locally, with memory of at most two panels; `pdgemm` is PBLAS, the reference
 * twin. */
void dmat_gemm(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C);

/* Up to here DGEMM takes longer to copy its operands than to multiply them: such products have ways of their own. */
enum { DMAT_THIN = 32 };

/* Local. Whether an m × n matrix is so small (1 MiB) that every rank may have it whole, on a grid of one process row
 * and several columns. Only then the following do anything. */
bool dmat_is_small(const struct grid *grid, int64_t m, int64_t n);

/* Local. Doubles that holding, or collecting, such a matrix takes on a rank. */
int64_t dmat_held_size(int64_t m, int64_t n, bool collects);

/* Collective on the grid. Until dmat_release products A B and Aᵀ B of a small A are made on each rank by itself. A must
 * not change meanwhile. */
void dmat_hold(struct dmat *A);

/* Local. Until dmat_release each rank adds up its own parts of products A Bᵀ into a small C; the first of them must not
 * keep C (b = 0), and C's elements are not there before the end. */
void dmat_collect(struct dmat *C);

/* Collective on the grid. The end of either: a C that was collected is summed over the ranks. */
void dmat_release(struct dmat *A);

/* Collective on the grid. A X (m × r) and behind it Aᵀ Y (n × r) for a few columns, all whole on every rank,
 * column-major: local products and one sum, so that nothing of A is sent. The result has the same bits on every rank.
 */
void dmat_times_few(const struct dmat *A, int r, const double *X, const double *Y, double *both);

/* Local. A ← X Yᵀ for X (m × r) and Y (n × r), whole on every rank. */
void dmat_outer(struct dmat *A, int r, const double *X, const double *Y);

/* What dmat_gemm does on the rank with the largest share (route `panel`). */
struct gemm_need {
    int64_t m, n, k;               /* the local product of one panel */
    double panels;                 /* their number; the last one may be a fraction */
    double messages;               /* received, in all */
    double received;               /* bytes */
    double copied;                 /* bytes read and written by copying and adding in memory */
    int64_t work[GRID_WORK_SLOTS]; /* doubles of grid_work */
};

/* Local. The same for C (m × n) with inner index k, on a grid that may be on paper only. */
struct gemm_need gemm_need(const struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k);

/* Collective on the grid. B ← Aᵀ. */
void dmat_transpose(const struct dmat *A, struct dmat *B);

/* Collective on the grid. Column c of B ← column columns[c] of A, c = 0…B->n−1 (a sampled batch). `columns` is the
 * same on every rank. A and B have the same number of rows. */
void dmat_take_columns(const struct dmat *A, const int64_t *columns, struct dmat *B);

/* Collective on the grid. Redistributes between A and contiguous row slabs: rank r holds rows [r·s, min(m, (r+1)·s)),
 * s = ceil(m / size), row-major in slab[rows × n]. dmat_slab_rows (Local) gives this rank's first row and row count. */
void dmat_slab_rows(const struct dmat *A, int64_t *first, int64_t *count);

/* Local. Bytes that such a redistribution of an m × n matrix takes on a rank, the slab included. */
int64_t dmat_slab_bytes(const struct grid *grid, int64_t m, int64_t n);

/* Collective on the grid. slab ← my rows of A. */
void dmat_to_slab(const struct dmat *A, double *slab);

/* Collective on the grid. A ← the slabs of all ranks. */
void dmat_from_slab(struct dmat *A, const double *slab);

/* Collective on the grid. The whole matrix, column-major m × n, on rank `root` of the grid (full is ignored elsewhere),
 * or on all ranks with root = −1. Only for matrices known to be small. */
void dmat_gather(const struct dmat *A, double *full, int root);

/* Collective on the grid. ‖AᵀA − s·I‖_F (columns) or ‖AAᵀ − s·I‖_F (rows, if m < n). */
double dmat_orthogonality(const struct dmat *A, double s);

#endif
