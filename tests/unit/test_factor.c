/* ranks: 1 2 4 6 */
/* Orthonormal factors, singular values and vectors, and the compression of data, on every grid shape, several block
 * sizes and more ranks than blocks; and PDGESVD, which serves matrices of more than 2048 × 2048 elements. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/dmat.h"
#include "dist/factor.h"
#include "dist/grid.h"
#include "dist/random.h"
#include "grids.h"
#include "unit.h"

#include <string.h>

static struct dmat *gaussian(const struct grid *grid, int64_t m, int64_t n, uint64_t stream)
{
    struct dmat *A = dmat_create(grid, m, n);

    random_fill_normal(A, 3, stream);
    return A;
}

static double diagonal_entry(int64_t ig, int64_t jg, const void *values)
{
    return ig == jg ? ((const double *)values)[ig] : 0;
}

/* diag(values) in an m × n matrix. */
static struct dmat *diagonal(const struct grid *grid, int64_t m, int64_t n, const double *values)
{
    struct dmat *A = dmat_create(grid, m, n);

    dmat_set(A, diagonal_entry, values);
    return A;
}

/* U diag(sigma) Vᵀ with random orthonormal U and V. */
static struct dmat *with_values(const struct grid *grid, int64_t m, int64_t n, const double *sigma)
{
    const int64_t k = m < n ? m : n;
    struct dmat *U = gaussian(grid, m, k, 1), *V = gaussian(grid, n, k, 2), *A = dmat_create(grid, m, n);
    struct dmat *S = diagonal(grid, k, k, sigma), *US = dmat_create(grid, m, k);

    factor_orthonormal(U);
    factor_orthonormal(V);
    dmat_gemm('N', 'N', 1, U, S, 0, US);
    dmat_gemm('N', 'T', 1, US, V, 0, A);
    dmat_destroy(&US);
    dmat_destroy(&S);
    dmat_destroy(&V);
    dmat_destroy(&U);
    return A;
}

/* ‖A − B‖_F */
static double distance(const struct dmat *A, const struct dmat *B)
{
    struct dmat *difference = dmat_create(A->grid, A->m, A->n);

    dmat_copy(difference, A);
    dmat_axpy(difference, -1, B);
    const double norm = dmat_norm(difference);
    dmat_destroy(&difference);
    return norm;
}

/* ---------------------------------------------------------------- orthonormal factors */

/* QᵀQ = I and QᵀA = R: upper triangular with a positive diagonal, so that A = QR. */
static void check_orthonormal(const struct dmat *A, const struct dmat *Q)
{
    const int64_t n = A->n;
    struct dmat *R = dmat_create(A->grid, n, n), *back = dmat_create(A->grid, A->m, n);
    double *full = NEW(double, n *n);

    assert_close(dmat_orthogonality(Q, 1), 0, 1e-13);
    dmat_gemm('T', 'N', 1, Q, A, 0, R);
    dmat_gather(R, full, -1);
    for (int64_t j = 0; j < n; j++) {
        assert_true(full[j + j * n] > 0);
        for (int64_t i = j + 1; i < n; i++) assert_close(full[i + j * n], 0, 1e-12);
    }
    dmat_gemm('N', 'N', 1, Q, R, 0, back);
    assert_close(distance(A, back), 0, 1e-13 * dmat_norm(A));
    memory_free(full);
    dmat_destroy(&back);
    dmat_destroy(&R);
}

static void orthonormal_on(struct grid *grid)
{
    static const int64_t shapes[][2] = {{1, 1}, {5, 1}, {7, 5}, {13, 13}, {70, 9}, {20, 0}};

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1];
        struct dmat *A = gaussian(grid, m, n, 5), *Q = gaussian(grid, m, n, 5);
        struct dmat *At = dmat_create(grid, n, m), *Qt = dmat_create(grid, n, m);
        factor_orthonormal(Q);
        check_orthonormal(A, Q);
        if (n == m || n == 0) { /* rows are for wide matrices */
            dmat_destroy(&Qt);
            dmat_destroy(&At);
            dmat_destroy(&Q);
            dmat_destroy(&A);
            continue;
        }
        dmat_transpose(A, At);
        dmat_copy(Qt, At);
        factor_orthonormal_rows(Qt);
        assert_close(dmat_orthogonality(Qt, 1), 0, 1e-13);
        dmat_transpose(Qt, Q);
        check_orthonormal(A, Q);
        dmat_destroy(&Qt);
        dmat_destroy(&At);
        dmat_destroy(&Q);
        dmat_destroy(&A);
    }
}

