/* What the start of a network says of its reduced dynamics: λ_k, how far S_k is from λ_k I, and whether there is a law
 * for it at all. */
#include "base/memory.h"

#include "twin_intrinsic.h"

#include <math.h>
#include <stdio.h>

/* λ below this fraction of the squared norms is rounding. */
static const double LAMBDA_THRESHOLD = 1e-12;

/* ---------------------------------------------------------------- the layers as factors of Z */

struct dmat *twin_factor(const struct model *model, int l)
{
    const struct layer *layer = &model->layer[l - 1];
    const struct dmat *W = model->params->W[l - 1];
    struct dmat *U = dmat_create(W->grid, W->m, W->n);
    if (layer->skip >= 0) dmat_identity(U, 1);
    dmat_axpy(U, layer->skip >= 0 ? layer->scale : 1, W);
    return U;
}

struct dmat *twin_end_to_end(const struct model *model)
{
    struct dmat *P = twin_factor(model, 1);
    for (int l = 2; l <= model->depth; l++) {
        struct dmat *U = twin_factor(model, l), *next = dmat_create(P->grid, U->m, P->n);
        dmat_gemm('N', 'N', 1, U, P, 0, next);
        dmat_destroy(&U);
        dmat_destroy(&P);
        P = next;
    }
    return P;
}

/* ---------------------------------------------------------------- S_k */

static double trace(const struct dmat *A)
{
    double sum = 0;
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            if (dmat_row(A, il) == dmat_col(A, jl)) sum += A->local[il + (int64_t)jl * A->lld];
    grid_sum(A->grid, &sum, 1);
    return sum;
}

/* U_{k+1}ᵀ U_{k+1} − U_k U_kᵀ, and ‖U_{k+1}‖² + ‖U_k‖². */
static struct dmat *difference(const struct model *model, int k, double *size)
{
    struct dmat *below = twin_factor(model, k), *above = twin_factor(model, k + 1);
    struct dmat *S = dmat_create(below->grid, below->m, below->m);
    dmat_gemm('T', 'N', 1, above, above, 0, S);
    dmat_gemm('N', 'T', -1, below, below, 1, S);
    *size = dmat_dot(above, above) + dmat_dot(below, below);
    dmat_destroy(&above);
    dmat_destroy(&below);
    return S;
}

void twin_start_measure(const struct model *model, bool scaled, struct twin_start *start)
{
    const double factor = scaled ? (double)model->depth * model->depth : 1;
    start->interfaces = model->depth - 1;
    start->lambda = NEW(double, model->depth);
    start->defect = NEW(double, model->depth);
    start->size = NEW(double, model->depth);
    for (int k = 1; k < model->depth; k++) {
        struct dmat *S = difference(model, k, &start->size[k - 1]), *mean = dmat_create(S->grid, S->m, S->m);
        double lambda = trace(S) / (double)S->m;
        if (fabs(lambda) <= LAMBDA_THRESHOLD * start->size[k - 1]) lambda = 0;
        dmat_identity(mean, lambda);
        dmat_axpy(S, -1, mean);
        start->lambda[k - 1] = factor * lambda;
        start->defect[k - 1] = factor * dmat_norm(S);
        dmat_destroy(&mean);
        dmat_destroy(&S);
    }
}

void twin_start_clear(struct twin_start *start)
{
    memory_free(start->lambda);
    memory_free(start->defect);
    memory_free(start->size);
    *start = (struct twin_start){0};
}

/* ---------------------------------------------------------------- what is refused */

static bool is_even(const struct model *model)
{
    for (int l = 0; l < model->depth; l++)
        if (!model->layer[l].trainable || model->layer[l].lr_multiplier != model->layer[0].lr_multiplier) return false;
    return true;
}

static bool skips_everywhere(const struct model *model)
{
    for (int l = 0; l < model->depth; l++)
        if (model->layer[l].skip < 0) return false;
    return true;
}

