/* ranks: 1 2 4 6 */
/* The subspaces of a layer's first gradient, on layers small enough to know them by hand: W(0) = ε times a rotated
 * identity, a gradient of rank one along given directions, and matrices with all their weight in one block. */
#include "dist/dmat.h"
#include "dist/krylov.h"
#include "grids.h"
#include "theory/confine.h"
#include "unit.h"

static double value_at(int64_t ig, int64_t jg, const void *context)
{
    const double *entry = context; /* row, column, value */

    return (double)ig == entry[0] && (double)jg == entry[1] ? entry[2] : 0;
}

/* Zero but for one entry. */
static struct dmat *single(const struct grid *grid, int64_t m, int64_t n, int64_t i, int64_t j, double value)
{
    struct dmat *A = dmat_create(grid, m, n);

    dmat_set(A, value_at, (double[]){(double)i, (double)j, value});
    return A;
}

static double shifted(int64_t ig, int64_t jg, const void *context)
{
    return ig == (jg + 1) % 7 ? *(const double *)context : 0;
}

static void check_parts(const struct confine *c, const struct grid *grid, bool wide, int64_t i, int64_t j, int row,
                        int column)
{
    struct dmat *M = wide ? single(grid, 5, 7, j, i, 3) : single(grid, 7, 5, i, j, 3);
    const struct confine_parts parts = confine_measure(c, M, true), fast = confine_measure(c, M, false);

    assert_close(parts.total, 9, 1e-13);
    assert_close(parts.outside, row == 0 && column == 0 ? 0 : 9, 1e-13);
    assert_close(fast.outside, parts.outside, 1e-13);
    for (int a = 0; a < 2; a++)
        for (int b = 0; b < 2; b++)
            assert_close(wide ? parts.block[b][a] : parts.block[a][b], a == row && b == column ? 9 : 0, 1e-13);
    dmat_destroy(&M);
}

/* E e_j = e_(j + 1); L = e_3 = E e_2 and R = e_0: V_1 = span[e_0, e_2], U_2 = E span[e_1, e_3, e_4] = [e_2, e_4, e_5].
 * A wide layer is the same for its transpose, whose gradient has the sides changed. */
static void layer_on(struct grid *grid, bool wide)
{
    const double epsilon = 0.25;
    struct dmat *tall = dmat_create(grid, 7, 5), *start = dmat_create(grid, wide ? 5 : 7, wide ? 7 : 5);

    dmat_set(tall, shifted, &epsilon);
    if (wide)
        dmat_transpose(tall, start);
    else
        dmat_copy(start, tall);
    struct confine *c = confine_create(start);
    assert_true(c->orthonormal && c->transposed == wide);
    assert_close(c->epsilon, epsilon, 1e-15);
    struct dmat *output = single(grid, 7, 1, 3, 0, 1), *input = single(grid, 5, 1, 0, 0, 1);
    confine_find(c, wide ? input : output, wide ? output : input);
    assert_int_equal(c->V->m, 5);
    assert_int_equal(c->V->n, 2);
    check_parts(c, grid, wide, 3, 0, 0, 0);
    check_parts(c, grid, wide, 6, 2, 0, 0);
    check_parts(c, grid, wide, 0, 1, 0, 1);
    check_parts(c, grid, wide, 4, 0, 1, 0);
    check_parts(c, grid, wide, 5, 4, 1, 1);
    dmat_destroy(&input);
    dmat_destroy(&output);
    dmat_destroy(&start);
    dmat_destroy(&tall);
    confine_destroy(&c);
}

static void tall_layer(struct grid *grid)
{
    layer_on(grid, false);
}

static void wide_layer(struct grid *grid)
{
    layer_on(grid, true);
}

/* Directions that both sides share count once. */
static void span_on(struct grid *grid)
{
    struct dmat *E = dmat_create(grid, 7, 5), *left = single(grid, 7, 1, 3, 0, 1), *right = single(grid, 5, 1, 2, 0, 1);
    const double one = 1;

    dmat_set(E, shifted, &one);
    struct dmat *V = confine_span(E, left, right);
    assert_int_equal(V->n, 1);
    assert_close(confine_angle(V, right), 0, 1e-6);
    struct dmat *other = single(grid, 5, 1, 4, 0, 1);
    assert_close(confine_angle(V, other), 90, 1e-10);
    dmat_destroy(&other);
    dmat_destroy(&V);
    dmat_destroy(&right);
    dmat_destroy(&left);
    dmat_destroy(&E);
}

static double diagonal(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return ig == jg ? (double)(5 - ig) : 0;
}

static void leading_on(struct grid *grid)
{
    struct dmat *A = dmat_create(grid, 5, 4), *left = dmat_create(grid, 5, 2), *right = dmat_create(grid, 4, 2);
    double sigma[5];

    dmat_set(A, diagonal, NULL);
    confine_leading(A, 2, 1e-12, 1, sigma, left, right);
    for (int i = 0; i < 3; i++) assert_close(sigma[i], 5 - i, 1e-12);
    confine_leading(A, 4, 1e-12, 1, sigma, NULL, NULL);
    for (int i = 0; i < 5; i++) assert_close(sigma[i], i < 4 ? 5 - i : 0, 1e-12);
    dmat_destroy(&right);
    dmat_destroy(&left);
    dmat_destroy(&A);
}

#define ON_GRIDS(function)                                                                                             \
    static void function##s(void **state)                                                                              \
    {                                                                                                                  \
        (void)state;                                                                                                   \
        on_every_grid(function##_on);                                                                                  \
    }

static void layers(void **state)
{
    (void)state;
    on_every_grid(tall_layer);
    on_every_grid(wide_layer);
}

ON_GRIDS(span)
ON_GRIDS(leading)

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(layers),
    cmocka_unit_test(spans),
    cmocka_unit_test(leadings),
};

UNIT_MAIN(tests, krylov_start, krylov_end)
