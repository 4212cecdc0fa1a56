/* ranks: 1 2 4 6 */
/* Linear operators against dense products, and the leading singular triplets of matrices whose triplets are known:
 * random, graded, multiple, deficient, zero; cold and warm; on every grid shape and on ranks that own nothing. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/basis.h"
#include "dist/factor.h"
#include "dist/grid.h"
#include "dist/krylov.h"
#include "dist/linop.h"
#include "dist/random.h"
#include "unit.h"

#include <string.h>

static const int blocks[] = {1, 3, 64};
enum { BLOCKS = 3 };
static const double TOLERANCE = 1e-11;

/* Calls test on every grid shape and block size; `some`: each shape with one block size. */
static void on_grids(void (*test)(const struct grid *grid), bool some)
{
    int size, shape = 0;

    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int nprow = 1; nprow <= size; nprow++) {
        if (size % nprow != 0) continue;
        for (int b = 0; b < BLOCKS; b++) {
            if (some && size > 1 && b != (shape + size) % BLOCKS) continue;
            struct grid *grid = grid_create(MPI_COMM_WORLD, nprow, size / nprow, blocks[b]);
            test(grid);
            grid_destroy(&grid);
        }
        shape++;
    }
}

/* ---------------------------------------------------------------- matrices */

static struct dmat *gaussian(const struct grid *grid, int64_t m, int64_t n, uint64_t stream)
{
    struct dmat *A = dmat_create(grid, m, n);

    random_fill_normal(A, 11, stream);
    return A;
}

static struct dmat *orthonormal(const struct grid *grid, int64_t m, int64_t n, uint64_t stream)
{
    struct dmat *A = gaussian(grid, m, n, stream);

    factor_orthonormal(A);
    return A;
}

/* U diag(sigma) Vᵀ with random orthonormal U (m × k) and V (n × k), k = min(m, n). */
static struct dmat *with_values(const struct grid *grid, int64_t m, int64_t n, const double *sigma)
{
    const int64_t k = m < n ? m : n;
    struct dmat *U = orthonormal(grid, m, k, 1), *V = orthonormal(grid, n, k, 2), *A = dmat_create(grid, m, n);

    for (int jl = 0; jl < U->nloc; jl++)
        for (int il = 0; il < U->mloc; il++) U->local[il + (int64_t)jl * U->lld] *= sigma[dmat_col(U, jl)];
    dmat_gemm('N', 'T', 1, U, V, 0, A);
    dmat_destroy(&U);
    dmat_destroy(&V);
    return A;
}

/* diag(values) in the upper left corner. */
static double diagonal_entry(int64_t ig, int64_t jg, const void *values)
{
    return ig == jg ? ((const double *)values)[ig] : 0;
}

static struct dmat *diagonal(const struct grid *grid, int64_t m, int64_t n, const double *values)
{
    struct dmat *A = dmat_create(grid, m, n);

    dmat_set(A, diagonal_entry, values);
    return A;
}

/* ---------------------------------------------------------------- operators */

/* The local entries of a vector that is a function of the global index. */
static double *vector_of(const struct linop *L, bool rows, uint64_t stream)
{
    const int count = rows ? L->mloc : L->nloc;
    double *x = NEW(double, count);

    for (int i = 0; i < count; i++)
        x[i] = random_normal(5, stream, (uint64_t)(rows ? L->row_index(L, i) : L->col_index(L, i)));
    return x;
}

static void sum(const struct grid *grid, double *values, int64_t count)
{
    grid_sum(grid, values, to_int(count));
}

