/* density: the spectral density of a curvature matrix B by stochastic Lanczos quadrature (Ghorbani, Krishnan and Xiao,
 * ICML 2019, arXiv 1901.10159), and what its quadrature tells of traces. Nodes and weights are stored as they are; the
 * smoothed density beside them is for drawing. */
#include "base/log.h"
#include "base/memory.h"
#include "density_private.h"
#include "dist/random.h"
#include "net/rop_classes.h"
#include "probes/probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_density;

static const char ghorbani[] = "Ghorbani, Krishnan and Xiao, ICML 2019 (arXiv 1901.10159)";

/* Nodes below minus this share of the largest count as negative. */
static const double NEGATIVE = 1e-8;

static const char *const operator_words[] = {"hessian", "ggn", "g", "g_centred"};
static const char *const vector_words[] = {"gaussian", "rademacher", "hadamard"};

enum start { START_GAUSSIAN, START_RADEMACHER, START_HADAMARD };

struct state {
    struct loss loss;
    enum rop_kind matrix;
    enum { OF_TRAIN, OF_TEST, OF_BATCH } of;
    enum start start;
    struct density_kernel kernel;
    double sigma; /* of the input; NaN: by the rule */
    double ridge;
    int64_t parameters, chunk; /* P, and columns at a time */
    int steps, vectors, points;
    double *node, *weight;   /* [vectors × steps] of the measurement; owned */
    double *grid, *density;  /* [points] owned */
    double *trace, *squares; /* [vectors] estimates of tr B and ‖B‖_F² by one vector; owned */
    int q_node, q_weight, q_steps, q_grid, q_density, q_sigma, q_trace, q_error, q_exact, q_squares, q_negative,
        q_products, q_remainder; /* in the record */
};

/* ---------------------------------------------------------------- life */

static int word_of(const struct spec *spec, const char *key, const char *const *words, int count)
{
    for (int i = 0; i < count; i++)
        if (spec_is(spec, key, words[i])) return i;
    bug("%s has another value than its words", key);
}

static int series(struct record_group *g, const char *name, const char *long_name, const char *formula,
                  const char *first, const char *second, bool integer)
{
    return record_quantity(g, &(struct quantity){.name = name,
                                                 .units = "1",
                                                 .long_name = long_name,
                                                 .formula = formula,
                                                 .reference = ghorbani,
                                                 .dims = {first, second},
                                                 .integer = integer});
}

static void declare(struct state *s, struct probe *probe, struct record *record)
{
    static const char *const of[] = {"training set", "test set", "batch"};
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "spectral density by stochastic Lanczos quadrature");
    record_group_text(g, "kind", "density");
    record_group_text(g, "operator", operator_words[s->matrix]);
    char text[32];
    snprintf(text, sizeof text, "%.17g", s->matrix == ROP_HESSIAN ? s->ridge : 0);
    record_group_text(g, "ridge_shift", text);
    record_group_text(g, "of", of[s->of]);
    record_group_text(g, "start_vectors", vector_words[s->start]);
    record_dimension(g, "vector", s->vectors, "start vector");
    record_dimension(g, "index", s->steps, "node, 1 is the smallest");
    record_dimension(g, "point", s->points, "point of the grid");
    s->q_node = series(g, "density_node", "node of the quadrature: eigenvalue of the tridiagonal matrix",
                       "theta_j; NaN beyond lanczos_steps", "vector", "index", false);
    s->q_weight = series(g, "density_weight", "weight of the node; one below 1/P is no eigenvalue count",
                         "U_1j^2; P sum_j U_1j^2 f(theta_j) estimates tr f(B)", "vector", "index", false);
    s->q_steps = series(g, "lanczos_steps", "steps from this start vector: fewer where its Krylov space ends", NULL,
                        "vector", NULL, true);
    s->q_grid = series(g, "density_grid", "where the smoothed density is given", NULL, "point", NULL, false);
    s->q_density = series(g, "density", "smoothed density",
                          "mean over vectors of sum_j weight_j N(x; node_j, density_sigma^2)", "point", NULL, false);
    s->q_sigma = record_number(g, "density_sigma", NULL, NULL, "width of the kernel",
                               density_rule_formula(s->kernel.rule), ghorbani);
    s->q_trace = record_number(g, "trace_estimate", NULL, NULL, "estimate of the trace",
                               "P mean_v sum_j weight_j node_j", ghorbani);
    s->q_error =
        record_number(g, "trace_std_error", NULL, NULL, "standard error of trace_estimate; NaN for a single vector",
                      "standard deviation over the vectors / sqrt(n_v)", ghorbani);
    s->q_exact =
        record_number(g, "trace_exact", NULL, NULL, "exact trace, without products; NaN where there is no exact form",
                      s->matrix == ROP_HESSIAN ? "none for a Hessian"
                      : s->matrix == ROP_GGN   ? "a backward pass for each output"
                                               : "(1/N) sum_i |g_i|^2, less |mean of g_i|^2 if centred",
                      ghorbani);
    s->q_squares = record_number(g, "frobenius_estimate", NULL, NULL, "estimate of the squared Frobenius norm",
                                 "P mean_v sum_j weight_j node_j^2", ghorbani);
    s->q_negative = record_number(g, "negative_mass", NULL, NULL, "share of the spectrum that is negative",
                                  "weight of nodes below -1e-8 times the largest, mean over vectors", ghorbani);
    if (s->matrix == ROP_HESSIAN)
        s->q_remainder =
            record_number(g, "remainder_share", NULL, NULL,
                          "share of what the Hessian has beyond the Gauss-Newton matrix, without weight decay",
                          "sqrt(mean_v |(H - GGN) v|^2 / mean_v |H v|^2), estimate of |H - GGN|_F/|H|_F", ghorbani);
    s->q_products = record_quantity(
        g,
        &(struct quantity){.name = "products", .units = "1", .integer = true, .long_name = "matrix-vector products"});
}

