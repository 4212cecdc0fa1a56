/* spectrum: singular values of weights, gradients, updates or the end-to-end product, and the ranks that follow. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/basis.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "probes/probe.h"

#include <math.h>
#include <stdio.h>

extern const struct probe_kind probe_spectrum;

struct spectrum {
    enum probe_of of;
    bool full;
    int depth;      /* of the network */
    int count;      /* matrices: depth, or 1 for the product */
    int width;      /* largest number of singular values of a matrix that are measured */
    int *rank;      /* [count] number that is measured of each; owned */
    int64_t *least; /* [count] min(m, n); owned */
    double tolerance;
    int64_t max_products;
    struct triplets **triplets; /* [count] of the last measurement (not for full), owned; NULL before the first */
    double *sigma;              /* [count × width], owned */
    int q_value, q_residual, q_converged, q_products, q_norm, q_stable, q_effective, q_share, q_numerical, q_count,
        q_alignment; /* in the record */
};

/* Where the trailing values begin to matter: smallest number of values that carry this share of their sum. */
static const double NUMERICAL_RANK_SHARE = 0.95, COUNT_SHARE = 0.9;

/* Neighbouring layers are compared by so many leading vectors. */
enum { ALIGNED = 10 };

static const char yunis[] = "Yunis et al., arXiv 2408.11804";

static void declare_shares(struct spectrum *s, struct record_group *g)
{
    s->q_share = record_quantity(g, &(struct quantity){.name = "effective_rank_share",
                                                       .units = "1",
                                                       .long_name = "effective rank over the largest possible",
                                                       .formula = "effective_rank / min(m, n)",
                                                       .reference = yunis,
                                                       .dims = {"layer"}});
    s->q_count = record_quantity(
        g,
        &(struct quantity){
            .name = "sv_count",
            .units = "1",
            .long_name = "singular values that carry nine tenths of their sum",
            .formula =
                "smallest k with sum_{i<=k} sigma_i > 0.9 sum_i sigma_i; NaN unless all singular values are measured",
            .reference = yunis,
            .dims = {"layer"}});
}

/* Whether neighbouring layers have their leading vectors compared. */
static bool aligns(const struct spectrum *s)
{
    return s->of == PROBE_OF_WEIGHTS && !s->full && s->count > 1;
}

static void declare_alignment(struct spectrum *s, struct record_group *g)
{
    record_dimension(g, "interface", s->count - 1, "between layers l and l + 1");
    s->q_alignment = record_quantity(
        g,
        &(struct quantity){
            .name = "layer_alignment",
            .units = "1",
            .long_name = "alignment of the leading singular vectors of neighbouring layers; of random ones about "
                         "sqrt(2/(pi n)); single entries mean nothing where singular values are equal",
            .formula = "mean of |<v_i(W_(l+1)), u_i(W_l)>| over the first 10 i, or all if there are fewer; NaN unless "
                       "so many are measured",
            .reference = yunis,
            .dims = {"interface"}});
}

