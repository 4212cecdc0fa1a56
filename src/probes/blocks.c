/* blocks: how far the weight changes of each layer stay in the subspaces of its first gradient (arXiv 2602.06208): the
 * four blocks U_iᵀ W V_j, the tail of the gradient, the turn of its leading subspaces. Beside each layer, how nearly
 * linear the network is: the reason that is given for it. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "probes/probe.h"
#include "theory/confine.h"
#include "theory/premises.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_blocks;

static const char reference[] = "arXiv 2602.06208";

enum quantity_number { /* one number a layer */
                       OUTSIDE,
                       OUTSIDE_GRADIENT,
                       OUTSIDE_STEP,
                       OFFBLOCK,
                       GRADIENT_FIRST,
                       GRADIENT_KTH,
                       GRADIENT_TAIL,
                       GRADIENT_TAIL_RELATIVE,
                       ANGLE_LEFT,
                       ANGLE_RIGHT,
                       CHANGE_TAIL,
                       NEAR_START,
                       MEDIAN,
                       NUMBERS
};

static const struct quantity numbers[NUMBERS] = {
    {.name = "outside_energy",
     .long_name = "part of the weight change outside the moving block",
     .formula = "(|D V_2|^2 + |U_2^T D V_1|^2) / |D|^2, D = W(t) - W(0)"},
    {.name = "outside_gradient", .long_name = "the same of the gradient", .formula = "D = G(t)"},
    {.name = "outside_step", .long_name = "the same of the last update", .formula = "D = W(t) - W(t-1)"},
    {.name = "offblock_grad_max",
     .long_name = "largest of the three other blocks of the gradient so far, relative to the first gradient",
     .formula = "max |U_i^T G V_j|_F / |G(0)|_F over the measured steps, (i, j) != (1, 1)"},
    {.name = "grad_first", .long_name = "largest singular value of the gradient", .formula = "sigma_1(G)"},
    {.name = "grad_kth", .long_name = "K-th singular value of the gradient", .formula = "sigma_K(G)"},
    {.name = "grad_tail", .long_name = "singular value of the gradient after the K-th", .formula = "sigma_{K+1}(G)"},
    {.name = "grad_tail_rel", .long_name = "relative tail of the gradient", .formula = "sigma_{K+1}(G) / sigma_1(G)"},
    {.name = "subspace_angle_left",
     .units = "degree",
     .long_name = "largest principal angle of the gradient's leading left subspace to the first one"},
    {.name = "subspace_angle_right",
     .units = "degree",
     .long_name = "largest principal angle of the gradient's leading right subspace to the first one"},
    {.name = "dw_tail",
     .long_name = "relative tail of the weight change",
     .formula = "sigma_{2K+1}(D) / sigma_1(D), D = W(t) - W(0)"},
    {.name = "n_within_5pct",
     .long_name = "singular values of the weights within 5 % of the start's",
     .formula = "count of |sigma_i / epsilon - 1| < 0.05"},
    {.name = "sv_median_over_eps",
     .long_name = "median singular value relative to the start's",
     .formula = "median sigma_i / epsilon"},
};

/* One layer. */
struct followed {
    struct confine *confine;   /* owned */
    struct dmat *left, *right; /* the K leading singular vectors of the first gradient; owned, NULL before it */
    double first_norm;         /* ‖G(0)‖_F */
    double offblock;           /* largest norm of another block so far */
    double worst;              /* largest outside energy so far; NaN stays */
};

struct blocks {
    int layers, rank; /* L − 1, K */
    bool full, exact;
    double tolerance;
    double lr;              /* of the last update */
    double slope;           /* ∏ φ′(0) of the layers; 0 if the linearised network has no meaning */
    int most;               /* singular values of the largest layer */
    struct followed *layer; /* [layers] owned */
    int q[NUMBERS], q_change, q_gradient, q_order, q_value, q_linearisation;
};

/* ---------------------------------------------------------------- life */

