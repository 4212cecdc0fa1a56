/* ranks: 1 2 4 */
/* Low-rank networks: their starts by the definition, on every grid the same. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "grids.h"
#include "inputs.h"
#include "net/backprop.h"
#include "net/dataset.h"
#include "theory/confine.h"
#include "train/low_rank.h"

#include <math.h>

enum { D = 20, K = 3, L = 4 };
static const double epsilon[L - 1] = {0.5, 0.6, 0.7};

/* The same text on every grid; `more` goes into the section model. */
static struct spec *input(const char *more)
{
    char *text = memory_text("run: {seed: 3}\n"
                             "data: {kind: gaussian, features: 20, outputs: 3, train: 40, targets: clusters}\n"
                             "model: {width: 22, depth: 4, activation: gelu, %s, init: {kind: orthogonal, "
                             "scale: [0.5, 0.6, 0.7, 1], head: uniform}}\n"
                             "loss: {kind: cross_entropy}\n",
                             more);
    struct spec *spec = input_of(text);
    memory_free(text);
    return spec;
}

/* The full network, and the subspace of its first gradient. */
struct reference {
    struct data *data;
    struct model *full;
    struct dmat *V; /* D × 2K */
};

static struct reference reference_create(const struct grid *grid)
{
    struct problems problems = {0};
    struct spec *spec = input("parametrization: full");
    const struct loss loss = loss_of(spec);
    struct reference r = {.data = data_create(grid, spec, &problems)};
    assert_non_null(r.data);
    r.full = network_of(grid, spec, D, K);
    struct backprop *backprop = backprop_create(r.full, &loss, r.data->train->samples, 0);
    struct params *gradient = params_create(r.full);
    backprop_gradient(backprop, r.full, r.data->train, gradient);
    struct confine *c = confine_create(r.full->params->W[0]);
    struct dmat *left = dmat_create(grid, 22, K), *right = dmat_create(grid, D, K);
    double sigma[K + 1];
    confine_leading(gradient->W[0], K, 1e-12, 1, sigma, left, right);
    assert_true(sigma[K] < 0.5 * sigma[K - 1]); /* there is a subspace */
    confine_find(c, left, right);
    r.V = dmat_create(grid, D, 2 * K);
    dmat_copy(r.V, c->V);
    confine_destroy(&c);
    dmat_destroy(&left);
    dmat_destroy(&right);
    params_destroy(&gradient);
    backprop_destroy(&backprop);
    spec_destroy(&spec);
    return r;
}

static void reference_clear(struct reference *r)
{
    data_destroy(&r->data);
    model_destroy(&r->full);
    dmat_destroy(&r->V);
}

static struct model *small_network(const struct grid *grid, const struct reference *r, const char *more)
{
    struct problems problems = {0};
    char *text = memory_text("parametrization: low_rank, %s", more);
    struct spec *spec = input(text);
    const struct loss loss = loss_of(spec);
    struct model *model = low_rank_create(grid, spec, r->data->train, &loss, &problems);
    problems_print(&problems);
    assert_non_null(model);
    spec_destroy(&spec);
    memory_free(text);
    return model;
}

/* The basis of a factored network's first weights, Vᵀ, as columns. */
static struct dmat *basis_of(const struct model *model, double scale)
{
    const struct dmat *W = model->params->W[0];
    struct dmat *V = dmat_create(W->grid, W->n, W->m);
    dmat_transpose(W, V);
    dmat_scale(V, 1 / scale);
    assert_close(dmat_orthogonality(V, 1), 0, 1e-12);
    return V;
}

/* ‖A − s B‖ */
static double apart(const struct dmat *A, const struct dmat *B, double s)
{
    struct dmat *C = dmat_create(A->grid, A->m, A->n);
    dmat_copy(C, A);
    dmat_axpy(C, -s, B);
    const double norm = dmat_norm(C);
    dmat_destroy(&C);
    return norm;
}

/* W_3 W_2 W_1 V / (ε_1 ε_2 ε_3) of the full network. */
static struct dmat *carried(const struct model *full, const struct dmat *V)
{
    struct dmat *A = dmat_create(V->grid, V->m, V->n);
    dmat_copy(A, V);
    for (int l = 0; l < L - 1; l++) {
        struct dmat *next = dmat_create(V->grid, full->width[l + 1], V->n);
        dmat_gemm('N', 'N', 1 / epsilon[l], full->params->W[l], A, 0, next);
        dmat_destroy(&A);
        A = next;
    }
    return A;
}

