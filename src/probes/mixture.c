/* mixture: how the first layer turns towards the means of a Gaussian mixture, and what the last layer has learned of
 * its clusters, beside the theory (theory/mixtures). */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "mixture_private.h"
#include "theory/mixtures.h"

#include <math.h>
#include <stdio.h>

extern const struct probe_kind probe_mixture;

/* Rows shorter than this have no direction: weight decay drives dead units to 0. */
static const double SHORTEST = 1e-6;

/* Eigenvalues of the last layer's matrices count above this fraction of the largest. */
static const double COUNTED = 1e-2;

/* More units than this have no small matrix. */
enum { MOST_UNITS = 256 };

struct state {
    struct mixture *mixture;  /* owned; NULL: there is no mixture (a problem was said) */
    int64_t rows;             /* of the first layer */
    int axes;                 /* that the means span */
    double decay;             /* α or β */
    bool classifier;          /* one layer: m and R are a state of the dynamics */
    bool head;                /* two layers and one output */
    struct effective *theory; /* from the measured start; owned, NULL: no theory */
    struct dataset *centres;  /* every mean once; owned, NULL: not needed */
    int q_overlap, q_residual, q_alignment;
    int q_m, q_R, q_alignment_theory, q_loss, q_accuracy;
    int q_weight, q_logit, q_learned, q_rank, q_gradient, q_hessian, q_gradient_theory, q_hessian_theory, q_last;
};

static const char HDL[] = "Ben Arous, Gheissari and Jagannath, NeurIPS 2022 (arXiv 2206.04030)";
static const char BGHJ[] = "Ben Arous, Gheissari, Huang and Jagannath, ICLR 2024 (arXiv 2310.03010)";

/* ---------------------------------------------------------------- declaring */

static void declare_theory(struct state *s, struct record_group *g)
{
    s->q_m = record_number(g, "effective_m", "row", "axis", "class_overlap by the effective dynamics", NULL, HDL);
    s->q_R =
        record_number(g, "effective_R", "row", "column", "class_residual_gram by the effective dynamics", NULL, HDL);
    s->q_alignment_theory =
        record_number(g, "effective_alignment", "row", NULL, "alignment_class_span by the effective dynamics",
                      "sqrt(sum_c m_ac^2 / (sum_c m_ac^2 + R_aa))", HDL);
    s->q_loss = record_number(g, "effective_loss", NULL, NULL, "loss of the population by the effective dynamics",
                              "-E log softmax(s)_y", HDL);
    s->q_accuracy = record_number(g, "effective_accuracy", NULL, NULL,
                                  "accuracy on the population by the effective dynamics", NULL, HDL);
}

static void declare_head(struct state *s, struct record_group *g)
{
    record_dimension(g, "cluster", s->mixture->clusters, "cluster: +mu, -mu, +nu, -nu");
    s->q_weight = record_number(g, "last_weight", "row", NULL, "weights of the last layer", "v_i", NULL);
    s->q_logit = record_number(g, "cluster_logit", "cluster", NULL, "output at the mean of a cluster", "f(mu_c)", HDL);
    s->q_learned = record_quantity(
        g, &(struct quantity){.name = "learned",
                              .units = "1",
                              .integer = true,
                              .long_name = "clusters whose logit has the right sign and is above half its limit",
                              .reference = HDL});
    s->q_gradient = record_number(g, "last_layer_gradient", "row", NULL,
                                  "eigenvalues of the second moment of the gradients by v, on the training set",
                                  "eig mean e^2 h h^T, e = yhat - y", BGHJ);
    s->q_hessian = record_number(g, "last_layer_hessian", "row", NULL,
                                 "eigenvalues of the Hessian by v without weight decay, on the training set",
                                 "eig mean yhat (1 - yhat) h h^T", BGHJ);
    s->q_gradient_theory = record_number(g, "last_layer_gradient_theory", "cluster", NULL,
                                         "the same at the end of training for the clusters learned, 0 for the others",
                                         "e_c^2 C_c / 4", HDL);
    s->q_hessian_theory = record_number(g, "last_layer_hessian_theory", "cluster", NULL,
                                        "the same at the end of training for the clusters learned, 0 for the others",
                                        "e_c (1 - e_c) C_c / 4", HDL);
    s->q_rank = record_quantity(
        g, &(struct quantity){.name = "outlier_rank",
                              .units = "1",
                              .integer = true,
                              .long_name = "eigenvalues of last_layer_gradient above 1e-2 of the largest",
                              .reference = BGHJ});
    record_dimension(g, "operator", 2, "1: second moment of the gradients, 2: Hessian");
    s->q_last = record_number(
        g, "alignment_last_layer", "operator", NULL, "alignment of v with the leading eigenspace of its block",
        "|P v| / |v|, dimension min(K, clusters), or the numerical rank if that is smaller", BGHJ);
}

