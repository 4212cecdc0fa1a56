/* ranks: 1 2 4 6 */
/* Distributed products against the same of whole matrices: both routes, thin and wide shapes, held matrices, on every
 * grid shape, several block sizes and more ranks than blocks. */
#include "grids.h"
#include "matrices.h"
#include "unit.h"

#include <math.h>
#include <string.h>

/* C ← a·op(A) op(B) + b·C of whole matrices, and the same with absolute values: what rounding is measured by. */
static void reference(char ta, char tb, double a, const struct dmat *A, const double *fa, const struct dmat *B,
                      const double *fb, double b, int64_t m, int64_t n, double *C, double *size)
{
    const int64_t inner = ta == 'N' ? A->n : A->m;

    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0, absolute = 0;
            for (int64_t k = 0; k < inner; k++) {
                const double product = (ta == 'N' ? fa[i + k * A->m] : fa[k + i * A->m]) *
                                       (tb == 'N' ? fb[k + j * B->m] : fb[j + k * B->m]);
                sum += product;
                absolute += fabs(product);
            }
            size[i + j * m] = fabs(a) * absolute + (b == 0 ? 0 : fabs(b * C[i + j * m]));
            C[i + j * m] = a * sum + (b == 0 ? 0 : b * C[i + j * m]);
        }
}

/* One product, C's old elements NaN if b = 0; twice, with the same bits on the panel route. */
static void check_product(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b,
                          struct dmat *C)
{
    const size_t bytes = (size_t)(C->m * C->n) * sizeof(double);
    double *fa = whole(A), *fb = whole(B), *size = NEW(double, C->m * C->n);

    random_fill_normal(C, 8, 77);
    double *expected = whole(C);
    reference(ta, tb, a, A, fa, B, fb, b, C->m, C->n, expected, size);
    if (b == 0) dmat_fill(C, NAN);
    dmat_gemm(ta, tb, a, A, B, b, C);
    double *found = whole(C);
    for (int64_t i = 0; i < C->m * C->n; i++) assert_close(found[i], expected[i], 1e-13 * size[i]);
    if (C->grid->gemm == GRID_GEMM_PANEL) {
        random_fill_normal(C, 8, 77);
        dmat_gemm(ta, tb, a, A, B, b, C);
        memory_free(expected);
        expected = whole(C);
        assert_memory_equal(expected, found, bytes);
    }
    memory_free(found);
    memory_free(expected);
    memory_free(size);
    memory_free(fb);
    memory_free(fa);
}

/* op(A) is m × k, op(B) is k × n. */
static void check_shape(struct grid *grid, int64_t m, int64_t n, int64_t k, double a, double b)
{
    static const char kinds[3][2] = {{'N', 'N'}, {'T', 'N'}, {'N', 'T'}};

    for (int t = 0; t < 3; t++) {
        const bool ta = kinds[t][0] == 'T', tb = kinds[t][1] == 'T';
        struct dmat *A = gaussian(grid, ta ? k : m, ta ? m : k, 1), *B = gaussian(grid, tb ? n : k, tb ? k : n, 2);
        struct dmat *C = dmat_create(grid, m, n);
        for (int route = GRID_GEMM_PANEL; route <= GRID_GEMM_PDGEMM; route++) {
            grid->gemm = (enum grid_gemm)route;
            check_product(kinds[t][0], kinds[t][1], a, A, B, b, C);
        }
        dmat_destroy(&C);
        dmat_destroy(&B);
        dmat_destroy(&A);
    }
}

static void products_on(struct grid *grid)
{
    static const int64_t sizes[][3] = {{1, 1, 1},  {7, 5, 11},  {13, 17, 1}, {1, 19, 6},  {23, 1, 4},
                                       {97, 3, 5}, {2, 101, 3}, {4, 3, 89},  {67, 71, 73}};
    static const double scales[][2] = {{1, 0}, {1, 1}, {-0.5, 0.5}, {2, -1}};

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int c = 0; c < (s < 2 ? 4 : 2); c++)
            check_shape(grid, sizes[s][0], sizes[s][1], sizes[s][2], scales[(c + s) % 4][0], scales[(c + s) % 4][1]);
}

static void products(void **state)
{
    (void)state;
    on_every_grid(products_on);
}

/* Small whole numbers, so that sums are exact in any order. */
static double left_number(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return (double)((ig * 31 + jg * 17) % 101 - 50);
}

static double right_number(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return (double)((ig * 13 + jg * 29) % 103 - 51);
}

