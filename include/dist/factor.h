/* factor: dense factorisations (ScaLAPACK, LAPACK): orthonormal factors, singular values and vectors. */
#ifndef EIGENTRAIN_DIST_FACTOR_H
#define EIGENTRAIN_DIST_FACTOR_H

#include "dist/dmat.h"

#include <stdbool.h>

/* Collective on the grid. Overwrites A (m × n, m ≥ n) by the Q of its thin QR factorisation with diag(R) > 0: for a
 * Gaussian A that is the first n columns of a Haar-orthogonal matrix. */
void factor_orthonormal(struct dmat *A);

/* Collective on the grid. Overwrites A (m × n, m < n) by Haar-distributed rows: the transpose of the above applied to
 * Aᵀ. */
void factor_orthonormal_rows(struct dmat *A);

/* Collective on the grid. The `count` matrices' full spectra: sigma[k·stride + i], descending, i < min(m, n), the same
 * on every rank. Small matrices (at most 2048 × 2048 elements) are gathered, each on a rank of its own, and solved
 * there at the same time by LAPACK; larger ones by PDGESVD one after another. Relative accuracy of small values is that
 * of bidiagonal QR: absolute error eps·σ_1. */
void factor_singular_values(const struct dmat *const *A, int count, double *sigma, int stride);

/* Local. The same for one small matrix in the memory of this rank: sigma[min(m, n)], descending, of A (m × n
 * column-major, overwritten), m, n ≥ 1. */
void factor_local_singular_values(int m, int n, double *A, double *sigma);

/* Local. Eigenpairs of one small symmetric matrix A (n × n, overwritten) in the memory of this rank: value[n]
 * ascending, eigenvectors the columns of V (n × n). */
void factor_local_eigenpairs(int n, double *A, double *value, double *V);

/* Local. Thin SVD of one small matrix A (m × n column-major, overwritten) in the memory of this rank, m, n ≥ 1: U (m ×
 * k), sigma [k] descending, Vt (k × n), k = min(m, n). */
void factor_local_svd(int m, int n, double *A, double *sigma, double *U, double *Vt);

/* Local. Rank of one small matrix A (m × n column-major, overwritten) in the memory of this rank: the singular values
 * above `threshold` times the largest; and an orthonormal basis of its null space, the first n − rank columns of
 * basis[n × n] (NULL: not wanted). m, n ≥ 1. */
int factor_local_null_space(int m, int n, double *A, double threshold, double *basis);

/* Local. C (m × n) ← op(A) op(B) with inner index k, all whole in the memory of this rank, column-major without gaps;
 * ta, tb are 'N' or 'T'. */
void factor_local_product(char ta, char tb, int m, int n, int k, const double *A, const double *B, double *C);

/* Collective on the grid. Thin SVD X = U diag(sigma) Vt with k = min(m, n): U is m × k, Vt is k × n, sigma [k]
 * descending on every rank. A wide X is first reduced by LQ; what remains is solved whole on every rank if it is small
 * (2048 × 2048 elements), else by PDGESVD. */
void factor_svd(const struct dmat *X, struct dmat *U, double *sigma, struct dmat *Vt);

/* Collective on the grid. Thin LQ of X (d × N, d ≤ N): X = R Q with Q orthonormal rows; returns R (d × d) and Y Qᵀ
 * (K × d) for a Y that is K × N. */
void factor_compress(const struct dmat *X, const struct dmat *Y, struct dmat *R, struct dmat *YQt);

/* ---- how much memory that takes, on a grid that may be on paper only */

/* Local. Whether a matrix is so small that its singular values are found on one rank. */
bool factor_gathers(int64_t m, int64_t n);

/* Local. Bytes that the functions above allocate for themselves on the rank that needs the most: an orthonormal m × n
 * matrix (of rows if m < n, then with the transpose that serves as its start), ... */
int64_t factor_orthonormal_bytes(const struct grid *grid, int64_t m, int64_t n);

/* Local. ... the spectra of matrices m[i] × n[i], ... */
int64_t factor_singular_values_bytes(const struct grid *grid, int count, const int64_t *m, const int64_t *n);

/* Local. ... a thin SVD, ... */
int64_t factor_svd_bytes(const struct grid *grid, int64_t m, int64_t n);

/* Local. ... and the compression of d × N inputs and K × N targets. */
int64_t factor_compress_bytes(const struct grid *grid, int64_t d, int64_t N, int64_t K);

#endif
