/* collapse_private: what collapse.c (the probe) and collapse_features.c (its numbers) share. */
#ifndef EIGENTRAIN_PROBES_COLLAPSE_PRIVATE_H
#define EIGENTRAIN_PROBES_COLLAPSE_PRIVATE_H

#include "net/dataset.h"
#include "probes/probe.h"

#include <stdbool.h>
#include <stdint.h>

/* How far the features a_l of a layer have collapsed onto their class means. With the means μ_k of the K classes, μ of
 * all N samples, Σ_W = (1/N) Σ_i (h_i − μ_k(i)) (h_i − μ_k(i))ᵀ and Σ_B = (1/K) Σ_k (μ_k − μ) (μ_k − μ)ᵀ. A number
 * that is not defined is NaN, and so is all that comes from features too large to be squared. */
struct collapse_layer {
    double compression;    /* Tr Σ_W / Tr Σ_B; NaN if the class means are equal to rounding */
    double discrimination; /* 1 − max_{k ≠ k'} cos(μ_k, μ_k'); NaN if a mean is zero */
    double nc1;            /* Tr(Σ_W Σ_B⁺) / K; NaN as compression */
    double equinorm;       /* standard deviation / mean of ‖μ_k − μ‖ over the classes; NaN as compression */
    double equiangular; /* mean over pairs of |cos(μ_k − μ, μ_k' − μ) + 1/(K − 1)|; NaN if a μ_k − μ is zero */
};

/* The last features and the last layer. M = [μ_k − mean of the μ_k] (the same μ as above where classes are of equal
 * size), E = (I − 11ᵀ/K)/√(K − 1); NaN unless M spans K − 1 dimensions. */
struct collapse_head {
    double quotient;     /* Tr Σ_W / (‖M‖_F²/K) */
    double norm_cv;      /* standard deviation / mean of the norms of M's columns */
    double simplex;      /* ‖MᵀM/‖MᵀM‖_F − E‖_F */
    double head_simplex; /* ‖WM/‖WM‖_F − E‖_F */
    double self_duality; /* ‖W_Lᵀ/‖W_L‖_F − M/‖M‖_F‖_F */
    double disagreement; /* share of samples whose nearest class mean is not the class that the network says */
};

/* Collective on the grid. Samples in each class, count[Y->m], of one-hot targets. */
void collapse_count(const struct dmat *Y, double *count);

/* Collective on the grid. Measures on the whole training set: layer[l] for the features a_l, l = 0 … L − 1. Two passes
 * over the data: means, then deviations from them. Beside a few activations of a chunk it takes K × K numbers and a
 * matrix n_l × K a layer. Every class has a sample. */
void collapse_features(const struct moment *moment, const double *count, struct collapse_layer *layer,
                       struct collapse_head *head);

/* Collective on the grid. All of these but the disagreement, from M (n × K), the last layer W and Tr Σ_W; NaN unless
 * `defined`. */
struct collapse_head collapse_head_of(const struct dmat *centred, const struct dmat *W, double within, bool defined);

#endif
