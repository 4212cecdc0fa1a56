/* mixtures: high-dimensional Gaussian mixtures (arXiv 2310.03010, 2206.04030, 2502.15655): the course of one-pass
 * stochastic gradient descent, and bulk, outliers and outlier eigenvectors of the classifier's Hessian and of the
 * second moment of its gradients. Numbers only: no network, no data.
 *
 * k classes with probabilities p_b, inputs μ_b + N(0, I_d/λ), orthonormal means; a linear classifier with rows x^a and
 * cross-entropy. Its state is m_ac = x^a·μ_c and R_ab = x^a_⊥·x^b_⊥ (k × k, row after row), x_⊥ perpendicular to all
 * means. φ is the number of samples of a matrix over d. `lambda` may be infinite for the dynamics. */
#ifndef EIGENTRAIN_THEORY_MIXTURES_H
#define EIGENTRAIN_THEORY_MIXTURES_H

#include "dist/archive.h"

#include <stdbool.h>
#include <stdint.h>

/* ---------------------------------------------------------------- effective dynamics */

/* Points of a standard normal law, for expectations. */
struct normal_points {
    int dimension, count;
    double *value; /* [count × dimension], point after point; mean 0 and covariance I exactly; owned */
};

/* Local. `count` points (an even number): quasi-random, each with its negative. Three digits with 2^13 of them. */
struct normal_points *normal_points_create(int dimension, int count);

/* Local. Frees them and sets *points to NULL. */
void normal_points_destroy(struct normal_points **points);

/* One-pass stochastic gradient descent in the limit d → ∞, with learning rate c/d, time t = steps · c/d, batches of B
 * and weight decay β:
 *     dm_ac/dt = −β m_ac + p_c (δ_ac − E[π_a|c]) − (1/λ) Σ_b H_ab m_bc,            H_ab = E[π_a (δ_ab − π_b)]
 *     dR_ab/dt = −2β R_ab − (1/λ) Σ_c (H_ac R_cb + H_bc R_ca) + (c/Bλ) E[(y_a − π_a)(y_b − π_b)] */
struct effective {
    int k;
    double lambda, decay, noise; /* λ, β, c/B */
    double time;                 /* of m and R */
    double *p;                   /* [k]; owned */
    double *m, *R;               /* [k × k]; owned */
    double *whole; /* [2 × k × k] m and R after `steps` whole steps, from where all later times are reached; owned */
    int64_t steps;
    struct normal_points *points; /* owned */
};

/* Local. At time 0, for weights that start at random: m = 0, R = I. */
struct effective *effective_create(int k, const double *p, double lambda, double decay, double noise);

/* Local. Frees it and sets *effective to NULL. */
void effective_destroy(struct effective **effective);

/* Local. Another start, at time 0: measured ones are of size d^(−1/2) apart from m = 0. */
void effective_start(struct effective *effective, const double *m, const double *R);

/* Local. m and R at the time `until`, not before the last whole step: Runge–Kutta steps of 0.1 and a last one that is
 * shorter, which later times do not build on. What is found does not depend on the times that were asked for before. */
void effective_run(struct effective *effective, double until);

/* Local. Loss of the population (without decay), and in *accuracy (may be NULL) the fraction that is classified
 * rightly. */
double effective_loss(const struct effective *effective, double *accuracy);

/* Local. rho(x^a, span μ)² = Σ_c m_ac² / (Σ_c m_ac² + R_aa), of any state. */
double effective_alignment_squared(int k, const double *m, const double *R, int a);

/* Local. The end point for λ = ∞ and equal p_b = 1/k: u = m_aa with βu = (1 − π)/k, π = 1/(1 + (k − 1) e^{−uk/(k−1)}).
 */
double effective_fixed_point(int k, double decay);

/* Collective on the archive's comm. Saves or restores how far it got; after that effective_run finds m and R. */
void effective_archive(struct effective *effective, struct archive *archive);

/* ---------------------------------------------------------------- spectra */

/* The (a, a) block M = (1/n) Σ h_i Y_i Y_iᵀ of which matrix. */
enum mixture_matrix {
    MIXTURE_HESSIAN, /* h = π_a (1 − π_a) */
    MIXTURE_GRADIENT /* h = (π_a − y_a)²: the second moment of the gradients, not centred */
};

