/* ranks: 1 2 4 6 */
/* Random numbers: the known answers of the generator, the distributions, and their independence of the grid. */
#include "base/memory.h"
#include "dist/dmat.h"
#include "dist/grid.h"
#include "dist/random.h"
#include "unit.h"

#include <string.h>

/* Known answer of Philox 4×64, 10 rounds, for a zero counter and key (Random123's kat_vectors): the first word. */
static void known_answer(void **state)
{
    (void)state;
    assert_true(random_bits(0, 0, 0) == UINT64_C(0x16554d9eca36314c));
}

/* Every argument matters, and none can stand in for another. */
static void arguments_are_apart(void **state)
{
    const uint64_t bits[] = {random_bits(1, 0, 0), random_bits(0, 1, 0), random_bits(0, 0, 1),
                             random_bits(1, 1, 0), random_bits(0, 1, 1), random_bits(1, 0, 1)};

    (void)state;
    for (int i = 0; i < 6; i++) {
        assert_true(bits[i] != random_bits(0, 0, 0));
        for (int j = 0; j < i; j++) assert_true(bits[i] != bits[j]);
    }
    assert_true(random_bits(7, 8, 9) == random_bits(7, 8, 9));
}

static void uniform_numbers(void **state)
{
    enum { N = 40000 };
    double sum = 0, squares = 0, least = 1, most = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        const double x = random_uniform(3, 4, i);
        assert_true(x >= 0 && x < 1);
        sum += x;
        squares += x * x;
        least = fmin(least, x);
        most = fmax(most, x);
    }
    assert_close(sum / N, 0.5, 5 * sqrt(1.0 / 12 / N));
    assert_close(squares / N, 1.0 / 3, 5 * sqrt(4.0 / 45 / N));
    assert_true(least < 1e-3 && most > 1 - 1e-3);
}

static void normal_numbers(void **state)
{
    enum { N = 40000 };
    double moment[5] = {0}, neighbours = 0, before = 0;
    int beyond = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        const double x = random_normal(3, 5, i);
        double power = 1;
        assert_true(isfinite(x));
        for (int p = 1; p <= 4; p++) moment[p] += (power *= x) / N;
        beyond += fabs(x) > 1.959963984540054;
        neighbours += x * before / N;
        before = x;
    }
    assert_close(moment[1], 0, 5 / sqrt(N));
    assert_close(moment[2], 1, 5 * sqrt(2.0 / N));
    assert_close(moment[3], 0, 5 * sqrt(15.0 / N));
    assert_close(moment[4], 3, 5 * sqrt(96.0 / N));
    assert_close(neighbours, 0, 5 / sqrt(N));
    assert_close(beyond, 0.05 * N, 5 * sqrt(0.05 * 0.95 * N));
}

static void integers_below(void **state)
{
    enum { N = 70000 };
    int seen[7] = {0};

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        const int64_t x = random_below(1, 2, i, 7);
        assert_in_range(x, 0, 6);
        seen[x]++;
        assert_int_equal(random_below(1, 2, i, 1), 0);
        assert_true(random_below(1, 2, i, INT64_MAX) >= 0);
    }
    for (int i = 0; i < 7; i++) assert_close(seen[i], N / 7, 5 * sqrt(N / 7));
}

static void permutations(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 3, 100, 1000};
    int64_t permutation[1000], other[1000];

    (void)state;
    for (int s = 0; s < 6; s++) {
        const int64_t n = sizes[s];
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            char seen[1000] = {0};
            random_permutation(n, permutation, 1, RANDOM_BATCHES, epoch);
            for (int64_t i = 0; i < n; i++) {
                assert_in_range(permutation[i], 0, n - 1);
                assert_int_equal(seen[permutation[i]], 0);
                seen[permutation[i]] = 1;
            }
        }
    }
    random_permutation(1000, permutation, 1, RANDOM_BATCHES, 0);
    random_permutation(1000, other, 1, RANDOM_BATCHES, 0);
    assert_memory_equal(permutation, other, sizeof other);
    random_permutation(1000, other, 1, RANDOM_BATCHES, 1);
    assert_memory_not_equal(permutation, other, sizeof other);
    random_permutation(1000, other, 2, RANDOM_BATCHES, 0);
    assert_memory_not_equal(permutation, other, sizeof other);
}

/* All orders of three come equally often. */
static void permutations_are_uniform(void **state)
{
    enum { N = 12000 };
    int seen[9] = {0};

    (void)state;
    for (uint64_t epoch = 0; epoch < N; epoch++) {
        int64_t p[3];
        random_permutation(3, p, 5, RANDOM_BATCHES, epoch);
        seen[3 * p[0] + p[1]]++;
    }
    for (int i = 0; i < 9; i++) assert_close(seen[i], i % 4 == 0 ? 0 : N / 6, i % 4 == 0 ? 0 : 5 * sqrt(N / 6));
}

static void check_matrix(const struct grid *grid, int64_t m, int64_t n)
{
    struct dmat *A = dmat_create(grid, m, n);
    double *full = NEW(double, m *n);

    random_fill_normal(A, 6, RANDOM_WEIGHTS + 1);
    dmat_gather(A, full, -1);
    for (int64_t i = 0; i < m * n; i++) assert_close(full[i], random_normal(6, RANDOM_WEIGHTS + 1, (uint64_t)i), 0);
    random_fill_uniform(A, 6, RANDOM_DATA);
    dmat_gather(A, full, -1);
    for (int64_t i = 0; i < m * n; i++) {
        assert_close(full[i], 2 * random_uniform(6, RANDOM_DATA, (uint64_t)i) - 1, 0);
        assert_true(full[i] >= -1 && full[i] < 1);
    }
    memory_free(full);
    dmat_destroy(&A);
}

static void matrices_do_not_depend_on_the_grid(void **state)
{
    static const int blocks[] = {1, 3, 64};
    int size;

    (void)state;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int nprow = 1; nprow <= size; nprow++)
        for (int b = 0; size % nprow == 0 && b < 3; b++) {
            struct grid *grid = grid_create(MPI_COMM_WORLD, nprow, size / nprow, blocks[b]);
            check_matrix(grid, 1, 1);
            check_matrix(grid, 7, 13);
            check_matrix(grid, 70, 5);
            check_matrix(grid, 0, 5);
            grid_destroy(&grid);
        }
}

static const struct CMUnitTest random_tests[] = {
    cmocka_unit_test(known_answer),
    cmocka_unit_test(arguments_are_apart),
    cmocka_unit_test(uniform_numbers),
    cmocka_unit_test(normal_numbers),
    cmocka_unit_test(integers_below),
    cmocka_unit_test(permutations),
    cmocka_unit_test(permutations_are_uniform),
    cmocka_unit_test(matrices_do_not_depend_on_the_grid),
};

UNIT_MAIN(random_tests, NULL, NULL)