/* L against the dense m × n matrix in `full`, and each entry owned once. */
static void check_linop(const struct grid *grid, const struct linop *L, const double *full)
{
    double *x = vector_of(L, false, 1), *y = vector_of(L, true, 2);
    double *Ax = NEW(double, L->mloc), *Aty = NEW(double, L->nloc);
    double *whole = NEW(double, 2 * (L->m + L->n)), *owners = whole + L->m + L->n;
    double inner[2] = {0, 0};

    L->apply(L, x, Ax);
    L->apply_adjoint(L, y, Aty);
    for (int i = 0; i < L->mloc; i++) {
        whole[L->row_index(L, i)] = Ax[i];
        owners[L->row_index(L, i)]++;
        inner[0] += Ax[i] * y[i];
    }
    for (int j = 0; j < L->nloc; j++) {
        whole[L->m + L->col_index(L, j)] = Aty[j];
        owners[L->m + L->col_index(L, j)]++;
        inner[1] += Aty[j] * x[j];
    }
    sum(grid, whole, 2 * (L->m + L->n));
    sum(grid, inner, 2);
    for (int64_t i = 0; i < L->m + L->n; i++) assert_close(owners[i], 1, 0);
    for (int64_t i = 0; i < L->m; i++) {
        double expected = 0;
        for (int64_t j = 0; j < L->n; j++) expected += full[i + j * L->m] * random_normal(5, 1, (uint64_t)j);
        assert_close(whole[i], expected, 1e-12 * (1 + fabs(expected)));
    }
    for (int64_t j = 0; j < L->n; j++) {
        double expected = 0;
        for (int64_t i = 0; i < L->m; i++) expected += full[i + j * L->m] * random_normal(5, 2, (uint64_t)i);
        assert_close(whole[L->m + j], expected, 1e-12 * (1 + fabs(expected)));
    }
    assert_close(inner[0], inner[1], 1e-12 * (1 + fabs(inner[0])));
    memory_free(whole);
    memory_free(Aty);
    memory_free(Ax);
    memory_free(y);
    memory_free(x);
}

static void matrices_on(const struct grid *grid)
{
    static const int64_t shapes[][2] = {{1, 1}, {7, 5}, {5, 13}, {1, 9}, {11, 1}, {40, 3}, {2, 70}};

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1];
        struct dmat *A = gaussian(grid, m, n, 3);
        struct linop *L = linop_of_matrix(A);
        double *full = NEW(double, m *n);
        dmat_gather(A, full, -1);
        check_linop(grid, L, full);
        memory_free(full);
        linop_destroy(&L);
        assert_null(L);
        dmat_destroy(&A);
    }
}

static void products_on(const struct grid *grid)
{
    static const int64_t widths[] = {5, 13, 1, 9, 7};

    for (int count = 1; count <= 4; count++) {
        struct dmat *A[4], *so_far = dmat_create(grid, widths[1], widths[0]);
        for (int i = 0; i < count; i++) A[i] = gaussian(grid, widths[i + 1], widths[i], 10 + (uint64_t)i);
        dmat_copy(so_far, A[0]);
        for (int i = 1; i < count; i++) {
            struct dmat *next = dmat_create(grid, widths[i + 1], widths[0]);
            dmat_gemm('N', 'N', 1, A[i], so_far, 0, next);
            dmat_destroy(&so_far);
            so_far = next;
        }
        struct linop *L = linop_of_product((const struct dmat *const *)A, count);
        double *full = NEW(double, so_far->m * so_far->n);
        assert_int_equal(L->m, so_far->m);
        assert_int_equal(L->n, so_far->n);
        dmat_gather(so_far, full, -1);
        check_linop(grid, L, full);
        memory_free(full);
        linop_destroy(&L);
        dmat_destroy(&so_far);
        for (int i = 0; i < count; i++) dmat_destroy(&A[i]);
    }
}

static void operator_of_a_matrix(void **state)
{
    (void)state;
    on_grids(matrices_on, false);
}

static void operator_of_a_product(void **state)
{
    (void)state;
    on_grids(products_on, false);
}

/* ---------------------------------------------------------------- triplets */

static struct basis side(const struct linop *L, const struct triplets *T, bool left, int k)
{
    return (struct basis){.comm = L->comm,
                          .n = left ? T->m : T->n,
                          .k = k,
                          .nloc = left ? T->mloc : T->nloc,
                          .local = left ? T->left : T->right,
                          .global = left ? T->row : T->col};
}

static void check_orthonormal(const struct basis *U)
{
    double *overlap = NEW(double, U->k * U->k);

    basis_overlap(U, U, overlap);
    for (int j = 0; j < U->k; j++)
        for (int i = 0; i < U->k; i++) assert_close(overlap[i + j * U->k], i == j, 1e-10);
    memory_free(overlap);
}

static struct krylov_options options_of(void)
{
    return (struct krylov_options){.tolerance = TOLERANCE, .max_products = 20000, .seed = 4, .stream = RANDOM_KRYLOV};
}

