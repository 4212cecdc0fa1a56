/* ranks: 1 2 4 */
/* Gaussian mixtures: samples by their definition on every grid, the logistic loss, and the closed forms and tables of
 * the theory (numbers found independently of this program). The theory knows no ranks and is tested on one. */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/random.h"
#include "grids.h"
#include "inputs.h"
#include "net/loss.h"
#include "net/mixture.h"
#include "net/rop.h"
#include "theory/mixtures.h"
#include "unit.h"

#include <string.h>

enum { SEED = 3 };

/* ---------------------------------------------------------------- samples */

static struct spec *spec_of(const char *data)
{
    char *text = memory_text("run: {seed: 3}\ndata: {%s}\n", data);
    struct spec *spec = input_of(text);

    memory_free(text);
    return spec;
}

static double *whole(const struct dmat *A)
{
    double *full = NEW(double, A->m * A->n);
    dmat_gather(A, full, -1);
    return full;
}

/* The cluster of a sample of the stream by its definition: the first whose cumulated weight is above a uniform number.
 */
static int64_t cluster_of(uint64_t stream, int64_t sample, const double *weight, int64_t clusters)
{
    double u = random_uniform(SEED, stream + 1, (uint64_t)sample), below = 0;
    for (int64_t b = 0; b < clusters; b++) {
        below += weight[b];
        if (u < below) return b;
    }
    return clusters - 1;
}

static void check_inputs(const struct dataset *set, uint64_t stream, double deviation, int64_t axis, double sign,
                         int64_t column)
{
    double *X = whole(set->X);
    for (int64_t i = 0; i < set->features; i++) {
        const double noise = random_normal(SEED, stream, (uint64_t)(i + column * set->features));
        assert_close(X[i + column * set->features], (i == axis ? sign : 0) + deviation * noise, 1e-15);
    }
    memory_free(X);
}

static void classes_on(struct grid *grid)
{
    static const double weight[3] = {0.5, 0.3, 0.2};
    struct problems problems = {0};
    struct spec *spec = spec_of("kind: gaussian_mixture, features: 7, classes: 3, lambda: 4, train: 50, test: 20, "
                                "weights: [5, 3, 2]");
    struct data *data = data_create(grid, spec, &problems);
    assert_non_null(data);
    for (int test = 0; test < 2; test++) {
        const struct dataset *set = test ? data->test : data->train;
        const uint64_t stream = RANDOM_DATA + (test ? 2 : 0);
        double *Y = whole(set->Y);
        assert_int_equal(set->samples, test ? 20 : 50);
        assert_true(set->classification);
        for (int64_t j = 0; j < set->samples; j++) {
            const int64_t b = cluster_of(stream, j, weight, 3);
            for (int64_t c = 0; c < 3; c++) assert_close(Y[c + 3 * j], c == b, 0);
            if (j % 9 == 0) check_inputs(set, stream, 0.5, b, 1, j);
        }
        memory_free(Y);
    }
    data_destroy(&data);
    spec_destroy(&spec);
}

/* Without noise and in equal counts: the means, one after another. */
static void clusters_on(struct grid *grid)
{
    static const double axis[4] = {0, 0, 1, 1}, sign[4] = {1, -1, 1, -1}, y[4] = {1, 1, 0, 0};
    struct problems problems = {0};
    for (int clusters = 2; clusters <= 4; clusters += 2) {
        struct spec *spec =
            spec_of(clusters == 4 ? "kind: xor_mixture, features: 5, lambda: infinite, counts: equal, train: 8"
                                  : "kind: binary_mixture, features: 5, lambda: infinite, counts: equal, train: 8");
        struct data *data = data_create(grid, spec, &problems);
        assert_non_null(data);
        double *X = whole(data->train->X), *Y = whole(data->train->Y);
        assert_int_equal(data->train->outputs, 1);
        for (int j = 0; j < 8; j++) {
            const int b = j % clusters;
            assert_close(Y[j], clusters == 4 ? y[b] : b == 0, 0);
            for (int i = 0; i < 5; i++) assert_close(X[i + 5 * j], i == axis[b] ? sign[b] : 0, 0);
        }
        memory_free(Y);
        memory_free(X);
        data_destroy(&data);
        spec_destroy(&spec);
    }
}

