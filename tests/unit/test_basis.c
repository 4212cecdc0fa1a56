/* ranks: 1 2 4 6 */
/* Overlaps against dense products, and principal angles of subspaces turned by known rotations. */
#include "base/memory.h"
#include "dist/basis.h"
#include "dist/dmat.h"
#include "dist/factor.h"
#include "dist/grid.h"
#include "dist/random.h"
#include "unit.h"

#include <string.h>

static int rank, size;

static int find_ranks(void **state)
{
    (void)state;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return 0;
}

/* How the n entries are dealt to the ranks. */
enum deal { CYCLIC, CONTIGUOUS, ALL_ON_LAST, BACKWARDS, DEALS };

static bool mine(enum deal deal, int64_t i, int64_t n)
{
    if (deal == CYCLIC) return i % size == rank;
    if (deal == CONTIGUOUS) return i / ((n + size - 1) / size) == rank;
    if (deal == ALL_ON_LAST) return rank == size - 1;
    return (n - 1 - i) % size == rank;
}

/* The basis of k columns of full (n × k), dealt. */
static struct basis basis_of(const double *full, int64_t n, int k, enum deal deal)
{
    int64_t *global = NEW(int64_t, n);
    int nloc = 0;

    for (int64_t i = 0; i < n; i++) {
        const int64_t ig = deal == BACKWARDS ? n - 1 - i : i;
        if (mine(deal, ig, n)) global[nloc++] = ig;
    }
    double *local = NEW(double, (int64_t)nloc *k);
    for (int j = 0; j < k; j++)
        for (int i = 0; i < nloc; i++) local[i + (int64_t)j * nloc] = full[global[i] + j * n];
    return (struct basis){.comm = MPI_COMM_WORLD, .n = n, .k = k, .nloc = nloc, .local = local, .global = global};
}

static void basis_free(struct basis *U)
{
    memory_free((void *)U->local);
    memory_free((void *)U->global);
}

/* n × k orthonormal columns, whole on every rank. */
static double *orthonormal(int64_t n, int k)
{
    struct grid *grid = grid_create(MPI_COMM_SELF, 1, 1, 64);
    struct dmat *Q = dmat_create(grid, n, k);
    double *full = NEW(double, n *k);

    random_fill_normal(Q, 1, 2);
    factor_orthonormal(Q);
    dmat_gather(Q, full, -1);
    dmat_destroy(&Q);
    grid_destroy(&grid);
    return full;
}

static void overlaps(void **state)
{
    static const int sizes[][3] = {{1, 1, 1}, {5, 2, 3}, {33, 4, 1}, {40, 7, 7}, {3, 0, 2}};

    (void)state;
    for (int s = 0; s < 5; s++) {
        const int64_t n = sizes[s][0];
        const int ku = sizes[s][1], kv = sizes[s][2];
        double *u = NEW(double, n *ku), *v = NEW(double, n *kv), *overlap = NEW(double, ku *kv);
        for (int64_t i = 0; i < n * ku; i++) u[i] = random_normal(1, 1, (uint64_t)i);
        for (int64_t i = 0; i < n * kv; i++) v[i] = random_normal(1, 2, (uint64_t)i);
        for (int du = 0; du < DEALS; du++)
            for (int dv = 0; dv < DEALS; dv++) {
                struct basis U = basis_of(u, n, ku, (enum deal)du), V = basis_of(v, n, kv, (enum deal)dv);
                basis_overlap(&U, &V, overlap);
                for (int i = 0; i < ku; i++)
                    for (int j = 0; j < kv; j++) {
                        double expected = 0;
                        for (int64_t l = 0; l < n; l++) expected += u[l + i * n] * v[l + j * n];
                        assert_close(overlap[i + j * ku], expected, 1e-13 * (double)n);
                    }
                basis_free(&U);
                basis_free(&V);
            }
        memory_free(u);
        memory_free(v);
        memory_free(overlap);
    }
}

