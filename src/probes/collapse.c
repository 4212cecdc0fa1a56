/* collapse: how far the features of each layer have collapsed onto their class means, layer by layer (progressive
 * collapse, arXiv 2306.01154 and 2311.02960) and at the last layer (NC1 to NC4 of Papyan, Han and Donoho, PNAS 117,
 * 2020, arXiv 2008.08186), on the training set. The features of layer l are a_l, after activation and residual sum. */
#include "collapse_private.h"

#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "net/loss.h"

#include <float.h>
#include <math.h>
#include <stdio.h>

extern const struct probe_kind probe_collapse;

static const char law[] = "arXiv 2306.01154", neural_collapse[] = "Papyan, Han and Donoho, PNAS 117 (2020)";

struct collapse {
    int depth;             /* L */
    int64_t classes;       /* K */
    int64_t samples;       /* N; 0 without data (for `plan`) */
    double *count;         /* [K] samples in each class, owned */
    bool full;             /* the optional quantities, too */
    bool product;          /* f(X) = α W_L … W_1 X */
    double scale;          /* α of the outputs */
    struct dmat *solution; /* Y X⁺ (K × d), owned; NULL unless full and product */
    double to_mean;        /* factor from the loss to the mean squared loss */
    double inputs;         /* compression of the inputs by theory; NaN where it has none */
    double factor;         /* from layer to layer, by theory; NaN where it has none */
    double *compression;   /* [L] of the last measurement, owned */
    double loss;           /* of the same */
    int q_compression, q_theory, q_fit, q_discrimination, q_nc1, q_equinorm, q_equiangular, q_quotient, q_norm_cv,
        q_simplex, q_nc3, q_dual, q_nc4, q_agreement, q_balance, q_middle, q_solution; /* in the record */
};

/* ---------------------------------------------------------------- what theory says */

/* Progressive collapse has its closed form in the limit of small ε; with a factor up to this the measured values stay
 * within its bounds [run: 12 shapes and scales]. */
static const double LARGEST_FACTOR = 0.2;

/* A run has converged when its mean squared loss is below this, and so far below the compression of the last features
 * that the output error does not add to it. */
static const double CONVERGED = 1e-14, NO_FLOOR = 1e-4;

/* Xᵀ X = I. The norms come first: they are cheap, and most data fails there. */
static bool has_orthonormal_columns(const struct dmat *X)
{
    if (!X) return true;
    if (X->n > X->m) return false;
    double *square = NEW(double, X->n), worst = 0;
    for (int jl = 0; jl < X->nloc; jl++)
        for (int il = 0; il < X->mloc; il++) {
            const double x = X->local[il + (int64_t)jl * X->lld];
            square[dmat_col(X, jl)] += x * x;
        }
    grid_sum(X->grid, square, to_int(X->n));
    for (int64_t j = 0; j < X->n; j++) worst = fmax(worst, fabs(square[j] - 1));
    memory_free(square);
    return worst < 1e-12 && dmat_orthogonality(X, 1) < 1e-12 * sqrt((double)X->n);
}

/* C_0 = (N − K)/(K − 1) of orthonormal samples in classes of equal size. */
static double inputs_by_theory(const struct collapse *s, const struct dataset *train)
{
    for (int64_t k = 0; k < s->classes; k++)
        if (s->count[k] != s->count[0]) return NAN;
    if (s->samples == s->classes || !has_orthonormal_columns(train->X)) return NAN;
    return (double)(s->samples - s->classes) / (double)(s->classes - 1);
}

/* Plain gradient descent of all layers alike on the squared loss. */
static bool is_plain_descent(const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    for (int l = 0; l < model->depth; l++) {
        const struct layer *layer = &model->layer[l];
        if (!layer->trainable || layer->lr_multiplier != model->layer[0].lr_multiplier || layer->skip >= 0)
            return false;
    }
    return model->linear && setting->loss->kind == LOSS_MSE && spec_is(spec, "train.optimizer", "gd") &&
           spec_is(spec, "train.batch", "full") && spec_real(spec, "train.weight_decay") == 0;
}

/* ε of layers that are all ε times orthogonal matrices (the last: rows of one), else NaN. */
static double common_scale(const struct model *model)
{
    double first = 0;
    for (int l = 0; l < model->depth; l++) {
        const struct dmat *W = model->params->W[l];
        const double square = dmat_dot(W, W) / (double)W->m;
        if (l == 0) first = square;
        if (!(fabs(square - first) <= 1e-10 * first)) return NAN;
        if (!(dmat_orthogonality(W, square) <= 1e-10 * square * sqrt((double)W->m))) return NAN;
    }
    return sqrt(first);
}

