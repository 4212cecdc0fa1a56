/* balance: what training conserves between neighbouring layers, and the low rank that follows from it: matrices S_k =
 * W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ − b_k b_kᵀ with exact ledgers of gradient descent, the gates of ReLU layers, how near to
 * rank one the layers are, their alignment, and the bounds on both (Le and Jegelka, arXiv 2201.11968; Ji and
 * Telgarsky, arXiv 1810.02032; Marcotte, Gribonval and Peyré, arXiv 2508.07370). */
#include "balance_private.h"

#include "base/log.h"
#include "base/memory.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_balance;

/* ---------------------------------------------------------------- life */

static bool is_plain(const struct spec *spec)
{
    const bool rule = spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "sgd");
    return rule && spec_is(spec, "train.project.kind", "none");
}

/* The column sums of the last layer are linear in the parameters, and softmax outputs do not feel them. */
static bool has_column_law(const struct balance *s, const struct model *model, const struct spec *spec)
{
    const bool momentum = s->heavy && spec_is(spec, "train.project.kind", "none");
    return s->loss.kind == LOSS_CROSS_ENTROPY && s->decay == 0 && (s->plain || momentum || s->flows) &&
           model->layer[s->depth - 1].trainable;
}

static void read_direction(struct balance *s, const struct probe *probe, const struct model *model,
                           const struct spec *spec, struct problems *problems)
{
    char *key = memory_text("%s.direction", probe->key);
    const int64_t n = model->width[0];
    double norm = 0;
    if (!spec_is(spec, key, "none")) {
        const int given = spec_count(spec, key);
        if (given != n || model->width[s->depth] != 1)
            spec_problem(spec, problems, key, "has %d entries: a network with one output and %lld inputs needs %lld",
                         given, (long long)n, (long long)n);
        s->direction = NEW(double, n);
        for (int64_t i = 0; i < n && i < given; i++) {
            s->direction[i] = spec_real_at(spec, key, (int)i);
            norm += s->direction[i] * s->direction[i];
        }
        if (!(norm > 0)) spec_problem(spec, problems, key, "is zero: give a direction");
        for (int64_t i = 0; i < n; i++) s->direction[i] /= sqrt(norm);
    }
    memory_free(key);
}

static void read_input(struct balance *s, const struct probe *probe, const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    char *ledger = memory_text("%s.ledger", probe->key), *gates = memory_text("%s.gates", probe->key);
    s->loss = loss_of(spec);
    s->decay = spec_real(spec, "train.weight_decay");
    s->plain = is_plain(spec);
    s->flows = spec_is(spec, "train.optimizer", "gradient_flow");
    s->heavy = spec_is(spec, "train.optimizer", "momentum");
    s->column_law = has_column_law(s, model, spec);
    s->ledger = spec_is(spec, ledger, "none")      ? LEDGER_NONE
                : spec_is(spec, ledger, "samples") ? LEDGER_SAMPLES
                                                   : LEDGER_GRADIENT;
    s->every_step = spec_is(spec, gates, "auto") ? spec_is(spec, "train.batch", "full") : spec_is(spec, gates, "step");
    s->margins = model->width[s->depth] == 1 && (s->loss.kind == LOSS_LOGISTIC || s->loss.kind == LOSS_EXPONENTIAL);
    memory_free(gates);
    memory_free(ledger);
}

static void find_shape(struct balance *s, const struct model *model, const struct spec *spec)
{
    laws_find(s, model, spec_is(spec, "model.residual", "pairs"));
    s->linear = model->linear && s->head == 1 && model->layer[0].skip < 0;
    for (int l = 1; l < s->depth; l++)
        if (model->width[l] > s->listed) s->listed = model->width[l];
    if (s->listed > BALANCE_NEURONS) s->listed = 0;
    for (int l = 0; l < s->depth; l++) s->gated = s->gated || s->gates[l].layer;
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    struct balance *s = probe->state = NEW(struct balance, 1);
    const struct model *model = setting->model;
    const struct dataset *train = setting->train;
    s->depth = model->depth;
    s->first = s->looked = -1;
    s->leading = NEW(struct leading, s->depth);
    s->start = NEW(double, 2 * s->depth);
    s->squares = NEW(double, s->depth);
    s->columns = NEW(double, model->width[s->depth - 1] + 1);
    for (int i = 0; i < WORSTS; i++) s->worst[i] = -DBL_MAX;
    read_input(s, probe, setting);
    read_direction(s, probe, model, setting->spec, problems);
    gates_create(s, model, train ? train->samples : 0);
    find_shape(s, model, setting->spec);
    if (s->margins && train)
        s->loss_at_zero =
            loss_scale_on(&s->loss, train) * (double)train->samples * (s->loss.kind == LOSS_LOGISTIC ? log(2) : 1);
    if (model->params) s->last = params_create(model);
    balance_declare(probe, setting, record);
}

