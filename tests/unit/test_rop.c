/* ranks: 1 2 4 6 */
/* Curvature products, for many networks and losses: Hessian against differences of the gradient, Gauss-Newton against
 * differences of the outputs, second moments against per-sample gradients, blocks against the whole, chunks against
 * one. */
#include "net/backprop.h"
#include "net/sensing.h"
#include "grids.h"
#include "products.h"

static double checkered(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return (ig + jg) % 3 == 0;
}

static double diagonal(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return ig == jg;
}

/* 9 samples, or the identity (4 samples), with what the loss needs beside. */
static struct problem problem_of(const struct grid *grid, const char *text, bool identity)
{
    struct problem p = {.spec = spec_of(4, text)};
    const int64_t classes = 3, N = identity ? 4 : 9;

    p.model = network_of(grid, p.spec, 4, 3);
    p.loss = loss_of(p.spec);
    for (int l = 0; l < p.model->depth; l++)
        if (p.model->params->b[l]) random_fill_normal(p.model->params->b[l], 4, (uint64_t)l);
    struct dataset *data = p.data = NEW(struct dataset, 1);
    *data = (struct dataset){.features = 4, .outputs = 3, .samples = N, .constant = 0.5};
    if (!identity) {
        data->X = dmat_create(grid, 4, N);
        random_fill_normal(data->X, 1, RANDOM_DATA);
    }
    data->Y = dmat_create(grid, 3, N);
    random_fill_normal(data->Y, 1, RANDOM_DATA + 1);
    if (p.loss.kind == LOSS_CROSS_ENTROPY || p.loss.kind == LOSS_LOGISTIC) dmat_set(data->Y, class_of, &classes);
    if (p.loss.kind == LOSS_SENSING) data->sensing = sensing_create(data->Y, 7, 3);
    if (p.loss.kind != LOSS_MASKED_MSE) return p;
    data->M = dmat_create(grid, 3, N);
    dmat_set(data->M, checkered, NULL);
    data->observed = (int64_t)dmat_dot(data->M, data->M);
    return p;
}

/* What is differentiated by the parameters: the gradient, or all outputs, as a whole vector. */
struct probe {
    const struct grid *grid;
    struct problem *p;
    struct backprop *backprop;
    const struct linop *layout; /* whose rows are all parameters */
    double *outputs;            /* [K·N]; NULL: the gradient */
};

static void take_outputs(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct probe *probe = context;

    (void)Y;
    if (l < probe->p->model->depth) return;
    dmat_gather(a, probe->outputs + first * a->m, -1);
    for (int64_t i = 0; i < a->m * a->n; i++) probe->outputs[first * a->m + i] *= probe->p->model->output_scale;
}

static void evaluate(struct probe *probe, double *value)
{
    struct problem *p = probe->p;

    if (probe->outputs) {
        backprop_features(probe->backprop, p->model, p->data, false, take_outputs, probe);
        memcpy(value, probe->outputs, (size_t)(3 * p->data->Y->n) * sizeof *value);
        return;
    }
    struct params *gradient = params_create(p->model);
    backprop_gradient(probe->backprop, p->model, p->data, gradient);
    gather(probe->grid, probe->layout, true, gradient->local, value);
    params_destroy(&gradient);
}

/* Derivative along v (whole; zero in frozen layers) by differences of fourth order. */
static void differentiate(struct probe *probe, const double *v, int64_t n, double *derivative)
{
    static const double at[] = {-2, -1, 1, 2}, weight[] = {1.0 / 12, -2.0 / 3, 2.0 / 3, -1.0 / 12};
    const double h = 1e-3;
    struct params *params = probe->p->model->params;
    double *value = NEW(double, n), *x = take(probe->layout, true, v), *start = NEW(double, params->size);

    memcpy(start, params->local, (size_t)params->size * sizeof *start);
    memset(derivative, 0, (size_t)n * sizeof *derivative);
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < params->size; i++) params->local[i] = start[i] + at[k] * h * x[i];
        evaluate(probe, value);
        for (int64_t i = 0; i < n; i++) derivative[i] += weight[k] / h * value[i];
    }
    memcpy(params->local, start, (size_t)params->size * sizeof *start);
    memory_free(start);
    memory_free(x);
    memory_free(value);
}

