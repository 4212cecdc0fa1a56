/* Closed solutions beside a network of two layers: f(Z) = (1/2s) ‖α Z X − Y‖_F² with X Xᵀ = c I is, up to a constant, τ
 * times ½‖Z − Σ‖_F² with Σ = Y Xᵀ/(α c) and τ = α² c/s: the same solution at τ times the time. */
#include "base/memory.h"

#include "twin_intrinsic.h"

#include <math.h>
#include <string.h>

/* Every rank holds these matrices whole. */
static const int64_t LARGEST = 1024; /* n_in + n_out */

struct closed {
    int n_in, n_out, hidden;
    double lambda, speed; /* τ times the factor of the learning rate */
    double *target;       /* Σ, n_out × n_in column-major; owned */
    double *start;        /* Q at the start, (n_in + n_out) × h; owned */
};

/* c of X Xᵀ = c I; 0 if it is no such matrix. */
static double whiteness(const struct dataset *train)
{
    if (!train->X) return 1;
    const double c = dmat_dot(train->X, train->X) / (double)train->features;
    if (train->X->m > train->X->n || !(c > 0)) return 0;
    return dmat_orthogonality(train->X, c) < 1e-12 * c * (double)train->features ? c : 0;
}

/* [W_1ᵀ; W_2], whole on every rank. */
static double *stack(const struct model *model)
{
    const struct dmat *first = model->params->W[0], *second = model->params->W[1];
    const int64_t n_in = first->n, h = first->m, n_out = second->m, n = n_in + n_out;
    double *W1 = NEW(double, n_in *h), *W2 = NEW(double, n_out *h), *Q = NEW(double, n *h);
    dmat_gather(first, W1, -1);
    dmat_gather(second, W2, -1);
    for (int64_t j = 0; j < h; j++) {
        for (int64_t i = 0; i < n_in; i++) Q[i + j * n] = W1[j + i * h];
        memcpy(Q + n_in + j * n, W2 + j * n_out, (size_t)n_out * sizeof *Q);
    }
    memory_free(W2);
    memory_free(W1);
    return Q;
}

struct closed *closed_create(const struct setting *run, double lambda)
{
    const struct model *model = run->model;
    const struct dataset *train = run->train;
    if (model->depth != 2 || model->layer[0].skip >= 0 || run->loss->kind != LOSS_MSE) return NULL;
    if (model->width[0] + model->width[2] > LARGEST || model->width[1] > LARGEST) return NULL;
    const double c = whiteness(train), alpha = model->output_scale;
    if (c == 0) return NULL;
    struct closed *closed = NEW(struct closed, 1);
    closed->n_in = to_int(model->width[0]);
    closed->hidden = to_int(model->width[1]);
    closed->n_out = to_int(model->width[2]);
    closed->lambda = lambda;
    closed->speed = alpha * alpha * c * loss_scale_on(run->loss, train) * model->layer[0].lr_multiplier;
    struct dmat *target = dmat_create(train->Y->grid, train->Y->m, train->features);
    if (train->X)
        dmat_gemm('N', 'T', 1 / (alpha * c), train->Y, train->X, 0, target);
    else
        dmat_axpy(target, 1 / alpha, train->Y);
    closed->target = NEW(double, target->m * target->n);
    dmat_gather(target, closed->target, -1);
    dmat_destroy(&target);
    closed->start = stack(model);
    return closed;
}

void closed_destroy(struct closed **closed)
{
    if (!*closed) return;
    memory_free((*closed)->target);
    memory_free((*closed)->start);
    memory_free(*closed);
    *closed = NULL;
}

double closed_error(const struct closed *closed, const struct model *model, double time)
{
    const int n = closed->n_in + closed->n_out, h = closed->hidden;
    double *Q = stack(model), *expected = NEW(double, (int64_t)n *h), largest = 0;
    memcpy(expected, closed->start, (size_t)n * (size_t)h * sizeof *expected);
    intrinsic_matrix_solution(closed->n_in, closed->n_out, h, closed->lambda, closed->target, closed->speed * time,
                              expected);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int k = 0; k < h; k++)
                sum += Q[i + (int64_t)k * n] * Q[j + (int64_t)k * n] -
                       expected[i + (int64_t)k * n] * expected[j + (int64_t)k * n];
            if (!(fabs(sum) <= largest)) largest = fabs(sum); /* a NaN stays */
        }
    memory_free(expected);
    memory_free(Q);
    return largest;
}

bool closed_is_neuron(const struct closed *closed)
{
    return closed->hidden == 1 && closed->n_out == 1;
}

/* w·β/a of Q = [w; a]. */
static double neuron_of(const struct closed *closed, const double *Q)
{
    double sum = 0;
    for (int i = 0; i < closed->n_in; i++) sum += Q[i] * closed->target[i];
    return Q[closed->n_in] == 0 ? NAN : sum / Q[closed->n_in];
}

void closed_neuron(const struct closed *closed, const struct model *model, double time, double *nu, double *expected)
{
    double *Q = stack(model), square = 0;
    for (int i = 0; i < closed->n_in; i++) square += closed->target[i] * closed->target[i];
    *nu = neuron_of(closed, Q);
    *expected = square > 0 ? intrinsic_neuron(sqrt(square), closed->lambda, neuron_of(closed, closed->start),
                                              closed->speed * time)
                           : NAN;
    memory_free(Q);
}
