/* ranks: 1 2 4 6 */
/* Distributed matrices against the same operations on whole ones: index arithmetic, copies, views and redistribution,
 * on every grid shape, several block sizes and more ranks than blocks. */
#include "base/memory.h"
#include "dist/dmat.h"
#include "dist/grid.h"
#include "dist/random.h"
#include "grids.h"
#include "matrices.h"
#include "unit.h"

#include <string.h>

static const int64_t shapes[][2] = {{1, 1}, {7, 5}, {5, 13}, {1, 17}, {19, 1}, {70, 6}, {6, 70}, {0, 3}, {3, 0}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* ---------------------------------------------------------------- indices */

static void indices(void **state)
{
    (void)state;
    for (int nprocs = 1; nprocs <= 7; nprocs++)
        for (int nb = 1; nb <= 65; nb = nb < 4 ? nb + 1 : nb * 2)
            for (int64_t n = 0; n <= 200; n += n < 20 ? 1 : 37) {
                int total = 0, seen[7] = {0};
                for (int p = 0; p < nprocs; p++) total += grid_count(n, nb, p, 0, nprocs);
                assert_int_equal(total, n);
                for (int64_t i = 0; i < n; i++) {
                    const int owner = grid_owner(i, nb, nprocs), local = grid_local(i, nb, nprocs);
                    assert_in_range(owner, 0, nprocs - 1);
                    assert_int_equal(grid_global(local, nb, owner, nprocs), i);
                    assert_int_equal(local, seen[owner]); /* local indices follow the global order without gaps */
                    seen[owner]++;
                }
                for (int p = 0; p < nprocs; p++) {
                    assert_int_equal(seen[p], grid_count(n, nb, p, 0, nprocs));
                    for (int source = 0; source < nprocs; source++)
                        assert_int_equal(grid_count(n, nb, (p + source) % nprocs, source, nprocs), seen[p]);
                }
            }
}

/* Beyond 32 bits. */
static void large_indices(void **state)
{
    const int64_t i = (int64_t)5 << 32;

    (void)state;
    assert_int_equal(grid_owner(i + 64, 64, 8), 1);
    assert_int_equal(grid_local(i + 70, 64, 64), (i / 64 / 64) * 64 + 6);
    assert_true(grid_global((1 << 30) + 3, 64, 5, 8) == ((int64_t)1 << 33) + 5 * 64 + 3);
}

/* ---------------------------------------------------------------- elements */

static void check_elements(const struct grid *grid, int64_t m, int64_t n)
{
    struct dmat *A = numbered(grid, m, n);
    double *full = whole(A), *at_root = NEW(double, m *n);

    assert_int_equal((int64_t)A->mloc * A->nloc, dmat_local_size(grid, m, n));
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) assert_close(full[i + j * m], position(i, j, NULL), 0);
    dmat_gather(A, at_root, grid->size - 1);
    if (grid->rank == grid->size - 1) assert_memory_equal(at_root, full, (size_t)(m * n) * sizeof *full);

    struct dmat *T = dmat_create(grid, n, m);
    dmat_fill(T, NAN);
    dmat_transpose(A, T);
    double *transposed = whole(T);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) assert_close(transposed[j + i * n], full[i + j * m], 0);

    struct dmat *B = dmat_create(grid, m, n);
    dmat_fill(B, 2);
    dmat_axpy(B, 3, A);
    dmat_scale(B, 0.5);
    double *sum = whole(B);
    for (int64_t i = 0; i < m * n; i++) assert_close(sum[i], 1 + 1.5 * full[i], 0);
    dmat_copy(B, A);
    memory_free(sum);
    sum = whole(B);
    assert_memory_equal(sum, full, (size_t)(m * n) * sizeof *full);

    memory_free(sum);
    memory_free(transposed);
    memory_free(at_root);
    memory_free(full);
    dmat_destroy(&B);
    dmat_destroy(&T);
    dmat_destroy(&A);
    assert_null(A);
}

static void elements_on(struct grid *grid)
{
    for (int s = 0; s < SHAPES; s++) check_elements(grid, shapes[s][0], shapes[s][1]);
}

static void elements(void **state)
{
    (void)state;
    on_every_grid(elements_on);
}