/* First element of layer l among all parameters, and one past its last. */
static int64_t layer_start(const struct model *model, int l)
{
    int64_t start = 0;

    for (int k = 1; k < l; k++) start += model->width[k] * (model->width[k - 1] + model->layer[k - 1].bias);
    return start;
}

static void freeze(const struct model *model, double *v)
{
    for (int l = 1; l <= model->depth; l++)
        for (int64_t i = layer_start(model, l); !model->layer[l - 1].trainable && i < layer_start(model, l + 1); i++)
            v[i] = 0;
}

/* ∂²loss/∂f² r by the formulas, on whole K × N arrays. */
static void curvature(const struct problem *p, const double *F, const double *Y, const double *M, const double *r,
                      double *Br)
{
    const double scale = loss_scale_on(&p->loss, p->data);
    const int64_t N = p->data->Y->n;

    for (int64_t j = 0; j < N; j++) {
        double share[3], total = 0, mean = 0;
        for (int c = 0; c < 3; c++) total += share[c] = exp(F[3 * j + c]);
        for (int c = 0; c < 3; c++) mean += (share[c] /= total) * r[3 * j + c];
        for (int c = 0; c < 3; c++) {
            const int64_t i = 3 * j + c;
            const double y = 1 / (1 + exp(-F[i]));
            Br[i] = scale * (p->loss.kind == LOSS_CROSS_ENTROPY ? share[c] * (r[i] - mean)
                             : p->loss.kind == LOSS_LOGISTIC    ? y * (1 - y) * r[i]
                             : p->loss.kind == LOSS_EXPONENTIAL ? exp(Y[i] > 0 ? -F[i] : F[i]) * r[i]
                             : p->loss.kind == LOSS_MASKED_MSE  ? M[i] * r[i]
                                                                : r[i]);
        }
    }
}

/* uᵀ GGN v = (J u)ᵀ B (J v); for measurements B = scale Σ_k A_k A_kᵀ. */
static double gauss_newton_form(struct probe *probe, const double *Ju, const double *Jv, const double *F)
{
    const struct problem *p = probe->p;
    const int64_t n = 3 * p->data->Y->n;
    double *Br = NEW(double, n), *M = NEW(double, n), *target = NEW(double, n), sum = 0;

    if (p->loss.kind == LOSS_SENSING) {
        const struct sensing *s = p->data->sensing;
        for (int64_t k = 0; k < s->count; k++) {
            double along[2] = {0, 0};
            const struct dmat *Y = p->data->Y;
            for (int jl = 0; jl < s->nloc; jl++)
                for (int il = 0; il < s->mloc; il++) {
                    const double a = s->A[(k * s->nloc + jl) * s->mloc + il];
                    along[0] += a * Ju[dmat_row(Y, il) + 3 * dmat_col(Y, jl)];
                    along[1] += a * Jv[dmat_row(Y, il) + 3 * dmat_col(Y, jl)];
                }
            grid_sum(probe->grid, along, 2);
            sum += loss_scale_on(&p->loss, p->data) * along[0] * along[1];
        }
    } else {
        if (p->data->M) dmat_gather(p->data->M, M, -1);
        dmat_gather(p->data->Y, target, -1);
        curvature(p, F, target, M, Jv, Br);
        sum = dot(n, Ju, Br);
    }
    memory_free(target);
    memory_free(M);
    memory_free(Br);
    return sum;
}

static void check_gauss_newton(struct probe *probe, struct rop *rop, const double *u, const double *v, int64_t n)
{
    const int64_t outputs = 3 * probe->p->data->Y->n;
    double *J = NEW(double, 3 * outputs), *Jv = J + outputs, *F = Jv + outputs, *product = NEW(double, n);
    struct linop *A = rop_operator(rop, ROP_GGN, ROP_ALL, ROP_ALL, 0);

    probe->outputs = NEW(double, outputs);
    evaluate(probe, F);
    differentiate(probe, u, outputs, J);
    differentiate(probe, v, outputs, Jv);
    multiply(probe->grid, A, false, v, product);
    const double expected = gauss_newton_form(probe, J, Jv, F);
    assert_close(dot(n, u, product), expected, 1e-9 * (1 + fabs(expected)));
    linop_destroy(&A);
    memory_free(probe->outputs);
    probe->outputs = NULL;
    memory_free(product);
    memory_free(J);
}

