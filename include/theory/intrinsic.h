/* intrinsic: reduced dynamics of linear networks. Gradient flow on the weights of Z = W_N … W_1 moves Z by
 *     Z' = −A (K ∘ (Aᵀ G B)) Bᵀ,   Z = A diag(σ) Bᵀ,   G = ∇f(Z),
 * with K a function of the singular values alone, if the start is relaxed balanced: S_k = W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ =
 * λ_k I for all k (Marcotte, Peyré, Gribonval, arXiv 2508.07370; Arora et al. 2018). No network is needed to follow it.
 * And the closed solutions for the loss ½‖Z − Σ‖_F² (Saxe et al. 2013; Braun et al. 2022; Dominé et al., arXiv
 * 2409.14623; Kunin et al., arXiv 2406.06158). Notation and cases: shared specification of intrinsic dynamics. */
#ifndef EIGENTRAIN_THEORY_INTRINSIC_H
#define EIGENTRAIN_THEORY_INTRINSIC_H

#include "dist/archive.h"
#include "dist/dmat.h"

#include <stdbool.h>
#include <stdint.h>

enum intrinsic_kind {
    INTRINSIC_TWO_LAYERS, /* S_1 = λI, hidden width h: not for λ ≠ 0 and min(m, n) < h < max(m, n) */
    INTRINSIC_DEEP,       /* N layers, balanced; or all of them square and S_k = λ_k I */
    INTRINSIC_INFINITE    /* the limit of U_L … U_1, U_k = I + A_k/L, A_k' = −∂f/∂U_k: independent of λ(s) */
};

/* Which dynamics. */
struct intrinsic_law {
    enum intrinsic_kind kind;
    int depth;            /* N; not for INFINITE */
    int64_t hidden;       /* h of two layers */
    const double *lambda; /* [N − 1] λ_1 … λ_{N−1}; NULL: all are 0; borrowed */
};

/* Local. K between the singular values sigma[r] of an m × n matrix: K[i + j·r], and between each of them and directions
 * in which Z is 0: left[j] from the left, right[i] from the right. */
void intrinsic_metric(const struct intrinsic_law *law, int64_t m, int64_t n, int r, const double *sigma, double *K,
                      double *left, double *right);

/* Local. Whether Z moves by such a law at all: not with two layers, λ ≠ 0 and min(m, n) < h < max(m, n), where part of
 * W_2 W_2ᵀ (or W_1ᵀ W_1) cannot be seen in Z. */
bool intrinsic_exists(const struct intrinsic_law *law, int64_t m, int64_t n);

/* The reduced dynamics on its way. */
struct intrinsic;

/* Collective on the grid. From Z (m × n, copied); `law` is copied. Balanced matrices of a rank r < min(m, n) are
 * followed as Z = U S Vᵀ with r columns each, so that their rank stays what it is: two products m × n × r for each G;
 * others by the SVD of Z. */
struct intrinsic *intrinsic_create(const struct intrinsic_law *law, const struct dmat *Z);

/* Local. Frees it and sets *intrinsic to NULL. */
void intrinsic_destroy(struct intrinsic **intrinsic);

/* Collective on the grid. Moves on by `time` in `steps` steps of the classical Runge–Kutta method. gradient(context, Z,
 * G): G ← ∇f(Z), called on every rank. */
void intrinsic_advance(struct intrinsic *intrinsic, double time, int64_t steps,
                       void (*gradient)(void *context, const struct dmat *Z, struct dmat *G), void *context);

/* Local. Z as it is now, borrowed. */
const struct dmat *intrinsic_matrix(const struct intrinsic *intrinsic);

/* Local. The r of the factors, or 0 if Z is followed as a whole. */
int intrinsic_rank(const struct intrinsic *intrinsic);

/* Collective on the grid. Saves or restores the state. */
void intrinsic_archive(struct intrinsic *intrinsic, struct archive *archive);

/* ---- closed solutions (intrinsic_closed.c), f(Z) = ½‖Z − Σ‖_F² */

/* Local. One mode w = w_2 w_1 of strength s with w_2² − w_1² = λ: w' = √(4w² + λ²)(s − w), w(0) = w0, at time t. For λ
 * = 0 that of Saxe et al., w0 > 0; else s ≠ 0. */
double intrinsic_mode(double s, double w0, double lambda, double t);

/* Local. One mode of infinite depth: w' = w²(s − w), w(0) = w0 > 0, s > 0. */
double intrinsic_mode_infinite(double s, double w0, double t);

/* Local. One neuron f = a w·x, XᵀX = I: ν = w·β/a, ν' = s² − δν − ν², δ = a² − ‖w‖², s = ‖β‖ > 0. */
double intrinsic_neuron(double s, double delta, double nu0, double t);

/* Local. Two layers of any sizes with S_1 = λI: Q = [W_1ᵀ; W_2] (n × h column-major, n = n_in + n_out) at the start,
 * overwritten by factors of Q Qᵀ at time t (Q itself up to an orthogonal matrix from the right). sigma: Σ (n_out × n_in
 * column-major). Restarts in windows, so that no exponential overflows. */
void intrinsic_matrix_solution(int n_in, int n_out, int h, double lambda, const double *sigma, double t, double *Q);

#endif
