/* invariant: the law of parsimony (arXiv 2306.01154) held against training: the blocks U_lᵀ W_l V_l, the scalar ρ_l on
 * their complement and its theory, and what of W_l is neither. */
#include "invariant_private.h"

#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "net/loss.h"
#include "probes/probe.h"
#include "theory/parsimony.h"
#include "theory/premises.h"
#include "theory/scalars.h"

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
    int order;               /* rows of the `block` series: 2r at most */
    bool exact;              /* the assumptions of the theorem hold: ρ has a theory */
    struct dmat **start;     /* [depth] W_l(0), owned */
    struct parsimony *law;   /* owned; NULL in the gradient case before the first measurement */
    struct scalars *scalars; /* owned; NULL if not exact */
    struct full *full;       /* owned, or NULL */
    double worst[DEVIATIONS];
    int q_rho, q_theory, q_residual, q_off, q_value, q_leak, q_order; /* in the record */
};

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

static void find_law(struct probe *probe, struct invariant *s, const struct dmat *matrix, struct problems *problems)
{
    s->law = parsimony_create(s->kind, (const struct dmat *const *)s->start, s->depth, matrix, s->rank, probe->seed,
                              problems);
}

/* Everything that needs data and weights; not for `plan`. */
static void prepare(struct probe *probe, struct invariant *s, const struct setting *setting, struct problems *problems)
{
    keep_start(s, setting->model);
    if (s->kind == PARSIMONY_GRADIENT) return;
    struct dmat *target = premises_target(setting->train, setting->loss);
    find_law(probe, s, target, problems);
    const struct model *model = setting->model;
    s->exact = s->law && premises_hold(s->law, model, setting->spec, setting->train, target);
    if (s->exact)
        s->scalars =
            scalars_create(s->law, model, setting->spec,
                           model->output_scale * model->output_scale * loss_scale_on(setting->loss, setting->train));
    dmat_destroy(&target);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    struct invariant *s = probe->state = NEW(struct invariant, 1);
    char *word = memory_text("%s.case", probe->key), *rank = memory_text("%s.rank", probe->key);
    char *full = memory_text("%s.full", probe->key);
    s->kind = premises_case(spec_text(spec, word), model, spec);
    s->depth = model->depth;
    s->blocks = s->kind == PARSIMONY_OUTPUTS ? s->depth - 1 : s->depth;
    s->rank = premises_rank(s->kind, model, spec, rank);
    s->order = 2 * s->rank;
    s->start = NEW(struct dmat *, s->depth);
    premises_check(s->kind, s->rank, model, spec, probe->key, problems);
    if (spec_bool(spec, full) && !premises_square(model) && !premises_few_outputs(model))
        spec_problem(spec, problems, full, "needs layers of equal width");
    if (setting->train && problems_none(problems, model->grid->comm)) prepare(probe, s, setting, problems);
    declare(s, probe, record);
    if (spec_bool(spec, full)) s->full = full_create(probe->group, s->blocks, model->width[0], s->rank);
    memory_free(full);
    memory_free(rank);
    memory_free(word);
}

static void destroy(struct probe *probe)
{
    struct invariant *s = probe->state;
    for (int l = 0; l < s->depth; l++) dmat_destroy(&s->start[l]);
    full_destroy(&s->full);
    parsimony_destroy(&s->law);
    scalars_destroy(&s->scalars);
    memory_free(s->start);
    memory_free(s);
    probe->state = NULL;
}

static void advance(struct probe *probe, double lr, double loss)
{
    (void)loss;
    struct invariant *s = probe->state;
    if (s->scalars) scalars_advance(s->scalars, lr);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct invariant *s = probe->state;
    parsimony_archive(&s->law, s->start[0], archive);
    if (s->scalars) scalars_archive(s->scalars, archive);
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
    const double theory = s->scalars ? scalars_rho(s->scalars, l) : NAN;
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