static void orthonormal_factors(void **state)
{
    (void)state;
    on_every_grid(orthonormal_on);
}

/* The same factor on every grid: that of the grid of one process. */
static void same_factor_on(struct grid *grid)
{
    struct grid *alone = grid_create(MPI_COMM_SELF, 1, 1, 5);
    struct dmat *A = gaussian(grid, 17, 12, 6), *B = gaussian(alone, 17, 12, 6);
    double a[17 * 12], b[17 * 12];

    factor_orthonormal(A);
    factor_orthonormal(B);
    dmat_gather(A, a, -1);
    dmat_gather(B, b, -1);
    for (int i = 0; i < 17 * 12; i++) assert_close(a[i], b[i], 1e-13);
    dmat_destroy(&B);
    dmat_destroy(&A);
    grid_destroy(&alone);
}

static void factors_do_not_depend_on_the_grid(void **state)
{
    (void)state;
    on_every_grid(same_factor_on);
}

/* Haar: E tr Q = 0 and E (tr Q)² = 1; without the signs of R the mean of Q_11 would not be 0. */
static void haar_signs(void **state)
{
    enum { N = 4, COUNT = 2000 };
    struct grid *alone = grid_create(MPI_COMM_SELF, 1, 1, 64);
    double trace = 0, square = 0, corner = 0;

    (void)state;
    for (uint64_t s = 0; s < COUNT; s++) {
        struct dmat *Q = gaussian(alone, N, N, 1000 + s);
        double full[N * N], sum = 0;
        factor_orthonormal(Q);
        dmat_gather(Q, full, -1);
        for (int i = 0; i < N; i++) sum += full[i + N * i];
        trace += sum / COUNT;
        square += sum * sum / COUNT;
        corner += full[0] / COUNT;
        dmat_destroy(&Q);
    }
    assert_close(trace, 0, 5 / sqrt(COUNT));
    assert_close(square, 1, 5 * sqrt(2.0 / COUNT));
    assert_close(corner, 0, 5 * 0.5 / sqrt(COUNT));
    grid_destroy(&alone);
}

/* ---------------------------------------------------------------- singular values and vectors */

enum { K = 13, STRIDE = 20 };

static void fill_spectra(double spectra[4][K])
{
    for (int i = 0; i < K; i++) {
        spectra[0][i] = K - i;
        spectra[1][i] = pow(10, -i);
        spectra[2][i] = i < 4 ? 2 : 0;
        spectra[3][i] = 1;
    }
}

static void values_on(struct grid *grid)
{
    enum { COUNT = 12 };
    static const int64_t shapes[3][2] = {{K, K}, {K, 31}, {70, K}};
    struct dmat *list[COUNT];
    double spectra[4][K], sigma[COUNT * STRIDE];

    fill_spectra(spectra);
    for (int i = 0; i < COUNT; i++)
        list[i] = (i % 2 ? diagonal : with_values)(grid, shapes[i % 3][0], shapes[i % 3][1], spectra[i / 3]);
    for (int count = 0; count <= COUNT; count = count ? count + 11 : 1) { /* none, one, all */
        factor_singular_values((const struct dmat *const *)list, count, sigma, STRIDE);
        for (int i = 0; i < count; i++)
            for (int j = 0; j < K; j++)
                assert_close(sigma[i * STRIDE + j], spectra[i / 3][j], 1e-14 * spectra[i / 3][0]);
    }
    for (int i = 0; i < COUNT; i++) dmat_destroy(&list[i]);
}