static const struct dataset *samples_of(const struct state *s, const struct dataset *train, const struct dataset *test,
                                        const struct dataset *batch)
{
    return s->of == OF_TRAIN ? train : s->of == OF_TEST ? test : batch;
}

static void check(const struct probe *probe, const struct state *s, const struct setting *setting,
                  struct problems *problems)
{
    char key[128];
    snprintf(key, sizeof key, "%s.of", probe->key);
    if (setting->train && s->of == OF_TEST && !setting->test)
        spec_problem(setting->spec, problems, key, "is test, but there are no held-out samples (data.test)");
    snprintf(key, sizeof key, "%s.operator", probe->key);
    if (setting->train && !rop_defined(&s->loss, setting->train, s->matrix))
        spec_problem(setting->spec, problems, key,
                     "'%s' is a matrix of the gradients of samples, which this loss or this data has not",
                     operator_words[s->matrix]);
    int64_t columns = 1;
    while (columns < s->parameters) columns *= 2;
    snprintf(key, sizeof key, "%s.vectors", probe->key);
    if (s->start == START_HADAMARD && s->vectors > columns)
        spec_problem(setting->spec, problems, key, "is %d, but the Hadamard matrix has only %lld columns", s->vectors,
                     (long long)columns);
}

static void read_kernel(struct state *s, const struct probe *probe, const struct spec *spec)
{
    static const char *const rules[] = {"variance", "kappa"};
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    s->kernel = (struct density_kernel){.rule = (enum density_rule)word_of(spec, KEY("kernel"), rules, 2),
                                        .steps = to_int(spec_int(spec, KEY("steps")))};
    s->sigma = spec_is(spec, KEY("sigma"), "auto") ? NAN : spec_real(spec, KEY("sigma"));
    s->points = s->kernel.rule == DENSITY_VARIANCE ? 10000 : 1000;
    if (!spec_is(spec, KEY("points"), "auto")) s->points = to_int(spec_int(spec, KEY("points")));
#undef KEY
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    static const char *const of[] = {"train", "test", "batch"};
    const struct spec *spec = setting->spec;
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    struct state *s = probe->state = NEW(struct state, 1);
    s->loss = loss_of(spec);
    s->matrix = (enum rop_kind)word_of(spec, KEY("operator"), operator_words, 4);
    s->of = word_of(spec, KEY("of"), of, 3);
    s->start = (enum start)word_of(spec, KEY("vector"), vector_words, 3);
    s->vectors = to_int(spec_int(spec, KEY("vectors")));
    s->parameters = model_parameters(setting->model);
    read_kernel(s, probe, spec);
    s->steps = s->kernel.steps < s->parameters ? s->kernel.steps : to_int(s->parameters);
#undef KEY
    s->chunk = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    s->ridge = spec_real(spec, "train.weight_decay");
    s->node = NEW(double, 2 * (int64_t)s->vectors * s->steps);
    s->weight = s->node + (int64_t)s->vectors * s->steps;
    s->grid = NEW(double, 2 * (int64_t)s->points);
    s->density = s->grid + s->points;
    s->trace = NEW(double, 2 * (int64_t)s->vectors);
    s->squares = s->trace + s->vectors;
    check(probe, s, setting, problems);
    declare(s, probe, record);
}