/* op(A) is m × k, op(B) is k × n; every rank checks its own elements of C = op(A) op(B) + C. */
static void check_exact(struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k)
{
    struct dmat *A = dmat_create(grid, ta == 'T' ? k : m, ta == 'T' ? m : k), *C = numbered(grid, m, n);
    struct dmat *B = dmat_create(grid, tb == 'T' ? n : k, tb == 'T' ? k : n);

    grid->gemm = GRID_GEMM_PANEL;
    dmat_set(A, left_number, NULL);
    dmat_set(B, right_number, NULL);
    dmat_gemm(ta, tb, 1, A, B, 1, C);
    for (int jl = 0; jl < C->nloc; jl++)
        for (int il = 0; il < C->mloc; il++) {
            const int64_t i = dmat_row(C, il), j = dmat_col(C, jl);
            double sum = position(i, j, NULL);
            for (int64_t l = 0; l < k; l++)
                sum += (ta == 'T' ? left_number(l, i, NULL) : left_number(i, l, NULL)) *
                       (tb == 'T' ? right_number(j, l, NULL) : right_number(l, j, NULL));
            assert_true(C->local[il + (int64_t)jl * C->lld] == sum);
        }
    dmat_destroy(&C);
    dmat_destroy(&B);
    dmat_destroy(&A);
}

/* The index that panels run over is wider than a panel, whose least width is 256 columns in whole rounds of blocks;
 * panels of so many rows are no wider. */
static void wide_on(struct grid *grid)
{
    const int64_t tall = 1100 * grid->nprow, broad = 1100 * grid->npcol, wide = 521;

    if (grid->block == 1) return;
    check_exact(grid, 'N', 'N', tall, 1, wide);
    check_exact(grid, 'N', 'N', 1, broad, wide);
    check_exact(grid, 'T', 'N', wide, 1, tall);
    check_exact(grid, 'T', 'N', wide, broad, 1);
    check_exact(grid, 'N', 'T', tall, wide, 1);
    check_exact(grid, 'N', 'T', 1, wide, broad);
}

/* One side is thin: local products in strips. */
static void thin_on(struct grid *grid)
{
    const int64_t broad = 131 * grid->npcol;

    if (grid->block == 1) return;
    check_exact(grid, 'N', 'N', 20, broad, 501);
    check_exact(grid, 'T', 'N', 20, broad, 501);
    check_exact(grid, 'T', 'N', 501, broad, 20);
    check_exact(grid, 'N', 'T', 20, 501, broad);
    check_exact(grid, 'N', 'T', 501, 20, broad);
}

static void thin_products(void **state)
{
    (void)state;
    on_every_grid(thin_on);
}

static void assert_equal(const struct dmat *A, const struct dmat *B)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            assert_true(A->local[il + (int64_t)jl * A->lld] == B->local[il + (int64_t)jl * B->lld]);
}

/* op(A) B with A held, and what follows from it once it is released and has changed. */
static void check_held(struct grid *grid, char ta, int64_t m, int64_t n, int64_t k)
{
    struct dmat *A = dmat_create(grid, ta == 'T' ? k : m, ta == 'T' ? m : k), *B = dmat_create(grid, k, n);
    struct dmat *C = numbered(grid, m, n), *expected = numbered(grid, m, n);

    dmat_set(A, left_number, NULL);
    dmat_set(B, right_number, NULL);
    for (int round = 0; round < 2; round++) {
        dmat_gemm(ta, 'N', 2, A, B, 1, expected);
        dmat_hold(A);
        struct dmat *view = dmat_columns(A, 0, A->n);
        dmat_scale(view, 1);
        dmat_destroy(&view); /* the held matrix is still there */
        dmat_gemm(ta, 'N', 2, A, B, 1, C);
        dmat_release(A);
        assert_equal(C, expected);
        dmat_scale(A, -3);
    }
    dmat_destroy(&expected);
    dmat_destroy(&C);
    dmat_destroy(&B);
    dmat_destroy(&A);
}

/* Two products A Bᵀ, added up on each rank and summed at the end; what stood in C is gone. */
static void check_collected(struct grid *grid, int64_t m, int64_t n, int64_t k)
{
    struct dmat *A = dmat_create(grid, m, k), *B = dmat_create(grid, n, k);
    struct dmat *C = numbered(grid, m, n), *expected = dmat_create(grid, m, n);

    dmat_set(A, left_number, NULL);
    dmat_set(B, right_number, NULL);
    for (int round = 0; round < 2; round++) {
        dmat_collect(C);
        dmat_gemm('N', 'T', 1, A, B, 0, C);
        dmat_gemm('N', 'T', -3, A, B, 1, C);
        dmat_release(C);
        dmat_gemm('N', 'T', -2, A, B, 0, expected);
        assert_equal(C, expected);
        dmat_scale(A, 5);
    }
    dmat_destroy(&expected);
    dmat_destroy(&C);
    dmat_destroy(&B);
    dmat_destroy(&A);
}