/* A matrix laid over part of a longer array, as the layers of a network are. */
static void over_on(struct grid *grid)
{
    const int64_t first = dmat_local_size(grid, 7, 5), second = dmat_local_size(grid, 5, 3);
    double *memory = NEW(double, first + second);
    struct dmat *A = dmat_over(grid, 7, 5, memory), *B = dmat_over(grid, 5, 3, memory + first);
    struct dmat *C = numbered(grid, 5, 3);

    dmat_set(A, position, NULL);
    dmat_set(B, position, NULL);
    dmat_axpy(C, -1, B);
    assert_close(dmat_norm(C), 0, 0);
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            assert_close(memory[il + jl * A->mloc], position(dmat_row(A, il), dmat_col(A, jl), NULL), 0);
    dmat_destroy(&C);
    dmat_destroy(&B);
    dmat_destroy(&A);
    memory_free(memory);
}

static void borrowed_memory(void **state)
{
    (void)state;
    on_every_grid(over_on);
}

/* ---------------------------------------------------------------- views */

static void views_on(struct grid *grid)
{
    const int64_t unit = (int64_t)grid->block * grid->npcol, m = 11, n = 2 * unit + 2;
    struct dmat *A = numbered(grid, m, n);

    for (int64_t j0 = 0; j0 <= n; j0 += unit)
        for (int64_t width = 0; j0 + width <= n; width += 1 + width) {
            struct dmat *V = dmat_columns(A, j0, j0 + width);
            double *full = whole(V);
            assert_int_equal(V->m, m);
            assert_int_equal(V->n, width);
            assert_false(V->owned);
            for (int64_t j = 0; j < width; j++)
                for (int64_t i = 0; i < m; i++) assert_close(full[i + j * m], position(i, j0 + j, NULL), 0);
            memory_free(full);
            dmat_destroy(&V);
        }
    struct dmat *V = dmat_columns(A, unit, n);
    dmat_fill(V, -1);
    double *full = whole(A);
    for (int64_t j = 0; j < n; j++)
        for (int64_t i = 0; i < m; i++) assert_close(full[i + j * m], j < unit ? position(i, j, NULL) : -1, 0);
    memory_free(full);
    dmat_destroy(&V);
    dmat_destroy(&A);
}

static void views_of_columns(void **state)
{
    (void)state;
    on_every_grid(views_on);
}

static void check_taken(const struct grid *grid, int64_t m, int64_t from, int64_t to, const int64_t *columns)
{
    struct dmat *A = numbered(grid, m, from), *B = dmat_create(grid, m, to);

    dmat_fill(B, NAN);
    dmat_take_columns(A, columns, B);
    double *full = whole(B);
    for (int64_t j = 0; j < to; j++)
        for (int64_t i = 0; i < m; i++) assert_close(full[i + j * m], position(i, columns[j], NULL), 0);
    memory_free(full);
    dmat_destroy(&B);
    dmat_destroy(&A);
}

static void taking_on(struct grid *grid)
{
    int64_t columns[140];

    for (uint64_t round = 0; round < 4; round++) {
        random_permutation(140, columns, 1, 2, round);
        check_taken(grid, 9, 140, round == 0 ? 140 : 33, columns);
        for (int j = 0; j < 140; j++) columns[j] = random_below(1, 3, (uint64_t)j + 140 * round, 20); /* repeated */
        check_taken(grid, 5, 20, 67, columns);
        check_taken(grid, 1, 20, 1, columns);
        check_taken(grid, 2, 20, 0, columns);
    }
}

static void taken_columns(void **state)
{
    (void)state;
    on_every_grid(taking_on);
}

/* ---------------------------------------------------------------- slabs */

static void slabs_on(struct grid *grid)
{
    for (int s = 0; s < SHAPES; s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1];
        struct dmat *A = gaussian(grid, m, n, 1), *B = dmat_create(grid, m, n);
        int64_t first, count;
        dmat_slab_rows(A, &first, &count);
        double *slab = NEW(double, count *n), *full = whole(A), rows = (double)count;
        assert_true(first >= 0 && count >= 0 && first + count <= m);
        grid_sum(grid, &rows, 1);
        assert_close(rows, (double)m, 0);
        dmat_to_slab(A, slab);
        for (int64_t i = 0; i < count; i++)
            for (int64_t j = 0; j < n; j++) assert_close(slab[i * n + j], full[first + i + j * m], 0);
        dmat_fill(B, NAN);
        dmat_from_slab(B, slab);
        double *back = whole(B);
        assert_memory_equal(back, full, (size_t)(m * n) * sizeof *full);
        memory_free(back);
        memory_free(full);
        memory_free(slab);
        dmat_destroy(&B);
        dmat_destroy(&A);
    }
}

