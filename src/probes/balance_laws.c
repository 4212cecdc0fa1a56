/* balance_laws: matrices that the gradient flow conserves, whole or in part, and the ledgers that follow them exactly
 * through the steps of gradient descent (Le and Jegelka, arXiv 2201.11968; Marcotte et al., arXiv 2508.07370). */
#include "balance_private.h"

#include "base/memory.h"
#include "dist/factor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- which laws there are */

/* Whether a_l goes to the next layer and nowhere else, and comes from z_l alone. */
static bool is_plain(const struct model *model, int l)
{
    const struct layer *layer = &model->layer[l - 1];
    bool plain = layer->skip < 0 && layer->scale == 1;
    for (int m = 0; m < model->depth; m++) plain = plain && model->layer[m].skip != l;
    return plain;
}

static bool is_trained_alike(const struct model *model, int l, int m)
{
    const struct layer *a = &model->layer[l - 1], *b = &model->layer[m - 1];
    return a->trainable && b->trainable && a->lr_multiplier == b->lr_multiplier;
}

static enum law_kind kind_between(const struct model *model, int l)
{
    const enum activation activation = model->layer[l - 1].activation;
    if (!is_plain(model, l) || !is_trained_alike(model, l, l + 1)) return LAW_NONE;
    if (activation == ACTIVATION_LINEAR) return LAW_FULL;
    return activation == ACTIVATION_RELU || activation == ACTIVATION_LEAKY_RELU ? LAW_GATED : LAW_CURVED;
}

static struct law law_of_neighbours(const struct model *model, int l)
{
    struct law law = {.kind = kind_between(model, l), .below = l, .n = model->width[l], .count = 2};
    law.term = NEW(struct term, 2);
    law.term[0] = (struct term){.layer = l + 1, .sign = 1, .outer = false};
    law.term[1] = (struct term){.layer = l, .sign = -1, .outer = true};
    return law;
}

/* W_1 W_1ᵀ + Σ (B Bᵀ − Aᵀ A) − W_Lᵀ W_L over the pairs (A, B), and the outer terms with the biases. */
static struct law law_of_stream(const struct model *model)
{
    struct law law = {.kind = LAW_FULL, .n = model->width[1], .count = model->depth};
    law.term = NEW(struct term, law.count);
    for (int l = 1; l <= model->depth; l++) {
        const bool outer = l % 2 == 1;
        law.term[l - 1] = (struct term){.layer = l, .sign = outer ? 1 : -1, .outer = outer};
        if (!is_trained_alike(model, 1, l)) law.kind = LAW_NONE;
    }
    return law;
}

void laws_find(struct balance *s, const struct model *model, bool pairs)
{
    const bool stream = pairs && model->depth >= 4;
    s->count = model->depth - 1 + stream;
    s->law = NEW(struct law, s->count);
    for (int l = 1; l < model->depth; l++) s->law[l - 1] = law_of_neighbours(model, l);
    if (stream) s->law[s->count - 1] = law_of_stream(model);
    s->head = model->depth;
    while (s->head > 1 && s->law[s->head - 2].kind == LAW_FULL && !model->layer[s->head - 2].bias) s->head--;
    for (int k = 0; k < s->count; k++)
        s->law[k].keeps_ledger = s->plain && s->ledger != LEDGER_NONE && s->law[k].kind != LAW_NONE;
}

void laws_free(struct balance *s)
{
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        dmat_destroy(&law->start);
        dmat_destroy(&law->ledger);
        dmat_destroy(&law->rate);
        triplets_destroy(&law->norm);
        memory_free(law->term);
    }
    memory_free(s->law);
}

/* ---------------------------------------------------------------- matrices */

/* S ← the law's sum, of weights or of gradients. */
static void sum_of_squares(const struct law *law, const struct params *p, struct dmat *S)
{
    for (int i = 0; i < law->count; i++) {
        const struct term *t = &law->term[i];
        const struct dmat *W = p->W[t->layer - 1], *b = p->b[t->layer - 1];
        dmat_gemm(t->outer ? 'N' : 'T', t->outer ? 'T' : 'N', t->sign, W, W, i > 0, S);
        if (t->outer && b) dmat_gemm('N', 'T', t->sign, b, b, 1, S);
    }
}

