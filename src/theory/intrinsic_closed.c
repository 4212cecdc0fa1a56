/* Closed solutions: modes, one neuron, two layers of any sizes. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "theory/intrinsic.h"

#include <math.h>
#include <string.h>

/* ---------------------------------------------------------------- scalars */

double intrinsic_mode(double s, double w0, double lambda, double t)
{
    if (lambda == 0) return s / (1 + (s / w0 - 1) * exp(-2 * s * t));
    const double l = fabs(lambda), kappa = sqrt(s * s + l * l / 4);
    const double stable = s / (l / 2 + kappa), unstable = -(l / 2 + kappa) / s; /* T+, T− */
    const double start = tanh(asinh(2 * w0 / l) / 2), decay = exp(-2 * kappa * t);
    const double T = (unstable * decay * (stable - start) + stable * (start - unstable)) /
                     (decay * (stable - start) + (start - unstable));
    return l * T / (1 - T * T);
}

/* The time at which a mode of infinite depth has come from w0 to w. */
static double time_of(double s, double w0, double w)
{
    return (1 / w0 - 1 / w) / s + log(w * (s - w0) / (w0 * (s - w))) / (s * s);
}

double intrinsic_mode_infinite(double s, double w0, double t)
{
    if (w0 == s || t == 0) return w0;
    double from = w0, to = s, w = w0; /* the time grows from w0 towards s, which is never reached */
    for (int turn = 0; turn < 400; turn++) {
        const double error = w == w0 ? -t : time_of(s, w0, w) - t;
        if (error > 0)
            to = w;
        else
            from = w;
        double next = w - error * w * w * (s - w);
        if (!(next > fmin(from, to) && next < fmax(from, to))) next = (from + to) / 2;
        if (fabs(next - w) <= 1e-16 * fabs(w)) return next;
        w = next;
    }
    return w;
}

double intrinsic_neuron(double s, double delta, double nu0, double t)
{
    const double R = sqrt(4 * s * s + delta * delta), u = (delta + 2 * nu0) / R, T = tanh(R * t / 2);
    return (-delta + R * (T + u) / (1 + T * u)) / 2; /* the sum of the arguments of tanh or coth */
}

/* ---------------------------------------------------------------- two layers */

/* Exponents of one window. */
static const double WINDOW = 16;

/* F = [−λ/2 I, Σᵀ; Σ, λ/2 I] by its eigenpairs. */
struct generator {
    int n;
    double *value, *vector; /* [n], [n × n] */
};

static struct generator generator_of(int n_in, int n_out, double lambda, const double *sigma)
{
    const int n = n_in + n_out;
    struct generator F = {n, NEW(double, n), NEW(double, (int64_t)n *n)};
    double *A = NEW(double, (int64_t)n *n);
    for (int i = 0; i < n; i++) A[i + (int64_t)i * n] = i < n_in ? -lambda / 2 : lambda / 2;
    for (int j = 0; j < n_in; j++)
        for (int i = 0; i < n_out; i++)
            A[n_in + i + (int64_t)j * n] = A[j + (int64_t)(n_in + i) * n] = sigma[i + (int64_t)j * n_out];
    factor_local_eigenpairs(n, A, F.value, F.vector);
    memory_free(A);
    return F;
}

/* M (h × h, symmetric positive) ← M^{−1/2}. */
static void inverse_root(int h, double *M)
{
    double *value = NEW(double, h), *vector = NEW(double, (int64_t)h *h), *scaled = NEW(double, (int64_t)h *h);
    factor_local_eigenpairs(h, M, value, vector);
    for (int j = 0; j < h; j++)
        for (int i = 0; i < h; i++) scaled[i + (int64_t)j * h] = vector[i + (int64_t)j * h] / sqrt(value[j]);
    factor_local_product('N', 'T', h, h, h, scaled, vector, M);
    memory_free(scaled);
    memory_free(vector);
    memory_free(value);
}

/* Q ← e^{Ft} Q (I + Qᵀ P Q)^{−1/2}, P = ∫ e^{2Fs} ds, in the eigenvectors of F (C = VᵀQ, n × h). */
static void window(const struct generator *F, int h, double t, double *C)
{
    const int n = F->n;
    double *moved = NEW(double, (int64_t)n *h), *M = NEW(double, (int64_t)h *h), *weighted = NEW(double, (int64_t)n *h);
    for (int i = 0; i < n; i++) {
        const double f = F->value[i], p = f == 0 ? t : expm1(2 * f * t) / (2 * f), e = exp(f * t);
        for (int j = 0; j < h; j++) {
            weighted[i + (int64_t)j * n] = p * C[i + (int64_t)j * n];
            moved[i + (int64_t)j * n] = e * C[i + (int64_t)j * n];
        }
    }
    factor_local_product('T', 'N', h, h, n, C, weighted, M);
    for (int i = 0; i < h; i++) M[i + (int64_t)i * h] += 1;
    inverse_root(h, M);
    factor_local_product('N', 'N', n, h, h, moved, M, C);
    memory_free(weighted);
    memory_free(M);
    memory_free(moved);
}

void intrinsic_matrix_solution(int n_in, int n_out, int h, double lambda, const double *sigma, double t, double *Q)
{
    struct generator F = generator_of(n_in, n_out, lambda, sigma);
    const double most = fmax(fabs(F.value[0]), fabs(F.value[F.n - 1]));
    const int windows = 1 + (int)(2 * most * t / WINDOW);
    double *C = NEW(double, (int64_t)F.n *h);
    factor_local_product('T', 'N', F.n, h, F.n, F.vector, Q, C);
    for (int i = 0; i < windows; i++) window(&F, h, t / windows, C);
    factor_local_product('N', 'N', F.n, h, F.n, F.vector, C, Q);
    memory_free(C);
    memory_free(F.vector);
    memory_free(F.value);
}