static void declare(struct blocks *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "weight changes in the subspaces of the first gradient");
    record_group_text(g, "kind", "blocks");
    record_group_text(g, "exact", s->exact ? "true" : "false");
    record_dimension(g, "layer", s->layers, "layer, 1 is the first; all but the last");
    record_dimension(g, "output_side", 2, "1: moving, 2: quiet");
    record_dimension(g, "input_side", 2, "1: moving, 2: quiet");
    for (int i = 0; i < NUMBERS; i++) {
        struct quantity quantity = numbers[i];
        if (!quantity.units) quantity.units = "1";
        quantity.reference = reference;
        quantity.dims[0] = "layer";
        s->q[i] = record_quantity(g, &quantity);
    }
    struct quantity block = {.name = "block_change",
                             .units = "1",
                             .long_name = "blocks of the last update over the learning rate",
                             .formula = "|U_i^T (W(t) - W(t-1)) V_j|_F / eta",
                             .reference = reference,
                             .dims = {"layer", "output_side", "input_side"}};
    s->q_change = record_quantity(g, &block);
    block.name = "block_gradient";
    block.long_name = "blocks of the gradient";
    block.formula = "|U_i^T G V_j|_F";
    s->q_gradient = record_quantity(g, &block);
    s->q_order = record_quantity(g, &(struct quantity){.name = "block_dim",
                                                       .units = "1",
                                                       .integer = true,
                                                       .long_name = "dimension of the moving subspace, at most 2 K",
                                                       .dims = {"layer"}});
    s->q_linearisation =
        record_quantity(g, &(struct quantity){.name = "linearisation_error",
                                              .units = "1",
                                              .long_name = "relative distance of the network from its linearisation",
                                              .formula = "|f(X) - phi'(0)^(L-1) W_L ... W_1 X|_F / |f(X)|_F",
                                              .reference = reference});
    if (!s->full) return;
    record_dimension(g, "index", s->most, "singular value, 1 is the largest");
    s->q_value = record_quantity(g, &(struct quantity){.name = "singular_value",
                                                       .units = "1",
                                                       .long_name = "singular value relative to the start's",
                                                       .formula = "sigma_i(W_l) / epsilon_l",
                                                       .dims = {"layer", "index"}});
}

/* ∏ φ′(0): the kinks of the piecewise linear ones have no slope, and skips and biases are another matter. */
static double slope_at_zero(const struct model *model)
{
    double product = 1;
    for (int l = 0; l < model->depth; l++) {
        const struct layer *layer = &model->layer[l];
        const enum activation kind = layer->activation;
        if (layer->bias || layer->skip >= 0 || kind == ACTIVATION_RELU || kind == ACTIVATION_LEAKY_RELU) return 0;
        double slope = 0, value;
        activation_apply(kind, 1, &slope, &value);
        if (kind != ACTIVATION_LINEAR) product *= slope;
    }
    return product;
}

/* For linear networks the statement is exact: squared loss, white inputs, orthogonal starts, nothing but gradients. */
static bool is_exact(const struct blocks *s, const struct setting *setting)
{
    const struct model *model = setting->model;
    const struct spec *spec = setting->spec;
    bool exact = model->linear && spec_is(spec, "loss.kind", "mse") && spec_is(spec, "train.batch", "full") &&
                 (spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "momentum")) &&
                 spec_real(spec, "train.weight_decay") == 0 && s->rank == model->width[model->depth] &&
                 premises_white(setting->train);
    for (int l = 1; l < model->depth; l++) {
        const bool square = model->width[l] == model->width[l - 1];
        exact = exact && s->layer[l - 1].confine->orthonormal && (square || model->depth == 2) &&
                model->layer[l - 1].skip < 0 && model->width[l] >= model->width[l - 1];
    }
    return exact;
}