/* A fresh sample does not depend on the others that are drawn with it. */
static void fresh_on(struct grid *grid)
{
    struct spec *spec = spec_of("kind: xor_mixture, features: 6, lambda: 9, train: 1");
    struct mixture *mixture = mixture_of(spec);
    struct dataset set = {.features = 6, .outputs = 1, .samples = 5};
    static const double weight[4] = {0.25, 0.25, 0.25, 0.25};
    set.X = dmat_create(grid, 6, 5);
    set.Y = dmat_create(grid, 1, 5);
    mixture_fresh(mixture, &set, SEED, 40);
    double *X = whole(set.X), *Y = whole(set.Y);
    for (int64_t j = 0; j < 5; j++) {
        const struct cluster c = mixture_cluster(mixture, cluster_of(RANDOM_ONLINE, 40 + j, weight, 4));
        assert_close(Y[j], c.positive, 0);
        for (int64_t i = 0; i < 6; i++)
            assert_close(X[i + 6 * j],
                         (i == c.axis ? c.sign : 0) +
                             random_normal(SEED, RANDOM_ONLINE, (uint64_t)(i + (40 + j) * 6)) / 3,
                         1e-15);
    }
    memory_free(Y);
    memory_free(X);
    dmat_destroy(&set.Y);
    dmat_destroy(&set.X);
    mixture_destroy(&mixture);
    spec_destroy(&spec);
}

static void samples(void **state)
{
    (void)state;
    on_every_grid(classes_on);
    on_every_grid(clusters_on);
    on_every_grid(fresh_on);
}

/* What cannot be is said, all at once. */
static void impossible(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct spec *spec =
        spec_of("kind: gaussian_mixture, features: 2, classes: 3, lambda: 4, train: 5, weights: [1, 2], "
                "counts: equal");
    assert_false(mixture_fits(spec, &problems));
    assert_int_equal(problems.count, 3);
    problems_clear(&problems);
    spec_destroy(&spec);
}

/* ---------------------------------------------------------------- the logistic loss */

/* Value, derivative by its definition, and what is far out. */
static void logistic_on(struct grid *grid)
{
    static const double f[6] = {0, 1.5, -2, 40, -800, 800}, y[6] = {1, -1, 1, 1, 0, -1};
    const struct loss loss = {LOSS_LOGISTIC, LOSS_MEAN};
    struct dmat *F = dmat_create(grid, 1, 6), *Y = dmat_create(grid, 1, 6);
    double correct, expected = 0;
    for (int jl = 0; F->mloc > 0 && jl < F->nloc; jl++) {
        F->local[jl * F->lld] = f[dmat_col(F, jl)];
        Y->local[jl * Y->lld] = y[dmat_col(Y, jl)];
    }
    for (int i = 0; i < 6; i++) expected += fmax(f[i], 0) + log1p(exp(-fabs(f[i]))) - (y[i] > 0) * f[i];
    double value[2] = {loss_value(&loss, 0.5, F, Y, &correct), loss_derivative(&loss, 0.5, F, Y)};
    grid_sum(grid, value, 2);
    assert_close(value[0], 0.5 * expected, 1e-12);
    assert_close(value[1], 0.5 * expected, 1e-12);
    double *D = whole(F);
    for (int i = 0; i < 6; i++) {
        const double exact = 0.5 * (1 / (1 + exp(-f[i])) - (y[i] > 0));
        assert_close(D[i], exact, 1e-15);
    }
    assert_close(D[3] / (-0.5 * exp(-40)), 1, 1e-14); /* all digits where it is small */
    memory_free(D);
    dmat_destroy(&F);
    dmat_destroy(&Y);
}

static void logistic_loss(void **state)
{
    (void)state;
    on_every_grid(logistic_on);
}

/* ---------------------------------------------------------------- exact identities of a classifier's matrices */

static double common(int64_t ig, int64_t jg, const void *context)
{
    (void)ig;
    (void)context;
    return random_normal(SEED, 1, (uint64_t)jg);
}