/* C ← Σ ± Wᵀ G, or ± (G Wᵀ + G_b bᵀ) for outer terms: half the derivative of S along G. */
static void sum_of_products(const struct law *law, const struct params *p, const struct params *g, struct dmat *C)
{
    for (int i = 0; i < law->count; i++) {
        const struct term *t = &law->term[i];
        const int l = t->layer - 1;
        dmat_gemm(t->outer ? 'N' : 'T', t->outer ? 'T' : 'N', t->sign, t->outer ? g->W[l] : p->W[l],
                  t->outer ? p->W[l] : g->W[l], i > 0, C);
        if (t->outer && p->b[l]) dmat_gemm('N', 'T', t->sign, g->b[l], p->b[l], 1, C);
    }
}

static struct dmat *square(const struct grid *grid, const struct law *law)
{
    return dmat_create(grid, law->n, law->n);
}

/* S ← S + a (C + sign Cᵀ); C is lost. */
static void add_with_transpose(struct dmat *S, double a, double sign, const struct dmat *C)
{
    struct dmat *T = dmat_create(C->grid, C->n, C->m);
    dmat_transpose(C, T);
    dmat_axpy(S, a, C);
    dmat_axpy(S, a * sign, T);
    dmat_destroy(&T);
}

void laws_begin(struct balance *s, const struct model *model)
{
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        if (!law->start) law->start = square(model->grid, law);
        sum_of_squares(law, model->params, law->start);
        if (!law->keeps_ledger) continue;
        if (!law->ledger) law->ledger = square(model->grid, law);
        dmat_copy(law->ledger, law->start);
    }
}

/* ---------------------------------------------------------------- the ledgers */

static bool wants_rate(const struct balance *s, const struct law *law)
{
    return law->keeps_ledger && law->kind != LAW_FULL && s->ledger == LEDGER_SAMPLES;
}

void laws_look(struct balance *s, const struct moment *moment)
{
    struct dmat **rate = NEW(struct dmat *, s->depth);
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        if (!wants_rate(s, law)) continue;
        if (!law->rate) law->rate = square(moment->model->grid, law);
        rate[law->below - 1] = law->rate;
    }
    backprop_gate_rates(moment->backprop, moment->model, moment->batch, rate);
    memory_free(rate);
}

/* With the weights W' = κ W − η g after the step and κ = 1 − ηω, S(W') = κ² S(W) − η (C + Cᵀ) for C = Σ ± (W' + η/2
 * g)ᵀ g and so on: half the products of κ (M + Mᵀ) and η² S(g) one by one. */
static void add_by_gradient(struct law *law, const struct params *p, const struct params *g, double lr)
{
    struct dmat *C = square(p->grid, law);
    for (int i = 0; i < law->count; i++) {
        const struct term *t = &law->term[i];
        const struct dmat *W[2] = {p->W[t->layer - 1], p->b[t->layer - 1]};
        const struct dmat *G[2] = {g->W[t->layer - 1], g->b[t->layer - 1]};
        for (int part = 0; part < (t->outer && W[1] ? 2 : 1); part++) {
            struct dmat *H = dmat_create(p->grid, W[part]->m, W[part]->n);
            dmat_copy(H, W[part]);
            dmat_axpy(H, lr / 2, G[part]);
            dmat_gemm(t->outer ? 'N' : 'T', t->outer ? 'T' : 'N', t->sign, t->outer ? G[part] : H,
                      t->outer ? H : G[part], i + part > 0, C);
            dmat_destroy(&H);
        }
    }
    add_with_transpose(law->ledger, -lr, 1, C);
    dmat_destroy(&C);
}

/* − η κ (M + Mᵀ) + η² S(g), where M is zero or has been summed over the samples. */
static void add_by_law(struct law *law, const struct params *g, double lr, double keep)
{
    struct dmat *C = square(g->grid, law);
    sum_of_squares(law, g, C);
    dmat_axpy(law->ledger, lr * lr, C);
    dmat_destroy(&C);
    if (law->kind != LAW_FULL) add_with_transpose(law->ledger, -lr * keep, 1, law->rate);
}

