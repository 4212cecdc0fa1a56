/* classes: the class and cross-class structure of the Gauss–Newton matrix of a softmax classifier (Papyan, ICML 2019,
 * arXiv 1901.08244): of δ_{cc'} (net/rop_classes.h), with δ_c the mean of δ_{cc'} over c' ≠ c and w_c the shares of the
 * classes,
 *     G_0 = Σ_c w_c δ_cc δ_ccᵀ                              G_1 = (C − 1) Σ_c w_c δ_c δ_cᵀ
 *     G_2 = Σ_c w_c Σ_{c' ≠ c} (δ_cc' − δ_c)(δ_cc' − δ_c)ᵀ    G_12 = Σ_{c,c'} w_c δ_cc' δ_cc'ᵀ = G_0 + G_1 + G_2
 * and GGN = G_12 + G_3 with G_3 the covariance within the classes. Their eigenvalues are those of small Gram matrices;
 * no matrix of the size of the parameters is formed. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/basis.h"
#include "dist/random.h"
#include "net/rop_classes.h"
#include "probes/probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_classes;

static const char papyan[] = "Papyan, ICML 2019 (arXiv 1901.08244)";

enum { MATRICES = 4, SPACES = 2 };

/* The Gram matrix of the C² vectors is solved whole on every rank. */
enum { MOST_CLASSES = 20 };

/* Eigenvalues above this share of the largest count for the rank. */
static const double RANK_CUT = 1e-10;

struct state {
    struct loss loss;
    int classes;      /* C */
    int rank;         /* j: pairs of the Hessian; 0: none */
    double tolerance; /* of these */
    int64_t max_products, chunk;
    double ridge;
    int64_t parameters;       /* P of the whole network */
    struct eigenpairs *pairs; /* of the last measurement, owned; NULL before the first */
    int q_value, q_rank, q_trace, q_ggn, q_share, q_alignment; /* in the record */
    int q_hessian, q_residual, q_converged, q_products, q_gap;
};

/* ---------------------------------------------------------------- life */

static void declare(struct state *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "class structure of the Gauss-Newton matrix on the training set");
    record_group_text(g, "kind", "classes");
    char text[32];
    snprintf(text, sizeof text, "%.17g", s->ridge);
    record_group_text(g, "ridge_shift", text);
    record_group_text(
        g, "notation",
        "delta_cc' = mean over the samples of class c of sqrt(pi_c') J^T (e_c' - pi), pi the softmax of "
        "the outputs; delta_c = mean over c' != c of delta_cc'; w_c the share of class c; G0 = sum_c w_c "
        "delta_cc delta_cc^T, G1 = (C-1) sum_c w_c delta_c delta_c^T, G2 = sum_c w_c sum_(c'!=c) "
        "(delta_cc' - delta_c)(delta_cc' - delta_c)^T, G12 = G0 + G1 + G2; GGN = G12 + within-class part");
    record_dimension(g, "matrix", MATRICES, "1 G0, 2 G1, 3 G2, 4 G12");
    record_dimension(g, "index", (int64_t)s->classes * s->classes, "eigenvalue, 1 is the largest");
    record_dimension(g, "space", SPACES, "range of 1 G1, 2 G12");
    s->q_value = record_quantity(
        g, &(struct quantity){.name = "class_eigenvalue",
                              .units = "1",
                              .long_name = "eigenvalue of a class matrix; NaN beyond its number of vectors "
                                           "(C, C, C(C-1), C^2)",
                              .reference = papyan,
                              .dims = {"matrix", "index"}});
    s->q_rank = record_quantity(g, &(struct quantity){.name = "class_rank",
                                                      .units = "1",
                                                      .integer = true,
                                                      .long_name = "eigenvalues above 1e-10 of the largest",
                                                      .dims = {"matrix"}});
    s->q_trace = record_quantity(
        g, &(struct quantity){
               .name = "class_trace", .units = "1", .long_name = "trace of a class matrix", .dims = {"matrix"}});
    s->q_ggn = record_quantity(g, &(struct quantity){.name = "ggn_trace",
                                                     .units = "1",
                                                     .long_name = "trace of the Gauss-Newton matrix, exact",
                                                     .formula = "(1/N) sum_i sum_c' |delta_ic'|^2"});
    s->q_share =
        record_quantity(g, &(struct quantity){.name = "class_trace_share",
                                              .units = "1",
                                              .long_name = "share of the class means in the Gauss-Newton trace",
                                              .formula = "tr G12 / tr GGN",
                                              .reference = papyan});
}