static void declare(struct spectrum *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group = record_group(record, probe->name, "step", "singular values");
    record_group_text(g, "kind", "spectrum");
    record_group_text(g, "of", probe_of_word(s->of));
    record_dimension(g, "layer", s->count, s->of == PROBE_OF_PRODUCT ? "end-to-end product" : "layer, 1 is the first");
    record_dimension(g, "index", s->width, "singular value, 1 is the largest");
    s->q_value = record_quantity(g, &(struct quantity){.name = "singular_value",
                                                       .units = "1",
                                                       .long_name = "singular value",
                                                       .formula = "sigma_i(W_l)",
                                                       .dims = {"layer", "index"}});
    s->q_converged = record_quantity(g, &(struct quantity){.name = "converged",
                                                           .units = "1",
                                                           .integer = true,
                                                           .long_name = "leading singular values that are converged",
                                                           .dims = {"layer"}});
    s->q_norm = record_quantity(g, &(struct quantity){.name = "frobenius_norm",
                                                      .units = "1",
                                                      .long_name = "Frobenius norm",
                                                      .formula = "sqrt(sum_ij W_ij^2)",
                                                      .dims = {"layer"}});
    s->q_stable = record_quantity(g, &(struct quantity){.name = "stable_rank",
                                                        .units = "1",
                                                        .long_name = "stable rank",
                                                        .formula = "|W|_F^2 / sigma_1^2",
                                                        .dims = {"layer"}});
    s->q_effective = record_quantity(
        g,
        &(struct quantity){
            .name = "effective_rank",
            .units = "1",
            .long_name = "effective rank",
            .formula =
                "exp(-sum_i p_i log p_i), p_i = sigma_i / sum_j sigma_j; NaN unless all singular values are measured",
            .reference = "Roy and Vetterli, EUSIPCO 2007",
            .dims = {"layer"}});
    s->q_numerical = record_quantity(
        g,
        &(struct quantity){
            .name = "numerical_rank",
            .units = "1",
            .long_name = "numerical rank",
            .formula =
                "smallest k with sum_{i<=k} sigma_i >= 0.95 sum_i sigma_i; NaN unless all singular values are measured",
            .reference = "arXiv 2306.01154",
            .dims = {"layer"}});
    declare_shares(s, g);
    if (s->full) return;
    if (aligns(s)) declare_alignment(s, g);
    s->q_residual =
        record_quantity(g, &(struct quantity){.name = "residual",
                                              .units = "1",
                                              .long_name = "residual of the singular triplet, relative to sigma_1",
                                              .formula = "sqrt(|W v - sigma u|^2 + |W^T u - sigma v|^2) / sigma_1",
                                              .dims = {"layer", "index"}});
    s->q_products = record_quantity(g, &(struct quantity){.name = "products",
                                                          .units = "1",
                                                          .integer = true,
                                                          .long_name = "products with the matrix or its transpose",
                                                          .dims = {"layer"}});
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    struct spectrum *s = probe->state = NEW(struct spectrum, 1);
    s->of = probe_of(spec_text(spec, KEY("of")));
    s->full = spec_is(spec, KEY("rank"), "full");
    s->tolerance = spec_real(spec, KEY("tolerance"));
    s->max_products = spec_int(spec, KEY("max_products"));
    s->depth = model->depth;
    s->count = s->of == PROBE_OF_PRODUCT ? 1 : model->depth;
    s->rank = NEW(int, s->count);
    s->least = NEW(int64_t, s->count);
    s->triplets = NEW(struct triplets *, s->count);
    int64_t largest = 0;
    for (int k = 0; k < s->count; k++) {
        const int64_t m = s->of == PROBE_OF_PRODUCT ? model->width[model->depth] : model->width[k + 1];
        s->least[k] = m < model->width[k] ? m : model->width[k];
        if (s->least[k] > largest) largest = s->least[k];
    }
    const int64_t asked = s->full ? largest : spec_int(spec, KEY("rank"));
    if (asked > largest)
        spec_problem(spec, problems, KEY("rank"), "is %lld, but no matrix has more than %lld singular values",
                     (long long)asked, (long long)largest);
    for (int k = 0; k < s->count; k++) s->rank[k] = to_int(asked < s->least[k] ? asked : s->least[k]);
    if (s->full && s->of == PROBE_OF_PRODUCT)
        spec_problem(spec, problems, KEY("rank"), "the product is never formed: give a number (at most %lld)",
                     (long long)largest);
#undef KEY
    s->width = to_int(asked < largest ? asked : largest);
    s->sigma = NEW(double, (int64_t)s->count * s->width);
    probe->needs_previous = s->of == PROBE_OF_UPDATE;
    declare(s, probe, record);
}

static void destroy(struct probe *probe)
{
    struct spectrum *s = probe->state;
    for (int k = 0; k < s->count; k++) triplets_destroy(&s->triplets[k]);
    memory_free(s->triplets);
    memory_free(s->rank);
    memory_free(s->least);
    memory_free(s->sigma);
    memory_free(s);
    probe->state = NULL;
}