static void destroy(struct probe *probe)
{
    struct balance *s = probe->state;
    gates_destroy(s);
    laws_free(s);
    layers_free(s);
    params_destroy(&s->last);
    memory_free(s->direction);
    memory_free(s->start);
    memory_free(s->squares);
    memory_free(s->columns);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- step by step */

/* 1ᵀ W_L and the sum of b_L, on every rank. */
static void column_sums(const struct balance *s, const struct model *model, double *sums)
{
    const struct dmat *W = model->params->W[s->depth - 1], *b = model->params->b[s->depth - 1];
    for (int64_t j = 0; j <= W->n; j++) sums[j] = 0;
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) sums[dmat_col(W, jl)] += W->local[il + (int64_t)jl * W->lld];
    for (int il = 0; b && b->nloc > 0 && il < b->mloc; il++) sums[W->n] += b->local[il];
    grid_sum(W->grid, sums, to_int(W->n + 1));
}

static void begin(struct probe *probe, const struct moment *moment)
{
    struct balance *s = probe->state;
    struct law_state *state = NEW(struct law_state, s->count);
    s->first = moment->step;
    s->first_time = moment->time;
    s->first_loss = moment->loss;
    laws_begin(s, moment->model);
    layers_solve(probe, moment->model);
    for (int k = s->head; k < s->depth; k++)
        state[k - 1].norm = layers_norm(probe, s->law[k - 1].start, &s->law[k - 1].norm);
    layers_begin(s, state);
    column_sums(s, moment->model, s->columns);
    memory_free(state);
}

static void look(struct probe *probe, const struct moment *moment)
{
    struct balance *s = probe->state;
    if (moment->step < probe->start) return;
    if (s->first < 0) begin(probe, moment);
    if (s->gated && s->every_step) gates_look(s, moment, NULL);
    if (s->ledger == LEDGER_SAMPLES && s->plain) laws_look(s, moment);
}

static void follow(struct probe *probe, const struct model *model, const struct params *gradient, double lr)
{
    struct balance *s = probe->state;
    if (s->first < 0) return;
    double *square = NEW(double, s->depth);
    for (int l = 0; l < s->depth; l++)
        for (int64_t i = gradient->start[l]; i < gradient->start[l + 1]; i++)
            square[l] += gradient->local[i] * gradient->local[i];
    grid_sum(model->grid, square, s->depth);
    for (int l = 0; l < s->depth; l++) {
        const double rate = lr * model->layer[l].lr_multiplier;
        s->squares[l] += rate * rate * square[l];
        s->budget += lr * lr * square[l];
    }
    s->steps++;
    memory_free(square);
    laws_follow(s, model, gradient, lr);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct balance *s = probe->state;
    archive_int(archive, "first", &s->first);
    archive_int(archive, "looked", &s->looked);
    archive_int(archive, "steps", &s->steps);
    archive_real(archive, "first_time", &s->first_time);
    archive_real(archive, "first_loss", &s->first_loss);
    archive_real(archive, "jt", &s->jt);
    archive_real(archive, "budget", &s->budget);
    archive_reals(archive, "start", 2 * s->depth, s->start);
    archive_reals(archive, "squares", s->depth, s->squares);
    archive_reals(archive, "columns", model->width[s->depth - 1] + 1, s->columns);
    archive_reals(archive, "worst", WORSTS, s->worst);
    s->has_last = archive_flag(archive, "has_last", s->has_last);
    if (s->has_last) params_archive(s->last, "last", archive);
    laws_archive(s, model, archive);
    gates_archive(s, model->grid, archive);
    for (int l = 1; l <= s->depth; l++) {
        char name[32];
        snprintf(name, sizeof name, "layer_%d", l);
        struct linop *A = linop_of_matrix(model->params->W[l - 1]);
        triplets_archive(&s->leading[l - 1].T, A, 2, name, archive);
        linop_destroy(&A);
    }
}

/* ---------------------------------------------------------------- measuring */

/* ½ ‖θ/|θ| − θ'/|θ'|‖², which is 1 − cos without cancellation. */
static double turned(const struct params *p, const struct params *q)
{
    const double a = 1 / sqrt(params_dot(p, p)), b = 1 / sqrt(params_dot(q, q));
    double sum = 0;
    for (int64_t i = 0; i < p->size; i++) sum += pow(a * p->local[i] - b * q->local[i], 2);
    grid_sum(p->grid, &sum, 1);
    return sum / 2;
}