/* ‖A x − B x‖; B may be NULL. */
static double difference(const struct linop *A, const struct linop *B, const struct dmat *x)
{
    double *y = NEW(double, A->mloc + 1), *z = NEW(double, A->mloc + 1), square = 0;
    A->apply(A, x->local, y);
    if (B) B->apply(B, x->local, z);
    for (int i = 0; i < A->mloc; i++) square += (y[i] - z[i]) * (y[i] - z[i]);
    grid_sum(x->grid, &square, 1);
    memory_free(z);
    memory_free(y);
    return sqrt(square);
}

/* Any weights and data: H (1 ⊗ u) = G (1 ⊗ u) = 0, and the Hessian is the Gauss–Newton matrix. */
static void identities_on(struct grid *grid)
{
    struct problems problems = {0};
    struct spec *spec = input_of("run: {seed: 3}\n"
                                 "data: {kind: gaussian_mixture, features: 7, classes: 3, lambda: 4, train: 11}\n"
                                 "model: {widths: [7, 3]}\nloss: {kind: cross_entropy}\n");
    const struct loss loss = {LOSS_CROSS_ENTROPY, LOSS_MEAN};
    struct dataset *set = mixture_create(grid, spec, true, &problems);
    struct model *model = network_of(grid, spec, 7, 3);
    struct dmat *u = dmat_create(grid, 3, 7), *v = dmat_create(grid, 3, 7);
    random_fill_normal(model->params->W[0], SEED, 2);
    random_fill_normal(v, SEED, 3);
    dmat_set(u, common, NULL);
    struct rop *rop = rop_create(model, &loss, set->samples, 0);
    rop_set(rop, model, set);
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, 0);
    struct linop *N = rop_operator(rop, ROP_GGN, ROP_ALL, ROP_ALL, 0);
    struct linop *G = rop_operator(rop, ROP_G, ROP_ALL, ROP_ALL, 0);
    const double length = dmat_norm(u) / sqrt(3);
    assert_true(difference(H, NULL, u) <= 1e-14 * length);
    assert_true(difference(G, NULL, u) <= 1e-14 * length);
    assert_true(difference(H, NULL, v) > 1e-3 * length);
    assert_true(difference(H, N, v) <= 1e-14 * difference(H, NULL, v));
    linop_destroy(&G);
    linop_destroy(&N);
    linop_destroy(&H);
    rop_destroy(&rop);
    dmat_destroy(&v);
    dmat_destroy(&u);
    model_destroy(&model);
    dataset_destroy(&set);
    spec_destroy(&spec);
}

static void identities(void **state)
{
    (void)state;
    on_every_grid(identities_on);
}

/* ---------------------------------------------------------------- theory: dynamics */

static bool alone(void)
{
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size == 1;
}

static const double quarter[4] = {0.25, 0.25, 0.25, 0.25};

static void points_are_normal(void **state)
{
    (void)state;
    struct normal_points *g = normal_points_create(3, 512);
    double fourth = 0;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++) {
            double mean = 0, square = 0;
            for (int i = 0; i < g->count; i++) {
                mean += g->value[3 * i + a] / g->count;
                square += g->value[3 * i + a] * g->value[3 * i + b] / g->count;
            }
            assert_close(mean, 0, 1e-13);
            assert_close(square, a == b, 1e-12);
        }
    for (int i = 0; i < g->count; i++) fourth += pow(g->value[3 * i], 4) / g->count;
    assert_close(fourth, 3, 0.15);
    normal_points_destroy(&g);
    assert_close(normal_quantile(0.975), 1.9599639845400545, 1e-14);
    assert_close(normal_quantile(1e-9), -5.9978070150076865, 1e-13);
    assert_close(normal_quantile(0.3) + normal_quantile(0.7), 0, 1e-15);
    assert_close(normal_quantile(0.5), 0, 1e-16);
}