/* [ ε_1 Vᵀ, ε_2 I, ε_3 P V, W_L ], or [ Vᵀ, ε_1 I, ε_2 I, ε_3 I, P V, W_L ]. */
static void weights_are_those(const struct model *model, const struct reference *r, bool merged)
{
    struct dmat *const *W = model->params->W;
    struct dmat *V = basis_of(model, merged ? epsilon[0] : 1), *PV = carried(r->full, V);
    struct dmat *one = dmat_create(V->grid, 2 * K, 2 * K);
    assert_int_equal(model->depth, merged ? L : L + 2);
    dmat_identity(one, 1);
    assert_close(confine_angle(r->V, V), 0, 1e-5);
    for (int l = 1; l < model->depth - 2; l++) assert_close(apart(W[l], one, epsilon[merged ? l : l - 1]), 0, 1e-13);
    assert_close(apart(W[model->depth - 2], PV, merged ? epsilon[L - 2] : 1), 0, 1e-12);
    assert_close(apart(W[model->depth - 1], r->full->params->W[L - 1], 1), 0, 0);
    for (int l = 0; l < model->depth; l++) assert_true(model->layer[l].trainable);
    dmat_destroy(&one);
    dmat_destroy(&PV);
    dmat_destroy(&V);
}

static void definition_on(struct grid *grid)
{
    struct reference r = reference_create(grid);
    struct model *merged = small_network(grid, &r, "factors: merged");
    struct model *factored = small_network(grid, &r, "factors: factored");
    weights_are_those(merged, &r, true);
    weights_are_those(factored, &r, false);
    model_destroy(&factored);
    model_destroy(&merged);
    reference_clear(&r);
}

static void start_of_the_definition(void **state)
{
    (void)state;
    on_every_grid(definition_on);
}

/* How the other starts stand to the gradient's subspace. */
static void starts_on(struct grid *grid)
{
    struct reference r = reference_create(grid);
    static const struct {
        const char *text;
        double angle;
    } starts[] = {{"subspace: orthogonal_to_gradient", 90},
                  {"subspace: rotated, angle: 35", 35},
                  {"subspace: rotated, angle: 90", 90}};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        struct model *model = small_network(grid, &r, starts[i].text);
        struct dmat *V = basis_of(model, epsilon[0]), *inside = dmat_create(grid, 2 * K, 2 * K);
        dmat_gemm('T', 'N', 1, r.V, V, 0, inside);
        assert_close(dmat_orthogonality(inside, pow(cos(starts[i].angle * acos(-1) / 180), 2)), 0, 1e-10);
        dmat_destroy(&inside);
        dmat_destroy(&V);
        model_destroy(&model);
    }
    struct model *random = small_network(grid, &r, "subspace: random, rank: 5");
    struct dmat *V = basis_of(random, epsilon[0]);
    assert_int_equal(V->n, 5);
    assert_true(confine_angle(r.V, V) > 10);
    dmat_destroy(&V);
    model_destroy(&random);
    reference_clear(&r);
}

static void other_starts(void **state)
{
    (void)state;
    on_every_grid(starts_on);
}

/* A wider one holds the 2K directions, too; of an odd number the weakest direction is left out. */
static void wide_on(struct grid *grid)
{
    struct reference r = reference_create(grid);
    for (int rank = 8; rank <= 9; rank++) {
        struct model *model = small_network(grid, &r, rank == 8 ? "rank: 8" : "rank: 9");
        struct dmat *V = basis_of(model, epsilon[0]);
        assert_int_equal(V->n, rank);
        if (rank == 8) assert_close(confine_angle(V, r.V), 0, 1e-5);
        dmat_destroy(&V);
        model_destroy(&model);
    }
    reference_clear(&r);
}

static void any_width(void **state)
{
    (void)state;
    on_every_grid(wide_on);
}

/* Every weight against the first grid's. */
static void same_on(struct grid *grid)
{
    static double first[8][22 * 22];
    static bool known;
    struct reference r = reference_create(grid);
    struct model *model = small_network(grid, &r, "factors: factored, subspace: rotated, angle: 20");
    for (int l = 0; l < model->depth; l++) {
        const struct dmat *W = model->params->W[l];
        double *whole = NEW(double, W->m * W->n);
        dmat_gather(W, whole, -1);
        for (int64_t i = 0; i < W->m * W->n; i++) {
            if (known)
                assert_close(whole[i], first[l][i], 1e-11);
            else
                first[l][i] = whole[i];
        }
        memory_free(whole);
    }
    known = true;
    model_destroy(&model);
    reference_clear(&r);
}

static void same_on_every_grid(void **state)
{
    (void)state;
    on_every_grid(same_on);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(start_of_the_definition),
    cmocka_unit_test(other_starts),
    cmocka_unit_test(any_width),
    cmocka_unit_test(same_on_every_grid),
};

UNIT_MAIN(tests, krylov_start, krylov_end)
