/* The compressed network f_C = U_{L,1} Ŵ_L … Ŵ_1 V_{1,1}ᵀ of the law of parsimony, an ordinary network of L + 2 layers
 * whose outer ones are frozen or slow; with few outputs the last of L + 1 layers is W_L V_{L,1}. */
#include "base/memory.h"
#include "net/loss.h"
#include "theory/parsimony.h"
#include "theory/premises.h"
#include "theory/scalars.h"

#include "twin_private.h"

#include <math.h>
#include <stdio.h>

static const char reference[] = "arXiv 2306.01154 and 2311.05061, compressed network";

/* The largest deviations from the theorem so far. */
enum deviation { DEVIATION_BLOCK, DEVIATION_GAP, DEVIATION_LOSS, DEVIATIONS };

struct compressed {
    struct parsimony *law;   /* owned */
    struct scalars *scalars; /* owned; NULL if not exact */
    double worst[DEVIATIONS];
    int64_t width;                                                                             /* d */
    int q_block, q_gap, q_predicted, q_largest, q_difference, q_difference_predicted, q_order; /* in the record */
};

/* ---------------------------------------------------------------- the network */

void twin_set_outer(struct layer *layer, double gamma)
{
    layer->trainable = gamma > 0;
    layer->lr_multiplier = gamma;
}

void twin_set_inner(struct layer *layer, const struct layer *large)
{
    layer->trainable = large->trainable;
    layer->lr_multiplier = large->lr_multiplier;
}

/* The network for the subspaces of the law and the weights that training starts from. */
static struct model *network_of(const struct parsimony *law, const struct model *large, double gamma)
{
    const int depth = law->depth + (law->kind == PARSIMONY_OUTPUTS ? 1 : 2);
    int64_t *width = NEW(int64_t, depth + 1);
    for (int l = 0; l <= depth; l++)
        width[l] = l == 0 ? large->width[0] : l == depth ? large->width[large->depth] : law->q;
    struct model *model = model_linear(large->grid, depth, width, large->output_scale);
    memory_free(width);
    for (int l = 1; l <= depth; l++) {
        const bool inner = l > 1 && l < law->depth + 2;
        if (inner)
            twin_set_inner(&model->layer[l - 1], &large->layer[l - 2]);
        else
            twin_set_outer(&model->layer[l - 1], gamma);
    }
    model->params = params_create(model);
    struct dmat **W = model->params->W;
    dmat_transpose(law->V[0], W[0]);
    for (int l = 1; l <= law->blocks; l++) dmat_identity(W[l], law->epsilon[l - 1]);
    if (law->kind == PARSIMONY_OUTPUTS)
        dmat_gemm('N', 'N', 1, large->params->W[law->depth - 1], law->V[law->blocks], 0, W[depth - 1]);
    else
        dmat_copy(W[depth - 1], law->V[law->blocks]);
    return model;
}

/* ---------------------------------------------------------------- outer factors of the law */

/* Φ, or the first gradient by W_1; the caller owns it. */
static struct dmat *matrix_for(enum parsimony_case kind, const struct twins_setting *setting)
{
    if (kind != PARSIMONY_GRADIENT) return premises_target(setting->run->train, setting->run->loss);
    backprop_gradient(setting->backprop, setting->run->model, batches_at(setting->batches, 0), setting->gradient);
    const struct dmat *G = setting->gradient->W[0];
    struct dmat *copy = dmat_create(G->grid, G->m, G->n);
    dmat_copy(copy, G);
    return copy;
}

void twin_check_product(const struct twin *twin, const struct setting *run, struct problems *problems)
{
    char *key = memory_text("%s.kind", twin->key);
    if (!run->model->linear || !spec_is(run->spec, "model.residual", "none"))
        spec_problem(run->spec, problems, key,
                     "only a linear network without bias and residual connections can be compressed");
    memory_free(key);
}

static void check(const struct twin *twin, enum parsimony_case kind, int rank, const struct setting *run,
                  struct problems *problems)
{
    const struct model *model = run->model;
    char key[128];
    twin_check_product(twin, run, problems);
    premises_check(kind, rank, model, run->spec, twin->key, problems);
    snprintf(key, sizeof key, "%s.case", twin->key);
    for (int l = 0; kind == PARSIMONY_GRADIENT && l < model->depth; l++) {
        if (model->width[l] <= model->width[l + 1]) continue;
        spec_problem(run->spec, problems, key,
                     "'gradient' needs widths that don't decrease, but n_%d = %lld is followed by n_%d = %lld", l,
                     (long long)model->width[l], l + 1, (long long)model->width[l + 1]);
        return;
    }
}