/* Time, m_aa, m_ab, R_aa, R_ab, rho, loss, accuracy. */
static void course_of_descent(void **state)
{
    static const double table[5][8] = {{1, 0.1786, -0.0595, 0.9627, 0.0058, 0.2057, 1.2506, 0.472},
                                       {2, 0.3401, -0.1134, 0.9259, 0.0116, 0.3778, 1.1077, 0.660},
                                       {5, 0.7341, -0.2447, 0.8224, 0.0275, 0.6829, 0.8139, 0.884},
                                       {10, 1.1776, -0.3925, 0.6806, 0.0460, 0.8550, 0.5728, 0.942},
                                       {20, 1.6714, -0.5571, 0.4890, 0.0604, 0.9402, 0.3947, 0.958}};
    (void)state;
    if (!alone()) return;
    struct effective *e = effective_create(4, quarter, 10, 0.01, 1);
    for (int i = 0; i < 5; i++) {
        double accuracy;
        effective_run(e, table[i][0]);
        assert_close(e->m[0], table[i][1], 1e-3);
        assert_close(e->m[1], table[i][2], 1e-3);
        assert_close(e->R[0], table[i][3], 1e-3);
        assert_close(e->R[1], table[i][4], 1e-3);
        assert_close(sqrt(effective_alignment_squared(4, e->m, e->R, 0)), table[i][5], 1e-3);
        assert_close(effective_loss(e, &accuracy), table[i][6], 1e-3);
        assert_close(accuracy, table[i][7], 3e-3);
    }
    effective_destroy(&e);
}

/* The path does not depend on where it is looked at; without noise it ends at the fixed point. */
static void path_and_end(void **state)
{
    (void)state;
    if (!alone()) return;
    struct effective *a = effective_create(2, quarter, 10, 0.05, 1), *b = effective_create(2, quarter, 10, 0.05, 1);
    a->p[0] = a->p[1] = b->p[0] = b->p[1] = 0.5;
    for (int i = 1; i <= 7; i++) effective_run(a, 0.33 * i);
    effective_run(a, 0.33 * 7);
    effective_run(b, 0.33 * 7);
    assert_memory_equal(a->m, b->m, 4 * sizeof *a->m);
    assert_memory_equal(a->R, b->R, 4 * sizeof *a->R);
    effective_destroy(&b);
    effective_destroy(&a);
    struct effective *e = effective_create(3, quarter, INFINITY, 0.05, 1);
    for (int c = 0; c < 3; c++) e->p[c] = 1.0 / 3;
    e->points->count = 2; /* nothing is random */
    effective_run(e, 400);
    assert_close(e->m[0], effective_fixed_point(3, 0.05), 1e-6);
    assert_close(e->m[1], -e->m[0] / 2, 1e-6);
    effective_destroy(&e);
}

/* ---------------------------------------------------------------- theory: spectra */

/* Weights of the (0, 0) block at W = 0. */
static void weights_at_zero(int k, bool hessian, double *p, double *h)
{
    for (int b = 0; b < k; b++) {
        p[b] = 1.0 / k;
        h[b] = hessian ? (1 - 1.0 / k) / k : b == 0 ? (1 - 1.0 / k) * (1 - 1.0 / k) : 1.0 / k / k;
    }
}

static void spectra_at_zero(void **state)
{
    static const struct {
        int k;
        double lambda, phi;
        bool hessian;
        double tolerance, edge;
        int count;
        double value, projection;
    } table[] = {{4, 10, 4, true, 1e-10, 0.0421875, 4, 0.0721875, 0.87272727272727},
                 {4, 10, 4, false, 1e-7, 0.06121286, 1, 0.17489158, 0.899716},
                 {10, 50, 2, true, 1e-8, 0.00524558, 10, 0.01188, 0.890909},
                 {10, 50, 2, false, 1e-8, 0.01714641, 1, 0.09106220, 0.907271},
                 {6, 2.5, 4, true, 1e-8, 0.125, 0, 0, 0},
                 {6, 2.5, 4, false, 1e-7, 0.23861075, 1, 0.26865952, 0.474517}};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        double p[10], h[10], value[10], projection[10], edge, lower, upper;
        const int k = table[i].k;
        weights_at_zero(k, table[i].hessian, p, h);
        const int count = outliers_at_zero(k, p, table[i].lambda, table[i].phi, h, &edge, value, projection);
        assert_int_equal(count, table[i].count);
        assert_close(edge, table[i].edge, table[i].tolerance);
        for (int m = 0; m < count; m++) {
            assert_close(value[m], table[i].value, table[i].tolerance);
            assert_close(projection[m], table[i].projection, 1e-6);
        }
        if (!table[i].hessian) continue;
        outliers_bulk(h[0], table[i].lambda, table[i].phi, &lower, &upper);
        assert_close(upper, edge, 1e-12);
    }
    double lower, upper;
    outliers_bulk(3.0 / 16, 10, 4, &lower, &upper);
    assert_close(lower, 0.0046875, 1e-15);
}