/* The set of one sample; the loss is divided by what it is divided by for all. */
static struct dataset *sample_of(const struct grid *grid, const struct dataset *all, int64_t j)
{
    struct dataset *one = NEW(struct dataset, 1);
    struct dmat *eye = all->X ? NULL : dmat_create(grid, all->features, all->features);

    *one = (struct dataset){
        .features = all->features, .outputs = all->outputs, .samples = all->samples, .observed = all->observed};
    one->X = dmat_create(grid, all->features, 1);
    one->Y = dmat_create(grid, all->outputs, 1);
    if (eye) dmat_set(eye, diagonal, NULL);
    dmat_take_columns(eye ? eye : all->X, &j, one->X);
    dmat_take_columns(all->Y, &j, one->Y);
    if (all->M) one->M = dmat_create(grid, all->outputs, 1);
    if (all->M) dmat_take_columns(all->M, &j, one->M);
    dmat_destroy(&eye);
    return one;
}

static void check_second_moments(struct probe *probe, struct rop *rop, const double *v, int64_t n)
{
    struct problem *p = probe->p;
    struct dataset *all = p->data;
    const double N = (double)all->samples;
    double *g = NEW(double, n), *mean = NEW(double, n), *expected = NEW(double, n), *product = NEW(double, n),
           trace = 0;

    for (int64_t j = 0; j < all->samples; j++) {
        p->data = sample_of(probe->grid, all, j);
        evaluate(probe, g);
        dataset_destroy(&p->data);
        const double along = N * dot(n, g, v);
        trace += N * dot(n, g, g);
        for (int64_t i = 0; i < n; i++) expected[i] += along * g[i];
        for (int64_t i = 0; i < n; i++) mean[i] += g[i];
    }
    p->data = all;
    for (int kind = ROP_G; kind <= ROP_G_CENTRED; kind++) {
        struct linop *A = rop_operator(rop, (enum rop_kind)kind, ROP_ALL, ROP_ALL, 0);
        const double along = kind == ROP_G ? 0 : dot(n, mean, v);
        multiply(probe->grid, A, false, v, product);
        for (int64_t i = 0; i < n; i++) expected[i] -= along * mean[i];
        assert_vectors(n, product, expected, 1e-12, "second moment");
        linop_destroy(&A);
    }
    assert_close(rop_trace_g(rop), trace, 1e-12 * (1 + trace));
    memory_free(g);
    memory_free(mean);
    memory_free(expected);
    memory_free(product);
}

/* Where element i of a part stands among all parameters. */
static int64_t position(const struct model *model, struct rop_part part, int64_t i)
{
    const int64_t width = model->width[part.layer - 1], start = layer_start(model, part.layer);

    if (part.unit < 0) return start + i;
    return start + (i < width ? part.unit * width + i : model->width[part.layer] * width + part.unit);
}

/* A block against the whole matrix, and its adjoint. */
static void check_block(const struct grid *grid, struct rop *rop, const struct model *model, enum rop_kind kind,
                        struct rop_part row, struct rop_part col)
{
    struct linop *A = rop_operator(rop, kind, ROP_ALL, ROP_ALL, 0.25), *B = rop_operator(rop, kind, row, col, 0.25);
    double *x = random_vector(B->n, 7), *y = random_vector(B->m, 8), *full = NEW(double, 2 * A->n), *all = full + A->n;
    double *found = NEW(double, B->m), *expected = NEW(double, B->m), *adjoint = NEW(double, B->n);

