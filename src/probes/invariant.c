/* invariant: the law of parsimony (arXiv 2306.01154) held against training: the blocks U_lᵀ W_l V_l, the scalar ρ_l on
 * their complement and its theory, and what of W_l is neither. */
#include "invariant_private.h"

#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "net/loss.h"
#include "probes/probe.h"
#include "theory/parsimony.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_invariant;

static const char reference[] = "arXiv 2306.01154, theorem 1 and its sequels";

/* The largest deviations from the theorem so far. */
enum deviation { DEVIATION_RHO, DEVIATION_RESIDUAL, DEVIATION_LEAK, DEVIATION_COUNT, DEVIATIONS };

struct invariant {
    enum parsimony_case kind;
    int depth, blocks, rank;
    int order;  /* rows of the `block` series: 2r at most */
    bool exact; /* the assumptions of the theorem hold: ρ has a theory */
    double momentum, decay;
    double *multiplier;    /* [depth] of the learning rate, 0 for frozen layers; owned */
    double scale;          /* 1/s of the loss */
    struct dmat **start;   /* [depth] W_l(0), owned */
    struct parsimony *law; /* owned; NULL in the gradient case before the first measurement */
    struct rho *rho;       /* owned; NULL if not exact */
    struct full *full;     /* owned, or NULL */
    double worst[DEVIATIONS];
    int q_rho, q_theory, q_residual, q_off, q_value, q_leak, q_order; /* in the record */
};

/* ---------------------------------------------------------------- what applies */

static bool is_square(const struct model *model)
{
    for (int l = 0; l < model->depth; l++)
        if (model->width[l] != model->width[l + 1]) return false;
    return true;
}

/* Layers 1 … L − 1 are square, and there are few outputs. */
static bool has_few_outputs(const struct model *model)
{
    for (int l = 0; l + 1 < model->depth; l++)
        if (model->width[l] != model->width[l + 1]) return false;
    return model->depth > 1 && 2 * model->width[model->depth] < model->width[0];
}

static bool is_plain_squared_loss(const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    return setting->model->linear && spec_is(spec, "loss.kind", "mse") && spec_is(spec, "train.batch", "full") &&
           (spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "momentum"));
}

static bool is_white(const struct dataset *train)
{
    return !train->X || (train->X->m <= train->X->n && dmat_orthogonality(train->X, 1) < 1e-10);
}

/* Each layer (in case B all but the last) is a multiple of an orthogonal matrix. */
static bool starts_orthogonal(const struct invariant *s)
{
    for (int l = 0; l < s->blocks; l++) {
        const struct dmat *W = s->start[l];
        const double square = dmat_dot(W, W) / (double)(W->m < W->n ? W->m : W->n);
        if (!(dmat_orthogonality(W, square) < 1e-11 * square * sqrt((double)W->m))) return false;
    }
    return true;
}

static enum parsimony_case choose_case(const char *word, const struct setting *setting)
{
    if (strcmp(word, "square") == 0) return PARSIMONY_SQUARE;
    if (strcmp(word, "outputs") == 0) return PARSIMONY_OUTPUTS;
    if (strcmp(word, "gradient") == 0 || !is_plain_squared_loss(setting)) return PARSIMONY_GRADIENT;
    return is_square(setting->model)         ? PARSIMONY_SQUARE
           : has_few_outputs(setting->model) ? PARSIMONY_OUTPUTS
                                             : PARSIMONY_GRADIENT;
}

static void check_case(struct probe *probe, const struct invariant *s, const struct setting *setting,
                       struct problems *problems)
{
    char key[128];
    snprintf(key, sizeof key, "%s.case", probe->key);
    const struct model *model = setting->model;
    if (s->kind == PARSIMONY_SQUARE && !is_square(model))
        spec_problem(setting->spec, problems, key, "'square' needs layers of equal width, inputs and outputs too");
    if (s->kind == PARSIMONY_OUTPUTS && !has_few_outputs(model))
        spec_problem(setting->spec, problems, key,
                     "'outputs' needs inputs and hidden layers of equal width d, and less than d/2 outputs");
    snprintf(key, sizeof key, "%s.rank", probe->key);
    if (s->rank < 1)
        spec_problem(setting->spec, problems, key, "give the rank r of the target: it does not follow from the data");
    else if (2 * (int64_t)s->rank >= model->width[0])
        spec_problem(setting->spec, problems, key, "is %d, but 2r must be smaller than the width, %lld", s->rank,
                     (long long)model->width[0]);
}