/* The general route at W = 0 finds the closed form, copies included. */
static void general_route_at_zero(void **state)
{
    static const double zero[16];
    (void)state;
    if (!alone()) return;
    struct outliers *o = outliers_create(4, zero, zero, quarter, 10, 4, MIXTURE_HESSIAN, 2);
    assert_int_equal(o->order, 4);
    assert_int_equal(o->count, 4);
    assert_close(o->edge, 0.0421875, 1e-12);
    for (int i = 0; i < 4; i++) {
        assert_close(o->value[i], 0.0721875, 1e-10);
        assert_close(o->projection[i], 0.87272727272727, 1e-9);
        assert_close(outliers_projection_on_means(o, i), o->projection[i], 1e-12);
    }
    assert_true(isnan(outliers_alignment(o, 0, 1)));
    outliers_destroy(&o);
}

/* W = r [I 0]. */
static void spectra_of_a_classifier(void **state)
{
    static const double value[4] = {0.0768, 0.0461, 0.0461, 0.0424}, projection[4] = {0.890, 0.797, 0.797, 0.754};
    double m[16] = {0}, zero[16] = {0};
    (void)state;
    if (!alone()) return;
    for (int a = 0; a < 4; a++) m[5 * a] = 1.5;
    struct outliers *o = outliers_create(4, m, zero, quarter, 10, 4, MIXTURE_HESSIAN, 0);
    assert_int_equal(o->count, 4);
    assert_close(o->edge, 0.0353, 1e-4);
    for (int i = 0; i < 4; i++) {
        assert_close(o->value[i], value[i], 1e-4);
        assert_close(o->projection[i], projection[i], 1e-3);
    }
    outliers_destroy(&o);
    o = outliers_create(4, m, zero, quarter, 10, 4, MIXTURE_GRADIENT, 0);
    assert_int_equal(o->count, 1);
    assert_close(o->value[0], 0.0495, 1e-4);
    assert_close(o->projection[0], 0.848, 1e-3);
    outliers_destroy(&o);
    for (int a = 0; a < 4; a++) m[5 * a] = 3;
    o = outliers_create(4, m, zero, quarter, 10, 4, MIXTURE_GRADIENT, 0);
    assert_int_equal(o->count, 0);
    outliers_destroy(&o);
}

/* The state at t = 40 of λ = 100, β = 0.05: rho(x, E_4) and rho(x, E_1), φ = 4 and 16. */
static void alignment_with_outliers(void **state)
{
    static const double hessian[2] = {0.9911, 0.9951}, gradient[2] = {0.9892, 0.9945};
    double m[16], R[16];
    (void)state;
    if (!alone()) return;
    struct effective *e = effective_create(4, quarter, 100, 0.05, 1);
    effective_run(e, 40);
    assert_close(e->m[0], 1.4558, 1e-3);
    assert_close(e->R[0], 0.0199, 1e-3);
    for (int i = 0; i < 16; i++) {
        m[i] = e->m[i];
        R[i] = e->R[i];
    }
    effective_destroy(&e);
    for (int i = 0; i < 2; i++) {
        struct outliers *H = outliers_create(4, m, R, quarter, 100, i ? 16 : 4, MIXTURE_HESSIAN, 1);
        struct outliers *G = outliers_create(4, m, R, quarter, 100, i ? 16 : 4, MIXTURE_GRADIENT, 1);
        assert_int_equal(H->order, 8);
        assert_close(outliers_alignment(H, 1, 4), hessian[i], 2e-4);
        assert_close(outliers_alignment(G, 1, 4), gradient[i], 2e-4);
        if (i == 0) assert_close(outliers_alignment(H, 1, 1), 0.8446, 2e-4);
        outliers_destroy(&G);
        outliers_destroy(&H);
    }
}