/* Leading values of matrix k by Krylov iteration, warm-started. */
static void solve(const struct probe *probe, struct spectrum *s, int k, const struct linop *A)
{
    if (!s->triplets[k]) s->triplets[k] = triplets_create(A, s->rank[k]);
    struct triplets *T = s->triplets[k];
    const struct krylov_options options = {.tolerance = s->tolerance,
                                           .max_products = s->max_products,
                                           .seed = probe->seed,
                                           .stream = RANDOM_KRYLOV + (uint64_t)k};
    krylov_svd(A, &options, T);
    for (int i = 0; i < s->rank[k]; i++) {
        s->sigma[k * s->width + i] = T->sigma[i];
        record_put_at(probe->group, s->q_residual, (int64_t)k * s->width + i, T->residual[i]);
    }
    record_put_int_at(probe->group, s->q_products, k, T->products);
    record_put_int_at(probe->group, s->q_converged, k, T->converged);
}

static void put_ranks(const struct probe *probe, const struct spectrum *s, int k, double norm)
{
    const double *sigma = s->sigma + (int64_t)k * s->width;
    record_put_at(probe->group, s->q_norm, k, norm);
    if (!(sigma[0] > 0)) return;
    record_put_at(probe->group, s->q_stable, k, norm * norm / (sigma[0] * sigma[0]));
    if (s->rank[k] < s->least[k]) return;
    double sum = 0, entropy = 0, part = 0;
    int rank = 0, count = 0;
    for (int i = 0; i < s->rank[k]; i++) sum += sigma[i];
    for (int i = 0; i < s->rank[k]; i++) {
        const double p = sigma[i] / sum;
        if (p > 0) entropy -= p * log(p);
        if (part < NUMERICAL_RANK_SHARE * sum) rank++;
        if (part <= COUNT_SHARE * sum) count++;
        part += sigma[i];
    }
    record_put_at(probe->group, s->q_effective, k, exp(entropy));
    record_put_at(probe->group, s->q_share, k, exp(entropy) / (double)s->least[k]);
    record_put_at(probe->group, s->q_count, k, isfinite(sum) ? count : NAN);
    record_put_at(probe->group, s->q_numerical, k, isfinite(sum) ? rank : NAN);
}

static void put_values(const struct probe *probe, const struct spectrum *s)
{
    for (int k = 0; k < s->count; k++)
        for (int i = 0; i < s->rank[k]; i++)
            record_put_at(probe->group, s->q_value, (int64_t)k * s->width + i, s->sigma[k * s->width + i]);
}

/* The operator whose triplets number k are: of the layout of W, whatever the probe is of. */
static struct linop *operator_of(const struct spectrum *s, const struct model *model, int k)
{
    if (s->of != PROBE_OF_PRODUCT) return linop_of_matrix(model->params->W[k]);
    return linop_of_product((const struct dmat *const *)model->params->W, s->depth);
}

static void measure_product(struct probe *probe, const struct moment *moment)
{
    struct spectrum *s = probe->state;
    struct linop *A = operator_of(s, moment->model, 0);
    solve(probe, s, 0, A);
    linop_destroy(&A);
    put_ranks(probe, s, 0, NAN); /* its Frobenius norm would need the product itself */
}

static void measure_layers(struct probe *probe, const struct moment *moment)
{
    struct spectrum *s = probe->state;
    const struct dmat **A = NEW(const struct dmat *, s->count);
    struct dmat **owned = NEW(struct dmat *, s->count);
    for (int k = 0; k < s->count; k++) A[k] = probe_matrix(moment, s->of, k + 1, &owned[k]);
    if (s->full) factor_singular_values(A, s->count, s->sigma, s->width);
    for (int k = 0; k < s->count; k++) {
        if (s->full) {
            record_put_int_at(probe->group, s->q_converged, k, s->rank[k]);
        } else {
            struct linop *L = linop_of_matrix(A[k]);
            solve(probe, s, k, L);
            linop_destroy(&L);
        }
        put_ranks(probe, s, k, dmat_norm(A[k]));
        dmat_destroy(&owned[k]);
    }
    memory_free(owned);
    memory_free(A);
}