static int choose_rank(const struct spec *spec, const char *key, const struct invariant *s, const struct model *model)
{
    if (s->kind == PARSIMONY_OUTPUTS) return to_int(model->width[model->depth]);
    if (!spec_is(spec, key, "auto")) return to_int(spec_int(spec, key));
    return spec_applies(spec, "data.rank") ? to_int(spec_int(spec, "data.rank")) : 0;
}

/* ---------------------------------------------------------------- life */

static int layer_quantity(struct record_group *g, const char *name, const char *long_name, const char *formula)
{
    return record_quantity(g, &(struct quantity){.name = name,
                                                 .units = "1",
                                                 .long_name = long_name,
                                                 .formula = formula,
                                                 .reference = reference,
                                                 .dims = {"layer"}});
}

static void declare(struct invariant *s, struct probe *probe, struct record *record)
{
    static const char *const cases[] = {"square", "outputs", "gradient"};
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "law of parsimony: invariant subspaces");
    record_group_text(g, "kind", "invariant");
    record_group_text(g, "case", cases[s->kind]);
    record_group_text(g, "exact", s->exact ? "true" : "false");
    record_dimension(g, "layer", s->blocks, "layer, 1 is the first");
    record_dimension(g, "index", s->order, "singular value of the block, 1 is the largest");
    s->q_rho = layer_quantity(g, "rho", "scalar on the invariant complement", "<W_l, E_l>_F / (d - q)");
    s->q_theory = layer_quantity(g, "rho_theory", "scalar on the invariant complement, by the theorem's recursion",
                                 "rho <- (1 - eta lambda) rho - (eta/s) rho_l prod_(k != l) rho_k^2");
    s->q_residual = layer_quantity(g, "residual", "largest entry of what is neither block nor scalar",
                                   "max |W_l - U_1 (U_1^T W_l V_1) V_1^T - rho E_l|");
    s->q_off =
        layer_quantity(g, "leakage", "what the block leaks into the complement", "|W_l V_1 - U_1 (U_1^T W_l V_1)|_F");
    s->q_value = record_quantity(g, &(struct quantity){.name = "block_singular_value",
                                                       .units = "1",
                                                       .long_name = "singular values of the moving block",
                                                       .formula = "sigma_i(U_1^T W_l V_1)",
                                                       .reference = reference,
                                                       .dims = {"layer", "index"}});
    s->q_order = record_quantity(
        g, &(struct quantity){
               .name = "block_order", .units = "1", .integer = true, .long_name = "order q of the moving block"});
    s->q_leak = record_quantity(g, &(struct quantity){.name = "leak_last",
                                                      .units = "1",
                                                      .long_name = "largest entry of the last layer outside the block",
                                                      .formula = "max |W_L (I - V_1 V_1^T)|; NaN unless few outputs",
                                                      .reference = reference});
}

static void keep_start(struct invariant *s, const struct model *model)
{
    for (int l = 0; l < s->depth; l++) {
        const struct dmat *W = model->params->W[l];
        s->start[l] = dmat_create(W->grid, W->m, W->n);
        dmat_copy(s->start[l], W);
    }
}

/* Φ = Y Xᵀ; the caller owns it. */
static struct dmat *target_of(const struct dataset *train)
{
    const struct dmat *Y = train->Y;
    struct dmat *target = dmat_create(Y->grid, Y->m, train->features);
    if (train->X)
        dmat_gemm('N', 'T', 1, Y, train->X, 0, target);
    else
        dmat_copy(target, Y);
    return target;
}

static void find_law(struct probe *probe, struct invariant *s, const struct dmat *matrix, struct problems *problems)
{
    s->law = parsimony_create(s->kind, (const struct dmat *const *)s->start, s->depth, matrix, s->rank, probe->seed,
                              problems);
}

