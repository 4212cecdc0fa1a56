/* ranks: 1 2 4 */
/* Learning rates, and steps of the optimizers by hand, also after a checkpoint. */
#include "base/memory.h"
#include "base/spec.h"
#include "dist/archive.h"
#include "grids.h"
#include "inputs.h"
#include "scratch.h"
#include "train/optimizer.h"
#include "train/schedule.h"
#include "unit.h"

#include <string.h>

static struct spec *spec_of(const char *text)
{
    char *all = memory_text("data: {kind: gaussian, features: 4, outputs: 3, train: 9}\n%s", text);
    struct spec *spec = input_of(all);

    memory_free(all);
    return spec;
}

static void check_rates(const char *text, const int64_t *step, const double *rate, int count)
{
    struct spec *spec = spec_of(text);

    for (int i = 0; i < count; i++) assert_close(schedule_rate(spec, step[i]), rate[i], 1e-15);
    spec_destroy(&spec);
}

static void learning_rates(void **state)
{
    static const int64_t step[] = {0, 3, 4, 5, 8, 10, 12, 20, 30};

    (void)state;
    check_rates("train: {lr: 0.3}\n", step, (const double[]){0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3}, 9);
    check_rates("train: {lr: 0.5, schedule: {kind: step, milestones: [4, 12], factor: 0.25}}\n", step,
                (const double[]){0.5, 0.5, 0.125, 0.125, 0.125, 0.125, 0.03125, 0.03125, 0.03125}, 9);
    const double final = 0.1, half = 0.5 * (0.5 - final);
    double cosine[9];
    for (int i = 0; i < 9; i++)
        cosine[i] = step[i] < 20 ? final + half * (1 + cos(M_PI * (double)step[i] / 20)) : final;
    check_rates("train: {lr: 0.5, steps: 20, schedule: {kind: cosine, final: 0.1}}\n", step, cosine, 9);
    check_rates("train: {lr: 0.5, steps: 99, schedule: {kind: cosine, final: 0.1, length: 20}}\n", step, cosine, 9);
    cosine[0] = 0.5 * 1 / 5;
    cosine[1] = 0.5 * 4 / 5;
    cosine[2] = 0.5;
    check_rates("train: {lr: 0.5, steps: 20, schedule: {kind: cosine, final: 0.1, warmup: 5}}\n", step, cosine, 9);
}

/* What a checkpoint makes of an optimizer. */
static struct optimizer *restored(struct optimizer *optimizer, const struct model *model, const struct spec *spec)
{
    struct problems problems = {0};
    struct archive *archive = archive_save(MPI_COMM_WORLD, scratch_file("optimizer.h5"), "test", &problems);
    assert_non_null(archive);
    optimizer_archive(optimizer, archive);
    assert_true(archive_end(&archive, &problems));
    optimizer_destroy(&optimizer);
    optimizer = optimizer_create(model, spec);
    archive = archive_load(MPI_COMM_WORLD, scratch_file("optimizer.h5"), "test", &problems);
    assert_non_null(archive);
    optimizer_archive(optimizer, archive);
    assert_true(archive_end(&archive, &problems));
    return optimizer;
}

/* Two steps with gradients 2 and then −1 everywhere from weights 1: the rule's numbers by hand. Layer 2 moves half as
 * far, layer 3 is frozen. */
static void check_optimizer(const struct grid *grid, const char *rule, const double direction[2], int arrays)
{
    char text[400];
    snprintf(text, sizeof text,
             "model: {widths: [4, 5, 5, 3], bias: true, trainable: [1, 2], lr_multiplier: [1, 0.5, 1]}\n"
             "train: {weight_decay: 0.125, %s}\n",
             rule);
    struct spec *spec = spec_of(text);
    struct model *model = network_of(grid, spec, 4, 3);
    struct optimizer *optimizer = optimizer_create(model, spec);
    struct params *gradient = params_create(model), *p = model->params;
    const double lr[2] = {0.25, 0.5};
    double weight[3] = {1, 1, 1};

    for (int64_t i = 0; i < p->size; i++) p->local[i] = 1;
    for (int step = 0; step < 2; step++) {
        for (int64_t i = 0; i < p->size; i++) gradient->local[i] = step ? -1 : 2;
        if (step) optimizer = restored(optimizer, model, spec);
        optimizer_step(optimizer, model, gradient, lr[step]);
        for (int l = 0; l < 3; l++) {
            const double eta = l == 0 ? lr[step] : l == 1 ? 0.5 * lr[step] : 0;
            weight[l] = (1 - eta * 0.125) * weight[l] - eta * direction[step];
            for (int64_t i = p->start[l]; i < p->start[l + 1]; i++) assert_close(p->local[i], weight[l], 1e-14);
        }
    }
    assert_int_equal(optimizer_arrays(spec), arrays);
    params_destroy(&gradient);
    optimizer_destroy(&optimizer);
    assert_null(optimizer);
    model_destroy(&model);
    spec_destroy(&spec);
}

static void optimizers_on(struct grid *grid)
{
    const double v1 = 0.25 * 4, v2 = 0.75 * v1 + 0.25; /* β₂ = 0.75 */
    const double m1 = 0.5 * 2, m2 = 0.5 * m1 - 0.5;    /* β₁ = 0.5 */
    const double e = 1e-3;

    check_optimizer(grid, "optimizer: gd", (const double[]){2, -1}, 0);
    check_optimizer(grid, "optimizer: sgd, batch: 3", (const double[]){2, -1}, 0);
    check_optimizer(grid, "optimizer: momentum, momentum: 0.75", (const double[]){2, 0.75 * 2 - 1}, 1);
    check_optimizer(grid, "optimizer: nesterov, momentum: 0.5", (const double[]){2 + 0.5 * 2, -1 + 0.5 * (0.5 * 2 - 1)},
                    1);
    check_optimizer(grid, "optimizer: rmsprop, beta2: 0.75, epsilon: 1e-3",
                    (const double[]){2 / (sqrt(v1) + e), -1 / (sqrt(v2) + e)}, 1);
    check_optimizer(grid, "optimizer: adam, beta1: 0.5, beta2: 0.75, epsilon: 1e-3",
                    (const double[]){m1 / 0.5 / (sqrt(v1 / 0.25) + e), m2 / 0.75 / (sqrt(v2 / (1 - 0.75 * 0.75)) + e)},
                    2);
}

static void optimizer_steps(void **state)
{
    (void)state;
    on_every_grid(optimizers_on);
}

static const struct CMUnitTest optimizer_tests[] = {
    cmocka_unit_test(learning_rates),
    cmocka_unit_test(optimizer_steps),
};

UNIT_MAIN(optimizer_tests, scratch_create, scratch_remove)
