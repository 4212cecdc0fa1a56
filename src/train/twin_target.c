/* The compressed network between the singular vectors of the target (C-DLN, arXiv 2311.05061): L layers whose outer
 * ones start as these vectors; and how well both networks' leading vectors agree with the target's. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "theory/premises.h"

#include "twin_private.h"

#include <math.h>
#include <stdio.h>

/* A leading value that the next one equals to this has no vector of its own. */
static const double DEGENERATE = 1e-6;

struct aligned {
    uint64_t seed;
    struct triplets *target;  /* two leading triplets; owned */
    int q_alignment, q_large; /* in the record */
};

/* The two leading singular triplets of A; the caller owns them. */
static struct triplets *leading(const struct aligned *aligned, const struct dmat *A)
{
    struct linop *L = linop_of_matrix(A);
    struct triplets *T = triplets_create(L, A->m > 1 && A->n > 1 ? 2 : 1);
    const struct krylov_options options = {
        .tolerance = 1e-10, .max_products = 100000, .seed = aligned->seed, .stream = RANDOM_KRYLOV + RANDOM_TWINS};
    krylov_svd(L, &options, T);
    linop_destroy(&L);
    return T;
}

static bool is_single(const struct triplets *T)
{
    return T->converged == T->rank && T->sigma[0] > 0 && (T->rank == 1 || T->sigma[1] < (1 - DEGENERATE) * T->sigma[0]);
}

/* ---------------------------------------------------------------- the network */

/* The leading columns of A, times `scale`. */
static void take_leading(const struct dmat *A, double scale, struct dmat *B)
{
    int64_t *columns = NEW(int64_t, B->n);
    for (int64_t j = 0; j < B->n; j++) columns[j] = j;
    dmat_take_columns(A, columns, B);
    dmat_scale(B, scale);
    memory_free(columns);
}

/* The scale of a layer: ‖W‖_F/√min(m, n), ε of an orthogonal start. */
static double scale_of(const struct dmat *W)
{
    return dmat_norm(W) / sqrt((double)(W->m < W->n ? W->m : W->n));
}

