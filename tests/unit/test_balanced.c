/* ranks: 1 2 4 6 */
/* Balanced starts: S_k = λ_k I for every kind of widths, the singular values, starts that do not exist. */
#include "base/memory.h"
#include "dist/factor.h"
#include "grids.h"
#include "inputs.h"
#include "net/init.h"
#include "unit.h"

#include <string.h>

static struct spec *spec_of(const char *widths, const char *init)
{
    char *text = memory_text("data: {kind: gaussian, features: 4, outputs: 3, train: 9}\n"
                             "model: {widths: %s, activation: linear, init: {%s}}\n",
                             widths, init);
    struct spec *spec = input_of(text);

    memory_free(text);
    return spec;
}

/* Largest entry of W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ − λ I. */
static double defect(const struct params *p, int k, double lambda)
{
    const struct dmat *below = p->W[k - 1], *above = p->W[k];
    struct dmat *S = dmat_create(below->grid, below->m, below->m);
    double most = 0;

    dmat_gemm('T', 'N', 1, above, above, 0, S);
    dmat_gemm('N', 'T', -1, below, below, 1, S);
    for (int jl = 0; jl < S->nloc; jl++)
        for (int il = 0; il < S->mloc; il++)
            most = fmax(most, fabs(S->local[il + jl * S->lld] - (dmat_row(S, il) == dmat_col(S, jl)) * lambda));
    MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_DOUBLE, MPI_MAX, S->grid->comm);
    dmat_destroy(&S);
    return most;
}

static void check_start(const struct grid *grid, const char *widths, int64_t features, int64_t outputs,
                        const char *init, const double *lambda, double first)
{
    struct spec *spec = spec_of(widths, init);
    struct model *model = network_of(grid, spec, features, outputs);

    for (int k = 1; k < model->depth; k++) assert_true(defect(model->params, k, lambda ? lambda[k - 1] : 0) < 2e-14);
    struct dmat *W = dmat_create(grid, model->width[1], model->width[0]);
    dmat_copy(W, model->params->W[0]);
    assert_close(sqrt(dmat_dot(W, W)), first, 1e-13 * first);
    dmat_destroy(&W);
    model_destroy(&model);
    spec_destroy(&spec);
}

static void starts_on(struct grid *grid)
{
    const double three = sqrt(1 + 4.0 / 9 + 1.0 / 9), both = 0.5 * sqrt(1 + 0.25);

    check_start(grid, "[4, 7, 3]", 4, 3, "kind: balanced", NULL, three);
    check_start(grid, "[4, 3, 5, 3]", 4, 3, "kind: balanced, scale: 0.3", NULL, 0.3 * three);
    check_start(grid, "[4, 8, 2, 9, 3]", 4, 3, "kind: balanced, scale: 0.5, reflections: 3", NULL, both);
    check_start(grid, "[4, 3]", 4, 3, "kind: balanced", NULL, three);
    check_start(grid, "[4, 3, 3]", 4, 3, "kind: relaxed_balanced, lambda: 0.7", (const double[]){0.7}, three);
    check_start(grid, "[4, 3, 3]", 4, 3, "kind: relaxed_balanced, lambda: -0.7", (const double[]){-0.7},
                sqrt(three * three + 3 * 0.7));
    check_start(grid, "[4, 4, 3]", 4, 3, "kind: relaxed_balanced, lambda: -0.9", (const double[]){-0.9},
                sqrt(three * three + 4 * 0.9)); /* the fourth is 0.9 and then 0 */
    check_start(grid, "[4, 2, 3]", 4, 3, "kind: relaxed_balanced, lambda: 0.4, scale: 2", (const double[]){0.4},
                2 * sqrt(1.25));
    check_start(grid, "[5, 5, 5, 5]", 5, 5, "kind: relaxed_balanced, lambda: [0.3, -0.5]", (const double[]){0.3, -0.5},
                sqrt(2.2 + 5 * 0.2));
    check_start(grid, "[2, 5, 5, 5]", 2, 5, "kind: relaxed_balanced, lambda: [0.3, 0.2]", (const double[]){0.3, 0.2},
                sqrt(1.25));
    check_start(grid, "[2, 5, 5, 2]", 2, 2, "kind: relaxed_balanced, lambda: [0.3, -0.3]", (const double[]){0.3, -0.3},
                sqrt(1.25));
}

static void starts(void **state)
{
    (void)state;
    on_every_grid(starts_on);
}

static void refuse(const char *widths, const char *init, const char *message)
{
    struct spec *spec = spec_of(widths, init);
    struct problems problems = {0};
    struct grid paper = {.comm = MPI_COMM_WORLD, .size = 1, .nprow = 1, .npcol = 1, .block = 64};

    assert_null(model_outline(&paper, spec, 4, 3, &problems));
    assert_int_equal(problems.count, 1);
    assert_non_null(strstr(problems.text[0], message));
    problems_clear(&problems);
    spec_destroy(&spec);
}

static void impossible(void **state)
{
    (void)state;
    refuse("[4, 5, 3]", "kind: relaxed_balanced, lambda: 0.1", "singular value 4 of layer 1 (5 x 4)");
    refuse("[4, 5, 3]", "kind: relaxed_balanced, lambda: -0.1", "singular value 5 of layer 2 (3 x 5)");
    refuse("[4, 3, 5, 3]", "kind: relaxed_balanced, lambda: [0, 0.1]", "no start of these widths");
    refuse("[4, 4, 4, 3]", "kind: relaxed_balanced, lambda: [1, 2, 3]", "has 3 values for 2 hidden layers");
    refuse("[4, 4, 3]", "kind: balanced, scale: [1, 2]", "one scale for all layers");
}

static const struct CMUnitTest balanced_tests[] = {
    cmocka_unit_test(starts),
    cmocka_unit_test(impossible),
};

UNIT_MAIN(balanced_tests, NULL, NULL)