static void singular_values(void **state)
{
    (void)state;
    on_every_grid(values_on);
}

/* Vectors, many shapes in one call, and the matrix is left alone. */
static void mixed_values_on(struct grid *grid)
{
    static const int64_t shapes[][2] = {{1, 1}, {1, 9}, {9, 1}, {4, 70}, {3, 3}, {70, 2}, {1, 200}};
    enum { COUNT = sizeof shapes / sizeof *shapes };
    struct dmat *list[COUNT];
    double sigma[COUNT * 4], before = 0, after = 0;

    for (int i = 0; i < COUNT; i++) {
        list[i] = gaussian(grid, shapes[i][0], shapes[i][1], 20 + (uint64_t)i);
        before += dmat_norm(list[i]);
    }
    factor_singular_values((const struct dmat *const *)list, COUNT, sigma, 4);
    for (int i = 0; i < COUNT; i++) {
        const double norm = dmat_norm(list[i]);
        double square = 0;
        const int least = to_int(shapes[i][0] < shapes[i][1] ? shapes[i][0] : shapes[i][1]);
        for (int j = 0; j < least; j++) {
            square += sigma[i * 4 + j] * sigma[i * 4 + j];
            if (j > 0) assert_true(sigma[i * 4 + j] <= sigma[i * 4 + j - 1]);
        }
        assert_close(sqrt(square), norm, 1e-14 * norm);
        if (least == 1) assert_close(sigma[i * 4], norm, 1e-14 * norm);
        after += norm;
    }
    assert_close(after, before, 0);
    for (int i = 0; i < COUNT; i++) dmat_destroy(&list[i]);
}

static void singular_values_of_many_shapes(void **state)
{
    (void)state;
    on_every_grid(mixed_values_on);
}

/* X = U diag(sigma) Vt, orthonormal factors, values if they are known. */
static void check_svd(const struct dmat *X, const double *expected)
{
    const struct grid *grid = X->grid;
    const int64_t k = X->m < X->n ? X->m : X->n;
    struct dmat *U = dmat_create(grid, X->m, k), *Vt = dmat_create(grid, k, X->n), *US = dmat_create(grid, X->m, k);
    struct dmat *back = dmat_create(grid, X->m, X->n);
    double *sigma = NEW(double, k);

    factor_svd(X, U, sigma, Vt);
    assert_close(dmat_orthogonality(U, 1), 0, 1e-13);
    assert_close(dmat_orthogonality(Vt, 1), 0, 1e-13);
    for (int64_t i = 0; i < k; i++) {
        assert_true(sigma[i] >= 0 && (i == 0 || sigma[i] <= sigma[i - 1]));
        if (expected) assert_close(sigma[i], expected[i], 1e-14 * expected[0]);
    }
    struct dmat *S = diagonal(grid, k, k, sigma);
    dmat_gemm('N', 'N', 1, U, S, 0, US);
    dmat_gemm('N', 'N', 1, US, Vt, 0, back);
    assert_close(distance(X, back), 0, 1e-13 * (1 + dmat_norm(X)));
    memory_free(sigma);
    dmat_destroy(&S);
    dmat_destroy(&back);
    dmat_destroy(&US);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static void svd_on(struct grid *grid)
{
    static const int64_t shapes[][2] = {{1, 1}, {1, 9}, {9, 1}, {5, 5}, {6, 70}, {70, 6}, {13, 14}};
    double spectra[4][K];

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct dmat *X = gaussian(grid, shapes[s][0], shapes[s][1], 40 + s);
        check_svd(X, NULL);
        dmat_destroy(&X);
    }
    fill_spectra(spectra);
    for (int s = 0; s < 4; s++) {
        struct dmat *X = with_values(grid, K, s % 2 ? 40 : K, spectra[s]);
        check_svd(X, spectra[s]);
        dmat_destroy(&X);
    }
}

static void singular_vectors(void **state)
{
    (void)state;
    on_every_grid(svd_on);
}

