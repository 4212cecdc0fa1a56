/* ranks: 1 2 4 6 */
/* The parts of a network: layouts, widths, the parameter array, losses, gradients against central differences, recovery
 * errors, fresh samples. */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/dmat.h"
#include "dist/grid.h"
#include "dist/random.h"
#include "net/backprop.h"
#include "net/dataset.h"
#include "net/layout.h"
#include "net/loss.h"
#include "net/model.h"
#include "net/sensing.h"
#include "grids.h"
#include "inputs.h"
#include "scratch.h"
#include "unit.h"

#include <float.h>
#include <string.h>

static struct spec *spec_of(const char *text)
{
    char *all = memory_text("data: {kind: gaussian, features: 4, outputs: 3, train: 9}\n%s", text);
    struct spec *spec = input_of(all);

    memory_free(all);
    return spec;
}

/* ---------------------------------------------------------------- layout, widths, parameters */

static void check_layout(const char *text, int nprow, int npcol)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);
    struct grid *grid = layout_create(MPI_COMM_WORLD, spec, &problems);

    assert_non_null(grid);
    assert_int_equal(grid->nprow, nprow);
    assert_int_equal(grid->npcol, npcol);
    assert_int_equal(grid->gemm, strstr(text, "pdgemm") ? GRID_GEMM_PDGEMM : GRID_GEMM_PANEL);
    if (strstr(text, "block")) assert_int_equal(grid->block, 5);
    grid_destroy(&grid);
    spec_destroy(&spec);
}

/* On so many process columns, if there are as many ranks. */
static void check_block(const char *text, int npcol, int block)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);
    int size;

    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (size == npcol) {
        struct grid *grid = layout_create(MPI_COMM_WORLD, spec, &problems);
        assert_non_null(grid);
        assert_int_equal(grid->block, block);
        grid_destroy(&grid);
    }
    spec_destroy(&spec);
}

/* `auto`: one block a process of what is dealt, if it can be between 64 and 512. */
static void blocks(void **state)
{
    (void)state;
    check_block("model: {width: 1000, depth: 3}\n", 1, 64);
    check_block("model: {width: 1000, depth: 3}\ntrain: {batch: 1000}\n", 2, 500);
    check_block("model: {width: 4096, depth: 3}\ntrain: {batch: 8192}\n", 2, 512);
    check_block("model: {width: 1000, depth: 3}\ntrain: {batch: 2000}\n", 4, 250);
    check_block("model: {width: 2000, depth: 3}\ntrain: {batch: 200}\ngrid: {rows: 1}\n", 2, 100);
    check_block("model: {width: 30, depth: 3}\ntrain: {batch: 60}\n", 2, 64);
    check_block("model: {width: 1000, depth: 3}\ngrid: {rows: 2}\n", 4, 64);
}

static void check_no_layout(const char *text, const char *message)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);

    assert_null(layout_create(MPI_COMM_WORLD, spec, &problems));
    assert_int_equal(problems.count, 1);
    assert_int_equal(problems.code, EXIT_INPUT);
    if (!strstr(problems.text[0], message)) print_error("%s\n", problems.text[0]);
    assert_non_null(strstr(problems.text[0], message));
    problems_clear(&problems);
    spec_destroy(&spec);
}

static void layouts(void **state)
{
    int size;
    char text[200];

    (void)state;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    /* many columns: only weights move; few columns: only activations do */
    check_layout("model: {widths: [784, 512, 10]}\ntrain: {batch: 60000}\n", 1, size);
    check_layout("model: {widths: [4096, 4096, 4096]}\ntrain: {batch: 2}\ngrid: {block: 5}\n", size, 1);
    check_layout("model: {width: 64, depth: 3}\ntrain: {batch: 60000}\ngrid: {gemm: pdgemm}\n", 1, size);
    for (int nprow = 1; nprow <= size; nprow++) {
        if (size % nprow) continue;
        snprintf(text, sizeof text, "grid: {rows: %d}\n", nprow);
        check_layout(text, nprow, size / nprow);
        snprintf(text, sizeof text, "grid: {cols: %d}\n", nprow);
        check_layout(text, size / nprow, nprow);
        snprintf(text, sizeof text, "grid: {rows: %d, cols: %d}\n", nprow, size / nprow);
        check_layout(text, nprow, size / nprow);
    }
    check_no_layout("grid: {rows: 5}\n", "5 does not divide the number of ranks");
    check_no_layout("grid: {cols: 7}\n", "7 does not divide the number of ranks");
    check_no_layout("grid: {rows: 3, cols: 5}\n", "3 × 5 is not the number of ranks");
}