static void declare_hessian(struct state *s, struct record_group *g)
{
    record_dimension(g, "pair", s->rank, "eigenpair of the Hessian, 1 is the largest");
    s->q_alignment = record_quantity(
        g, &(struct quantity){.name = "class_alignment",
                              .units = "1",
                              .long_name = "how much of the range of a class matrix lies in the leading eigenspace of "
                                           "the Hessian",
                              .formula = "|P Q|_F^2 / rank, P the projector on the leading `pair` eigenvectors, Q an "
                                         "orthonormal basis of the range",
                              .reference = papyan,
                              .dims = {"space"}});
    s->q_hessian = record_quantity(g, &(struct quantity){.name = "hessian_eigenvalue",
                                                         .units = "1",
                                                         .long_name = "leading eigenvalue of the Hessian",
                                                         .dims = {"pair"}});
    s->q_residual = record_quantity(g, &(struct quantity){.name = "hessian_residual",
                                                          .units = "1",
                                                          .long_name = "residual of the eigenpair",
                                                          .formula = "|H v - theta v| / largest modulus seen",
                                                          .dims = {"pair"}});
    s->q_converged = record_quantity(g, &(struct quantity){.name = "hessian_converged",
                                                           .units = "1",
                                                           .integer = true,
                                                           .long_name = "leading pairs that are converged"});
    s->q_products = record_quantity(
        g, &(struct quantity){
               .name = "hessian_products", .units = "1", .integer = true, .long_name = "Hessian-vector products"});
    s->q_gap = record_quantity(g, &(struct quantity){.name = "hessian_gap",
                                                     .units = "1",
                                                     .long_name = "gap behind the leading eigenspace; where it is not "
                                                                  "large beside the tolerance the space is not defined",
                                                     .formula = "(theta_k - theta_(k+1)) / |theta_1|"});
}

static void check(const struct probe *probe, const struct state *s, const struct setting *setting,
                  struct problems *problems)
{
    char key[128];
    snprintf(key, sizeof key, "%s.kind", probe->key);
    if (s->loss.kind != LOSS_CROSS_ENTROPY || (setting->train && !setting->train->classification))
        spec_problem(setting->spec, problems, key,
                     "'classes' is defined for loss.kind: cross_entropy and one-hot targets (images, a mixture, "
                     "data.targets: classes)");
    else if (s->classes < 2 || s->classes > MOST_CLASSES)
        spec_problem(setting->spec, problems, key,
                     "'classes' keeps C² vectors as long as the parameters: it takes 2 to %d classes, here are %d",
                     MOST_CLASSES, s->classes);
    snprintf(key, sizeof key, "%s.rank", probe->key);
    if (s->rank > s->parameters)
        spec_problem(setting->spec, problems, key, "is %d, but the network has only %lld parameters", s->rank,
                     (long long)s->parameters);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    struct state *s = probe->state = NEW(struct state, 1);
    s->loss = loss_of(spec);
    s->parameters = model_parameters(model);
    const int64_t classes = model->width[model->depth];
    s->classes = classes <= MOST_CLASSES ? (int)classes : MOST_CLASSES + 1;
    s->rank = s->classes < s->parameters ? s->classes : to_int(s->parameters);
    if (spec_is(spec, KEY("rank"), "none"))
        s->rank = 0;
    else if (!spec_is(spec, KEY("rank"), "auto"))
        s->rank = to_int(spec_int(spec, KEY("rank")));
    s->tolerance = spec_real(spec, KEY("tolerance"));
    s->max_products = spec_int(spec, KEY("max_products"));
#undef KEY
    s->chunk = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    s->ridge = spec_real(spec, "train.weight_decay");
    check(probe, s, setting, problems);
    declare(s, probe, record);
    if (s->rank > 0) declare_hessian(s, probe->group);
}