static void destroy(struct probe *probe)
{
    struct state *s = probe->state;
    memory_free(s->node);
    memory_free(s->grid);
    memory_free(s->trace);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- quadrature */

/* Entry `row` of the Hadamard matrix's column: −1 to the number of ones that the two indices share. */
static double hadamard(uint64_t row, uint64_t column)
{
    return __builtin_parityll(row & column) ? -1 : 1;
}

/* By global index: the same on any number of ranks. Every measurement has the same vectors, so that series do not
 * jump. */
static void begin_vector(const struct state *s, const struct linop *B, uint64_t seed, int k, double *x)
{
    const uint64_t stream = RANDOM_KRYLOV + 0x8000 + (uint64_t)k;
    for (int i = 0; i < B->nloc; i++) {
        const uint64_t index = (uint64_t)B->col_index(B, i);
        x[i] = s->start == START_HADAMARD     ? hadamard(index, (uint64_t)k)
               : s->start == START_RADEMACHER ? (random_bits(seed, stream, index) >> 63 ? -1 : 1)
                                              : random_normal(seed, stream, index);
    }
}

static void solve(struct probe *probe, struct state *s, const struct linop *B)
{
    const double P = (double)s->parameters;
    double *x = NEW(double, B->nloc);
    int64_t products = 0;
    for (int k = 0; k < s->vectors; k++) {
        double *node = s->node + (int64_t)k * s->steps, *weight = s->weight + (int64_t)k * s->steps;
        begin_vector(s, B, probe->seed, k, x);
        const int count = krylov_quadrature(B, s->steps, x, node, weight);
        for (int j = count; j < s->steps; j++) node[j] = weight[j] = NAN;
        s->trace[k] = s->squares[k] = 0;
        for (int j = 0; j < count; j++) {
            s->trace[k] += P * weight[j] * node[j];
            s->squares[k] += P * weight[j] * node[j] * node[j];
        }
        record_put_int_at(probe->group, s->q_steps, k, count);
        products += count;
    }
    record_put(probe->group, s->q_node, s->node);
    record_put(probe->group, s->q_weight, s->weight);
    record_put_int_at(probe->group, s->q_products, 0, products);
    memory_free(x);
}

/* ---------------------------------------------------------------- numbers */

static double mean(int count, const double *x)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += x[i] / count;
    return sum;
}

static double standard_error(int count, const double *x)
{
    const double centre = mean(count, x);
    double sum = 0;
    if (count < 2) return NAN;
    for (int i = 0; i < count; i++) sum += (x[i] - centre) * (x[i] - centre);
    return sqrt(sum / (count - 1) / count);
}

static double negative_mass(const struct state *s)
{
    const int64_t all = (int64_t)s->vectors * s->steps;
    double largest = 0, sum = 0;
    for (int64_t j = 0; j < all; j++) largest = fmax(largest, s->node[j]); /* not the NaN */
    for (int64_t j = 0; j < all; j++)
        if (s->node[j] < -NEGATIVE * largest) sum += s->weight[j] / s->vectors;
    return sum;
}

static void put_density(struct probe *probe, struct state *s)
{
    const int64_t count = (int64_t)s->vectors * s->steps;
    double low, high, sigma = density_interval(&s->kernel, count, s->node, &low, &high);
    if (!isnan(s->sigma)) sigma = s->sigma;
    density_smooth(count, s->node, s->weight, 1.0 / s->vectors, low, high, sigma, s->points, s->grid, s->density);
    record_put(probe->group, s->q_grid, s->grid);
    record_put(probe->group, s->q_density, s->density);
    record_put_at(probe->group, s->q_sigma, 0, sigma);
}