static void check_widths(const char *text, int depth, const int64_t *expected)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);
    int64_t *width;

    assert_int_equal(model_widths(spec, 4, 3, &width, &problems), depth);
    assert_int_equal(problems.count, 0);
    assert_memory_equal(width, expected, (size_t)(depth + 1) * sizeof *width);
    memory_free(width);
    spec_destroy(&spec);
}

static void check_no_widths(const char *text, const char *message)
{
    struct problems problems = {0};
    struct spec *spec = spec_of(text);
    int64_t *width;

    model_widths(spec, 4, 3, &width, &problems);
    assert_int_equal(problems.count, 1);
    assert_int_equal(problems.code, EXIT_INPUT);
    if (!strstr(problems.text[0], message)) print_error("%s\n", problems.text[0]);
    assert_non_null(strstr(problems.text[0], message));
    problems_clear(&problems);
    memory_free(width);
    spec_destroy(&spec);
}

static void widths(void **state)
{
    (void)state;
    check_widths("model: {widths: [4, 7, 3]}\n", 2, (const int64_t[]){4, 7, 3});
    check_widths("model: {width: 6, depth: 4}\n", 4, (const int64_t[]){4, 6, 6, 6, 3});
    check_widths("model: {depth: 1}\n", 1, (const int64_t[]){4, 3});
    check_no_widths("model: {widths: [5, 3]}\n", "the first width is 5, but the data has 4 features");
    check_no_widths("model: {widths: [4, 5]}\n", "the last width is 5, but the data has 3 outputs");
    check_no_widths("model: {widths: [4]}\n", "needs at least the input and the output width");
    check_no_widths("model: {widths: [4, 3], depth: 1}\n", "not both");
    check_no_widths("model: {widths: [4, 3], width: 1}\n", "not both");
    check_no_widths("model: {width: 4}\n", "model.depth: missing");
    check_no_widths("model: {depth: 2}\n", "model.width: missing");
}

/* Mistakes that only the model sees. */
static void refused_models(void **state)
{
    static const char *const texts[][2] = {
        {"model: {widths: [4, 5, 6, 7, 3], residual: pairs}\n", "pairs need equal widths n_1 and n_3, not 5 and 7"},
        {"model: {widths: [4, 5, 5, 3], residual: pairs}\n", "pairs need an even depth"},
        {"model: {widths: [4, 5, 3], trainable: [3]}\n", "there is no layer 3, the depth is 2"},
        {"model: {widths: [4, 5, 3], lr_multiplier: [1, 2, 3]}\n", "has 3 values for 2 layers"},
        {"model: {widths: [4, 5, 3], linear_head: 3}\n", "is 3, but the depth is 2"},
        {"model: {widths: [4, 5, 3], init: {scale: [1, 2, 3]}}\n", "has 3 values for 2 layers"},
    };
    int size;

    (void)state;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct grid *grid = grid_create(MPI_COMM_WORLD, 1, size, 3);
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        struct problems problems = {0};
        struct spec *spec = spec_of(texts[t][0]);
        assert_null(model_create(grid, spec, 4, 3, &problems));
        assert_int_equal(problems.code, EXIT_INPUT);
        if (!strstr(problems.text[0], texts[t][1])) print_error("%s\n", problems.text[0]);
        assert_non_null(strstr(problems.text[0], texts[t][1]));
        problems_clear(&problems);
        spec_destroy(&spec);
    }
    grid_destroy(&grid);
}

