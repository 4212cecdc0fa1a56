/* ranks: 1 2 4 6 */
/* Generated data: what defines each kind, on every grid; and losses on datasets with masks and measurements. */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/dmat.h"
#include "dist/factor.h"
#include "dist/grid.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/dataset.h"
#include "net/loss.h"
#include "net/sensing.h"
#include "grids.h"
#include "inputs.h"
#include "unit.h"

#include <string.h>

enum { SEED = 3 };

static struct spec *spec_of(const char *data)
{
    char *text = memory_text("run: {seed: 3}\ndata: {%s}\nloss: {kind: %s}\n", data,
                             strstr(data, "completion") ? "masked_mse"
                             : strstr(data, "sensing")  ? "sensing"
                                                        : "mse");
    struct spec *spec = input_of(text);

    memory_free(text);
    return spec;
}

/* The data, which has the sizes and takes the memory that it was measured to have. */
static struct data *data_of(const struct grid *grid, const char *text)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);
    struct data_sizes sizes;
    struct data *data = data_create(grid, spec, &problems);

    problems_print(&problems);
    assert_non_null(data);
    assert_true(data_measure(grid->comm, spec, &sizes, &problems));
    const struct dataset *set = data->train;
    assert_int_equal(sizes.features, set->features);
    assert_int_equal(sizes.outputs, set->outputs);
    assert_int_equal(sizes.train, set->samples);
    assert_int_equal(sizes.test, data->test ? data->test->samples : 0);
    assert_int_equal(sizes.classification, set->classification);
    assert_int_equal(sizes.identity, set->X == NULL);
    assert_int_equal(sizes.masked, set->M != NULL);
    assert_int_equal(sizes.measurements, set->sensing ? set->sensing->count : 0);
    const int64_t y = (int64_t)set->Y->mloc * set->Y->nloc, x = set->X ? (int64_t)set->X->mloc * set->X->nloc : 0;
    const int64_t extra = set->M ? y : set->sensing ? set->sensing->count * (y + 2) : 0;
    if (y > 0) assert_int_equal(data_set_bytes(grid, &sizes, sizes.train, true), 8 * (x + y + extra));
    assert_true(data_bytes(grid, spec, &sizes) >= 0);
    spec_destroy(&spec);
    return data;
}

static double *gathered(const struct dmat *A)
{
    double *full = NEW(double, A->m * A->n);

    dmat_gather(A, full, -1);
    return full;
}

/* ---------------------------------------------------------------- targets of low rank */

/* The target's singular values are those with the given numbers of the Gaussian matrix. */
static void check_target(const struct grid *grid, const char *text, const int *number, int rank)
{
    struct data *data = data_of(grid, text);
    const struct dmat *Y = data->train->Y;
    const int m = to_int(Y->m), n = to_int(Y->n);
    struct dmat *gaussian = dmat_create(grid, m, n);
    double ours[30], all[30];

    random_fill_normal(gaussian, SEED, RANDOM_DATA + 1);
    double *target = gathered(Y), *whole = gathered(gaussian);
    factor_local_singular_values(m, n, target, ours);
    factor_local_singular_values(m, n, whole, all);
    for (int i = 0; i < rank; i++) assert_close(ours[i], all[number[i]], 1e-12 * all[0]);
    for (int i = rank; i < m && i < n; i++) assert_close(ours[i], 0, 1e-13 * all[0]);
    assert_null(data->train->X);
    assert_null(data->test);
    memory_free(target);
    memory_free(whole);
    dmat_destroy(&gaussian);
    data_destroy(&data);
}

static void targets_on(struct grid *grid)
{
    const int leading[] = {0, 1, 2}, spread[] = {0, 2, 5}, all[] = {0, 1, 2, 3};

    check_target(grid, "kind: low_rank_matrix, rows: 17, cols: 29, rank: 3", leading, 3);
    check_target(grid, "kind: low_rank_matrix, rows: 17, cols: 29, rank: 3, spectrum: spread", spread, 3);
    check_target(grid, "kind: low_rank_matrix, rows: 29, cols: 17, rank: 3, spectrum: spread", spread, 3);
    check_target(grid, "kind: matrix_completion, rows: 8, cols: 8, rank: 4, spectrum: spread, observed: 0.5", all, 4);
    check_target(grid, "kind: matrix_sensing, rows: 4, cols: 9, rank: 3, measurements: 2", leading, 3);
}

static void targets(void **state)
{
    (void)state;
    on_every_grid(targets_on);
}