/* Outliers of a block in the limit d → ∞, in the coordinates of L = span(μ_1 … μ_k, x^1 … x^k): the means are the first
 * k unit vectors. */
struct outliers {
    int k, order;  /* order r of L: k, and the rank of R */
    double edge;   /* upper end of the bulk; for MIXTURE_GRADIENT at W ≠ 0 no finite sample shows it (thin tail) */
    int count;     /* of outliers, at most r */
    double *value; /* [r] descending, `count` of them; owned */
    double *projection; /* [r] squared norm of the eigenvector's projection on L; owned */
    double *vector;     /* [r × r] its direction there, vector[i + m·r], unit length; owned */
    double *rows;       /* [r × k] x^a in these coordinates, rows[i + a·r]; owned */
};

/* Local. For any state. `a` is counted from 0. */
struct outliers *outliers_create(int k, const double *m, const double *R, const double *p, double lambda, double phi,
                                 enum mixture_matrix matrix, int a);

/* Local. Frees them and sets *outliers to NULL. */
void outliers_destroy(struct outliers **outliers);

/* Local. Squared projection of the eigenvector of outlier i on the span of the means alone. */
double outliers_projection_on_means(const struct outliers *outliers, int i);

/* Local. Predicted rho(x^a, E_j), E_j the span of the j leading eigenvectors; NaN with fewer than j outliers or x^a =
 * 0. */
double outliers_alignment(const struct outliers *outliers, int a, int j);

/* Local. The same block at W = 0 in closed form, for any weights h_b (k of them) that are constant on each class:
 * value, projection [k] are filled, descending; returns the number of outliers. */
int outliers_at_zero(int k, const double *p, double lambda, double phi, const double *h, double *edge, double *value,
                     double *projection);

/* Local. Ends of the bulk of (h/λ) (1/n) Σ g gᵀ, g ~ N(0, I_d): (h/λ)(1 ∓ √(1/φ))². */
void outliers_bulk(double h, double lambda, double phi, double *lower, double *upper);

/* λ = ∞, W = r [I 0]: every class once. */
struct noise_free {
    double loss;
    double hessian[2];             /* whole matrix: k times and k(k − 2) times, else 0 */
    double hessian_block[2];       /* (a, a): once and k − 1 times */
    double second_moment;          /* of the gradients, whole: k times; centred: k − 1 times */
    double second_moment_block[2]; /* (a, a): once and k − 1 times */
};

/* Local. These values. */
struct noise_free noise_free_of(int k, double r);

/* ---------------------------------------------------------------- two layers: XOR and binary mixtures */

/* Local. C_α = log((1 − 4α)/(4α)): Σ v_i² of a learned cluster of the XOR mixture at λ = ∞; 0 for α ≥ 1/8. */
double xor_constant(double alpha);

/* Local. Probability that `units` hidden units, each of which picks one of the four clusters, have learned so many. */
double xor_occupancy(int units, int learned);

/* The end point with some clusters learned (in the order +μ, −μ, +ν, −ν), to first order in λ^(−1/2). */
struct xor_end {
    double error[4];    /* |ŷ − y| on the cluster: 1/2 if it is not learned */
    double strength[4]; /* C_c = Σ v_i² over its units; 0 if it is not learned */
    double gradient[4]; /* its eigenvalue of the second moment of the gradients by v */
    double hessian[4];  /* its eigenvalue of the Hessian by v, without the ridge α */
};

/* Local. That; `lambda` may be infinite. All zero strengths for α ≥ 1/8. */
struct xor_end xor_end_of(double alpha, double lambda, const bool learned[4]);

/* Local. 1 − rho(W_i, span{μ, ν})² of a unit of a learned cluster with learning rate c/d; e₊, e₋ are the errors on the
 * two clusters of the other axis. */
double xor_misalignment(double alpha, double lambda, double c, double plus, double minus);

/* Local. The binary mixture: log((1 − 2α)/(2α)), 0 for α ≥ 1/4. */
double binary_constant(double alpha);

/* ---------------------------------------------------------------- small tools */

/* Local. The point of the normal law below which a fraction p in (0, 1) lies. */
double normal_quantile(double p);

#endif