static void params_on(struct grid *grid)
{
    struct spec *spec = spec_of("model: {widths: [4, 7, 5, 3], bias: true}\n");
    struct model *model = network_of(grid, spec, 4, 3);
    struct params *p = params_create(model);
    static const int64_t width[] = {4, 7, 5, 3};
    int64_t at = 0;

    assert_int_equal(p->depth, 3);
    for (int l = 0; l < 3; l++) {
        assert_int_equal(p->start[l], at);
        assert_int_equal(p->W[l]->m, width[l + 1]);
        assert_int_equal(p->W[l]->n, width[l]);
        assert_ptr_equal(p->W[l]->local, p->local + at);
        at += (int64_t)p->W[l]->mloc * p->W[l]->nloc;
        assert_ptr_equal(p->b[l]->local, p->local + at);
        assert_int_equal(p->b[l]->m, width[l + 1]);
        assert_int_equal(p->b[l]->n, 1);
        assert_int_equal(p->b[l]->nloc, grid->mycol == 0);
        at += (int64_t)p->b[l]->mloc * p->b[l]->nloc;
    }
    assert_int_equal(p->start[3], at);
    assert_int_equal(p->size, at);
    assert_int_equal(model->params->size, at);
    double total = (double)at;
    grid_sum(grid, &total, 1);
    assert_close(total, 4 * 7 + 7 + 7 * 5 + 5 + 5 * 3 + 3, 0);
    for (int64_t i = 0; i < p->size; i++) assert_close(p->local[i], 0, 0);
    for (int64_t i = 0; i < p->size; i++) p->local[i] = 2;
    assert_close(params_dot(p, p), 4 * total, 0);
    params_destroy(&p);
    assert_null(p);
    model_destroy(&model);
    spec_destroy(&spec);
}

static void parameters(void **state)
{
    (void)state;
    on_every_grid(params_on);
}

/* ---------------------------------------------------------------- loss */

static const double logits[3][4] = {{700, -700, 1, 1000}, {-700, 700, 2, 1000}, {0, -700, 3, 1000}};
static const double targets[3][4] = {{0, 1, 0, 1}, {1, 0, 0, 0}, {0, 0, 1, 0}};

static double table(int64_t ig, int64_t jg, const void *values)
{
    return ((const double(*)[4])values)[ig][jg];
}

static void loss_on(struct grid *grid)
{
    static const struct loss cross = {LOSS_CROSS_ENTROPY, LOSS_SUM}, mse = {LOSS_MSE, LOSS_SUM};
    struct dmat *F = dmat_create(grid, 3, 4), *Y = dmat_create(grid, 3, 4);
    const double normaliser = exp(-2) + exp(-1) + 1;
    double full[12], sums[2];

    dmat_set(F, table, logits);
    dmat_set(Y, table, targets);
    sums[0] = loss_value(&cross, 0.5, F, Y, &sums[1]);
    grid_sum(grid, sums, 2);
    assert_close(sums[0], 0.5 * (1400 + 1400 + log(normaliser) + log(3)), 1e-12);
    assert_close(sums[1], 2, 0); /* the third; the fourth is a tie, which goes to the lowest index */
    sums[0] = loss_derivative(&cross, 0.5, F, Y);
    grid_sum(grid, sums, 1);
    assert_close(sums[0], 0.5 * (1400 + 1400 + log(normaliser) + log(3)), 1e-12);
    dmat_gather(F, full, -1);
    const double expected[12] = {0.5,
                                 -0.5,
                                 0,
                                 -0.5,
                                 0.5,
                                 0,
                                 0.5 * exp(-2) / normaliser,
                                 0.5 * exp(-1) / normaliser,
                                 0.5 * (1 / normaliser - 1),
                                 -1.0 / 3,
                                 0.5 / 3,
                                 0.5 / 3};
    for (int i = 0; i < 12; i++) assert_close(full[i], expected[i], 1e-15);

    dmat_set(F, table, logits);
    sums[0] = loss_value(&mse, 0.25, F, Y, &sums[1]);
    double square = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 4; j++) square += pow(logits[i][j] - targets[i][j], 2);
    sums[1] = loss_derivative(&mse, 0.25, F, Y);
    grid_sum(grid, sums, 2);
    assert_close(sums[0], 0.125 * square, 1e-15 * square);
    assert_close(sums[1], 0.125 * square, 1e-15 * square);
    dmat_gather(F, full, -1);
    for (int i = 0; i < 12; i++) assert_close(full[i], 0.25 * (logits[i % 3][i / 3] - targets[i % 3][i / 3]), 0);
    dmat_destroy(&Y);
    dmat_destroy(&F);
}