/* ε² / (√n/α)^{2/L}, by which compression falls from layer to layer at convergence. α W_L … W_1 becomes Y Xᵀ, whose K
 * singular values √n the L layers share; of the other N − K directions of the samples all but K keep the scale ε of the
 * start. */
static double factor_by_theory(const struct collapse *s, const struct setting *setting)
{
    const struct model *model = setting->model;
    if (isnan(s->inputs) || s->depth < 2 || s->samples <= 2 * s->classes || !is_plain_descent(setting)) return NAN;
    for (int l = 1; l < s->depth; l++)
        if (model->width[l] != model->width[0]) return NAN;
    const double epsilon = common_scale(model), class_size = (double)s->samples / (double)s->classes;
    const double factor = epsilon * epsilon / pow(sqrt(class_size) / s->scale, 2.0 / s->depth);
    return factor <= LARGEST_FACTOR ? factor : NAN;
}

/* Y X⁺ by the thin SVD X = U Σ Vᵀ, without directions that are rounding. */
static struct dmat *minimum_norm_solution(const struct dataset *train)
{
    const struct dmat *X = train->X, *Y = train->Y;
    const int64_t k = train->samples < train->features ? train->samples : train->features;
    struct dmat *solution = dmat_create(Y->grid, Y->m, train->features);
    if (!X) {
        dmat_copy(solution, Y);
        return solution;
    }
    struct dmat *U = dmat_create(Y->grid, X->m, k), *Vt = dmat_create(Y->grid, k, X->n);
    struct dmat *YV = dmat_create(Y->grid, Y->m, k);
    double *sigma = NEW(double, k);
    factor_svd(X, U, sigma, Vt);
    dmat_gemm('N', 'T', 1, Y, Vt, 0, YV);
    const double zero = DBL_EPSILON * (double)(X->m > X->n ? X->m : X->n) * sigma[0];
    for (int jl = 0; jl < YV->nloc; jl++) {
        const double value = sigma[dmat_col(YV, jl)];
        for (int il = 0; il < YV->mloc; il++) YV->local[il + (int64_t)jl * YV->lld] *= value > zero ? 1 / value : 0;
    }
    dmat_gemm('N', 'T', 1, YV, U, 0, solution);
    memory_free(sigma);
    dmat_destroy(&YV);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
    return solution;
}

/* ---------------------------------------------------------------- life */

static void declare_layers(struct collapse *s, struct record_group *g)
{
    s->q_compression = record_number(g, "compression", "features", NULL, "within-class over between-class variance",
                                     "Tr Sigma_W / Tr Sigma_B; NaN if all class means are equal", law);
    if (!isnan(s->factor))
        s->q_theory =
            record_number(g, "compression_theory", "features", NULL, "the same at convergence, by the closed form",
                          "(N - K)/(K - 1) (epsilon^2 / (sqrt(N/K)/alpha)^(2/L))^l", law);
    s->q_fit = record_number(
        g, "compression_fit", "coefficient", NULL, "straight line through log compression against layer",
        "least squares: log compression = coefficient_2 + coefficient_1 l; NaN unless all are positive", law);
    s->q_discrimination =
        record_number(g, "discrimination", "features", NULL, "between-class discrimination",
                      "1 - max_(k != k') cos(mu_k, mu_k'); NaN if a class mean is zero", "arXiv 2311.02960");
    s->q_nc1 = record_number(g, "nc1", "features", NULL, "NC1: within-class variability",
                             "Tr(Sigma_W pinv(Sigma_B)) / K", neural_collapse);
    s->q_equinorm =
        record_number(g, "nc2_equinorm", "features", NULL, "NC2: spread of the norms of the centred class means",
                      "std_k |mu_k - mu| / mean_k |mu_k - mu|", neural_collapse);
    s->q_equiangular = record_number(g, "nc2_equiangular", "features", NULL,
                                     "NC2: distance of the class means' angles from those of a simplex",
                                     "mean_(k != k') |cos(mu_k - mu, mu_k' - mu) + 1/(K - 1)|", neural_collapse);
}

