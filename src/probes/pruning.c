/* pruning: what the network is worth with half of every matrix's singular triplets, all layers at once: the upper half,
 * or the lower one (Yunis et al., arXiv 2408.11804). Biases stay. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "probes/probe.h"

#include <math.h>
#include <string.h>

extern const struct probe_kind probe_pruning;

enum { HALVES = 2 };

struct state {
    struct model half[HALVES]; /* the run's, but with parameters of their own; these are owned */
    int q_loss, q_accuracy, q_test_loss, q_test_accuracy;
};

static int series(struct record_group *g, const char *name, const char *long_name)
{
    return record_quantity(g, &(struct quantity){.name = name,
                                                 .units = "1",
                                                 .long_name = long_name,
                                                 .formula = "W = sum_i s_i u_i v_i^T over the half, in all layers",
                                                 .reference = "Yunis et al. (arXiv 2408.11804)",
                                                 .dims = {"half"}});
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    struct state *s = probe->state = NEW(struct state, 1);
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "the network with half of the singular triplets");
    (void)problems;
    record_group_text(g, "kind", "pruning");
    record_dimension(g, "half", HALVES, "1: the larger ceil(k/2) triplets of each of the k of a matrix, 2: the others");
    s->q_loss = series(g, "pruned_loss", "training loss of the pruned network");
    s->q_accuracy = series(g, "pruned_accuracy", "training accuracy of the pruned network");
    s->q_test_loss = series(g, "pruned_test_loss", "test loss of the pruned network");
    s->q_test_accuracy = series(g, "pruned_test_accuracy", "test accuracy of the pruned network");
    for (int h = 0; setting->model->params && h < HALVES; h++) {
        s->half[h] = *setting->model;
        s->half[h].params = params_create(setting->model);
    }
}

static void destroy(struct probe *probe)
{
    struct state *s = probe->state;
    for (int h = 0; h < HALVES; h++) params_destroy(&s->half[h].params);
    memory_free(s);
    probe->state = NULL;
}

/* Column j ← σ_j times it, 0 outside of first ≤ j < last. */
static void select_columns(const struct dmat *U, const double *sigma, int64_t first, int64_t last, struct dmat *to)
{
    for (int jl = 0; jl < U->nloc; jl++) {
        const int64_t j = dmat_col(U, jl);
        const double factor = j >= first && j < last ? sigma[j] : 0;
        for (int il = 0; il < U->mloc; il++)
            to->local[il + (int64_t)jl * to->lld] = factor * U->local[il + (int64_t)jl * U->lld];
    }
}

static void prune(struct state *s, int l, const struct dmat *W)
{
    const int64_t k = W->m < W->n ? W->m : W->n, middle = (k + 1) / 2;
    struct dmat *U = dmat_create(W->grid, W->m, k), *Vt = dmat_create(W->grid, k, W->n);
    struct dmat *scaled = dmat_create(W->grid, W->m, k);
    double *sigma = NEW(double, k);
    factor_svd(W, U, sigma, Vt);
    for (int h = 0; h < HALVES; h++) {
        select_columns(U, sigma, h == 0 ? 0 : middle, h == 0 ? middle : k, scaled);
        dmat_gemm('N', 'N', 1, scaled, Vt, 0, s->half[h].params->W[l]);
    }
    memory_free(sigma);
    dmat_destroy(&scaled);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct state *s = probe->state;
    const struct params *params = moment->model->params;
    double accuracy;
    (void)record;
    for (int h = 0; h < HALVES; h++)
        memcpy(s->half[h].params->local, params->local, (size_t)params->size * sizeof(double));
    for (int l = 0; l < moment->model->depth; l++) prune(s, l, params->W[l]);
    for (int h = 0; h < HALVES; h++) {
        record_put_at(probe->group, s->q_loss, h,
                      backprop_evaluate(moment->backprop, &s->half[h], moment->train, &accuracy));
        record_put_at(probe->group, s->q_accuracy, h, accuracy);
        if (!moment->test) continue;
        record_put_at(probe->group, s->q_test_loss, h,
                      backprop_evaluate(moment->backprop, &s->half[h], moment->test, &accuracy));
        record_put_at(probe->group, s->q_test_accuracy, h, accuracy);
    }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    (void)probe;
    (void)model;
    need->passes = 2 * HALVES;
}

static void summary(const struct probe *probe, const struct record *record)
{
    log_say("  %s (last step): training loss %.4g with the upper half of the singular triplets, %.4g with the lower",
            probe->name, record_last(record, probe->name, "pruned_loss", 0),
            record_last(record, probe->name, "pruned_loss", 1));
}

const struct probe_kind probe_pruning = {
    .name = "pruning", .create = create, .measure = measure, .need = need, .summary = summary, .destroy = destroy};