static void losses(void **state)
{
    const struct loss mean = {LOSS_MSE, LOSS_MEAN}, samples = {LOSS_MSE, LOSS_SAMPLES}, sum = {LOSS_MSE, LOSS_SUM};
    const struct loss cross = {LOSS_CROSS_ENTROPY, LOSS_MEAN};

    (void)state;
    assert_close(loss_scale(&mean, 4, 5), 1.0 / 20, 0);
    assert_close(loss_scale(&samples, 4, 5), 1.0 / 5, 0);
    assert_close(loss_scale(&sum, 4, 5), 1, 0);
    assert_close(loss_scale(&cross, 4, 5), 1.0 / 5, 0);
    on_every_grid(loss_on);
}

/* ---------------------------------------------------------------- gradient */

/* 9 samples, or the identity (4 samples); one-hot columns for cross-entropy. */
static struct dataset *dataset_of(const struct grid *grid, bool identity, bool classes)
{
    struct dataset *data = NEW(struct dataset, 1);

    *data = (struct dataset){.features = 4, .outputs = 3, .samples = identity ? 4 : 9, .classification = classes};
    if (!identity) {
        data->X = dmat_create(grid, 4, 9);
        random_fill_normal(data->X, 1, RANDOM_DATA);
    }
    data->Y = dmat_create(grid, 3, data->samples);
    random_fill_normal(data->Y, 1, RANDOM_DATA + 1);
    for (int jl = 0; classes && jl < data->Y->nloc; jl++)
        for (int il = 0; il < data->Y->mloc; il++)
            data->Y->local[il + jl * data->Y->lld] = dmat_row(data->Y, il) == dmat_col(data->Y, jl) % 3;
    return data;
}

static double checkered(int64_t ig, int64_t jg, const void *context)
{
    return (ig + jg) % 3 == 0;
}

/* What the loss needs beside X and Y: a mask of about half, or 7 measurements. */
static void hide(struct dataset *data, enum loss_kind kind)
{
    if (kind == LOSS_SENSING) data->sensing = sensing_create(data->Y, 7, 3);
    if (kind != LOSS_MASKED_MSE) return;
    data->M = dmat_create(data->Y->grid, data->Y->m, data->Y->n);
    dmat_set(data->M, checkered, NULL);
    data->observed = (int64_t)dmat_dot(data->M, data->M);
}

/* A direction in one matrix, or in one bias. */
static void set_direction(struct dmat *part, uint64_t stream)
{
    random_fill_normal(part, 2, stream);
}

/* Derivative of the loss along `direction`, by central differences. */
static double slope_along(struct backprop *b, struct model *model, const struct dataset *data,
                          const struct params *direction)
{
    const double h = 1e-5;
    double loss[2], accuracy;

    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < direction->size; i++)
            model->params->local[i] += (side ? -2 : 1) * h * direction->local[i];
        loss[side] = backprop_evaluate(b, model, data, &accuracy);
    }
    for (int64_t i = 0; i < direction->size; i++) model->params->local[i] += h * direction->local[i];
    return (loss[0] - loss[1]) / (2 * h);
}