static void put_turn(const struct probe *probe, const struct params *now, int *missing)
{
    struct balance *s = probe->state;
    if (s->has_last) balance_put(probe, BALANCE_DIRECTION_CHANGE, 0, turned(now, s->last));
    if (!s->has_last) *missing |= FLAG_FIRST;
    memcpy(s->last->local, now->local, (size_t)now->size * sizeof(double));
    s->has_last = true;
}

static void put_column_sums(const struct probe *probe, const struct model *model, int *missing)
{
    struct balance *s = probe->state;
    const int64_t n = model->width[s->depth - 1] + 1;
    if (!s->column_law) {
        *missing |= FLAG_NO_COLUMN_LAW;
        return;
    }
    double *sums = NEW(double, n), largest = 0, scale = 1;
    column_sums(s, model, sums);
    for (int64_t j = 0; j < n; j++) {
        largest = fmax(largest, fabs(sums[j] - s->columns[j]));
        scale = fmax(scale, fabs(s->columns[j]));
    }
    balance_put(probe, BALANCE_COLUMN_SUMS, 0, largest);
    balance_note(s, WORST_COLUMN_SUMS, largest / (scale * sqrt(fmax(1, (double)s->steps))));
    memory_free(sums);
}

/* The gates now, unless they have been looked at, and the margin in the same pass. */
static void put_gates(const struct probe *probe, const struct moment *moment, int *flag, int *missing)
{
    struct balance *s = probe->state;
    double margin = NAN, product = 1;
    if (s->margins || (s->gated && s->looked < moment->step)) gates_look(s, moment, s->margins ? &margin : NULL);
    for (int l = 0; l < s->depth; l++) product *= sqrt(s->leading[l].norm2);
    if (s->margins && product > 0)
        balance_put(probe, BALANCE_MARGIN, 0, margin / product);
    else
        *missing |= FLAG_NO_MARGIN;
    gates_measure(probe, moment, flag);
    layers_blocks(probe, moment->model, flag);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct balance *s = probe->state;
    struct law_state *state = NEW(struct law_state, s->count);
    int *flag = NEW(int, s->depth), *law_flag = NEW(int, s->count), missing = 0;
    (void)record;
    if (s->first < 0) begin(probe, moment); /* the last step comes before the first one that was wanted */
    layers_solve(probe, moment->model);
    put_gates(probe, moment, flag, &missing);
    laws_measure(probe, moment, state, law_flag);
    layers_measure(probe, state, flag, law_flag, &missing);
    layers_direction(probe, moment->model, &missing);
    put_turn(probe, moment->model->params, &missing);
    put_column_sums(probe, moment->model, &missing);
    balance_put(probe, BALANCE_BUDGET, 0, s->budget);
    for (int l = 0; l < s->depth; l++) balance_put_int(probe, BALANCE_LAYER_FLAG, l, flag[l]);
    for (int k = 0; k < s->count; k++) balance_put_int(probe, BALANCE_LAW_FLAG, k, law_flag[k]);
    balance_put_int(probe, BALANCE_FLAG, 0, missing);
    for (int k = 0; k < s->count; k++) dmat_destroy(&state[k].S);
    memory_free(law_flag);
    memory_free(flag);
    memory_free(state);
}

/* ---------------------------------------------------------------- at the end */

static void check(const struct probe *probe, struct record *record)
{
    static const char LJ[] = "Le and Jegelka (arXiv 2201.11968)", JT[] = "Ji and Telgarsky (arXiv 1810.02032), lemma 2";
    static const char MPG[] = "Marcotte et al. (arXiv 2508.07370) and predecessors";
    static const struct {
        const char *name, *reference;
        double bound;
    } checks[WORSTS] = {
        [WORST_DEFECT] = {"rank defects below their bounds D_k", JT, 1e-10},
        [WORST_ALIGNMENT] = {"alignments above their bounds", JT, 1e-10},
        [WORST_FLOW_DEFECT] = {"rank defects below D, under the flow", JT, 1e-8},
        [WORST_FLOW_ALIGNMENT] = {"alignments above the bounds under the flow", JT, 1e-8},
        [WORST_LEDGER] = {"matrices S equal their ledgers", LJ, 1e-12},
        [WORST_RATE] = {"rates of S equal their sums over samples", LJ, 1e-12},
        [WORST_DRIFT] = {"drift of S below the sum of eta^2 |g|^2", LJ, 1e-12},
        [WORST_FLOW_DRIFT] = {"S is constant but for weight decay, under the flow", JT, 1e-10},
        [WORST_MOMENTUM] = {"momentum keeps A at zero", MPG, 1e-12},
        [WORST_COLUMN_SUMS] = {"column sums of the last layer stay, over sqrt(steps)", MPG, 1e-13},
    };
    const struct balance *s = probe->state;
    for (int i = 0; i < WORSTS; i++) {
        if (s->worst[i] == -DBL_MAX) continue;
        char *name = memory_text("%s: %s", probe->name, checks[i].name);
        record_check(record, name, checks[i].reference, s->worst[i], checks[i].bound, s->worst[i] <= checks[i].bound);
        memory_free(name);
    }
}