static struct model *of_law(struct twin *twin, const struct twins_setting *setting, double gamma,
                            struct problems *problems)
{
    const struct setting *run = setting->run;
    const struct spec *spec = run->spec;
    char key[128];
    snprintf(key, sizeof key, "%s.case", twin->key);
    const enum parsimony_case kind = premises_case(spec_text(spec, key), run->model, spec);
    snprintf(key, sizeof key, "%s.rank", twin->key);
    const int rank = premises_rank(kind, run->model, spec, key), before = problems->count;
    check(twin, kind, rank, run, problems);
    if (problems->count > before) return NULL;
    struct dmat *matrix = matrix_for(kind, setting);
    struct parsimony *law = parsimony_create(kind, (const struct dmat *const *)run->model->params->W, run->model->depth,
                                             matrix, rank, (uint64_t)spec_int(spec, "run.seed"), problems);
    if (law) {
        const double alpha = run->model->output_scale;
        struct compressed *c = twin->compressed = NEW(struct compressed, 1);
        c->law = law;
        c->width = run->model->width[0];
        if (gamma == 0 && premises_hold(law, run->model, spec, run->train, matrix))
            c->scalars = scalars_create(law, run->model, spec, alpha * alpha * loss_scale_on(run->loss, run->train));
    }
    dmat_destroy(&matrix);
    return law ? network_of(law, run->model, gamma) : NULL;
}

/* ---------------------------------------------------------------- life */

struct model *compressed_create(struct twin *twin, const struct twins_setting *setting, struct problems *problems)
{
    const struct spec *spec = setting->run->spec;
    char key[128];
    snprintf(key, sizeof key, "%s.outer_lr", twin->key);
    const double gamma = spec_real(spec, key);
    snprintf(key, sizeof key, "%s.basis", twin->key);
    return spec_is(spec, key, "law") ? of_law(twin, setting, gamma, problems)
                                     : aligned_create(twin, setting->run, gamma, problems);
}

void compressed_destroy(struct compressed **compressed)
{
    struct compressed *c = *compressed;
    if (!c) return;
    parsimony_destroy(&c->law);
    scalars_destroy(&c->scalars);
    memory_free(c);
    *compressed = NULL;
}

void compressed_advance(struct compressed *c, double lr)
{
    if (c->scalars) scalars_advance(c->scalars, lr);
}

void compressed_archive(struct compressed *c, const struct dmat *like, struct archive *archive)
{
    parsimony_archive(&c->law, like, archive);
    if (c->scalars) scalars_archive(c->scalars, archive);
    archive_reals(archive, "worst", DEVIATIONS, c->worst);
}

/* ---------------------------------------------------------------- comparison */

static int quantity(struct record_group *g, const char *name, const char *long_name, const char *formula)
{
    return record_number(g, name, NULL, NULL, long_name, formula, reference);
}

void compressed_declare(struct twin *twin)
{
    static const char *const cases[] = {"square", "outputs", "gradient"};
    struct compressed *c = twin->compressed;
    struct record_group *g = twin->group;
    record_group_text(g, "case", cases[c->law->kind]);
    record_group_text(g, "exact", c->scalars ? "true" : "false");
    record_dimension(g, "layer", c->law->depth, "layer of the large network, 1 is the first");
    c->q_block = record_quantity(g, &(struct quantity){.name = "block_error",
                                                       .units = "1",
                                                       .long_name = "blocks of the large network beside the layers of "
                                                                    "this one, largest difference of entries",
                                                       .formula = "max |U_(l,1)^T W_l V_(l,1) - What_l|",
                                                       .reference = reference,
                                                       .dims = {"layer"}});
    c->q_gap = quantity(g, "comp_gap_sq", "squared distance of the end-to-end matrices", "|W_(L:1) - f_C|_F^2");
    c->q_predicted = quantity(g, "comp_gap_sq_pred", "the same by the theorem", "(d - q) prod_l rho_l^2");
    c->q_largest = quantity(g, "comp_gap_max", "largest entry of the difference", "max |W_(L:1) - f_C|");
    c->q_difference =
        quantity(g, "loss_difference", "loss of the large network minus that of this one", "loss - loss_comp");
    c->q_difference_predicted =
        quantity(g, "loss_difference_pred", "the same by the theorem", "(d - q) prod_l rho_l^2 / (2s)");
    c->q_order = record_quantity(
        g,
        &(struct quantity){.name = "block_dim", .units = "1", .integer = true, .long_name = "order q of the blocks"});
}