static void declare_head(struct collapse *s, struct record_group *g)
{
    s->q_quotient = record_number(g, "nc1_quotient", NULL, NULL, "NC1 of the last features as a quotient of traces",
                                  "K Tr Sigma_W / |M|_F^2, M = [mu_k - mean of the mu_k]", neural_collapse);
    s->q_norm_cv =
        record_number(g, "nc2_norm_cv", NULL, NULL, "NC2 of the last features: spread of the norms of their means",
                      "std / mean of the norms of the columns of M", neural_collapse);
    s->q_simplex =
        record_number(g, "nc2_etf", NULL, NULL, "NC2 of the last features: distance of their means from a simplex",
                      "|M^T M/|M^T M|_F - E|_F, E = (I - 11^T/K)/sqrt(K - 1)", neural_collapse);
    s->q_nc3 = record_number(g, "nc3", NULL, NULL,
                             "NC3: distance of the last layer and the class means that enter it from a simplex",
                             "|W_L M/|W_L M|_F - E|_F", neural_collapse);
    s->q_dual =
        record_number(g, "nc3_dual", NULL, NULL, "NC3: distance of the last layer from the class means that enter it",
                      "|W_L^T/|W_L|_F - M/|M|_F|_F", neural_collapse);
    s->q_nc4 = record_number(
        g, "nc4", NULL, NULL, "NC4: samples whose nearest class mean is not the class of the output",
        "share of the training samples; nearest among the features that enter the last layer", neural_collapse);
    s->q_agreement =
        record_number(g, "nc4_agreement", NULL, NULL,
                      "NC4: samples whose nearest class mean is the class of the output", "1 - nc4", neural_collapse);
}

static void declare(struct collapse *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "collapse of the features onto their class means");
    record_group_text(g, "kind", "collapse");
    record_group_text(g, "features", "a_l on the training set, after the activation and the residual sum of layer l");
    record_group_text(
        g, "notation",
        "mu_k mean of class k, mu of all N samples; Sigma_W = (1/N) sum_i (h_i - mu_k(i))(h_i - mu_k(i))^T"
        ", Sigma_B = (1/K) sum_k (mu_k - mu)(mu_k - mu)^T");
    record_dimension(g, "features", s->depth,
                     "features of layer l = index - 1: 1 is the input, L enters the last layer");
    record_dimension(g, "coefficient", 2, "1 slope, 2 intercept");
    declare_layers(s, g);
    declare_head(s, g);
    if (s->depth > 1) {
        record_dimension(g, "interface", s->depth - 1, "between layers l and l + 1");
        s->q_balance =
            record_number(g, "balancedness", "interface", NULL, "distance of neighbouring layers from balance",
                          "|W_l W_l^T - W_(l+1)^T W_(l+1)|_F", law);
    }
    if (!s->full) return;
    record_dimension(g, "layer", s->depth, "layer, 1 is the first");
    s->q_middle = record_number(g, "mid_sv_range", "layer", NULL, "range of the middle singular values of the weights",
                                "sigma_(K+1) - sigma_(d-K), d = min(m, n); NaN if d <= 2K", law);
    if (s->product)
        s->q_solution = record_number(g, "min_norm_residual", NULL, NULL, "distance from the solution of minimum norm",
                                      "|alpha W_L ... W_1 - Y pinv(X)|_F, alpha the scale of the outputs", law);
}

/* What the input tells before there is data. */
static bool may_have_classes(const struct spec *spec)
{
    if (spec_applies(spec, "data.targets")) return spec_is(spec, "data.targets", "classes");
    return !spec_applies(spec, "data.rank"); /* a matrix problem */
}

/* The data must have classes, and samples of each. */
static bool check_data(const struct probe *probe, struct collapse *s, const struct setting *setting,
                       struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct dataset *train = setting->train;
    const bool classes = train ? train->classification : may_have_classes(spec);
    char key[128];
    snprintf(key, sizeof key, "%s.kind", probe->key);
    if (!classes || s->classes < 2) {
        spec_problem(
            spec, problems, key,
            "'collapse' compares classes: it needs one-hot targets (images, orthogonal_classes, data.targets: classes) "
            "of at least two classes");
        return false;
    }
    if (!train) return false;
    s->samples = train->samples;
    collapse_count(train->Y, s->count);
    for (int64_t k = 0; k < s->classes; k++) {
        if (s->count[k] > 0) continue;
        spec_problem(spec, problems, key,
                     "'collapse' needs training samples of every class, but class %lld (counted from 0) has none",
                     (long long)k);
        return false;
    }
    return true;
}