static struct probe_solve solve_of(int64_t m, int64_t n, int rank)
{
    const bool whole = (m < n ? m : n) <= BALANCE_WHOLE;
    return (struct probe_solve){
        .m = m, .n = n, .elements = m * n, .factors = 1, .rank = whole ? 0 : rank, .kept = whole ? 0 : 1};
}

/* Products of a measurement, and those of the ledgers at the steps before it. */
static void need_products(const struct balance *s, const struct probe *probe, const struct model *model,
                          struct probe_need *need)
{
    const double steps = (double)(probe->every < 100000 ? probe->every : 100000);
    int count = 0;
    for (int k = 0; k < s->count; k++) need->multiplies += s->law[k].count;
    need->multiply = NEW(struct product, need->multiplies);
    need->multiply_times = NEW(double, need->multiplies);
    for (int k = 0; k < s->count; k++)
        for (int i = 0; i < s->law[k].count; i++) {
            const struct term *t = &s->law[k].term[i];
            const int64_t inner = t->outer ? model->width[t->layer - 1] : model->width[t->layer];
            need->multiply_times[count] = 2 + (s->law[k].keeps_ledger ? steps : 0);
            need->multiply[count++] = (struct product){
                .ta = t->outer ? 'N' : 'T', .tb = t->outer ? 'T' : 'N', .m = s->law[k].n, .n = s->law[k].n, .k = inner};
        }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct balance *s = probe->state;
    const int steps = to_int(probe->every < 100000 ? probe->every : 100000);
    const double parameters = (double)model_parameters(model);
    double kept = 0, largest = 0;
    need->count = s->depth + (s->depth - s->head);
    need->solve = NEW(struct probe_solve, need->count);
    for (int l = 1; l <= s->depth; l++) need->solve[l - 1] = solve_of(model->width[l], model->width[l - 1], 2);
    for (int l = s->head; l < s->depth; l++)
        need->solve[s->depth + l - s->head] = solve_of(model->width[l], model->width[l], 1);
    for (int k = 0; k < s->count; k++) {
        const double size = (double)(s->law[k].n * s->law[k].n);
        kept += size * (1 + s->law[k].keeps_ledger);
        largest = fmax(largest, size);
    }
    need->kept = 1 + kept / parameters;
    need->work = (kept + 3 * largest) / parameters;
    need->passes = (s->gated || s->margins) + (s->gated && s->every_step ? steps : 0) +
                   (s->gated && s->ledger == LEDGER_SAMPLES ? 5 * steps : 0);
    need_products(s, probe, model, need);
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct balance *s = probe->state;
    const char *g = probe->name;
    log_say("  %s (last step)", g);
    for (int l = 0; l < s->depth; l++)
        log_say("    layer %d: spectral ratio %.4g, rank defect %.4g (bound %.4g)", l + 1,
                record_last(record, g, "spectral_ratio", l), record_last(record, g, "rank_defect", l),
                record_last(record, g, "rank_defect_bound", l));
    for (int k = 0; k < s->count; k++)
        log_say("    %s %d: drift %.3g in all, %.3g on the diagonal; ledger off by %.2g",
                s->law[k].below ? "interface" : "stream,", k + 1,
                record_last(record, g, "invariance_drift", (int64_t)SETS * k),
                record_last(record, g, "invariance_drift", (int64_t)SETS * k + 1),
                record_last(record, g, "ledger_residual", k));
}

const struct probe_kind probe_balance = {.name = "balance",
                                         .create = create,
                                         .look = look,
                                         .follow = follow,
                                         .measure = measure,
                                         .archive = archive,
                                         .need = need,
                                         .check = check,
                                         .summary = summary,
                                         .destroy = destroy};