static void slabs_and_back(void **state)
{
    (void)state;
    on_every_grid(slabs_on);
}

/* ---------------------------------------------------------------- sums */

static void sums_on(struct grid *grid)
{
    for (int s = 0; s < SHAPES; s++) {
        struct dmat *A = gaussian(grid, shapes[s][0], shapes[s][1], 1), *B = gaussian(grid, A->m, A->n, 2);
        double *a = whole(A), *b = whole(B), dot = 0, square = 0, gram = 0;
        const int64_t m = A->m, n = A->n, least = m < n ? m : n;
        for (int64_t i = 0; i < m * n; i++) {
            dot += a[i] * b[i];
            square += a[i] * a[i];
        }
        for (int64_t i = 0; i < least; i++)
            for (int64_t j = 0; j < least; j++) {
                double sum = i == j ? -2.5 : 0;
                for (int64_t l = 0; l < m + n - least; l++)
                    sum += m >= n ? a[l + i * m] * a[l + j * m] : a[i + l * m] * a[j + l * m];
                gram += sum * sum;
            }
        assert_close(dmat_dot(A, B), dot, 1e-13 * (1 + square));
        assert_close(dmat_norm(A), sqrt(square), 1e-14 * (1 + sqrt(square)));
        assert_close(dmat_orthogonality(A, 2.5), sqrt(gram), 1e-13 * (1 + sqrt(gram)));
        memory_free(a);
        memory_free(b);
        dmat_destroy(&A);
        dmat_destroy(&B);
    }
}

static void norms_and_dots(void **state)
{
    (void)state;
    on_every_grid(sums_on);
}

/* ---------------------------------------------------------------- a few columns that every rank holds */

static void few_columns_on(struct grid *grid)
{
    enum { FEW = 3 };
    for (int s = 0; s < SHAPES; s++) {
        const int64_t m = shapes[s][0], n = shapes[s][1];
        struct dmat *A = gaussian(grid, m, n, 1), *columns = gaussian(grid, m + n, FEW, 2);
        double *a = whole(A), *xy = whole(columns), *X = NEW(double, n *FEW), *Y = NEW(double, m *FEW),
               *both = NEW(double, (m + n) * FEW);
        for (int k = 0; k < FEW; k++) {
            for (int64_t j = 0; j < n; j++) X[j + k * n] = xy[j + k * (m + n)];
            for (int64_t i = 0; i < m; i++) Y[i + k * m] = xy[n + i + k * (m + n)];
        }
        dmat_times_few(A, FEW, X, Y, both);
        for (int k = 0; k < FEW; k++) {
            for (int64_t i = 0; i < m; i++) {
                double sum = 0;
                for (int64_t j = 0; j < n; j++) sum += a[i + j * m] * X[j + k * n];
                assert_close(both[i + k * m], sum, 1e-12);
            }
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int64_t i = 0; i < m; i++) sum += a[i + j * m] * Y[i + k * m];
                assert_close(both[m * FEW + j + k * n], sum, 1e-12);
            }
        }
        dmat_outer(A, FEW, Y, X);
        double *outer = whole(A);
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = 0;
                for (int k = 0; k < FEW; k++) sum += Y[i + k * m] * X[j + k * n];
                assert_close(outer[i + j * m], sum, 1e-13);
            }
        memory_free(outer);
        memory_free(both);
        memory_free(Y);
        memory_free(X);
        memory_free(xy);
        memory_free(a);
        dmat_destroy(&columns);
        dmat_destroy(&A);
    }
}

static void few_columns(void **state)
{
    (void)state;
    on_every_grid(few_columns_on);
}

static const struct CMUnitTest dmat_tests[] = {
    cmocka_unit_test(indices),         cmocka_unit_test(large_indices),    cmocka_unit_test(elements),
    cmocka_unit_test(borrowed_memory), cmocka_unit_test(views_of_columns), cmocka_unit_test(taken_columns),
    cmocka_unit_test(slabs_and_back),  cmocka_unit_test(norms_and_dots),   cmocka_unit_test(few_columns),
};

UNIT_MAIN(dmat_tests, NULL, NULL)