/* Between matrices k and k + 1; NaN if the vectors are not there. */
static double alignment_of(const struct spectrum *s, MPI_Comm comm, int k)
{
    const struct triplets *below = s->triplets[k], *above = s->triplets[k + 1];
    const int64_t most = s->least[k] < s->least[k + 1] ? s->least[k] : s->least[k + 1];
    const int count = most < ALIGNED ? to_int(most) : ALIGNED;
    if (below->converged < count || above->converged < count) return NAN;
    const struct basis U = {comm, below->m, count, below->mloc, below->left, below->row};
    const struct basis V = {comm, above->n, count, above->nloc, above->right, above->col};
    double *overlap = NEW(double, count *count), sum = 0;
    basis_overlap(&U, &V, overlap);
    for (int i = 0; i < count; i++) sum += fabs(overlap[i + i * count]) / count;
    memory_free(overlap);
    return sum;
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    const struct spectrum *s = probe->state;
    if (s->of == PROBE_OF_UPDATE && !moment->previous) return; /* no update yet: the row stays NaN */
    if (s->of == PROBE_OF_PRODUCT)
        measure_product(probe, moment);
    else
        measure_layers(probe, moment);
    for (int k = 0; aligns(s) && k + 1 < s->count; k++)
        record_put_at(probe->group, s->q_alignment, k, alignment_of(s, moment->model->grid->comm, k));
    put_values(probe, s);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct spectrum *s = probe->state;
    for (int k = 0; k < s->count && !s->full; k++) {
        char name[32];
        snprintf(name, sizeof name, "triplets_%d", k + 1);
        struct linop *A = operator_of(s, model, k);
        triplets_archive(&s->triplets[k], A, s->rank[k], name, archive);
        linop_destroy(&A);
    }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct spectrum *s = probe->state;
    need->count = s->count;
    need->solve = NEW(struct probe_solve, s->count);
    need->copies = s->of == PROBE_OF_UPDATE;
    for (int k = 0; k < s->count; k++) {
        const bool product = s->of == PROBE_OF_PRODUCT;
        const int last = product ? model->depth : k + 1;
        struct probe_solve *solve = &need->solve[k];
        *solve = (struct probe_solve){.m = model->width[last],
                                      .n = model->width[k],
                                      .factors = last - k,
                                      .rank = s->full ? 0 : s->rank[k],
                                      .kept = s->full ? 0 : 1,
                                      .tolerance = s->tolerance,
                                      .bulk = probe_bulk(s->of)};
        for (int l = k + 1; l <= last; l++) solve->elements += model->width[l] * model->width[l - 1];
    }
}

static void snapshot(const struct probe *probe, struct h5 *file)
{
    const struct spectrum *s = probe->state;
    for (int k = 0; k < s->count; k++)
        if (s->triplets[k]) probe_write_triplets(s->triplets[k], file, probe->name, k + 1);
}

/* "; NAME value" if the value is there. */
static int append(char *text, size_t size, int at, const char *name, double value)
{
    return isfinite(value) ? at + snprintf(text + at, size - (size_t)at, "; %s %.4g", name, value) : at;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct spectrum *s = probe->state;
    log_say("  %s (last step)", probe->name);
    for (int k = 0; k < s->count; k++) {
        char text[192] = "";
        int at = 0;
        for (int i = 0; i < 4 && i < s->rank[k]; i++)
            at += snprintf(text + at, sizeof text - (size_t)at, " %.4g",
                           record_last(record, probe->name, "singular_value", (int64_t)k * s->width + i));
        at = append(text, sizeof text, at, "stable rank", record_last(record, probe->name, "stable_rank", k));
        append(text, sizeof text, at, "effective rank", record_last(record, probe->name, "effective_rank", k));
        if (s->of == PROBE_OF_PRODUCT)
            log_say("    end-to-end product: leading singular values%s", text);
        else
            log_say("    layer %d: leading singular values%s", k + 1, text);
    }
}

const struct probe_kind probe_spectrum = {.name = "spectrum",
                                          .create = create,
                                          .measure = measure,
                                          .snapshot = snapshot,
                                          .archive = archive,
                                          .need = need,
                                          .summary = summary,
                                          .destroy = destroy};