/* max |U_{l,1}ᵀ W_l V_{l,1} − Ŵ_l|; the last layer of a network with few outputs has no U. */
static double block_error(const struct parsimony *law, int l, const struct dmat *W, const struct dmat *small)
{
    struct dmat *WV = dmat_create(W->grid, W->m, law->q), *error = dmat_create(W->grid, small->m, small->n);
    dmat_gemm('N', 'N', 1, W, law->V[l - 1], 0, WV);
    dmat_copy(error, small);
    if (l <= law->blocks)
        dmat_gemm('T', 'N', 1, law->V[l], WV, -1, error);
    else
        dmat_axpy(error, -1, WV);
    const double largest = dmat_largest(error);
    dmat_destroy(&WV);
    dmat_destroy(&error);
    return largest;
}

/* W_last … W_1 of a linear network, from the side that has fewer entries; the caller owns it. */
static struct dmat *product_of(const struct model *model, int last)
{
    struct dmat *const *W = model->params->W;
    const bool from_left = model->width[last] < model->width[0];
    const struct dmat *first = W[from_left ? last - 1 : 0];
    struct dmat *P = dmat_create(model->grid, first->m, first->n);
    dmat_copy(P, first);
    for (int i = 1; i < last; i++) {
        const struct dmat *left = from_left ? P : W[i], *right = from_left ? W[last - 1 - i] : P;
        struct dmat *next = dmat_create(model->grid, left->m, right->n);
        dmat_gemm('N', 'N', 1, left, right, 0, next);
        dmat_destroy(&P);
        P = next;
    }
    return P;
}

/* A NaN must not hide: it stays the worst. */
static void note(struct compressed *c, enum deviation which, double value)
{
    if (!(value <= c->worst[which])) c->worst[which] = value;
}

/* Where the prediction is small the difference of the matrices is one of nearly equal numbers: it is then measured by
 * the size of these. */
static const double GAP_FLOOR = 1e-9;

static void compare_products(struct twin *twin, const struct model *large)
{
    struct compressed *c = twin->compressed;
    const struct model *small = twin->model;
    struct dmat *P = product_of(large, large->depth), *inner = product_of(small, small->depth - 1);
    const double size = dmat_dot(P, P);
    dmat_gemm('N', 'N', -1, small->params->W[small->depth - 1], inner, 1, P);
    const double gap = dmat_dot(P, P), largest = dmat_largest(P),
                 predicted = c->scalars ? scalars_gap(c->scalars) : NAN;
    record_put_at(twin->group, c->q_gap, 0, gap);
    record_put_at(twin->group, c->q_predicted, 0, predicted);
    record_put_at(twin->group, c->q_largest, 0, largest);
    const bool few_outputs = c->law->kind == PARSIMONY_OUTPUTS;
    note(c, DEVIATION_GAP, few_outputs ? largest : fabs(gap - predicted) / (predicted + GAP_FLOOR * size));
    dmat_destroy(&inner);
    dmat_destroy(&P);
}

void compressed_measure(struct twin *twin, const struct moment *moment)
{
    struct compressed *c = twin->compressed;
    const struct params *large = moment->model->params;
    const double difference = moment->loss - twin->loss, predicted = c->scalars ? scalars_loss(c->scalars) : NAN;
    for (int l = 1; l <= c->law->depth; l++) {
        const double error = block_error(c->law, l, large->W[l - 1], twin->model->params->W[l]);
        record_put_at(twin->group, c->q_block, l - 1, error);
        note(c, DEVIATION_BLOCK, error);
    }
    compare_products(twin, moment->model);
    record_put_at(twin->group, c->q_difference, 0, difference);
    record_put_at(twin->group, c->q_difference_predicted, 0, predicted);
    record_put_int_at(twin->group, c->q_order, 0, c->law->q);
    note(c, DEVIATION_LOSS, fabs(difference - predicted) / fmax(1, moment->loss));
}

void compressed_check(const struct twin *twin, struct record *record)
{
    const struct compressed *c = twin->compressed;
    if (!c->scalars) return;
    const bool few_outputs = c->law->kind == PARSIMONY_OUTPUTS;
    const char *const names[DEVIATIONS] = {"layers are the blocks of the large network",
                                           few_outputs ? "both networks are the same end to end"
                                                       : "end-to-end matrices differ by the scalars alone",
                                           "losses differ by the scalars alone"};
    const double rounding = fmax(1, sqrt((double)c->width / 100)); /* of sums as long as the network is wide */
    const double bounds[DEVIATIONS] = {1e-12 * rounding, few_outputs ? 1e-11 * rounding : 1e-8, 1e-12};
    for (int i = 0; i < DEVIATIONS; i++) {
        char *name = memory_text("%s: %s", twin->name, names[i]);
        record_check(record, name, reference, c->worst[i], bounds[i], c->worst[i] <= bounds[i]);
        memory_free(name);
    }
}