/* The rank of Φ is at most r: nothing is left of it in the complement of the moving space. */
static bool is_of_rank(const struct invariant *s, const struct dmat *target)
{
    struct dmat *rest = dmat_create(target->grid, target->m, target->n);
    struct dmat *image = dmat_create(target->grid, target->m, s->law->q);
    dmat_gemm('N', 'N', 1, target, s->law->V[0], 0, image);
    dmat_copy(rest, target);
    dmat_gemm('N', 'T', -1, image, s->law->V[0], 1, rest);
    const bool small = dmat_norm(rest) <= 1e-11 * dmat_norm(target);
    dmat_destroy(&image);
    dmat_destroy(&rest);
    return small;
}

/* Everything that needs data and weights; not for `plan`. */
static void prepare(struct probe *probe, struct invariant *s, const struct setting *setting, struct problems *problems)
{
    keep_start(s, setting->model);
    if (s->kind == PARSIMONY_GRADIENT) return;
    struct dmat *target = target_of(setting->train);
    find_law(probe, s, target, problems);
    if (s->law && is_plain_squared_loss(setting) && is_white(setting->train) && starts_orthogonal(s))
        s->exact = is_of_rank(s, target);
    if (s->exact) s->rho = rho_create(s->law, s->scale);
    dmat_destroy(&target);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    struct invariant *s = probe->state = NEW(struct invariant, 1);
    s->kind = choose_case(spec_text(spec, KEY("case")), setting);
    s->depth = model->depth;
    s->blocks = s->kind == PARSIMONY_OUTPUTS ? s->depth - 1 : s->depth;
    s->rank = choose_rank(spec, KEY("rank"), s, model);
    char *full = memory_text("%s", KEY("full"));
#undef KEY
    s->order = 2 * s->rank;
    s->start = NEW(struct dmat *, s->depth);
    s->multiplier = NEW(double, s->depth);
    for (int l = 0; l < s->depth; l++) s->multiplier[l] = model->layer[l].trainable ? model->layer[l].lr_multiplier : 0;
    s->decay = spec_real(spec, "train.weight_decay");
    s->momentum = spec_applies(spec, "train.momentum") ? spec_real(spec, "train.momentum") : 0;
    check_case(probe, s, setting, problems);
    if (spec_bool(spec, full) && s->kind == PARSIMONY_GRADIENT && !is_square(model) && !has_few_outputs(model))
        spec_problem(spec, problems, full, "needs layers of equal width");
    if (setting->train) s->scale = loss_scale(setting->loss, setting->train->outputs, setting->train->samples);
    if (setting->train && problems_none(problems, model->grid->comm)) prepare(probe, s, setting, problems);
    declare(s, probe, record);
    if (spec_bool(spec, full)) s->full = full_create(probe->group, s->blocks, model->width[0], s->rank);
    memory_free(full);
}

static void destroy(struct probe *probe)
{
    struct invariant *s = probe->state;
    for (int l = 0; l < s->depth; l++) dmat_destroy(&s->start[l]);
    full_destroy(&s->full);
    parsimony_destroy(&s->law);
    rho_destroy(&s->rho);
    memory_free(s->start);
    memory_free(s->multiplier);
    memory_free(s);
    probe->state = NULL;
}

static void advance(struct probe *probe, double lr)
{
    struct invariant *s = probe->state;
    if (s->rho) rho_step(s->rho, lr, s->multiplier, s->decay, s->momentum);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct invariant *s = probe->state;
    parsimony_archive(&s->law, s->start[0], archive);
    if (s->rho) rho_archive(s->rho, archive);
    if (s->full) full_archive(s->full, model, archive);
    archive_reals(archive, "worst", DEVIATIONS, s->worst);
}

/* ---------------------------------------------------------------- measuring */

/* A NaN must not hide: it stays the worst. */
static void note(struct invariant *s, enum deviation which, double value)
{
    if (!(value <= s->worst[which])) s->worst[which] = value;
}