void laws_follow(struct balance *s, const struct model *model, const struct params *gradient, double lr)
{
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        if (!law->keeps_ledger) continue;
        const double rate = lr * model->layer[law->term[0].layer - 1].lr_multiplier, keep = 1 - rate * s->decay;
        if (s->decay > 0) dmat_scale(law->ledger, keep * keep);
        if (law->kind == LAW_FULL || s->ledger == LEDGER_SAMPLES)
            add_by_law(law, gradient, rate, keep);
        else
            add_by_gradient(law, model->params, gradient, rate);
    }
}

/* ---------------------------------------------------------------- drift */

/* Of the entries of one set: the largest modulus, the sum of squares, their number. */
struct spread {
    double largest[SETS], sums[2 * SETS];
};

static inline double entry(const struct dmat *A, int il, int jl)
{
    return A->local[il + (int64_t)jl * A->lld];
}

static void add_entry(struct spread *d, enum balance_set set, double value)
{
    d->largest[set] = fmax(d->largest[set], fabs(value));
    d->sums[set] += value * value;
    d->sums[SETS + set] += 1;
}

/* Of S − S(0). In a full law all neurons count as open, and all pairs as equal. */
static struct spread spread_of(const struct balance *s, const struct law *law, const struct dmat *S)
{
    struct spread d = {{0}, {0}};
    const bool gated = law->kind == LAW_GATED, full = law->kind == LAW_FULL;
    const uint64_t *history = gated ? s->gates[law->below - 1].history : NULL;
    for (int jl = 0; jl < S->nloc; jl++)
        for (int il = 0; il < S->mloc; il++) {
            const double value = entry(S, il, jl) - entry(law->start, il, jl);
            const int64_t i = dmat_row(S, il), j = dmat_col(S, jl);
            const bool stable = full || (gated && gates_stable(s, law->below, i) && gates_stable(s, law->below, j));
            add_entry(&d, SET_FULL, value);
            if (i == j) add_entry(&d, SET_DIAGONAL, value);
            if (stable) add_entry(&d, SET_STABLE, value);
            if (i != j && (full || (history && history[i] == history[j]))) add_entry(&d, SET_PAIRS, value);
        }
    MPI_Allreduce(MPI_IN_PLACE, d.largest, SETS, MPI_DOUBLE, MPI_MAX, S->grid->comm);
    grid_sum(S->grid, d.sums, 2 * SETS);
    return d;
}

static void put_drift(const struct probe *probe, int k, struct law_state *state, int *flag)
{
    const struct balance *s = probe->state;
    const struct spread d = spread_of(s, &s->law[k], state->S);
    state->drift = d.largest[SET_FULL];
    state->drift_norm = sqrt(d.sums[SET_FULL]);
    for (int set = 0; set < SETS; set++) {
        const bool there = d.sums[SETS + set] > 0;
        balance_put(probe, BALANCE_DRIFT, (int64_t)k * SETS + set, there ? d.largest[set] : NAN);
        balance_put(probe, BALANCE_DRIFT_NORM, (int64_t)k * SETS + set, there ? sqrt(d.sums[set]) : NAN);
    }
    if (!(d.sums[SETS + SET_STABLE] > 0)) *flag |= LAW_NO_STABLE;
    if (!(d.sums[SETS + SET_PAIRS] > 0)) *flag |= LAW_NO_PAIRS;
}

/* max |S − factor·R|. */
static double distance(const struct dmat *S, double factor, const struct dmat *R)
{
    struct dmat *D = dmat_create(S->grid, S->m, S->n);
    dmat_copy(D, S);
    dmat_axpy(D, -factor, R);
    const double largest = dmat_largest(D);
    dmat_destroy(&D);
    return largest;
}