static void check_input(const struct probe *probe, const struct blocks *s, const struct setting *setting,
                        struct problems *problems)
{
    char key[128];
    const struct model *model = setting->model;
    snprintf(key, sizeof key, "%s.kind", probe->key);
    if (s->layers < 1)
        spec_problem(setting->spec, problems, key, "blocks are of the layers before the last: the depth is 1");
    snprintf(key, sizeof key, "%s.rank", probe->key);
    for (int l = 1; l < model->depth; l++) {
        const int64_t least = model->width[l] < model->width[l - 1] ? model->width[l] : model->width[l - 1];
        if (2 * (int64_t)s->rank >= least) {
            spec_problem(setting->spec, problems, key, "is %d, but 2K must be smaller than the order of layer %d, %lld",
                         s->rank, l, (long long)least);
            return;
        }
    }
    snprintf(key, sizeof key, "%s.start", probe->key);
    if (probe->start != 0)
        spec_problem(setting->spec, problems, key, "must be 0: the first gradient is that of step 0");
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    struct blocks *s = probe->state = NEW(struct blocks, 1);
    s->layers = model->depth - 1;
    s->rank = to_int(spec_is(spec, KEY("rank"), "auto") ? model->width[model->depth] : spec_int(spec, KEY("rank")));
    s->full = spec_bool(spec, KEY("full"));
    s->tolerance = spec_real(spec, KEY("tolerance"));
#undef KEY
    s->layer = NEW(struct followed, s->layers);
    s->slope = slope_at_zero(model);
    check_input(probe, s, setting, problems);
    for (int l = 1; l <= s->layers; l++) {
        const int64_t least = model->width[l] < model->width[l - 1] ? model->width[l] : model->width[l - 1];
        if (least > s->most) s->most = to_int(least);
        if (!model->params) continue;
        s->layer[l - 1].confine = confine_create(model->params->W[l - 1]);
        if (!s->layer[l - 1].confine->orthonormal)
            log_warn("%s: layer %d does not start as a multiple of an orthogonal matrix: its output side is not "
                     "measured",
                     probe->name, l);
    }
    if (setting->train && s->layers > 0 && model->params) s->exact = is_exact(s, setting);
    probe->needs_previous = true;
    declare(s, probe, record);
}

static void destroy(struct probe *probe)
{
    struct blocks *s = probe->state;
    for (int l = 0; l < s->layers; l++) {
        confine_destroy(&s->layer[l].confine);
        dmat_destroy(&s->layer[l].left);
        dmat_destroy(&s->layer[l].right);
    }
    memory_free(s->layer);
    memory_free(s);
    probe->state = NULL;
}

static void advance(struct probe *probe, double lr, double loss)
{
    (void)loss;
    ((struct blocks *)probe->state)->lr = lr;
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct blocks *s = probe->state;
    archive_real(archive, "lr", &s->lr);
    for (int l = 0; l < s->layers; l++) {
        struct followed *f = &s->layer[l];
        const struct dmat *W = model->params->W[l];
        char name[32];
        snprintf(name, sizeof name, "layer_%d", l + 1);
        archive_enter(archive, name);
        confine_archive(f->confine, archive);
        archive_real(archive, "first_norm", &f->first_norm);
        archive_real(archive, "offblock", &f->offblock);
        archive_real(archive, "worst", &f->worst);
        if (archive_flag(archive, "leading", f->left != NULL)) {
            if (!f->left) f->left = dmat_create(W->grid, W->m, s->rank);
            if (!f->right) f->right = dmat_create(W->grid, W->n, s->rank);
            archive_matrix(archive, "left", f->left);
            archive_matrix(archive, "right", f->right);
        }
        archive_leave(archive);
    }
}

/* ---------------------------------------------------------------- measuring */

static void put(const struct probe *probe, int l, enum quantity_number which, double value)
{
    const struct blocks *s = probe->state;
    record_put_at(probe->group, s->q[which], l - 1, value);
}

/* Tail and leading subspaces; the first gradient makes the subspaces. */
static void look_at_gradient(struct probe *probe, int l, const struct dmat *G, int64_t step)
{
    const struct blocks *s = probe->state;
    struct followed *f = &s->layer[l - 1];
    double *sigma = NEW(double, s->rank + 1);
    struct dmat *left = dmat_create(G->grid, G->m, s->rank), *right = dmat_create(G->grid, G->n, s->rank);
    confine_leading(G, s->rank, s->tolerance, probe->seed, sigma, left, right);
    const double kth = sigma[s->rank - 1], next = sigma[s->rank];
    const bool gap = kth - next > 1e-8 * sigma[0];
    put(probe, l, GRADIENT_FIRST, sigma[0]);
    put(probe, l, GRADIENT_KTH, kth);
    put(probe, l, GRADIENT_TAIL, next);
    if (sigma[0] > 0) put(probe, l, GRADIENT_TAIL_RELATIVE, next / sigma[0]);
    if (step == 0 && !f->left && sigma[0] > 0) {
        f->left = left;
        f->right = right;
        f->first_norm = dmat_norm(G);
        confine_find(f->confine, left, right);
        if (!(kth >= 2 * next))
            log_warn("%s: layer %d: the first gradient has no gap after its singular value number %d (%.3g, then "
                     "%.3g): its subspaces mean little",
                     probe->name, l, s->rank, kth, next);
        left = right = NULL;
    } else if (f->left && gap) {
        put(probe, l, ANGLE_LEFT, confine_angle(f->left, left));
        put(probe, l, ANGLE_RIGHT, confine_angle(f->right, right));
    }
    dmat_destroy(&left);
    dmat_destroy(&right);
    memory_free(sigma);
}