/* W_1 = ε V ᵀ, W_l = ε I, W_L = ε U with the leading singular vectors U, V of Φ. */
static void fill_from_target(struct model *model, const struct model *large, const struct dmat *target)
{
    struct dmat **W = model->params->W;
    const int64_t m = target->m, n = target->n, least = m < n ? m : n;
    struct dmat *U = dmat_create(model->grid, m, least), *Vt = dmat_create(model->grid, least, n);
    struct dmat *V = dmat_create(model->grid, n, least), *leading = dmat_create(model->grid, n, W[0]->m);
    double *sigma = NEW(double, least);
    factor_svd(target, U, sigma, Vt);
    dmat_transpose(Vt, V);
    take_leading(V, scale_of(large->params->W[0]), leading);
    dmat_transpose(leading, W[0]);
    for (int l = 1; l + 1 < model->depth; l++) dmat_identity(W[l], scale_of(large->params->W[l]));
    take_leading(U, scale_of(large->params->W[large->depth - 1]), W[model->depth - 1]);
    memory_free(sigma);
    dmat_destroy(&leading);
    dmat_destroy(&V);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static void check_target(const struct twin *twin, const struct setting *run, int64_t vectors, struct problems *problems)
{
    const struct model *large = run->model;
    const int64_t m = large->width[large->depth], n = large->width[0], least = m < n ? m : n;
    char key[128];
    twin_check_product(twin, run, problems);
    snprintf(key, sizeof key, "%s.basis", twin->key);
    if (large->depth < 2) spec_problem(run->spec, problems, key, "'target' needs two layers or more, for U and V");
    if (run->loss->kind == LOSS_SENSING)
        spec_problem(run->spec, problems, key,
                     "'target' needs entries of the target, not measurements; 'law' is possible");
    snprintf(key, sizeof key, "%s.rank", twin->key);
    if (vectors > least)
        spec_problem(run->spec, problems, key, "is %lld, but the target has only %lld singular vectors, not 2r",
                     (long long)vectors / 2, (long long)least);
}

struct model *aligned_create(struct twin *twin, const struct setting *run, double gamma, struct problems *problems)
{
    const struct model *large = run->model;
    const int before = problems->count, depth = large->depth;
    const int64_t inner = 2 * (int64_t)twin_rank(twin, run->spec, problems);
    check_target(twin, run, inner, problems);
    if (problems->count > before) return NULL;
    int64_t *width = NEW(int64_t, depth + 1);
    for (int l = 0; l <= depth; l++) width[l] = l == 0 || l == depth ? large->width[l] : inner;
    struct model *model = model_linear(large->grid, depth, width, large->output_scale);
    memory_free(width);
    for (int l = 0; l < depth; l++) twin_set_inner(&model->layer[l], &large->layer[l]);
    twin_set_outer(&model->layer[0], gamma);
    twin_set_outer(&model->layer[depth - 1], gamma);
    model->params = params_create(model);
    struct dmat *target = premises_target(run->train, run->loss);
    fill_from_target(model, run->model, target);
    twin->aligned = NEW(struct aligned, 1);
    twin->aligned->seed = (uint64_t)spec_int(run->spec, "run.seed");
    twin->aligned->target = leading(twin->aligned, target);
    dmat_destroy(&target);
    return model;
}

void aligned_destroy(struct aligned **aligned)
{
    if (!*aligned) return;
    triplets_destroy(&(*aligned)->target);
    memory_free(*aligned);
    *aligned = NULL;
}

/* ---------------------------------------------------------------- comparison */

void aligned_declare(struct twin *twin)
{
    struct record_group *g = twin->group;
    static const char reference[] = "arXiv 2311.05061, compressed deep linear network";
    record_dimension(g, "side", 2, "1: left vector of the last layer, 2: right vector of the first");
    twin->aligned->q_alignment = record_quantity(
        g, &(struct quantity){.name = "top_alignment",
                              .units = "1",
                              .long_name = "agreement of the leading singular vectors with the target's",
                              .formula = "|<u_1(W_L), u_1*>|, |<v_1(W_1), v_1*>|; NaN where the top value is multiple",
                              .reference = reference,
                              .dims = {"side"}});
    twin->aligned->q_large = record_quantity(g, &(struct quantity){.name = "network_top_alignment",
                                                                   .units = "1",
                                                                   .long_name = "the same of the large network",
                                                                   .reference = reference,
                                                                   .dims = {"side"}});
}

/* |⟨a, b⟩| of vectors of `mine` local entries. */
static double agreement(const struct grid *grid, const double *a, const double *b, int mine)
{
    double sum = 0;
    for (int i = 0; i < mine; i++) sum += a[i] * b[i];
    grid_sum(grid, &sum, 1);
    return fabs(sum);
}

static void put_alignment(const struct twin *twin, int quantity, const struct model *model)
{
    const struct triplets *target = twin->aligned->target;
    struct triplets *last = leading(twin->aligned, model->params->W[model->depth - 1]);
    struct triplets *first = leading(twin->aligned, model->params->W[0]);
    const bool known = is_single(target);
    record_put_at(twin->group, quantity, 0,
                  known && is_single(last) ? agreement(model->grid, last->left, target->left, target->mloc) : NAN);
    record_put_at(twin->group, quantity, 1,
                  known && is_single(first) ? agreement(model->grid, first->right, target->right, target->nloc) : NAN);
    triplets_destroy(&first);
    triplets_destroy(&last);
}

void aligned_measure(struct twin *twin, const struct moment *moment)
{
    put_alignment(twin, twin->aligned->q_alignment, twin->model);
    put_alignment(twin, twin->aligned->q_large, moment->model);
}
