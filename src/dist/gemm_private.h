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

/* Local. Width of panels over an index of size n when a panel has `rows` rows, the same on every rank: the count is of
 * the largest rank. A multiple of the block times the processes, so that every panel but the last is dealt evenly; one
 * block of each process if that is wide enough, because such panels are multiplied where they are (gemm_row). */
int64_t panel_width(int64_t rows, int64_t n, int nb, int procs);

/* Local. The part of n indices on process 0, which has most. */
static inline int64_t largest_local(int64_t n, int nb, int procs)
{
    return grid_count(n, nb, 0, 0, procs);
}

/* Collective on the grid, of one process row and more than one process column. As dmat_gemm. */
void row_gemm(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C);

/* Local. What row_gemm does; as gemm_need. */
struct gemm_need row_need(const struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k);

#endif