static void destroy(struct probe *probe)
{
    struct state *s = probe->state;
    eigenpairs_destroy(&s->pairs);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- Gram matrices */

/* overlap[i + j·a] = ⟨A_i, B_j⟩ of distributed vectors, on every rank; owned by the caller. */
static double *inner_products(const struct state *s, const struct grid *grid, int nloc, int a, const double *A, int b,
                              const double *B)
{
    const struct basis U = {.comm = grid->comm, .n = s->parameters, .k = a, .nloc = nloc, .local = A};
    const struct basis V = {.comm = grid->comm, .n = s->parameters, .k = b, .nloc = nloc, .local = B};
    double *overlap = NEW(double, (int64_t)a *b);
    basis_inner(&U, &V, overlap);
    return overlap;
}

static double dot(int n, const double *x, const double *y)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* A matrix Σ_k x_k x_kᵀ by its vectors x_k = Σ_q T_qk δ_q, T [C² × count]. */
struct combination {
    int count;
    double *T; /* owned */
};

static struct combination combine(int matrix, int C, const double *w)
{
    const int own = matrix == 0, n = C * C;
    struct combination x = {.count = matrix < 2 ? C : matrix == 2 ? C * (C - 1) : n};
    x.T = NEW(double, (int64_t)x.count *n);
    double *column = x.T;
    for (int c = 0; c < C; c++) {
        const double root = sqrt(w[c]), others = C - 1;
        if (own) {
            column[c * C + c] = root;
            column += n;
        } else if (matrix == 1) {
            for (int d = 0; d < C; d++) column[c * C + d] = d == c ? 0 : root / sqrt(others);
            column += n;
        }
        for (int k = 0; matrix >= 2 && k < C; k++) {
            if (matrix == 2 && k == c) continue;
            for (int d = 0; matrix == 2 && d < C; d++) column[c * C + d] = d == c ? 0 : -root / others;
            column[c * C + k] += root;
            column += n;
        }
    }
    return x;
}

/* X T for a matrix X (rows × inner); owned by the caller. */
static double *times(int rows, int inner, const double *X, const struct combination *x)
{
    double *product = NEW(double, (int64_t)rows * x->count);
    for (int k = 0; k < x->count; k++)
        for (int q = 0; q < inner; q++) {
            const double t = x->T[q + k * inner];
            for (int i = 0; t != 0 && i < rows; i++) product[i + k * rows] += X[i + q * rows] * t;
        }
    return product;
}

/* Tᵀ M T; owned by the caller. */
static double *gram_of(int n, const double *M, const struct combination *x)
{
    double *MT = times(n, n, M, x), *G = NEW(double, (int64_t)x->count * x->count);
    for (int j = 0; j < x->count; j++)
        for (int i = 0; i < x->count; i++) G[i + j * x->count] = dot(n, x->T + i * n, MT + j * n);
    memory_free(MT);
    return G;
}

/* ‖P Q‖_F² / rank from the products of the eigenvectors with all δ (along [j × C²], or NULL). With x_k = X v_k / √λ_k
 * an orthonormal basis of the range. */
static double alignment_of(const struct state *s, const struct combination *x, const double *value, const double *V,
                           int rank, const double *along)
{
    double *seen = times(s->rank, s->classes * s->classes, along, x), sum = 0;
    for (int k = 0; k < rank; k++) {
        const int column = x->count - 1 - k; /* ascending */
        for (int e = 0; e < s->rank; e++) {
            double part = 0;
            for (int q = 0; q < x->count; q++) part += seen[e + q * s->rank] * V[q + column * x->count];
            sum += part * part / value[column];
        }
    }
    memory_free(seen);
    return rank > 0 ? sum / rank : NAN;
}

static void put_matrix(struct probe *probe, const struct state *s, int matrix, const struct class_sums *sums,
                       const double *M, const double *along)
{
    const int n = s->classes * s->classes;
    struct combination x = combine(matrix, s->classes, sums->share);
    double *G = gram_of(n, M, &x), *value = NEW(double, (int64_t)x.count *(x.count + 1)), *V = value + x.count;
    double trace = 0;
    int64_t rank = 0;
    for (int i = 0; i < x.count; i++) trace += G[i + i * x.count];
    factor_local_eigenpairs(x.count, G, value, V);
    for (int i = 0; i < x.count; i++) {
        const double found = value[x.count - 1 - i];
        record_put_at(probe->group, s->q_value, (int64_t)matrix * n + i, found);
        rank += found > RANK_CUT * value[x.count - 1];
    }
    record_put_int_at(probe->group, s->q_rank, matrix, rank);
    record_put_at(probe->group, s->q_trace, matrix, trace);
    if (matrix == 3) record_put_at(probe->group, s->q_share, 0, trace / sums->trace);
    if (along && (matrix == 1 || matrix == 3))
        record_put_at(probe->group, s->q_alignment, matrix / 2, alignment_of(s, &x, value, V, to_int(rank), along));
    memory_free(value);
    memory_free(G);
    memory_free(x.T);
}

/* ---------------------------------------------------------------- measuring */

/* Leading pairs of the Hessian; the products of the vectors with all δ, owned by the caller, or NULL if not all have
 * converged. */
static double *solve_hessian(struct probe *probe, struct state *s, struct rop *rop, const struct moment *moment,
                             const struct class_sums *sums)
{
    rop_set(rop, moment->model, moment->train);
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, s->ridge);
    if (!s->pairs) s->pairs = eigenpairs_create(H, s->rank, false);
    struct eigenpairs *E = s->pairs;
    krylov_eigen(
        H,
        &(struct krylov_options){
            .tolerance = s->tolerance, .max_products = s->max_products, .seed = probe->seed, .stream = RANDOM_KRYLOV},
        E);
    linop_destroy(&H);
    record_put(probe->group, s->q_hessian, E->lambda);
    record_put(probe->group, s->q_residual, E->residual);
    record_put_int_at(probe->group, s->q_converged, 0, E->converged);
    record_put_int_at(probe->group, s->q_products, 0, E->products);
    if (E->converged < s->rank) return NULL;
    record_put_at(probe->group, s->q_gap, 0, (E->lambda[s->rank - 1] - E->next) / fabs(E->lambda[0]));
    return inner_products(s, moment->model->grid, E->nloc, s->rank, E->vectors, s->classes * s->classes, sums->delta);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct state *s = probe->state;
    const int n = s->classes * s->classes;
    struct rop *rop = rop_create(moment->model, &s->loss, moment->train->samples, s->chunk);
    struct class_sums *sums = class_sums_create(rop, moment->model, moment->train);
    double *M = inner_products(s, moment->model->grid, sums->nloc, n, sums->delta, n, sums->delta);
    double *along = s->rank > 0 ? solve_hessian(probe, s, rop, moment, sums) : NULL;
    record_put_at(probe->group, s->q_ggn, 0, sums->trace);
    for (int matrix = 0; matrix < MATRICES; matrix++) put_matrix(probe, s, matrix, sums, M, along);
    memory_free(along);
    memory_free(M);
    class_sums_destroy(&sums);
    rop_destroy(&rop);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct state *s = probe->state;
    if (s->rank == 0) return;
    struct rop *rop = rop_create(model, &s->loss, 1, 0);
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, s->ridge);
    eigenpairs_archive(&s->pairs, H, s->rank, false, "pairs", archive);
    linop_destroy(&H);
    rop_destroy(&rop);
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct state *s = probe->state;
    (void)model;
    need->passes = 2 + 2 * s->classes; /* a backward pass costs about two forward ones */
    need->kept = krylov_eigen_kept(s->rank, 1);
    need->more = 1;
    need->most = krylov_eigen_kept(s->rank, INT64_MAX);
    need->work = s->classes * s->classes + 1;
    if (s->rank > 0) need->work += krylov_eigen_work(s->parameters, s->rank, 0);
    need->products = NEED_TRAIN;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct state *s = probe->state;
    static const char *const name[] = {"G0", "G1", "G2", "G12"};
    const int n = s->classes * s->classes;
    log_say("  %s (last step): tr G12 / tr GGN = %.4g", probe->name,
            record_last(record, probe->name, "class_trace_share", 0));
    for (int matrix = 0; matrix < MATRICES; matrix++)
        log_say("    %-3s rank %.0f, largest eigenvalues %.4g, %.4g", name[matrix],
                record_last(record, probe->name, "class_rank", matrix),
                record_last(record, probe->name, "class_eigenvalue", (int64_t)matrix * n),
                record_last(record, probe->name, "class_eigenvalue", (int64_t)matrix * n + 1));
    if (s->rank > 0)
        log_say("    %.4f of the range of G1 and %.4f of that of G12 lie in the leading %d eigenvectors of the Hessian",
                record_last(record, probe->name, "class_alignment", 0),
                record_last(record, probe->name, "class_alignment", 1), s->rank);
}

const struct probe_kind probe_classes = {.name = "classes",
                                         .create = create,
                                         .measure = measure,
                                         .archive = archive,
                                         .need = need,
                                         .summary = summary,
                                         .destroy = destroy};