static void put_blocks(const struct probe *probe, int quantity, int l, const struct confine_parts *parts, double scale)
{
    for (int i = 0; i < 4; i++)
        record_put_at(probe->group, quantity, 4 * (int64_t)(l - 1) + i, sqrt(parts->block[i / 2][i % 2]) / scale);
}

static void measure_gradient(struct probe *probe, int l, const struct dmat *G)
{
    const struct blocks *s = probe->state;
    struct followed *f = &s->layer[l - 1];
    const struct confine_parts parts = confine_measure(f->confine, G, true);
    put_blocks(probe, s->q_gradient, l, &parts, 1);
    if (parts.total > 0) put(probe, l, OUTSIDE_GRADIENT, parts.outside / parts.total);
    for (int i = 1; i < 4; i++) f->offblock = fmax(f->offblock, sqrt(parts.block[i / 2][i % 2]));
    put(probe, l, OFFBLOCK, f->offblock / f->first_norm);
}

static void measure_step(struct probe *probe, int l, const struct moment *moment)
{
    const struct blocks *s = probe->state;
    const double lr = s->lr * moment->model->layer[l - 1].lr_multiplier;
    struct dmat *update;
    if (!probe_matrix(moment, PROBE_OF_UPDATE, l, &update)) return;
    const struct confine_parts parts = confine_measure(s->layer[l - 1].confine, update, true);
    if (parts.total > 0) put(probe, l, OUTSIDE_STEP, parts.outside / parts.total);
    if (lr > 0) put_blocks(probe, s->q_change, l, &parts, lr);
    dmat_destroy(&update);
}

/* D = W(t) − W(0). */
static void measure_change(struct probe *probe, int l, const struct dmat *W)
{
    const struct blocks *s = probe->state;
    struct followed *f = &s->layer[l - 1];
    const struct confine *c = f->confine;
    struct dmat *D = dmat_create(W->grid, W->m, W->n);
    if (c->transposed)
        dmat_transpose(c->E, D);
    else
        dmat_copy(D, c->E);
    dmat_scale(D, -c->epsilon);
    dmat_axpy(D, 1, W);
    double *sigma = NEW(double, 2 * s->rank + 1);
    const struct confine_parts parts = confine_measure(c, D, false);
    confine_leading(D, 2 * s->rank, s->tolerance, probe->seed, sigma, NULL, NULL);
    const double outside = parts.outside / parts.total;
    put(probe, l, OUTSIDE, outside);
    put(probe, l, CHANGE_TAIL, sigma[2 * (int64_t)s->rank] / sigma[0]);
    if (!(outside <= f->worst)) f->worst = outside;
    memory_free(sigma);
    dmat_destroy(&D);
}

static void measure_spectrum(struct probe *probe, int l, const struct dmat *W)
{
    const struct blocks *s = probe->state;
    const int count = to_int(W->m < W->n ? W->m : W->n);
    const struct dmat *const list[1] = {W};
    double *sigma = NEW(double, count);
    int near = 0;
    factor_singular_values(list, 1, sigma, count);
    for (int i = 0; i < count; i++) {
        sigma[i] /= s->layer[l - 1].confine->epsilon;
        near += fabs(sigma[i] - 1) < 0.05;
        record_put_at(probe->group, s->q_value, (int64_t)(l - 1) * s->most + i, sigma[i]);
    }
    put(probe, l, NEAR_START, near);
    put(probe, l, MEDIAN, (sigma[count / 2] + sigma[(count - 1) / 2]) / 2);
    memory_free(sigma);
}

/* ---- the linearised network beside the network */

struct linearised {
    const struct dmat *product; /* φ′(0)… W_L … W_1 */
    int depth;
    struct dmat *F;           /* of the current chunk; owned between its first and last visit */
    double difference, whole; /* squared norms */
};