/* The GGN's costs as many passes as there are outputs: not more than the estimate itself. */
static double exact_trace(const struct state *s, struct rop *rop, const struct model *model)
{
    if (s->matrix == ROP_HESSIAN) return NAN;
    if (s->matrix == ROP_GGN)
        return model->width[model->depth] <= (int64_t)s->steps * s->vectors ? rop_trace_ggn(rop) : NAN;
    double trace = rop_trace_g(rop);
    if (s->matrix == ROP_G) return trace;
    struct params *g = params_create(model);
    rop_gradient(rop, g);
    trace -= params_dot(g, g);
    params_destroy(&g);
    return trace;
}

static double sum_of_squares(const struct grid *grid, int count, const double *x)
{
    double sum = 0;
    for (int i = 0; i < count; i++) sum += x[i] * x[i];
    grid_sum(grid, &sum, 1);
    return sum;
}

/* By the start vectors, whose squared elements have the mean 1 all over. */
static void put_remainder(struct probe *probe, const struct state *s, struct rop *rop, const struct grid *grid)
{
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, 0);
    struct linop *G = rop_operator(rop, ROP_GGN, ROP_ALL, ROP_ALL, 0);
    double *x = NEW(double, 3 * (int64_t)H->nloc), *Hx = x + H->nloc, *Gx = Hx + H->nloc, beyond = 0, all = 0;
    for (int k = 0; k < s->vectors; k++) {
        begin_vector(s, H, probe->seed, k, x);
        H->apply(H, x, Hx);
        G->apply(G, x, Gx);
        all += sum_of_squares(grid, H->nloc, Hx);
        for (int i = 0; i < H->nloc; i++) Hx[i] -= Gx[i];
        beyond += sum_of_squares(grid, H->nloc, Hx);
    }
    record_put_at(probe->group, s->q_remainder, 0, all > 0 ? sqrt(beyond / all) : NAN);
    memory_free(x);
    linop_destroy(&G);
    linop_destroy(&H);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct state *s = probe->state;
    const struct dataset *samples = samples_of(s, moment->train, moment->test, moment->batch);
    struct rop *rop = rop_create(moment->model, &s->loss, samples->Y->n, s->chunk);
    rop_set(rop, moment->model, samples);
    struct linop *B = rop_operator(rop, s->matrix, ROP_ALL, ROP_ALL, s->ridge);
    solve(probe, s, B);
    linop_destroy(&B);
    if (s->matrix == ROP_HESSIAN) put_remainder(probe, s, rop, moment->model->grid);
    record_put_at(probe->group, s->q_trace, 0, mean(s->vectors, s->trace));
    record_put_at(probe->group, s->q_error, 0, standard_error(s->vectors, s->trace));
    record_put_at(probe->group, s->q_squares, 0, mean(s->vectors, s->squares));
    record_put_at(probe->group, s->q_exact, 0, exact_trace(s, rop, moment->model));
    record_put_at(probe->group, s->q_negative, 0, negative_mass(s));
    if (moment->model->grid->rank == 0) put_density(probe, s);
    rop_destroy(&rop);
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct state *s = probe->state;
    (void)model;
    need->passes = 4 * (s->steps + 2) * s->vectors; /* a product costs about four forward passes */
    need->work = s->steps + 4;
    need->products = s->of == OF_TEST ? NEED_TEST : s->of == OF_BATCH ? NEED_BATCH : NEED_TRAIN;
}

static void summary(const struct probe *probe, const struct record *record)
{
    const double exact = record_last(record, probe->name, "trace_exact", 0);
    log_say("  %s (last step): trace %.4g (standard error %.2g), squared Frobenius norm %.4g, negative mass %.3g",
            probe->name, record_last(record, probe->name, "trace_estimate", 0),
            record_last(record, probe->name, "trace_std_error", 0),
            record_last(record, probe->name, "frobenius_estimate", 0),
            record_last(record, probe->name, "negative_mass", 0));
    if (!isnan(exact)) log_say("    exact trace %.6g", exact);
}

const struct probe_kind probe_density = {
    .name = "density", .create = create, .measure = measure, .need = need, .summary = summary, .destroy = destroy};