/* More elements than are gathered: PDGESVD, cheap for a few long columns. */
static void long_columns(void **state)
{
    enum { M = 600000, N = 7 };
    double known[N], sigma[N];
    int size;

    (void)state;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct grid *grid = grid_create(MPI_COMM_WORLD, size % 2 ? 1 : 2, size % 2 ? size : size / 2, 64);
    for (int i = 0; i < N; i++) known[i] = pow(10, -i);
    struct dmat *A = with_values(grid, M, N, known);
    const struct dmat *const list[] = {A};
    factor_singular_values(list, 1, sigma, N);
    for (int i = 0; i < N; i++) assert_close(sigma[i], known[i], 1e-13); /* the matrix itself is known no better */
    check_svd(A, NULL);
    dmat_destroy(&A);
    grid_destroy(&grid);
}

/* ---------------------------------------------------------------- compression */

/* X = R Q and Y = YQt Q + what no weight can change: all inner products of X and Y with X are those of R and YQt, and
 * for any W ‖Y − W X‖² = ‖YQt − W R‖² + ‖Y‖² − ‖YQt‖² */
static void check_compress(const struct grid *grid, int64_t d, int64_t N, int64_t outputs)
{
    struct dmat *X = gaussian(grid, d, N, 50), *Y = gaussian(grid, outputs, N, 51), *W = gaussian(grid, outputs, d, 52);
    struct dmat *R = dmat_create(grid, d, d), *YQt = dmat_create(grid, outputs, d);
    struct dmat *XX = dmat_create(grid, d, d), *RR = dmat_create(grid, d, d);
    struct dmat *YX = dmat_create(grid, outputs, d), *YR = dmat_create(grid, outputs, d);

    dmat_fill(R, NAN);
    dmat_fill(YQt, NAN);
    factor_compress(X, Y, R, YQt);
    dmat_gemm('N', 'T', 1, X, X, 0, XX);
    dmat_gemm('N', 'T', 1, R, R, 0, RR);
    assert_close(distance(XX, RR), 0, 1e-13 * dmat_norm(XX));
    dmat_gemm('N', 'T', 1, Y, X, 0, YX);
    dmat_gemm('N', 'T', 1, YQt, R, 0, YR);
    assert_close(distance(YX, YR), 0, 1e-13 * dmat_norm(X) * dmat_norm(Y));
    const double y = dmat_norm(Y), kept = dmat_norm(YQt);
    dmat_gemm('N', 'N', -1, W, X, 1, Y);
    dmat_gemm('N', 'N', -1, W, R, 1, YQt);
    const double full = dmat_dot(Y, Y), small = dmat_dot(YQt, YQt);
    assert_close(full, small + y * y - kept * kept, 1e-13 * full);
    dmat_destroy(&X);
    dmat_destroy(&Y);
    dmat_destroy(&W);
    dmat_destroy(&R);
    dmat_destroy(&YQt);
    dmat_destroy(&XX);
    dmat_destroy(&RR);
    dmat_destroy(&YX);
    dmat_destroy(&YR);
}

static void compress_on(struct grid *grid)
{
    check_compress(grid, 1, 1, 1);
    check_compress(grid, 5, 5, 3);
    check_compress(grid, 7, 40, 2);
    check_compress(grid, 1, 30, 9);
    check_compress(grid, 66, 140, 65);
}

static void compression(void **state)
{
    (void)state;
    on_every_grid(compress_on);
}

static const struct CMUnitTest factor_tests[] = {
    cmocka_unit_test(orthonormal_factors),
    cmocka_unit_test(factors_do_not_depend_on_the_grid),
    cmocka_unit_test(haar_signs),
    cmocka_unit_test(singular_values),
    cmocka_unit_test(singular_values_of_many_shapes),
    cmocka_unit_test(singular_vectors),
    cmocka_unit_test(long_columns),
    cmocka_unit_test(compression),
};

UNIT_MAIN(factor_tests, NULL, NULL)