static void noise_free_classifier(void **state)
{
    (void)state;
    const struct noise_free n = noise_free_of(4, 1.5);
    assert_close(n.hessian[0], 0.0800649454063, 1e-13);
    assert_close(n.hessian[1], 0.0334149144197, 1e-13);
    assert_close(n.hessian_block[0], 0.0600487090548, 1e-13);
    assert_close(n.hessian_block[1], 0.0289486883970, 1e-13);
    assert_close(n.second_moment_block[0], 0.0401960342043, 1e-13);
    assert_close(n.second_moment_block[1], 0.0044662260227, 1e-13);
    assert_close(n.second_moment, 0.0535947122724, 1e-13);
}

/* ---------------------------------------------------------------- theory: two layers */

static void ends_of_xor(void **state)
{
    static const bool all[4] = {true, true, true, true}, three[4] = {true, true, true, false};
    (void)state;
    struct xor_end end = xor_end_of(0.05, 1000, all);
    assert_close(end.error[2], 0.205177, 5e-7);
    assert_close(end.strength[2] / 1.38930, 1, 1e-5);
    assert_close(end.gradient[2] / 0.0146215, 1, 1e-5);
    assert_close(end.hessian[2] / 0.0566416, 1, 1e-5);
    end = xor_end_of(0.1, 1000, all);
    assert_close(end.error[0], 0.410354, 5e-7);
    assert_close(end.strength[0] / 0.371886, 1, 1e-5);
    assert_close(end.gradient[0] / 0.0156555, 1, 1e-5);
    assert_close(end.hessian[0] / 0.0224957, 1, 1e-5);
    end = xor_end_of(0.05, 1000, three);
    double gradient = 0, hessian = 0;
    for (int c = 0; c < 4; c++) {
        gradient += end.gradient[c];
        hessian += end.hessian[c];
    }
    assert_close(gradient / 0.044176, 1, 2e-5);
    assert_close(hessian / 0.169412, 1, 1e-5);
    assert_close(end.gradient[3], 0, 0);
    end = xor_end_of(0.05, INFINITY, all);
    assert_close(end.gradient[1], 4 * 0.05 * 0.05 * xor_constant(0.05), 1e-15);
    assert_close(end.hessian[1], 0.05 * 0.8 * xor_constant(0.05), 1e-15);
    assert_close(end.gradient[1], 0.0138629436112, 1e-13);
    assert_close(xor_misalignment(0.05, 1000, 1, 0.2, 0.2), 4 * 0.05 / 1000, 1e-15);
}

static void numbers_of_clusters(void **state)
{
    static const double of_256[5] = {0, 4, 84, 144, 24};
    (void)state;
    for (int learned = 0; learned <= 4; learned++)
        assert_close(256 * xor_occupancy(4, learned), of_256[learned], 1e-10);
    assert_close(xor_occupancy(8, 4), 0.62292, 1e-5);
    assert_close(xor_constant(0.05), 1.3862943611198906, 1e-15);
    assert_close(xor_constant(0.125), 0, 0);
    assert_close(binary_constant(0.1), 1.3862943611198906, 1e-15);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(samples),
    cmocka_unit_test(impossible),
    cmocka_unit_test(logistic_loss),
    cmocka_unit_test(identities),
    cmocka_unit_test(points_are_normal),
    cmocka_unit_test(course_of_descent),
    cmocka_unit_test(path_and_end),
    cmocka_unit_test(spectra_at_zero),
    cmocka_unit_test(general_route_at_zero),
    cmocka_unit_test(spectra_of_a_classifier),
    cmocka_unit_test(alignment_with_outliers),
    cmocka_unit_test(noise_free_classifier),
    cmocka_unit_test(ends_of_xor),
    cmocka_unit_test(numbers_of_clusters),
};

UNIT_MAIN(tests, NULL, NULL)