bool twin_start_allows(const struct twin *twin, const struct twins_setting *setting, struct problems *problems)
{
    const struct setting *run = setting->run;
    const struct spec *spec = run->spec;
    const int before = problems->count;
    const bool scaled = spec_is(spec, "model.residual", "scaled");
    char *key = memory_text("%s.kind", twin->key);
    if (!run->model->linear)
        spec_problem(spec, problems, key,
                     "only a linear network without bias has reduced dynamics here: take model.activation: linear and "
                     "model.bias: false");
    if (!spec_is(spec, "model.residual", "none") && !(scaled && skips_everywhere(run->model)))
        spec_problem(spec, problems, key,
                     "there are reduced dynamics without residual connections, or with model.residual: scaled around "
                     "every layer (all widths equal)");
    if (run->model->depth < 2) spec_problem(spec, problems, key, "needs a network of two layers or more");
    if (!is_even(run->model))
        spec_problem(spec, problems, key, "all layers must be trained, with the same model.lr_multiplier");
    if (!spec_is(spec, "train.optimizer", "gd") && !spec_is(spec, "train.optimizer", "gradient_flow"))
        spec_problem(
            spec, problems, key,
            "%s has no reduced dynamics: take train.optimizer: gradient_flow, or gd, which follows it to first "
            "order in train.lr",
            spec_text(spec, "train.optimizer"));
    if (!batches_full(setting->batches))
        spec_problem(spec, problems, key, "the reduced dynamics sees all samples: take train.batch: full");
    if (spec_real(spec, "train.weight_decay") != 0)
        spec_problem(spec, problems, key, "weight decay changes S_k: take train.weight_decay: 0");
    memory_free(key);
    return problems->count == before;
}

/* The largest defect beside what is allowed at its interface. Of residual layers 1/L is what a smooth start has. */
static int worst_interface(const struct twin_start *start, double most, bool scaled)
{
    int worst = 0;
    double ratio = -1;
    for (int k = 0; k < start->interfaces; k++) {
        const double bound = scaled ? most * (start->interfaces + 1) : most * fmax(1, start->size[k]);
        if (start->defect[k] / bound <= ratio) continue;
        worst = k;
        ratio = start->defect[k] / bound;
    }
    return ratio <= 1 ? -1 : worst;
}

bool twin_start_fits(const struct twin *twin, const struct twin_start *start, const struct intrinsic_law *law,
                     const struct setting *run, struct problems *problems)
{
    const struct spec *spec = run->spec;
    const struct model *model = run->model;
    const int64_t m = model->width[model->depth], n = model->width[0], h = model->width[1];
    const bool scaled = law->kind == INTRINSIC_INFINITE;
    const int before = problems->count;
    char *most = memory_text("%s.max_defect", twin->key), *kind = memory_text("%s.kind", twin->key);
    const double bound = spec_is(spec, most, "auto") ? (scaled ? 0.1 : 1e-8) : spec_real(spec, most);
    const int worst = worst_interface(start, bound, scaled);
    if (worst >= 0)
        spec_problem(
            spec, problems, kind,
            "the start is not (relaxed) balanced: between layers %d and %d |S - lambda I|_F is %.3g, with lambda "
            "= %.6g; take model.init.kind: balanced or relaxed_balanced, or a larger max_defect than %g",
            worst + 1, worst + 2, start->defect[worst], start->lambda[worst], bound);
    else if (!intrinsic_exists(law, m, n) && law->kind == INTRINSIC_TWO_LAYERS)
        spec_problem(
            spec, problems, kind,
            "S = lambda I with lambda = %.6g and a hidden width of %lld between those of %lld inputs and %lld "
            "outputs: a part of the weights cannot be seen in their product, and there are no reduced dynamics",
            law->lambda[0], (long long)h, (long long)n, (long long)m);
    else if (!intrinsic_exists(law, m, n))
        spec_problem(
            spec, problems, kind,
            "a start with lambda_k other than 0 in a network of more than two layers has reduced dynamics only "
            "if all widths are equal");
    for (int l = 0; problems->count == before && law->kind == INTRINSIC_DEEP && l < model->depth; l++) {
        double largest = 0;
        for (int k = 0; k < start->interfaces; k++) largest = fmax(largest, fabs(start->lambda[k]));
        if (largest > 0 && model->width[l] != model->width[l + 1])
            spec_problem(spec, problems, kind,
                         "a start with lambda_k other than 0 in a network of more than two layers has reduced dynamics "
                         "only if all widths are equal");
    }
    memory_free(kind);
    memory_free(most);
    return problems->count == before;
}