static void held_on(struct grid *grid)
{
    const bool able = grid->nprow == 1 && grid->npcol > 1;

    assert_true(dmat_is_small(grid, 362, 362) == able);
    assert_false(dmat_is_small(grid, 363, 362));
    check_held(grid, 'N', 7, 61, 13);
    check_held(grid, 'T', 7, 61, 13);
    check_held(grid, 'N', 3, 1, 150);
    check_held(grid, 'T', 150, 5, 1);
    check_held(grid, 'N', 400, 3, 400); /* too large */
    check_collected(grid, 7, 13, 61);
    check_collected(grid, 150, 1, 5);
    check_collected(grid, 3, 150, 1);
    check_collected(grid, 400, 400, 3);
}

static void held_matrices(void **state)
{
    (void)state;
    on_every_grid(held_on);
}

static void products_of_several_panels(void **state)
{
    (void)state;
    on_every_grid(wide_on);
}

/* An empty inner index scales C; empty results are left alone. */
static void empty_on(struct grid *grid)
{
    for (int route = GRID_GEMM_PANEL; route <= GRID_GEMM_PDGEMM; route++) {
        struct dmat *A = dmat_create(grid, 5, 0), *B = dmat_create(grid, 0, 4), *C = numbered(grid, 5, 4);
        struct dmat *D = numbered(grid, 5, 4), *E = dmat_create(grid, 0, 5);
        grid->gemm = (enum grid_gemm)route;
        dmat_gemm('N', 'N', 1, A, B, 0.5, C);
        dmat_axpy(C, -0.5, D);
        assert_close(dmat_norm(C), 0, 0);
        dmat_fill(C, NAN);
        dmat_gemm('N', 'N', 1, A, B, 0, C);
        assert_close(dmat_norm(C), 0, 0);
        dmat_gemm('N', 'N', 1, E, D, 0, B);
        dmat_destroy(&E);
        dmat_destroy(&D);
        dmat_destroy(&C);
        dmat_destroy(&B);
        dmat_destroy(&A);
    }
}

static void products_of_nothing(void **state)
{
    (void)state;
    on_every_grid(empty_on);
}

/* Factors and results that are views of columns: what a chunk of data is. */
static void products_of_views_on(struct grid *grid)
{
    const int64_t unit = (int64_t)grid->block * grid->npcol, m = 7, k = 9;
    struct dmat *A = gaussian(grid, m, k, 1), *X = gaussian(grid, k, 2 * unit + 3, 2);
    struct dmat *Z = gaussian(grid, m, 2 * unit + 3, 3), *G = dmat_create(grid, m, k);

    for (int route = GRID_GEMM_PANEL; route <= GRID_GEMM_PDGEMM; route++)
        for (int64_t j0 = 0; j0 <= 2 * unit; j0 += unit) {
            const int64_t j1 = j0 + unit < X->n ? j0 + unit : X->n;
            struct dmat *x = dmat_columns(X, j0, j1), *z = dmat_columns(Z, j0, j1);
            double *before = whole(Z);
            grid->gemm = (enum grid_gemm)route;
            check_product('N', 'N', 1, A, x, 0, z);
            check_product('N', 'T', 1, z, x, 1, G);
            check_product('T', 'N', 1, A, z, 0, x);
            double *after = whole(Z);
            for (int64_t j = 0; j < Z->n; j++) /* the other columns are untouched */
                for (int64_t i = 0; i < m && (j < j0 || j >= j1); i++)
                    assert_close(after[i + j * m], before[i + j * m], 0);
            memory_free(after);
            memory_free(before);
            dmat_destroy(&x);
            dmat_destroy(&z);
        }
    dmat_destroy(&A);
    dmat_destroy(&X);
    dmat_destroy(&Z);
    dmat_destroy(&G);
}

static void products_of_views(void **state)
{
    (void)state;
    on_every_grid(products_of_views_on);
}

static const struct CMUnitTest gemm_tests[] = {
    cmocka_unit_test(products),      cmocka_unit_test(products_of_several_panels), cmocka_unit_test(thin_products),
    cmocka_unit_test(held_matrices), cmocka_unit_test(products_of_nothing),        cmocka_unit_test(products_of_views),
};

UNIT_MAIN(gemm_tests, NULL, NULL)