static bool is_product(const struct model *model)
{
    for (int l = 0; l < model->depth; l++)
        if (model->layer[l].skip >= 0) return false;
    return model->linear;
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    char key[128];
    const struct model *model = setting->model;
    struct collapse *s = probe->state = NEW(struct collapse, 1);
    snprintf(key, sizeof key, "%s.full", probe->key);
    s->full = spec_bool(setting->spec, key);
    s->product = is_product(model);
    s->scale = model->output_scale;
    s->depth = model->depth;
    s->classes = model->width[model->depth];
    s->count = NEW(double, s->classes);
    s->compression = NEW(double, s->depth);
    s->inputs = s->factor = s->loss = NAN;
    if (check_data(probe, s, setting, problems)) {
        s->to_mean = 1 / (loss_scale(setting->loss, s->classes, s->samples) * (double)(s->classes * s->samples));
        s->inputs = inputs_by_theory(s, setting->train);
        s->factor = factor_by_theory(s, setting);
        if (s->full && s->product) s->solution = minimum_norm_solution(setting->train);
    }
    declare(s, probe, record);
}

static void destroy(struct probe *probe)
{
    struct collapse *s = probe->state;
    dmat_destroy(&s->solution);
    memory_free(s->compression);
    memory_free(s->count);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- measuring */

static double theory_of(const struct collapse *s, int l)
{
    return s->inputs * pow(s->factor, l);
}

static void put_fit(const struct probe *probe, const struct collapse *s)
{
    const double L = s->depth, centre = (L - 1) / 2;
    double mean = 0, slope = 0, spread = 0;
    for (int l = 0; l < s->depth; l++) mean += log(s->compression[l]) / L;
    for (int l = 0; l < s->depth; l++) {
        slope += (l - centre) * (log(s->compression[l]) - mean);
        spread += (l - centre) * (l - centre);
    }
    slope /= spread;
    if (!isfinite(slope)) return; /* one layer, or a number that is 0 or missing */
    record_put_at(probe->group, s->q_fit, 0, slope);
    record_put_at(probe->group, s->q_fit, 1, mean - slope * centre);
}

static void put_features(const struct probe *probe, struct collapse *s, const struct moment *moment)
{
    struct collapse_layer *layer = NEW(struct collapse_layer, s->depth);
    struct collapse_head head;
    struct record_group *g = probe->group;
    collapse_features(moment, s->count, layer, &head);
    for (int l = 0; l < s->depth; l++) {
        s->compression[l] = layer[l].compression;
        record_put_at(g, s->q_compression, l, layer[l].compression);
        record_put_at(g, s->q_discrimination, l, layer[l].discrimination);
        record_put_at(g, s->q_nc1, l, layer[l].nc1);
        record_put_at(g, s->q_equinorm, l, layer[l].equinorm);
        record_put_at(g, s->q_equiangular, l, layer[l].equiangular);
        if (!isnan(s->factor)) record_put_at(g, s->q_theory, l, theory_of(s, l));
    }
    record_put_at(g, s->q_quotient, 0, head.quotient);
    record_put_at(g, s->q_norm_cv, 0, head.norm_cv);
    record_put_at(g, s->q_simplex, 0, head.simplex);
    record_put_at(g, s->q_nc3, 0, head.head_simplex);
    record_put_at(g, s->q_dual, 0, head.self_duality);
    record_put_at(g, s->q_nc4, 0, head.disagreement);
    record_put_at(g, s->q_agreement, 0, 1 - head.disagreement);
    put_fit(probe, s);
    memory_free(layer);
}

static double imbalance(const struct dmat *below, const struct dmat *above)
{
    struct dmat *A = dmat_create(below->grid, below->m, below->m);
    dmat_gemm('N', 'T', 1, below, below, 0, A);
    dmat_gemm('T', 'N', -1, above, above, 1, A);
    const double norm = dmat_norm(A);
    dmat_destroy(&A);
    return norm;
}

static void put_middle(const struct probe *probe, const struct collapse *s, const struct model *model)
{
    int64_t stride = 0;
    for (int l = 0; l <= s->depth; l++) stride = model->width[l] > stride ? model->width[l] : stride;
    double *sigma = NEW(double, s->depth *stride);
    factor_singular_values((const struct dmat *const *)model->params->W, s->depth, sigma, to_int(stride));
    for (int l = 0; l < s->depth; l++) {
        const struct dmat *W = model->params->W[l];
        const int64_t d = W->m < W->n ? W->m : W->n, K = s->classes;
        const double *value = sigma + l * stride;
        if (d > 2 * K) record_put_at(probe->group, s->q_middle, l, value[K] - value[d - K - 1]);
    }
    memory_free(sigma);
}

/* ‖α W_L … W_1 − Y X⁺‖_F; all products have K rows. */
static double distance_to_solution(const struct collapse *s, const struct model *model)
{
    const struct dmat *last = model->params->W[s->depth - 1];
    struct dmat *product = dmat_create(model->grid, last->m, last->n);
    dmat_copy(product, last);
    for (int l = s->depth - 2; l >= 0; l--) {
        struct dmat *next = dmat_create(model->grid, last->m, model->width[l]);
        dmat_gemm('N', 'N', 1, product, model->params->W[l], 0, next);
        dmat_destroy(&product);
        product = next;
    }
    dmat_scale(product, s->scale);
    dmat_axpy(product, -1, s->solution);
    const double distance = dmat_norm(product);
    dmat_destroy(&product);
    return distance;
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct collapse *s = probe->state;
    struct dmat *const *W = moment->model->params->W;
    s->loss = moment->loss * s->to_mean;
    put_features(probe, s, moment);
    for (int l = 0; l + 1 < s->depth; l++) record_put_at(probe->group, s->q_balance, l, imbalance(W[l], W[l + 1]));
    if (s->full) put_middle(probe, s, moment->model);
    if (s->solution) record_put_at(probe->group, s->q_solution, 0, distance_to_solution(s, moment->model));
}

/* ---------------------------------------------------------------- afterwards */

/* The full spectra, which cost the most where they are asked for; `plan` does not count passes over the data. */
static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct collapse *s = probe->state;
    need->count = s->full ? s->depth : 0;
    need->passes = 2;
    need->solve = NEW(struct probe_solve, need->count);
    for (int k = 0; k < need->count; k++) {
        const int64_t m = model->width[k + 1], n = model->width[k];
        need->solve[k] = (struct probe_solve){.m = m, .n = n, .elements = m * n, .factors = 1};
    }
}