/* ---------------------------------------------------------------- masks */

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* The definition: the entries whose keys are the first of the sorted list. */
static void check_mask(const struct grid *grid, int m, int n, double fraction, int64_t ones)
{
    char text[200];
    snprintf(text, sizeof text, "kind: matrix_completion, rows: %d, cols: %d, rank: 1, observed: %.17g", m, n,
             fraction);
    struct data *data = data_of(grid, text);
    double *mask = gathered(data->train->M);
    uint64_t low = 1, *key = NEW(uint64_t, m * n), *sorted = NEW(uint64_t, m * n);

    while (low < (uint64_t)(m * n)) low *= 2;
    for (int i = 0; i < m * n; i++)
        sorted[i] = key[i] = random_bits(SEED, RANDOM_DATA + 6, (uint64_t)i) / low * low + (uint64_t)i;
    qsort(sorted, (size_t)(m * n), sizeof *sorted, by_value);
    for (int i = 0; i < m * n; i++) assert_close(mask[i], key[i] <= sorted[ones - 1], 0);
    assert_int_equal(data->train->observed, ones);
    memory_free(sorted);
    memory_free(key);
    memory_free(mask);
    data_destroy(&data);
}

static void masks_on(struct grid *grid)
{
    check_mask(grid, 13, 21, 0.2, 55);
    check_mask(grid, 67, 130, 0.3, 2613);
    check_mask(grid, 5, 4, 1, 20);
    check_mask(grid, 5, 4, 0.05, 1);
    check_mask(grid, 1, 1, 0.5, 1);
}

static void masks(void **state)
{
    (void)state;
    on_every_grid(masks_on);
}

/* ---------------------------------------------------------------- measurements */

static void sensing_on(struct grid *grid)
{
    enum { ROWS = 5, COLS = 7, COUNT = 6, SIZE = ROWS * COLS };
    struct data *data =
        data_of(grid, "kind: matrix_sensing, rows: 5, cols: 7, rank: 2, measurements: 6, spectrum: spread");
    const struct sensing *s = data->train->sensing;
    struct dmat *F = dmat_create(grid, ROWS, COLS);
    double *target = gathered(data->train->Y), outputs[SIZE], derivative[SIZE], expected[SIZE] = {0}, loss[2], half = 0;

    random_fill_normal(F, SEED, 5);
    dmat_gather(F, outputs, -1);
    for (int k = 0; k < COUNT; k++) {
        double y = 0, f = 0, A[SIZE];
        for (int i = 0; i < SIZE; i++) A[i] = random_normal(SEED, RANDOM_DATA + 7, (uint64_t)(i + k * SIZE));
        for (int i = 0; i < SIZE; i++) y += A[i] * target[i], f += A[i] * outputs[i];
        assert_close(s->y[k], y, 1e-13);
        half += 0.5 * 0.25 * (f - y) * (f - y);
        for (int i = 0; i < SIZE; i++) expected[i] += 0.25 * (f - y) * A[i];
    }
    loss[0] = sensing_value(s, 0.25, F);
    loss[1] = sensing_derivative(s, 0.25, F);
    grid_sum(grid, loss, 2);
    assert_close(loss[0], half, 1e-13 * half);
    assert_close(loss[1], half, 1e-13 * half);
    dmat_gather(F, derivative, -1);
    for (int i = 0; i < SIZE; i++) assert_close(derivative[i], expected[i], 1e-13 * half);
    memory_free(target);
    dmat_destroy(&F);
    data_destroy(&data);
}

static void measurements(void **state)
{
    (void)state;
    on_every_grid(sensing_on);
}

/* ---------------------------------------------------------------- samples */

static void orthogonal_on(struct grid *grid)
{
    static const char *const clean = "kind: orthogonal_classes, features: 14, classes: 3, per_class: 4";
    char noisy[200];
    snprintf(noisy, sizeof noisy, "%s, noise: 0.75", clean);
    struct data *data = data_of(grid, clean), *other = data_of(grid, noisy);
    const struct dataset *set = data->train;
    double *Y = gathered(set->Y);

    assert_close(dmat_orthogonality(set->X, 1), 0, 1e-13);
    assert_true(set->classification);
    for (int j = 0; j < 12; j++)
        for (int k = 0; k < 3; k++) assert_close(Y[k + 3 * j], j / 4 == k, 0);
    dmat_axpy(other->train->X, -1, set->X);
    assert_close(dmat_norm(other->train->X), 0.75, 1e-14);
    memory_free(Y);
    data_destroy(&other);
    data_destroy(&data);
}

static void orthogonal(void **state)
{
    (void)state;
    on_every_grid(orthogonal_on);
}

static void scaled_on(struct grid *grid)
{
    static const char *const once = "kind: gaussian, features: 6, outputs: 2, train: 15, test: 4";
    char text[200];
    snprintf(text, sizeof text, "%s, whiten: true, scale: 0.25", once);
    struct data *white = data_of(grid, text);
    snprintf(text, sizeof text, "%s, scale: 3", once);
    struct data *one = data_of(grid, once), *scaled = data_of(grid, text);

    assert_close(dmat_orthogonality(white->train->X, 1.0 / 16), 0, 1e-14);
    for (int set = 0; set < 2; set++) {
        struct dataset *a = set ? scaled->test : scaled->train, *b = set ? one->test : one->train;
        dmat_axpy(a->X, -3, b->X);
        dmat_axpy(a->Y, -1, b->Y);
        assert_close(dmat_norm(a->X) + dmat_norm(a->Y), 0, 0);
    }
    data_destroy(&scaled);
    data_destroy(&white);
    data_destroy(&one);
}