/* All k triplets: values (NULL: not compared), residuals, orthonormal vectors, the same on every rank. */
static void check_triplets(const struct linop *L, const struct triplets *T, const double *sigma)
{
    const double top = T->sigma[0] > 0 ? T->sigma[0] : 1;
    double *first = NEW(double, T->rank);

    assert_int_equal(T->converged, T->rank);
    assert_true(T->filled);
    memcpy(first, T->sigma, (size_t)T->rank * sizeof *first);
    MPI_Bcast(first, T->rank, MPI_DOUBLE, 0, L->comm);
    assert_memory_equal(first, T->sigma, (size_t)T->rank * sizeof *first);
    for (int i = 0; i < T->rank; i++) {
        if (sigma) assert_close(T->sigma[i], sigma[i], 1e-10 * top);
        assert_true(T->sigma[i] >= 0 && (i == 0 || T->sigma[i] <= T->sigma[i - 1]));
        assert_close(T->residual[i], 0, 10 * TOLERANCE);
    }
    struct basis U = side(L, T, true, T->rank), V = side(L, T, false, T->rank);
    check_orthonormal(&U);
    check_orthonormal(&V);
    memory_free(first);
}

static void check_with(const struct dmat *A, const struct krylov_options *options, int k, const double *sigma)
{
    struct linop *L = linop_of_matrix(A);
    struct triplets *T = triplets_create(L, k);

    assert_int_equal(T->rank, k);
    assert_false(T->filled);
    krylov_svd(L, options, T);
    check_triplets(L, T, sigma);
    triplets_destroy(&T);
    assert_null(T);
    linop_destroy(&L);
}

static void check_matrix(const struct dmat *A, int k, const double *sigma)
{
    const struct krylov_options options = options_of();

    check_with(A, &options, k, sigma);
}

static void random_matrices_on(const struct grid *grid)
{
    static const int64_t shapes[][3] = {{1, 1, 1},   {1, 9, 1},  {9, 1, 1},  {2, 2, 2},    {5, 5, 5}, {30, 20, 6},
                                        {20, 30, 6}, {60, 7, 3}, {7, 60, 7}, {13, 11, 11}, {3, 3, 1}, {25, 25, 24}};

    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct dmat *A = gaussian(grid, shapes[s][0], shapes[s][1], 3);
        const struct dmat *const list[] = {A};
        double *sigma = NEW(double, A->m + A->n);
        factor_singular_values(list, 1, sigma, to_int(A->m + A->n));
        check_matrix(A, (int)shapes[s][2], sigma);
        memory_free(sigma);
        dmat_destroy(&A);
    }
}

static void known_matrices_on(const struct grid *grid)
{
    enum { N = 60 };
    double graded[N], equal[N], twofold[N], block[N], deficient[N], zero[N], one[N], close[N], pairs[N];

    for (int i = 0; i < N; i++) {
        graded[i] = pow(10, -0.25 * i);
        equal[i] = 1;
        twofold[i] = i < 4 ? 3 : 1.0 / (i + 1);
        block[i] = i < 8 ? 1 : 1e-3 / (i + 1);
        deficient[i] = i < 3 ? 5 - i : 0;
        zero[i] = 0;
        one[i] = i == 0 ? 2 : 0;
        close[i] = i < 2 ? 1 - 1e-7 * i : 0.9 * pow(0.95, i);
        pairs[i] = 40 - i / 2;
    }
    const double *const spectra[] = {graded, equal, twofold, block, deficient, zero, one, close, pairs};
    for (size_t s = 0; s < sizeof spectra / sizeof *spectra; s++) {
        if (grid->size > 2 && (s + (size_t)grid->nprow) % 2) continue; /* oversubscribed ranks are slow */
        struct dmat *A = with_values(grid, N, N, spectra[s]);
        check_matrix(A, 6, spectra[s]);
        if (grid->size <= 2 || s % 3 == 1) check_matrix(A, N, spectra[s]);
        dmat_destroy(&A);
        A = with_values(grid, N, 71, spectra[s]);
        check_matrix(A, 5, spectra[s]);
        dmat_destroy(&A);
        A = diagonal(grid, 67, N, spectra[s]);
        check_matrix(A, 6, spectra[s]);
        dmat_destroy(&A);
    }
}

static void triplets_of_random_matrices(void **state)
{
    (void)state;
    on_grids(random_matrices_on, true);
}