static void check_one(const struct probe *probe, struct record *record, const char *what, double measured, double bound,
                      bool passed)
{
    char *name = memory_text("%s: %s", probe->name, what);
    record_check(record, name, law, measured, bound, passed);
    memory_free(name);
}

/* At convergence the measured values lie below the closed form: of the N − K directions within the classes, K shrink
 * below ε (all of them vanish at worst: (N − 2K)/(N − K) is left), and the class means grow a little more (one per
 * cent is allowed for it). */
static void check(const struct probe *probe, struct record *record)
{
    const struct collapse *s = probe->state;
    if (isnan(s->inputs) || isnan(s->loss)) return;
    const double error = fabs(s->compression[0] / s->inputs - 1);
    check_one(probe, record, "relative error of the compression of the inputs, (N - K)/(K - 1)", error, 1e-10,
              error <= 1e-10);
    const double floor = NO_FLOOR * theory_of(s, s->depth - 1) / (double)s->classes;
    if (isnan(s->factor) || !(s->loss <= CONVERGED && s->loss <= floor * s->scale * s->scale)) return;
    double least = INFINITY, largest = 0;
    for (int l = 1; l < s->depth; l++) {
        least = fmin(least, s->compression[l] / theory_of(s, l));
        largest = fmax(largest, s->compression[l] / theory_of(s, l));
    }
    const double bound = 0.99 * (double)(s->samples - 2 * s->classes) / (double)(s->samples - s->classes);
    check_one(probe, record, "smallest compression / closed form, at least", least, bound, least >= bound);
    check_one(probe, record, "largest compression / closed form, at most", largest, 1, largest <= 1);
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct collapse *s = probe->state;
    const char *name = probe->name;
    const int last = s->depth - 1;
    log_say("  %s (last step)", name);
    for (int l = 0; l <= last; l++)
        log_say("    features of layer %d: compression %.4g, discrimination %.4g, NC1 %.4g", l,
                record_last(record, name, "compression", l), record_last(record, name, "discrimination", l),
                record_last(record, name, "nc1", l));
    log_say("    the last ones: NC2 %.3g (norms) and %.3g (angles), NC3 %.3g (simplex) and %.3g (dual), NC4 %.3g",
            record_last(record, name, "nc2_equinorm", last), record_last(record, name, "nc2_equiangular", last),
            record_last(record, name, "nc3", 0), record_last(record, name, "nc3_dual", 0),
            record_last(record, name, "nc4", 0));
    const double slope = record_last(record, name, "compression_fit", 0);
    if (isfinite(slope)) log_say("    compression falls by a factor %.4g a layer", exp(slope));
}

const struct probe_kind probe_collapse = {.name = "collapse",
                                          .create = create,
                                          .measure = measure,
                                          .need = need,
                                          .check = check,
                                          .summary = summary,
                                          .destroy = destroy};