static void check_gradient(const struct grid *grid, const char *text, bool identity, int64_t chunk)
{
    struct spec *spec = spec_of(text);
    struct model *model = network_of(grid, spec, 4, 3);
    const struct loss loss = loss_of(spec);
    struct dataset *data = dataset_of(grid, identity, loss.kind == LOSS_CROSS_ENTROPY);
    struct backprop *b = backprop_create(model, &loss, data->samples, loss.kind == LOSS_SENSING ? 0 : chunk);
    struct params *gradient = params_create(model), *direction = params_create(model);
    double accuracy, value;

    hide(data, loss.kind);
    for (int64_t i = 0; i < gradient->size; i++) gradient->local[i] = NAN;
    for (int l = 0; l < model->depth; l++)
        if (model->params->b[l]) random_fill_normal(model->params->b[l], 4, (uint64_t)l);
    value = backprop_gradient(b, model, data, gradient);
    grid_sum(grid, &value, 1);
    assert_close(value, backprop_evaluate(b, model, data, &accuracy), 1e-13 * (1 + fabs(value)));
    if (data->classification)
        assert_true(accuracy >= 0 && accuracy <= 1);
    else
        assert_true(isnan(accuracy));
    double bytes = (double)backprop_bytes(model, backprop_columns(grid, data->samples, chunk));
    grid_sum(grid, &bytes, 1); /* a rank may own nothing */
    assert_true(bytes >= 8.0 * (double)model->width[model->depth]);
    for (int l = 0; l < 2 * model->depth; l++) {
        struct dmat *part = l % 2 ? direction->b[l / 2] : direction->W[l / 2];
        if (!part) continue;
        memset(direction->local, 0, (size_t)direction->size * sizeof(double));
        set_direction(part, (uint64_t)l);
        const double expected = model->layer[l / 2].trainable ? slope_along(b, model, data, direction) : 0;
        assert_close(params_dot(gradient, direction), expected, 1e-8 * (1 + fabs(expected)));
    }
    params_destroy(&direction);
    params_destroy(&gradient);
    backprop_destroy(&b);
    dataset_destroy(&data);
    model_destroy(&model);
    spec_destroy(&spec);
}

static void gradient_on(struct grid *grid)
{
    static const char *const texts[] = {
        "model: {widths: [4, 5, 7, 3], activation: gelu, bias: true}\n",
        "model: {widths: [4, 5, 3], activation: tanh, linear_head: 1}\nloss: {kind: cross_entropy}\n",
        "model: {widths: [4, 6, 6, 6, 3], activation: silu, residual: pairs, bias: true}\nloss: {reduction: sum}\n",
        "model: {widths: [4, 4, 4, 3], activation: elu, residual: scaled, bias: true, trainable: [2, 3]}\n",
        "model: {widths: [4, 3], activation: linear}\nloss: {reduction: samples}\n",
        "model: {widths: [4, 5, 5, 3], activation: leaky_relu, trainable: [1, 3], residual: scaled}\n",
        "model: {widths: [4, 4, 4, 3], activation: linear, residual: scaled}\n",
        "model: {widths: [4, 5, 3], activation: tanh, bias: true}\nloss: {kind: masked_mse, reduction: observed}\n",
        "model: {widths: [4, 5, 3], activation: linear}\nloss: {kind: masked_mse, reduction: sum}\n",
        "model: {widths: [4, 4, 3], activation: silu, residual: scaled, output_scale: 3}\nloss: {kind: masked_mse}\n",
        "model: {widths: [4, 5, 3], activation: linear, output_scale: 0.5}\nloss: {kind: sensing}\n",
        "model: {widths: [4, 5, 3], activation: gelu, bias: true}\nloss: {kind: sensing, reduction: sum}\n",
        "model: {widths: [4, 4, 3], output_scale: 2.5, bias: true}\nloss: {kind: cross_entropy}\n",
    };

    for (int t = 0; t < (int)(sizeof texts / sizeof *texts); t++) check_gradient(grid, texts[t], t % 2, t % 3);
    check_gradient(grid, texts[7], false, 1);
    check_gradient(grid, texts[3], false, 1);
    check_gradient(grid, texts[2], true, 1);
}