/* Angles between the first k columns of q (n × 2k) and the same turned towards the other k, then mixed among
 * themselves. */
static void check_angles(const double *q, int64_t n, int k, const double *angle, enum deal deal, double tolerance)
{
    double *turned = NEW(double, n *k), *mixed = NEW(double, n *k), *mix = orthonormal(k, k), *found = NEW(double, k);

    for (int j = 0; j < k; j++)
        for (int64_t i = 0; i < n; i++)
            turned[i + j * n] = cos(angle[j]) * q[i + j * n] + sin(angle[j]) * q[i + (k + j) * n];
    for (int j = 0; j < k; j++)
        for (int l = 0; l < k; l++)
            for (int64_t i = 0; i < n; i++) mixed[i + j * n] += turned[i + l * n] * mix[l + j * k];
    struct basis U = basis_of(q, n, k, deal), V = basis_of(mixed, n, k, deal);
    basis_angles(&U, &V, found);
    for (int j = 0; j < k; j++) assert_close(found[j], angle[j], tolerance);
    basis_angles(&V, &U, found);
    for (int j = 0; j < k; j++) assert_close(found[j], angle[j], tolerance);
    basis_free(&U);
    basis_free(&V);
    memory_free(turned);
    memory_free(mixed);
    memory_free(mix);
    memory_free(found);
}

static void angles_of_rotations(void **state)
{
    enum { N = 30, K = 6 };
    static const double known[K] = {0, 1e-12, 1e-3, 0.7, 1.2, M_PI / 2}, small[K] = {0, 0, 1e-12, 1e-9, 1e-6, 1e-4},
                        right[K] = {0.78, 0.79, 1.5, M_PI / 2, M_PI / 2, M_PI / 2};
    double *q = orthonormal(N, 2 * K);

    (void)state;
    for (int deal = 0; deal < DEALS; deal++) {
        check_angles(q, N, K, known, (enum deal)deal, 2e-15);
        check_angles(q, N, K, small, (enum deal)deal, 2e-15);
        check_angles(q, N, K, right, (enum deal)deal, 2e-15);
        for (int i = 0; i < K; i++) check_angles(q, N, 1, known + i, (enum deal)deal, 2e-15);
    }
    memory_free(q);
}

static void identical_subspaces(void **state)
{
    enum { N = 50, K = 5 };
    static const double zeros[K] = {0};
    double *q = orthonormal(N, 2 * K), angle[K];

    (void)state;
    for (int deal = 0; deal < DEALS; deal++) {
        struct basis U = basis_of(q, N, K, (enum deal)deal);
        basis_angles(&U, &U, angle);
        for (int i = 0; i < K; i++) assert_close(angle[i], 0, 2e-15);
        basis_free(&U);
        check_angles(q, N, K, zeros, (enum deal)deal, 2e-15);
    }
    memory_free(q);
}

/* The whole space is the whole space, whatever its basis. */
static void whole_spaces(void **state)
{
    enum { N = 4 };
    double unit[N * N] = {0}, angle[N], *q = orthonormal(N, N);

    (void)state;
    for (int i = 0; i < N; i++) unit[i + N * i] = 1;
    struct basis U = basis_of(unit, N, N, CYCLIC), V = basis_of(q, N, N, CYCLIC), none = U;
    basis_angles(&U, &V, angle);
    for (int i = 0; i < N; i++) assert_close(angle[i], 0, 2e-15);
    none.k = 0;
    basis_angles(&none, &none, angle);
    basis_free(&U);
    basis_free(&V);
    memory_free(q);
}

static const struct CMUnitTest basis_tests[] = {
    cmocka_unit_test_setup(overlaps, find_ranks),
    cmocka_unit_test_setup(angles_of_rotations, find_ranks),
    cmocka_unit_test_setup(identical_subspaces, find_ranks),
    cmocka_unit_test_setup(whole_spaces, find_ranks),
};

UNIT_MAIN(basis_tests, NULL, NULL)