static void scaled(void **state)
{
    (void)state;
    on_every_grid(scaled_on);
}

/* ---------------------------------------------------------------- losses on datasets */

static double checkered(int64_t ig, int64_t jg, const void *context)
{
    return (ig + jg) % 3 == 0;
}

/* 1/s of every loss on 3 × 4 targets: all of them; of a mask with 4 ones; with 5 measurements. */
static void scales_on(struct grid *grid)
{
    struct dataset set = {.outputs = 3, .samples = 4};
    static const struct {
        struct loss loss;
        double whole, masked;
    } rows[] = {
        {{LOSS_MSE, LOSS_MEAN}, 1.0 / 12, 1.0 / 12},           {{LOSS_MASKED_MSE, LOSS_SUM}, 1, 1},
        {{LOSS_MASKED_MSE, LOSS_MEAN}, 1.0 / 12, 1.0 / 12},    {{LOSS_MASKED_MSE, LOSS_SAMPLES}, 1.0 / 4, 1.0 / 4},
        {{LOSS_MASKED_MSE, LOSS_OBSERVED}, 1.0 / 12, 1.0 / 4}, {{LOSS_CROSS_ENTROPY, LOSS_MEAN}, 1.0 / 4, 1.0 / 4}};
    const struct loss sensing = {LOSS_SENSING, LOSS_MEAN}, sum = {LOSS_SENSING, LOSS_SUM};
    const int count = sizeof rows / sizeof *rows;

    for (int i = 0; i < count; i++) assert_close(loss_scale_on(&rows[i].loss, &set), rows[i].whole, 0);
    set.M = dmat_create(grid, 3, 4);
    dmat_set(set.M, checkered, NULL);
    set.observed = 4;
    for (int i = 0; i < count; i++) assert_close(loss_scale_on(&rows[i].loss, &set), rows[i].masked, 0);
    set.observed = 0;
    assert_close(loss_scale_on(&rows[4].loss, &set), 0, 0);
    set.sensing = sensing_create(set.M, 5, 1);
    assert_close(loss_scale_on(&sensing, &set), 1.0 / 5, 0);
    assert_close(loss_scale_on(&sum, &set), 1, 0);
    sensing_destroy(&set.sensing);
    dmat_destroy(&set.M);
}

/* Values and derivatives of a chunk against the definitions, with everything gathered. */
static void masked_on(struct grid *grid)
{
    const struct loss loss = {LOSS_MASKED_MSE, LOSS_OBSERVED};
    const int64_t first = (int64_t)grid->block * grid->npcol, n = first + 2;
    struct dataset set = {.outputs = 3, .samples = n, .observed = 7};
    struct dmat *F = dmat_create(grid, 3, 2);
    double f[6], d[6], *y = NEW(double, 3 * n), *m = NEW(double, 3 * n), sums[3], correct, half = 0, unseen = 0;

    set.Y = dmat_create(grid, 3, n);
    set.M = dmat_create(grid, 3, n);
    random_fill_normal(F, 1, 1);
    random_fill_normal(set.Y, 1, 2);
    dmat_set(set.M, checkered, NULL);
    dmat_gather(F, f, -1);
    dmat_gather(set.Y, y, -1);
    dmat_gather(set.M, m, -1);
    sums[0] = loss_value_on(&loss, &set, first, F, &correct);
    sums[1] = loss_unseen_on(&set, first, F);
    sums[2] = loss_derivative_on(&loss, &set, first, F);
    grid_sum(grid, sums, 3);
    dmat_gather(F, d, -1);
    for (int i = 0; i < 6; i++) {
        const double error = f[i] - y[3 * first + i], seen = m[3 * first + i];
        half += 0.5 * seen * error * error / 7;
        unseen += (1 - seen) * error * error;
        assert_close(d[i], seen * error / 7, 1e-16);
    }
    assert_close(sums[0], half, 1e-15);
    assert_close(sums[1], unseen, 1e-14);
    assert_close(sums[2], half, 1e-15);
    assert_close(correct, 0, 0);
    memory_free(m);
    memory_free(y);
    dmat_destroy(&F);
    dmat_destroy(&set.Y);
    dmat_destroy(&set.M);
}

static void losses(void **state)
{
    (void)state;
    on_every_grid(scales_on);
    on_every_grid(masked_on);
}

static const struct CMUnitTest data_tests[] = {
    cmocka_unit_test(targets),    cmocka_unit_test(masks),  cmocka_unit_test(measurements),
    cmocka_unit_test(orthogonal), cmocka_unit_test(scaled), cmocka_unit_test(losses),
};

UNIT_MAIN(data_tests, krylov_start, krylov_end)