static void text(struct record_group *g, const char *name, double value)
{
    char *words = memory_text("%.17g", value);
    record_group_text(g, name, words);
    memory_free(words);
}

/* What the numbers are of: the last layer's matrices are means over the training set, without weight decay. */
static void declare_origin(const struct state *s, const struct setting *setting, struct record_group *g)
{
    const double d = (double)s->mixture->features;
    record_group_text(g, "kind", "mixture");
    text(g, "random_baseline", sqrt(s->axes / d));
    text(g, "lambda", s->mixture->lambda);
    if (!s->head) return;
    record_group_text(g, "of", "train");
    record_group_text(g, "ridge_shift", "0");
    if (!setting->train) return; /* `plan` asks */
    text(g, "samples", (double)setting->train->samples);
    text(g, "phi", (double)setting->train->samples / d);
}

static void declare(struct state *s, struct probe *probe, const struct setting *setting, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "weights against the means of a Gaussian mixture");
    declare_origin(s, setting, g);
    record_dimension(g, "row", s->rows, "row of the first layer: class or hidden unit");
    record_dimension(g, "axis", s->axes, "mean: mu_c, or mu and nu");
    s->q_overlap =
        record_number(g, "class_overlap", "row", "axis", "overlap of the rows with the means", "W_1 mu_c", HDL);
    s->q_alignment = record_number(g, "alignment_class_span", "row", NULL,
                                   "share of the row in the span of the means; NaN for rows shorter than 1e-6",
                                   "|P_mu x| / |x|", BGHJ);
    if (s->classifier) {
        record_dimension(g, "column", s->rows, "row of the first layer");
        s->q_residual =
            record_number(g, "class_residual_gram", "row", "column",
                          "products of the rows' parts perpendicular to the means", "x_perp^a . x_perp^b", HDL);
        if (s->theory) declare_theory(s, g);
    }
    if (s->head) declare_head(s, g);
}

/* ---------------------------------------------------------------- creating */

/* Whether a run is that of the effective dynamics: one-pass descent at a constant rate. */
static bool follows_theory(const struct state *s, const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    const struct layer *first = &setting->model->layer[0];
    return s->classifier && s->mixture->classes && spec_is(spec, "loss.kind", "cross_entropy") &&
           !spec_is(spec, "loss.reduction", "sum") && spec_is(spec, "train.optimizer", "sgd") &&
           spec_is(spec, "train.schedule.kind", "constant") && spec_bool(spec, "train.online") && !first->bias &&
           first->trainable && first->lr_multiplier == 1 && setting->model->output_scale == 1 &&
           first->activation == ACTIVATION_LINEAR && first->skip < 0;
}

void mixture_state(const struct dmat *W, int axes, double *m, double *R)
{
    const int64_t rows = W->m;
    struct dmat *first = dmat_columns(W, 0, axes), *rest = dmat_create(W->grid, rows, W->n);
    double *full = NEW(double, rows *axes);
    dmat_gather(first, full, -1);
    for (int64_t a = 0; a < rows; a++)
        for (int c = 0; c < axes; c++) m[a * axes + c] = full[a + c * rows];
    memory_free(full);
    dmat_destroy(&first);
    if (R) {
        struct dmat *gram = dmat_create(W->grid, rows, rows);
        dmat_copy(rest, W);
        for (int jl = 0; jl < rest->nloc && dmat_col(rest, jl) < axes; jl++)
            for (int il = 0; il < rest->mloc; il++) rest->local[il + (int64_t)jl * rest->lld] = 0;
        dmat_gemm('N', 'T', 1, rest, rest, 0, gram);
        dmat_gather(gram, R, -1);
        dmat_destroy(&gram);
    }
    dmat_destroy(&rest);
}