static void triplets_of_known_matrices(void **state)
{
    (void)state;
    on_grids(known_matrices_on, true);
}

/* Values that an iteration from one vector finds one copy of, however small its space and loose its tolerance. */
static void multiple_values_on(const struct grid *grid)
{
    enum { N = 40, COUNT = 4 };
    static const double spectra[COUNT][6] = {
        {3, 3, 1, 0.3, 0.1, 0}, {3, 3, 3, 3, 1e-3, 1e-3}, {1, 0.5, 0.5, 0.5, 0.1, 0}, {2, 2, 1, 1, 0.1, 0.1}};
    double sigma[N];

    for (int s = 0; s < COUNT; s++) {
        for (int i = 0; i < N; i++) sigma[i] = i < 6 ? spectra[s][i] : spectra[s][5] * pow(0.8, i);
        struct dmat *A = s % 2 ? diagonal(grid, N, N + 3, sigma) : with_values(grid, N, N, sigma);
        for (int k = 1; k <= 5; k += grid->size <= 2 ? 1 : 2) {
            struct krylov_options options = options_of();
            check_with(A, &options, k, sigma);
            options.basis = k + 3;
            check_with(A, &options, k, sigma);
        }
        dmat_destroy(&A);
    }
}

static void no_copy_is_missed(void **state)
{
    (void)state;
    on_grids(multiple_values_on, true);
}

/* A product of matrices, one of them of low rank. */
static void triplets_of_products_on(const struct grid *grid)
{
    struct dmat *A[3] = {gaussian(grid, 12, 20, 1), gaussian(grid, 4, 12, 2), gaussian(grid, 15, 4, 3)};
    struct dmat *first = dmat_create(grid, 4, 20), *whole = dmat_create(grid, 15, 20);
    const struct dmat *const list[] = {whole};
    const struct krylov_options options = options_of();
    double sigma[15];

    dmat_gemm('N', 'N', 1, A[1], A[0], 0, first);
    dmat_gemm('N', 'N', 1, A[2], first, 0, whole);
    factor_singular_values(list, 1, sigma, 15);
    struct linop *L = linop_of_product((const struct dmat *const *)A, 3);
    struct triplets *T = triplets_create(L, 7);
    krylov_svd(L, &options, T);
    check_triplets(L, T, sigma);
    triplets_destroy(&T);
    linop_destroy(&L);
    dmat_destroy(&whole);
    dmat_destroy(&first);
    for (int i = 0; i < 3; i++) dmat_destroy(&A[i]);
}

static void triplets_of_a_product(void **state)
{
    (void)state;
    on_grids(triplets_of_products_on, true);
}

/* The same values and the same vectors (up to sign) as one rank alone finds. */
static void like_one_rank_on(const struct grid *grid)
{
    enum { K = 5 };
    static const int64_t shapes[][2] = {{37, 29}, {17, 45}};
    const struct krylov_options options = options_of();
    struct grid *alone = grid_create(MPI_COMM_SELF, 1, 1, 8);

    for (int s = 0; s < 2; s++) {
        struct dmat *A = gaussian(grid, shapes[s][0], shapes[s][1], 9);
        struct dmat *B = gaussian(alone, shapes[s][0], shapes[s][1], 9);
        struct linop *LA = linop_of_matrix(A), *LB = linop_of_matrix(B);
        struct triplets *TA = triplets_create(LA, K), *TB = triplets_create(LB, K);
        krylov_svd(LA, &options, TA);
        krylov_svd(LB, &options, TB);
        assert_int_equal(TA->products, TB->products); /* the start vector doesn't depend on the ranks */
        for (int left = 0; left < 2; left++) {
            double overlap[K] = {0};
            for (int i = 0; i < K; i++) {
                assert_close(TA->sigma[i], TB->sigma[i], 1e-9 * TB->sigma[0]);
                const int count = left ? TA->mloc : TA->nloc;
                for (int j = 0; j < count; j++)
                    overlap[i] += left ? TA->left[j + i * count] * TB->left[TA->row[j] + i * TB->mloc]
                                       : TA->right[j + i * count] * TB->right[TA->col[j] + i * TB->nloc];
            }
            grid_sum(grid, overlap, K);
            for (int i = 0; i < K; i++) assert_close(fabs(overlap[i]), 1, 1e-9);
        }
        triplets_destroy(&TA);
        triplets_destroy(&TB);
        linop_destroy(&LA);
        linop_destroy(&LB);
        dmat_destroy(&A);
        dmat_destroy(&B);
    }
    grid_destroy(&alone);
}