    for (int64_t j = 0; j < B->n; j++) full[position(model, col, j)] = x[j];
    multiply(grid, A, false, full, all);
    for (int64_t i = 0; i < B->m; i++) expected[i] = all[position(model, row, i)];
    multiply(grid, B, false, x, found);
    multiply(grid, B, true, y, adjoint);
    assert_vectors(B->m, found, expected, 1e-12, "block");
    const double left = dot(B->m, y, found), right = dot(B->n, x, adjoint);
    assert_close(left, right, 1e-11 * (1 + fabs(left)));
    multiply(grid, B, false, x, expected); /* nothing is left of the adjoint */
    assert_vectors(B->m, found, expected, 0, "block again");
    memory_free(x);
    memory_free(y);
    memory_free(full);
    memory_free(found);
    memory_free(expected);
    memory_free(adjoint);
    linop_destroy(&B);
    linop_destroy(&A);
}

static void check_blocks(const struct grid *grid, struct rop *rop, const struct problem *p)
{
    const struct model *model = p->model;
    const bool sums = rop_defined(&p->loss, p->data, ROP_G);

    for (int l = 1; l <= model->depth; l++)
        for (int m = 1; m <= model->depth; m++)
            for (int kind = 0; kind < (sums ? ROP_KINDS : ROP_G); kind++) {
                const struct rop_part row = {.layer = l, .unit = l % 2 ? 2 : -1},
                                      col = {.layer = m, .unit = m % 2 ? 0 : 1};
                check_block(grid, rop, model, (enum rop_kind)kind, layer(l), layer(m));
                if (kind == 0) check_block(grid, rop, model, (enum rop_kind)kind, row, col);
            }
}

/* The products of a rop that works in chunks are those of one that keeps all. */
static void check_chunks(const struct grid *grid, const struct problem *p, struct rop *whole, const double *v,
                         int64_t n)
{
    struct rop *rop = rop_create(p->model, &p->loss, p->data->samples, 1);
    double *expected = NEW(double, 2 * n), *found = expected + n;
    const double loss = rop_set(whole, p->model, p->data);

    if (p->loss.kind == LOSS_SENSING) { /* takes all columns at once */
        rop_destroy(&rop);
        rop = rop_create(p->model, &p->loss, p->data->samples, 0);
    }
    assert_close(rop_set(rop, p->model, p->data), loss, 1e-13 * (1 + loss));
    for (int kind = 0; kind < ROP_KINDS && rop_defined(&p->loss, p->data, (enum rop_kind)kind); kind++) {
        struct linop *A = rop_operator(whole, (enum rop_kind)kind, ROP_ALL, ROP_ALL, 0.5);
        struct linop *B = rop_operator(rop, (enum rop_kind)kind, ROP_ALL, ROP_ALL, 0.5);
        multiply(grid, A, false, v, expected);
        multiply(grid, B, false, v, found);
        assert_vectors(n, found, expected, 1e-12, "chunked product");
        linop_destroy(&A);
        linop_destroy(&B);
    }
    if (rop_defined(&p->loss, p->data, ROP_G))
        assert_close(rop_trace_g(rop), rop_trace_g(whole), 1e-12 * (1 + rop_trace_g(whole)));
    double bytes = (double)rop_bytes(p->model, backprop_columns(grid, p->data->samples, 0));
    grid_sum(grid, &bytes, 1);
    assert_true(bytes >= 8.0 * 3 * (double)p->data->samples);
    memory_free(expected);
    rop_destroy(&rop);
}