static void start_theory(struct state *s, const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    const int k = s->axes;
    const double noise =
        spec_real(spec, "train.lr") * (double)s->mixture->features / (double)spec_int(spec, "train.batch");
    s->theory = effective_create(k, s->mixture->weight, s->mixture->lambda, s->decay, noise);
    if (!setting->model->params) return; /* `plan` asks */
    double *m = NEW(double, (int64_t)2 * k * k), *R = m + k * k;
    mixture_state(setting->model->params->W[0], k, m, R);
    effective_start(s->theory, m, R);
    memory_free(m);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct model *model = setting->model;
    const struct spec *spec = setting->spec;
    struct state *s = probe->state = NEW(struct state, 1);
    char key[128];
    snprintf(key, sizeof key, "%s.kind", probe->key);
    if (!mixture_is(spec)) {
        spec_problem(spec, problems, key,
                     "'mixture' needs the means of a mixture (data.kind: gaussian_mixture, xor_mixture or "
                     "binary_mixture)");
        return;
    }
    s->mixture = mixture_of(spec);
    s->rows = model->width[1];
    s->axes = to_int(s->mixture->classes ? s->mixture->clusters : s->mixture->clusters / 2);
    s->decay = spec_real(spec, "train.weight_decay");
    s->classifier = model->depth == 1;
    s->head = model->depth == 2 && !s->mixture->classes && s->rows <= MOST_UNITS &&
              spec_is(spec, "loss.kind", "logistic") && !model->layer[0].bias;
    if (follows_theory(s, setting) && !spec_is(spec, "train.batch", "full")) start_theory(s, setting);
    if (s->head && model->params) s->centres = mixture_centres(model->grid, s->mixture);
    declare(s, probe, setting, record);
}

static void destroy(struct probe *probe)
{
    struct state *s = probe->state;
    effective_destroy(&s->theory);
    dataset_destroy(&s->centres);
    mixture_destroy(&s->mixture);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- measuring */

/* Squared lengths of the rows of W, on every rank. */
static void row_squares(const struct dmat *W, double *square)
{
    for (int64_t a = 0; a < W->m; a++) square[a] = 0;
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) {
            const double w = W->local[il + (int64_t)jl * W->lld];
            square[dmat_row(W, il)] += w * w;
        }
    grid_sum(W->grid, square, to_int(W->m));
}

static void measure_rows(struct probe *probe, const struct state *s, const struct dmat *W)
{
    double *m = NEW(double, s->rows *(s->axes + 1)), *square = m + s->rows * s->axes;
    double *R = s->classifier ? NEW(double, s->rows * s->rows) : NULL;
    mixture_state(W, s->axes, m, R);
    row_squares(W, square);
    record_put(probe->group, s->q_overlap, m);
    if (R) record_put(probe->group, s->q_residual, R);
    for (int64_t a = 0; a < s->rows; a++) {
        double inside = 0;
        for (int c = 0; c < s->axes; c++) inside += m[a * s->axes + c] * m[a * s->axes + c];
        if (square[a] >= SHORTEST * SHORTEST) record_put_at(probe->group, s->q_alignment, a, sqrt(inside / square[a]));
    }
    memory_free(R);
    memory_free(m);
}

/* The root alone keeps records. */
static void put_theory(struct probe *probe, const struct state *s, const struct moment *moment)
{
    struct effective *e = s->theory;
    double accuracy;
    if (moment->model->grid->rank != 0) return;
    effective_run(e, moment->time);
    record_put(probe->group, s->q_m, e->m);
    record_put(probe->group, s->q_R, e->R);
    record_put_at(probe->group, s->q_loss, 0, effective_loss(e, &accuracy));
    record_put_at(probe->group, s->q_accuracy, 0, accuracy);
    for (int a = 0; a < e->k; a++)
        record_put_at(probe->group, s->q_alignment_theory, a, sqrt(effective_alignment_squared(e->k, e->m, e->R, a)));
}

/* Eigenvalues of a matrix of the last layer, descending, and rho(v, E_j); returns how many are above COUNTED of the
 * largest. A (K × K) is destroyed. */
static int put_block(struct probe *probe, const struct state *s, int number, int quantity, double *A, const double *v)
{
    const int K = to_int(s->rows), asked = K < s->mixture->clusters ? K : to_int(s->mixture->clusters);
    double *value = NEW(double, K *(K + 1)), *V = value + K, along = 0, length = 0;
    int rank = 0, counted = 0;
    factor_local_eigenpairs(K, A, value, V);
    const double largest = value[K - 1];
    for (int i = 0; i < K; i++) {
        record_put_at(probe->group, quantity, i, value[K - 1 - i]);
        rank += value[K - 1 - i] > 1e-10 * largest;
        counted += value[K - 1 - i] > COUNTED * largest;
        length += v[i] * v[i];
    }
    for (int i = 0; i < asked && i < rank; i++) {
        double sum = 0;
        for (int t = 0; t < K; t++) sum += V[t + (K - 1 - i) * K] * v[t];
        along += sum * sum;
    }
    if (length > 0 && largest > 0) record_put_at(probe->group, s->q_last, number, sqrt(along / length));
    memory_free(value);
    return largest > 0 ? counted : 0;
}