/* The mean squared error of what is hidden; nothing is where there is neither mask nor measurements. */
static void recovery_on(struct grid *grid)
{
    static const char *const kinds[] = {"mse", "masked_mse", "sensing"};

    for (int k = 0; k < 3; k++) {
        char text[200];
        snprintf(text, sizeof text, "model: {widths: [4, 3], output_scale: 2}\nloss: {kind: %s}\n", kinds[k]);
        struct spec *spec = spec_of(text);
        struct model *model = network_of(grid, spec, 4, 3);
        const struct loss loss = loss_of(spec);
        struct dataset *data = dataset_of(grid, true, false);
        struct backprop *b = backprop_create(model, &loss, 4, k == 1 ? 1 : 0);
        double w[12], y[12], m[12] = {0}, expected = k == 0 ? NAN : 0;

        hide(data, loss.kind);
        dmat_gather(model->params->W[0], w, -1);
        dmat_gather(data->Y, y, -1);
        if (data->M) dmat_gather(data->M, m, -1);
        for (int i = 0; i < 12; i++) expected += (1 - m[i]) * (2 * w[i] - y[i]) * (2 * w[i] - y[i]) / 24;
        const double found = backprop_recovery(b, model, data);
        if (k == 0)
            assert_true(isnan(found));
        else
            assert_close(found, expected, 1e-14);
        backprop_destroy(&b);
        dataset_destroy(&data);
        model_destroy(&model);
        spec_destroy(&spec);
    }
}

static void recoveries(void **state)
{
    (void)state;
    on_every_grid(recovery_on);
}

static void gradients(void **state)
{
    (void)state;
    on_every_grid(gradient_on);
}

/* ---------------------------------------------------------------- fresh samples */

/* Column j of a batch is sample first + j of the stream, whatever else is asked for; indices are of 64 bits. */
static void fresh_on(struct grid *grid)
{
    const uint64_t seed = 7, first[] = {0, 5, 3000000000u, (uint64_t)1 << 61};
    struct dataset set = {.features = 4, .outputs = 3, .samples = 11};

    set.X = dmat_create(grid, 4, 11);
    set.Y = dmat_create(grid, 3, 11);
    for (int k = 0; k < 8; k++) {
        set.classification = k % 2;
        generated_fresh(&set, seed, first[k / 2]);
        for (int jl = 0; jl < set.X->nloc; jl++)
            for (int il = 0; il < set.X->mloc; il++) {
                const uint64_t index =
                    (uint64_t)dmat_row(set.X, il) + 4 * (first[k / 2] + (uint64_t)dmat_col(set.X, jl));
                assert_close(set.X->local[il + jl * set.X->lld], random_normal(seed, RANDOM_ONLINE, index), 0);
            }
        for (int jl = 0; jl < set.Y->nloc; jl++)
            for (int il = 0; il < set.Y->mloc; il++) {
                const uint64_t sample = first[k / 2] + (uint64_t)dmat_col(set.Y, jl),
                               row = (uint64_t)dmat_row(set.Y, il);
                const double value = set.classification
                                         ? (uint64_t)random_below(seed, RANDOM_ONLINE + 1, sample, 3) == row
                                         : random_normal(seed, RANDOM_ONLINE + 1, row + 3 * sample);
                assert_close(set.Y->local[il + jl * set.Y->lld], value, 0);
            }
    }
    dmat_destroy(&set.X);
    dmat_destroy(&set.Y);
}

static void fresh_samples(void **state)
{
    (void)state;
    on_every_grid(fresh_on);
}

static const struct CMUnitTest net_tests[] = {
    cmocka_unit_test(layouts),        cmocka_unit_test(blocks),        cmocka_unit_test(widths),
    cmocka_unit_test(refused_models), cmocka_unit_test(parameters),    cmocka_unit_test(losses),
    cmocka_unit_test(gradients),      cmocka_unit_test(fresh_samples),

    cmocka_unit_test(recoveries),
};

UNIT_MAIN(net_tests, scratch_create, scratch_remove)