/* ‖S − λ I‖_F and λ = tr S / n. */
static void put_relaxed(const struct probe *probe, int k, const struct dmat *S)
{
    double trace = 0, square_sum = 0;
    for (int jl = 0; jl < S->nloc; jl++)
        for (int il = 0; il < S->mloc; il++)
            if (dmat_row(S, il) == dmat_col(S, jl)) trace += entry(S, il, jl);
    grid_sum(S->grid, &trace, 1);
    const double lambda = trace / (double)S->n;
    for (int jl = 0; jl < S->nloc; jl++)
        for (int il = 0; il < S->mloc; il++) {
            const double value = entry(S, il, jl) - (dmat_row(S, il) == dmat_col(S, jl) ? lambda : 0);
            square_sum += value * value;
        }
    grid_sum(S->grid, &square_sum, 1);
    balance_put(probe, BALANCE_LAMBDA, k, lambda);
    balance_put(probe, BALANCE_RELAXED, k, sqrt(square_sum));
}

/* ---------------------------------------------------------------- rates, ledgers, momentum */

/* ‖W_l‖_F² of all layers of a law. */
static double size_of(const struct balance *s, const struct law *law)
{
    double sum = 0;
    for (int i = 0; i < law->count; i++) sum += s->leading[law->term[i].layer - 1].norm2;
    return fmax(1, sum);
}

static void put_rate(const struct probe *probe, int k, const struct moment *moment, double gradient, int *flag)
{
    struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    struct dmat *C = square(moment->model->grid, law), *R = square(moment->model->grid, law);
    sum_of_products(law, moment->model->params, moment->gradient, C);
    add_with_transpose(R, 1, 1, C);
    balance_put(probe, BALANCE_RATE, k, dmat_largest(R));
    if (law->kind == LAW_FULL || law->rate) {
        if (law->rate) add_with_transpose(R, -1, 1, law->rate);
        const double residual = dmat_largest(R);
        balance_put(probe, BALANCE_RATE_RESIDUAL, k, residual);
        balance_note(s, WORST_RATE, residual / (sqrt(size_of(s, law)) * fmax(1, gradient)));
    } else
        *flag |= LAW_NO_SAMPLES;
    dmat_destroy(&R);
    dmat_destroy(&C);
}

static void put_ledger(const struct probe *probe, int k, const struct dmat *S, int *flag)
{
    struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    if (!law->ledger) {
        *flag |= LAW_NO_LEDGER;
        return;
    }
    const double residual = distance(S, 1, law->ledger);
    balance_put(probe, BALANCE_LEDGER, k, residual);
    balance_note(s, WORST_LEDGER, residual / size_of(s, law));
}

/* A = C − Cᵀ of the velocity: at rest, and therefore at all times, zero. */
static void put_momentum(const struct probe *probe, int k, const struct moment *moment, int *flag)
{
    struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    if (!moment->velocity || !s->heavy || law->kind != LAW_FULL) {
        *flag |= LAW_NO_MOMENTUM;
        return;
    }
    struct dmat *C = square(moment->model->grid, law), *A = square(moment->model->grid, law);
    sum_of_products(law, moment->model->params, moment->velocity, C);
    add_with_transpose(A, 1, -1, C);
    const double residual = dmat_largest(A), velocity = sqrt(params_dot(moment->velocity, moment->velocity));
    balance_put(probe, BALANCE_MOMENTUM, k, residual);
    balance_note(s, WORST_MOMENTUM, residual / fmax(sqrt(size_of(s, law)) * velocity, 1e-300));
    dmat_destroy(&A);
    dmat_destroy(&C);
}

/* What gd can have moved S by: Σ η² ‖g‖² of its layers; and what is left when weight decay alone is taken out. */
static void put_bounds(const struct probe *probe, int k, const struct moment *moment, const struct law_state *state)
{
    struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    const double scale = size_of(s, law), elapsed = moment->time - s->first_time;
    double bound = 0;
    for (int i = 0; i < law->count; i++) bound += s->squares[law->term[i].layer - 1];
    if (law->kind == LAW_FULL && s->plain && s->decay == 0) {
        balance_put(probe, BALANCE_DRIFT_BOUND, k, bound);
        balance_note(s, WORST_DRIFT, (state->drift_norm - bound) / scale);
    }
    const double decayed = s->decay > 0 ? distance(state->S, exp(-2 * s->decay * elapsed), law->start) : state->drift;
    balance_put(probe, BALANCE_DECAYED_DRIFT, k, decayed);
    if (law->kind == LAW_FULL && s->flows && s->linear) balance_note(s, WORST_FLOW_DRIFT, decayed / scale);
}