/* Which clusters the network has learned; for the binary mixture the last two are none. */
static int64_t find_learned(const struct state *s, const double *logit, bool learned[4])
{
    const double limit = s->mixture->clusters == 4 ? xor_constant(s->decay) : binary_constant(s->decay);
    int64_t count = 0;
    for (int b = 0; b < 4; b++) {
        learned[b] = false;
        if (b >= s->mixture->clusters) continue;
        const double right = mixture_cluster(s->mixture, b).positive ? logit[b] : -logit[b];
        learned[b] = right > 0 && right > (isfinite(limit) ? limit / 2 : 0);
        count += learned[b];
    }
    return count;
}

/* The binary mixture at infinite λ, the XOR mixture to first order. */
static void put_end(struct probe *probe, const struct state *s, const bool learned[4])
{
    const bool xor = s->mixture->clusters == 4;
    const struct xor_end end = xor_end_of(s->decay, s->mixture->lambda, learned);
    const double alpha = s->decay, C = binary_constant(alpha);
    for (int b = 0; s->decay > 0 && b < s->mixture->clusters; b++) {
        const double binary_gradient = learned[b] ? 2 * alpha * alpha * C : 0;
        const double binary_hessian = learned[b] ? alpha * (1 - 2 * alpha) * C : 0;
        record_put_at(probe->group, s->q_gradient_theory, b, xor? end.gradient[b] : binary_gradient);
        record_put_at(probe->group, s->q_hessian_theory, b, xor? end.hessian[b] : binary_hessian);
    }
}

static void measure_head(struct probe *probe, const struct state *s, const struct moment *moment)
{
    bool learned[4];
    struct mixture_head head = mixture_head_measure(moment, s->centres);
    record_put(probe->group, s->q_weight, head.v);
    record_put(probe->group, s->q_logit, head.logit);
    record_put_int_at(probe->group, s->q_learned, 0, find_learned(s, head.logit, learned));
    record_put_int_at(probe->group, s->q_rank, 0, put_block(probe, s, 0, s->q_gradient, head.gradient, head.v));
    put_block(probe, s, 1, s->q_hessian, head.hessian, head.v);
    put_end(probe, s, learned);
    mixture_head_free(&head);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    const struct state *s = probe->state;
    (void)record;
    measure_rows(probe, s, moment->model->params->W[0]);
    if (s->theory) put_theory(probe, s, moment);
    if (s->head) measure_head(probe, s, moment);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    const struct state *s = probe->state;
    (void)model;
    if (s->theory) effective_archive(s->theory, archive);
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct state *s = probe->state;
    (void)model;
    need->passes = s->head ? 1 : 0;
    need->copies = s->classifier;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct state *s = probe->state;
    log_say("  %s (last step)", probe->name);
    double least = INFINITY;
    for (int64_t a = 0; a < s->rows; a++)
        least = fmin(least, record_last(record, probe->name, "alignment_class_span", a));
    if (isfinite(least)) log_say("    rows of the first layer lie in the span of the means by at least %.4f", least);
    if (s->theory)
        log_say("    row 1: m = %.4f (theory %.4f), |x_perp|^2 = %.4f (%.4f), in the span %.4f (%.4f)",
                record_last(record, probe->name, "class_overlap", 0),
                record_last(record, probe->name, "effective_m", 0),
                record_last(record, probe->name, "class_residual_gram", 0),
                record_last(record, probe->name, "effective_R", 0),
                record_last(record, probe->name, "alignment_class_span", 0),
                record_last(record, probe->name, "effective_alignment", 0));
    if (s->head)
        log_say("    clusters learned: %.0f of %d; outlier rank of the last layer: %.0f",
                record_last(record, probe->name, "learned", 0), (int)s->mixture->clusters,
                record_last(record, probe->name, "outlier_rank", 0));
}

const struct probe_kind probe_mixture = {.name = "mixture",
                                         .create = create,
                                         .measure = measure,
                                         .archive = archive,
                                         .need = need,
                                         .summary = summary,
                                         .destroy = destroy};