static void measure_layer(struct probe *probe, struct invariant *s, int l, const struct dmat *W, int64_t step)
{
    const int q = s->law->q;
    const double theory = s->rho ? s->rho->value[l - 1] : NAN;
    const struct parsimony_rest rest = parsimony_rest(s->law, l, W, s->start[l - 1], theory);
    record_put_at(probe->group, s->q_rho, l - 1, rest.rho);
    record_put_at(probe->group, s->q_theory, l - 1, theory);
    record_put_at(probe->group, s->q_residual, l - 1, rest.residual);
    record_put_at(probe->group, s->q_off, l - 1, rest.off);
    double *block = NEW(double, q *q), *sigma = NEW(double, q);
    parsimony_block(s->law, l, W, block);
    factor_local_singular_values(q, q, block, sigma);
    for (int i = 0; i < q; i++) record_put_at(probe->group, s->q_value, (int64_t)(l - 1) * s->order + i, sigma[i]);
    memory_free(sigma);
    memory_free(block);
    const double rho = s->exact ? theory : rest.rho;
    const int equal = s->full ? full_measure(s->full, probe->group, l, W, step, rho, s->law->V[l - 1]) : 0;
    if (!s->exact) return;
    if (s->full) note(s, DEVIATION_COUNT, fmax(0, (double)(W->n - q) - equal));
    note(s, DEVIATION_RHO, fabs(rest.rho - theory));
    note(s, DEVIATION_RESIDUAL, rest.residual);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct invariant *s = probe->state;
    struct problems problems = {0};
    if (!s->law && moment->step == 0) find_law(probe, s, moment->gradient->W[0], &problems);
    for (int i = 0; i < problems.count; i++) log_warn("%s: %s", probe->name, problems.text[i]);
    problems_clear(&problems);
    if (!s->law) return; /* the row stays NaN */
    for (int l = 1; l <= s->blocks; l++) measure_layer(probe, s, l, moment->model->params->W[l - 1], moment->step);
    record_put_int_at(probe->group, s->q_order, 0, s->law->q);
    if (s->kind != PARSIMONY_OUTPUTS) return;
    const double leak = parsimony_leak(s->law, moment->model->params->W[s->depth - 1]);
    record_put_at(probe->group, s->q_leak, 0, leak);
    if (s->exact) note(s, DEVIATION_LEAK, leak);
}

static void check(const struct probe *probe, struct record *record)
{
    static const char *const names[] = {"scalar on the complement is that of the recursion",
                                        "nothing but block and scalar", "last layer vanishes on the complement",
                                        "singular values that should equal the scalar and do not"};
    const struct invariant *s = probe->state;
    if (!s->exact) return;
    const double rounding = fmax(1, sqrt((double)s->start[0]->n / 100));
    for (int i = 0; i < DEVIATIONS; i++) {
        const double bound = i == DEVIATION_COUNT ? 0 : (i == DEVIATION_RHO ? 1e-10 : 1e-12) * rounding;
        if (i == DEVIATION_LEAK && s->kind != PARSIMONY_OUTPUTS) continue;
        if (i == DEVIATION_COUNT && !s->full) continue;
        char *name = memory_text("%s: %s", probe->name, names[i]);
        record_check(record, name, reference, s->worst[i], bound, s->worst[i] <= bound);
        memory_free(name);
    }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct invariant *s = probe->state;
    need->count = s->blocks;
    need->solve = NEW(struct probe_solve, s->blocks);
    for (int l = 1; l <= s->blocks; l++) /* four products with q columns, as many as a Krylov step or two */
        need->solve[l - 1] = (struct probe_solve){.m = model->width[l],
                                                  .n = model->width[l - 1],
                                                  .elements = model->width[l] * model->width[l - 1],
                                                  .factors = 1,
                                                  .rank = 1};
    need->copies = true;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct invariant *s = probe->state;
    if (!s->law) return;
    log_say("  %s (last step), blocks of order %d%s", probe->name, s->law->q, s->exact ? "" : "; no exact theory here");
    for (int l = 1; l <= s->blocks; l++)
        log_say("    layer %d: rho %.9g (theory %.9g), block %.4g … %.4g, neither: %.2g", l,
                record_last(record, probe->name, "rho", l - 1), record_last(record, probe->name, "rho_theory", l - 1),
                record_last(record, probe->name, "block_singular_value", (int64_t)(l - 1) * s->order),
                record_last(record, probe->name, "block_singular_value", (int64_t)(l - 1) * s->order + s->law->q - 1),
                record_last(record, probe->name, "residual", l - 1));
}

const struct probe_kind probe_invariant = {.name = "invariant",
                                           .create = create,
                                           .advance = advance,
                                           .measure = measure,
                                           .archive = archive,
                                           .need = need,
                                           .check = check,
                                           .summary = summary,
                                           .destroy = destroy};