static void results_do_not_depend_on_the_ranks(void **state)
{
    (void)state;
    on_grids(like_one_rank_on, true);
}

/* From the old solution: of the same matrix, of one that moved a little, and of one whose leading vector is new. */
static void warm_start_on(const struct grid *grid)
{
    enum { N = 80, K = 4 };
    const struct krylov_options options = options_of();
    double sigma[N];

    for (int i = 0; i < N; i++) sigma[i] = 2 - 0.02 * i;
    for (int wide = 0; wide < 2; wide++) {
        struct dmat *A = with_values(grid, wide ? N : N + 7, wide ? N + 7 : N, sigma);
        struct dmat *noise = gaussian(grid, A->m, A->n, 21);
        struct linop *L = linop_of_matrix(A);
        struct triplets *warm = triplets_create(L, K), *cold = triplets_create(L, K);
        krylov_svd(L, &options, warm);
        check_triplets(L, warm, sigma);
        const int64_t first = warm->products;
        krylov_svd(L, &options, warm);
        check_triplets(L, warm, sigma);
        assert_in_range(warm->products, 1, first);
        assert_in_range(warm->products, 1, 2 * K + 30); /* nothing has changed: only the check is left */
        dmat_axpy(A, 1e-6, noise);
        krylov_svd(L, &options, warm);
        krylov_svd(L, &options, cold);
        check_triplets(L, warm, cold->sigma);
        assert_in_range(warm->products, 1, cold->products);
        triplets_destroy(&cold);
        for (int jl = 0; jl < A->nloc; jl++) /* a new leading pair that is orthogonal to nothing and to no old one */
            for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] += 0.2;
        cold = triplets_create(L, K);
        krylov_svd(L, &options, cold);
        krylov_svd(L, &options, warm);
        check_triplets(L, warm, cold->sigma);
        triplets_destroy(&cold);
        triplets_destroy(&warm);
        linop_destroy(&L);
        dmat_destroy(&noise);
        dmat_destroy(&A);
    }
}

static void warm_starts_are_cheaper(void **state)
{
    (void)state;
    on_grids(warm_start_on, true);
}

static void too_few_products_on(const struct grid *grid)
{
    enum { N = 90, K = 6 };
    struct krylov_options options = options_of();
    double sigma[N];

    for (int i = 0; i < N; i++) sigma[i] = 1 - 1e-3 * i;
    options.max_products = 10;
    struct dmat *A = with_values(grid, N, N, sigma);
    struct linop *L = linop_of_matrix(A);
    struct triplets *T = triplets_create(L, K);
    for (int repeat = 0; repeat < 2; repeat++) {
        krylov_svd(L, &options, T);
        assert_true(T->converged >= 0 && T->converged < K);
        for (int i = 0; i < K; i++) {
            assert_int_equal(isnan(T->sigma[i]) != 0, i >= T->converged);
            assert_int_equal(isnan(T->residual[i]) != 0, i >= T->converged);
        }
        assert_int_equal(T->filled, T->converged > 0);
    }
    options.max_products = 20000;
    krylov_svd(L, &options, T);
    check_triplets(L, T, sigma);
    triplets_destroy(&T);
    linop_destroy(&L);
    dmat_destroy(&A);
}

static void what_has_not_converged_is_not_a_number(void **state)
{
    (void)state;
    on_grids(too_few_products_on, true);
}

static const struct CMUnitTest krylov_tests[] = {
    cmocka_unit_test(operator_of_a_matrix),
    cmocka_unit_test(operator_of_a_product),
    cmocka_unit_test(triplets_of_random_matrices),
    cmocka_unit_test(triplets_of_known_matrices),
    cmocka_unit_test(no_copy_is_missed),
    cmocka_unit_test(triplets_of_a_product),
    cmocka_unit_test(results_do_not_depend_on_the_ranks),
    cmocka_unit_test(warm_starts_are_cheaper),
    cmocka_unit_test(what_has_not_converged_is_not_a_number),
};

UNIT_MAIN(krylov_tests, krylov_start, krylov_end)