static void check_network(const struct grid *grid, const char *text, bool identity)
{
    struct problem p = problem_of(grid, text, identity);
    struct rop *rop = rop_create(p.model, &p.loss, p.data->samples, 0);
    const double loss = rop_set(rop, p.model, p.data), ridge = 0.125;
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, ridge);
    struct probe probe = {grid, &p, backprop_create(p.model, &p.loss, p.data->samples, 0), H, NULL};
    const int64_t n = H->n;
    double *u = random_vector(n, 1), *v = random_vector(n, 2), *found = NEW(double, n), *expected = NEW(double, n);
    double accuracy;

    assert_int_equal(n, layer_start(p.model, p.model->depth + 1));
    assert_close(loss, backprop_evaluate(probe.backprop, p.model, p.data, &accuracy), 1e-13 * (1 + loss));
    freeze(p.model, u);
    multiply(grid, H, false, v, found); /* what stands in frozen layers does not matter */
    freeze(p.model, v);
    differentiate(&probe, v, n, expected);
    for (int64_t i = 0; i < n; i++) expected[i] += ridge * v[i];
    freeze(p.model, expected);
    assert_vectors(n, found, expected, 1e-9, "Hessian");
    const double left = dot(n, u, found);
    multiply(grid, H, true, u, found);
    assert_close(left, dot(n, v, found), 1e-12 * (1 + fabs(left)));
    struct params *gradient = params_create(p.model);
    rop_gradient(rop, gradient);
    gather(grid, H, true, gradient->local, found);
    evaluate(&probe, expected);
    assert_vectors(n, found, expected, 1e-13, "gradient");
    check_gauss_newton(&probe, rop, u, v, n);
    if (rop_defined(&p.loss, p.data, ROP_G)) check_second_moments(&probe, rop, v, n);
    if (grid->size <= 2) check_blocks(grid, rop, &p);
    check_chunks(grid, &p, rop, v, n);
    params_destroy(&gradient);
    backprop_destroy(&probe.backprop);
    memory_free(u);
    memory_free(v);
    memory_free(found);
    memory_free(expected);
    linop_destroy(&H);
    rop_destroy(&rop);
    problem_destroy(&p);
}

static void networks_on(struct grid *grid)
{
    static const char *const texts[] = {
        "model: {widths: [4, 5, 7, 3], activation: gelu, bias: true}\n",
        "model: {widths: [4, 5, 3], activation: tanh, linear_head: 1}\nloss: {kind: cross_entropy}\n",
        "model: {widths: [4, 6, 6, 6, 3], activation: silu, residual: pairs, bias: true}\nloss: {reduction: sum}\n",
        "model: {widths: [4, 4, 4, 3], activation: elu, residual: scaled, bias: true, trainable: [2, 3]}\n",
        "model: {widths: [4, 3], activation: linear}\nloss: {reduction: samples}\n",
        "model: {widths: [4, 5, 5, 3], activation: leaky_relu, trainable: [1, 3], residual: scaled}\n",
        "model: {widths: [4, 4, 4, 3], activation: linear, residual: scaled}\n",
        "model: {widths: [4, 5, 3], activation: tanh, bias: true}\nloss: {kind: masked_mse, reduction: observed}\n",
        "model: {widths: [4, 5, 3], activation: relu, bias: true}\nloss: {kind: masked_mse, reduction: sum}\n",
        "model: {widths: [4, 4, 3], activation: silu, residual: scaled, output_scale: 3}\nloss: {kind: masked_mse}\n",
        "model: {widths: [4, 5, 3], activation: linear, output_scale: 0.5}\nloss: {kind: sensing}\n",
        "model: {widths: [4, 5, 3], activation: gelu, bias: true}\nloss: {kind: sensing, reduction: sum}\n",
        "model: {widths: [4, 4, 3], output_scale: 2.5, bias: true}\nloss: {kind: cross_entropy}\n",
        "model: {widths: [4, 5, 3], activation: tanh, trainable: [1]}\nloss: {kind: logistic, reduction: samples}\n",
        "model: {widths: [4, 5, 3], activation: relu, bias: true}\nloss: {kind: logistic}\n",
        "model: {widths: [4, 5, 3], activation: gelu, bias: true}\nloss: {kind: exponential}\n",
    };
    const int count = (int)(sizeof texts / sizeof *texts);

    for (int t = 0; t < count; t++) check_network(grid, texts[t], t % 2);
    check_network(grid, texts[3], false);
    check_network(grid, texts[2], true);
}

static void networks(void **state)
{
    (void)state;
    on_every_grid(networks_on);
}

static const struct CMUnitTest rop_tests[] = {
    cmocka_unit_test(networks),
};

UNIT_MAIN(rop_tests, NULL, NULL)
