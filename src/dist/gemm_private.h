/* gemm_private: what the panel routes of dmat_gemm share. */
#ifndef EIGENTRAIN_DIST_GEMM_PRIVATE_H
#define EIGENTRAIN_DIST_GEMM_PRIVATE_H

#include "dist/dmat.h"

#include <string.h>

/* Buffers of grid_work: received panels, panels in natural order, partial products. */
enum { SLOT_PANEL, SLOT_PANEL_B, SLOT_EXCHANGE };

/* Local. C ← a·op(A) op(B) + b·C on local arrays; empty results are left alone, an empty inner index scales C. */
void local_gemm(char ta, char tb, int m, int n, int k, double a, const double *A, int lda, const double *B, int ldb,
                double b, double *C, int ldc);

/* Local. First index after the block of k, at most k1. */
static inline int64_t block_end(int64_t k, int64_t k1, int nb)
{
    const int64_t end = (k / nb + 1) * nb;
    return end < k1 ? end : k1;
}

/* Local. Copies a rows × cols array between leading dimensions. */
static inline void copy_rows(const double *from, int64_t ld_from, double *to, int64_t ld_to, int rows, int cols)
{
    for (int j = 0; j < cols; j++) memcpy(to + j * ld_to, from + j * ld_from, (size_t)rows * sizeof(double));
}

/* Collective on the grid, of one process row and more than one process column. C ← a·A B + b·C, a·Aᵀ B + b·C and
 * a·A Bᵀ + b·C with panels of `width` of the inner index (N,T: of C's columns). */
void row_nn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width);

/* Collective on the grid. As row_nn. */
void row_tn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width);

/* Collective on the grid. As row_nn. */
void row_nt(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width);

#endif
