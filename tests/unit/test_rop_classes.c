/* ranks: 1 2 4 6 */
/* What the outputs' curvature pulls back to the parameters: class sums against the Jacobian of the outputs by
 * differences, the trace of the Gauss-Newton matrix against the diagonal of the dense one and against the class sums'
 * own. */
#include "net/backprop.h"
#include "net/rop_classes.h"
#include "grids.h"
#include "products.h"

/* ---------------------------------------------------------------- the outputs and their Jacobian, whole */

struct outputs {
    const struct model *model;
    double *F; /* K × N */
};

static void keep_outputs(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct outputs *outputs = context;

    (void)Y;
    if (l < outputs->model->depth) return;
    dmat_gather(a, outputs->F + first * a->m, -1);
    for (int64_t i = 0; i < a->m * a->n; i++) outputs->F[first * a->m + i] *= outputs->model->output_scale;
}

static void outputs_of(const struct problem *p, double *F)
{
    struct outputs outputs = {p->model, F};
    struct backprop *backprop = backprop_create(p->model, &p->loss, p->data->samples, 0);

    backprop_features(backprop, p->model, p->data, false, keep_outputs, &outputs);
    backprop_destroy(&backprop);
}

/* J[o + i·KN] = ∂F_o/∂θ_i, by differences of fourth order. */
static double *jacobian(const struct problem *p, const struct linop *layout)
{
    static const double at[] = {-2, -1, 1, 2}, weight[] = {1.0 / 12, -2.0 / 3, 2.0 / 3, -1.0 / 12};
    const int64_t n = layout->n, outputs = p->data->outputs * p->data->samples;
    const double h = 1e-3;
    struct params *params = p->model->params;
    double *J = NEW(double, n *outputs), *F = NEW(double, outputs);

    for (int64_t i = 0; i < n; i++)
        for (int k = 0; k < 4; k++) {
            for (int64_t e = 0; e < params->size; e++)
                if (layout->row_index(layout, (int)e) == i) params->local[e] += at[k] * h;
            outputs_of(p, F);
            for (int64_t o = 0; o < outputs; o++) J[o + i * outputs] += weight[k] / h * F[o];
            for (int64_t e = 0; e < params->size; e++)
                if (layout->row_index(layout, (int)e) == i) params->local[e] -= at[k] * h;
        }
    memory_free(F);
    return J;
}

/* π_c of sample j. */
static double share(const double *F, int64_t K, int64_t j, int64_t c)
{
    double total = 0;

    for (int64_t k = 0; k < K; k++) total += exp(F[k + j * K]);
    return exp(F[c + j * K]) / total;
}

/* Element i of δ_{c,to}: the mean of √(q π_to) J_jᵀ (e_to − π) over the samples j of class c. */
static double delta_element(const struct problem *p, const double *F, const double *J, int64_t c, int64_t to, int64_t i)
{
    const int64_t K = p->data->outputs, N = p->data->samples;
    const double q = (double)N * loss_scale_on(&p->loss, p->data);
    double sum = 0;
    int count = 0;

    for (int64_t j = 0; j < N; j++) {
        if (j % K != c) continue;
        double along = 0;
        for (int64_t k = 0; k < K; k++) along += ((k == to) - share(F, K, j, k)) * J[k + j * K + i * K * N];
        sum += sqrt(q * share(F, K, j, to)) * along;
        count++;
    }
    return sum / count;
}

/* ---------------------------------------------------------------- class sums */

static void check_sums(const struct grid *grid, const struct problem *p, const struct linop *ggn,
                       const struct class_sums *sums)
{
    const int64_t n = ggn->n, K = p->data->outputs;
    double *F = NEW(double, K * p->data->samples), *J = jacobian(p, ggn), *found = NEW(double, 2 * n),
           *expected = found + n;

    outputs_of(p, F);
    for (int64_t c = 0; c < K; c++)
        for (int64_t to = 0; to < K; to++) {
            gather(grid, ggn, true, sums->delta + (c * K + to) * sums->nloc, found);
            for (int64_t i = 0; i < n; i++) expected[i] = delta_element(p, F, J, c, to, i);
            assert_vectors(n, found, expected, 1e-9, "class sum");
        }
    memory_free(found);
    memory_free(J);
    memory_free(F);
}

static double dense_trace(const struct grid *grid, const struct linop *A)
{
    double *full = dense(grid, A), sum = 0;

    for (int64_t i = 0; i < A->n; i++) sum += full[i + i * A->n];
    memory_free(full);
    return sum;
}

/* The reference case; with its samples in one chunk and in several. */
static void classes_on(struct grid *grid)
{
    struct problem p = curv_ref(grid, "tanh", "cross_entropy");

    for (int64_t chunk = 0; chunk <= 5; chunk += 5) {
        struct rop *rop = rop_create(p.model, &p.loss, p.data->samples, chunk);
        struct class_sums *sums = class_sums_create(rop, p.model, p.data);
        struct linop *ggn = rop_operator(rop, ROP_GGN, ROP_ALL, ROP_ALL, 0);
        assert_int_equal(sums->classes, 3);
        assert_int_equal(sums->nloc, ggn->nloc);
        for (int c = 0; c < 3; c++) assert_close(sums->share[c], 1.0 / 3, 1e-15);
        assert_close(sums->trace, 5.982602560356, 1e-11);
        if (chunk == 0) check_sums(grid, &p, ggn, sums);
        class_sums_destroy(&sums);
        rop_set(rop, p.model, p.data);
        assert_close(rop_trace_ggn(rop), 5.982602560356, 1e-11);
        linop_destroy(&ggn);
        rop_destroy(&rop);
    }
    problem_destroy(&p);
}

static void classes(void **state)
{
    (void)state;
    on_every_grid(classes_on);
}

/* ---------------------------------------------------------------- traces */

static void traces_on(struct grid *grid)
{
    static const char *const activations[] = {"tanh", "relu", "gelu", "silu"};
    static const char *const losses[] = {"cross_entropy", "mse", "logistic", "exponential"};

    for (int t = 0; t < 4; t++) {
        struct problem p = curv_ref(grid, activations[t], losses[t]);
        struct rop *rop = rop_create(p.model, &p.loss, p.data->samples, t == 1 ? 7 : 0);
        struct linop *ggn = rop_operator(rop, ROP_GGN, ROP_ALL, ROP_ALL, 0);
        rop_set(rop, p.model, p.data);
        const double expected = dense_trace(grid, ggn);
        assert_close(rop_trace_ggn(rop), expected, 1e-12 * (1 + fabs(expected)));
        linop_destroy(&ggn);
        rop_destroy(&rop);
        problem_destroy(&p);
    }
}

static void traces(void **state)
{
    (void)state;
    on_every_grid(traces_on);
}

static const struct CMUnitTest rop_classes_tests[] = {
    cmocka_unit_test(classes),
    cmocka_unit_test(traces),
};

UNIT_MAIN(rop_classes_tests, NULL, NULL)