static void visit(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct linearised *n = context;
    if (l == 0) {
        n->F = dmat_create(a->grid, n->product->m, a->n);
        dmat_gemm('N', 'N', 1, n->product, a, 0, n->F);
    } else if (l == n->depth) {
        dmat_axpy(n->F, -1, a);
        n->difference += dmat_dot(n->F, n->F);
        n->whole += dmat_dot(a, a);
        dmat_destroy(&n->F);
    }
}

static void measure_linearisation(struct probe *probe, const struct moment *moment)
{
    const struct blocks *s = probe->state;
    const struct params *p = moment->model->params;
    if (s->slope == 0 || !moment->train->X) return;
    struct dmat *product = dmat_create(p->grid, p->W[p->depth - 1]->m, p->W[p->depth - 1]->n);
    dmat_copy(product, p->W[p->depth - 1]);
    dmat_scale(product, s->slope);
    for (int l = p->depth - 1; l >= 1; l--) {
        struct dmat *next = dmat_create(p->grid, product->m, p->W[l - 1]->n);
        dmat_gemm('N', 'N', 1, product, p->W[l - 1], 0, next);
        dmat_destroy(&product);
        product = next;
    }
    struct linearised n = {.product = product, .depth = p->depth};
    backprop_features(moment->backprop, moment->model, moment->train, false, visit, &n);
    if (n.whole > 0) record_put_at(probe->group, s->q_linearisation, 0, sqrt(n.difference / n.whole));
    dmat_destroy(&product);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct blocks *s = probe->state;
    for (int l = 1; l <= s->layers; l++) {
        const struct dmat *W = moment->model->params->W[l - 1], *G = moment->gradient->W[l - 1];
        struct followed *f = &s->layer[l - 1];
        if (s->full) measure_spectrum(probe, l, W);
        look_at_gradient(probe, l, G, moment->step);
        if (!f->confine->V) continue; /* frozen: no first gradient */
        record_put_int_at(probe->group, s->q_order, l - 1, f->confine->V->n);
        if (!f->confine->orthonormal) continue;
        measure_gradient(probe, l, G);
        measure_step(probe, l, moment);
        if (moment->step > 0) measure_change(probe, l, W);
    }
    measure_linearisation(probe, moment);
}

/* ---------------------------------------------------------------- at the end */

static void check(const struct probe *probe, struct record *record)
{
    const struct blocks *s = probe->state;
    if (!s->exact) return;
    for (int l = 1; l <= s->layers; l++) {
        if (!s->layer[l - 1].confine->V) continue;
        char *name = memory_text("%s: changes of layer %d stay in the moving block", probe->name, l);
        record_check(record, name, reference, s->layer[l - 1].worst, 1e-20, s->layer[l - 1].worst <= 1e-20);
        memory_free(name);
    }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct blocks *s = probe->state;
    need->count = 2 * s->layers; /* gradient and change */
    need->solve = NEW(struct probe_solve, need->count);
    for (int i = 0; i < need->count; i++) {
        const int64_t m = model->width[i / 2 + 1], n = model->width[i / 2];
        need->solve[i] = (struct probe_solve){.m = m,
                                              .n = n,
                                              .elements = m * n,
                                              .factors = 1,
                                              .rank = s->full ? 0 : (i % 2 ? 2 : 1) * s->rank + 1,
                                              .kept = 1};
    }
    need->copies = true;
    need->passes = s->slope != 0;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct blocks *s = probe->state;
    log_say("  %s (last step), K = %d", probe->name, s->rank);
    for (int l = 1; l <= s->layers; l++)
        log_say("    layer %d: %.3g of the change is outside the moving block; gradient: tail %.3g, turned by %.3g and "
                "%.3g degrees",
                l, record_last(record, probe->name, "outside_energy", l - 1),
                record_last(record, probe->name, "grad_tail", l - 1),
                record_last(record, probe->name, "subspace_angle_left", l - 1),
                record_last(record, probe->name, "subspace_angle_right", l - 1));
}

const struct probe_kind probe_blocks = {.name = "blocks",
                                        .create = create,
                                        .advance = advance,
                                        .measure = measure,
                                        .archive = archive,
                                        .need = need,
                                        .check = check,
                                        .summary = summary,
                                        .destroy = destroy};