/* ---------------------------------------------------------------- neurons one by one */

static void put_matrix(const struct probe *probe, int k, const struct dmat *S)
{
    const struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    const int64_t n = law->n;
    struct dmat *D = dmat_create(S->grid, n, n);
    double *whole = NEW(double, n *n);
    dmat_copy(D, S);
    dmat_axpy(D, -1, law->start);
    dmat_gather(D, whole, 0);
    for (int64_t i = 0; i < n && S->grid->rank == 0; i++)
        for (int64_t j = 0; j < n; j++)
            balance_put(probe, BALANCE_MATRIX, (k * s->listed + i) * s->listed + j, whole[i + j * n]);
    memory_free(whole);
    dmat_destroy(&D);
}

/* ‖out‖² − ‖in‖² − b² of every neuron, and the same without b². */
static void put_neurons(const struct probe *probe, int k, const struct moment *moment, const struct dmat *S)
{
    const struct balance *s = probe->state;
    const struct law *law = &s->law[k];
    const struct dmat *b = law->below ? moment->model->params->b[law->below - 1] : NULL;
    const int64_t n = law->n;
    double *value = NEW(double, 2 * n);
    for (int jl = 0; jl < S->nloc; jl++)
        for (int il = 0; il < S->mloc; il++)
            if (dmat_row(S, il) == dmat_col(S, jl)) value[dmat_row(S, il)] = entry(S, il, jl);
    for (int il = 0; b && b->nloc > 0 && il < b->mloc; il++) value[n + dmat_row(b, il)] = b->local[il] * b->local[il];
    grid_sum(S->grid, value, to_int(2 * n));
    for (int64_t i = 0; i < n; i++) {
        balance_put(probe, BALANCE_NEURON, k * s->listed + i, value[i]);
        balance_put(probe, BALANCE_NEURON_WEIGHTS, k * s->listed + i, value[i] + value[n + i]);
    }
    memory_free(value);
}

/* ---------------------------------------------------------------- all of them */

/* ‖T_k‖₂ of a law within the head; T is −S, for there are no biases. */
static double norm_in_head(const struct probe *probe, struct law *law, const struct dmat *S)
{
    const struct balance *s = probe->state;
    return law->below >= s->head ? layers_norm(probe, S, &law->norm) : NAN;
}

void laws_measure(const struct probe *probe, const struct moment *moment, struct law_state *state, int *flag)
{
    struct balance *s = probe->state;
    const double gradient = sqrt(params_dot(moment->gradient, moment->gradient));
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        struct dmat *S = state[k].S = square(moment->model->grid, law);
        sum_of_squares(law, moment->model->params, S);
        balance_put_int(probe, BALANCE_LAW, k, law->kind);
        state[k].norm = norm_in_head(probe, law, S);
        put_drift(probe, k, &state[k], &flag[k]);
        put_rate(probe, k, moment, gradient, &flag[k]);
        put_ledger(probe, k, S, &flag[k]);
        put_momentum(probe, k, moment, &flag[k]);
        put_bounds(probe, k, moment, &state[k]);
        put_relaxed(probe, k, S);
        if (s->listed > 0) put_neurons(probe, k, moment, S);
        if (s->listed > 0 && s->listed <= BALANCE_ENTRIES) put_matrix(probe, k, S);
    }
}

void laws_archive(struct balance *s, const struct model *model, struct archive *archive)
{
    for (int k = 0; k < s->count; k++) {
        struct law *law = &s->law[k];
        char name[32];
        snprintf(name, sizeof name, "law_%d", k + 1);
        archive_enter(archive, name);
        if (!law->start) law->start = square(model->grid, law);
        archive_matrix(archive, "start", law->start);
        if (law->keeps_ledger && !law->ledger) law->ledger = square(model->grid, law);
        if (law->ledger) archive_matrix(archive, "ledger", law->ledger);
        struct linop *A = linop_of_matrix(law->start);
        triplets_archive(&law->norm, A, 1, "norm", archive);
        linop_destroy(&A);
        archive_leave(archive);
    }
}
