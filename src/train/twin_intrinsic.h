/* What twin_intrinsic.c (reduced dynamics beside the network), twin_intrinsic_start.c (whether its start has them) and
 * twin_intrinsic_closed.c (closed solutions of them) share. */
#ifndef EIGENTRAIN_TRAIN_TWIN_INTRINSIC_H
#define EIGENTRAIN_TRAIN_TWIN_INTRINSIC_H

#include "theory/intrinsic.h"

#include "twin_private.h"

/* S_k = W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ at the start, k = 1 … L − 1. With residual layers I + W_k/L in place of W_k, and
 * all times L². */
struct twin_start {
    int interfaces; /* L − 1 */
    double *lambda; /* [L] tr S_k/d_k, 0 if that is rounding; owned */
    double *defect; /* [L] ‖S_k − λ_k I‖_F; owned */
    double *size;   /* [L] ‖W_{k+1}‖_F² + ‖W_k‖_F²; owned */
};

/* Collective on the grid. The factor of Z that layer l is: W_l, or I + scale·W_l; the caller owns it. */
struct dmat *twin_factor(const struct model *model, int l);

/* Collective on the grid. Z, the product of all of them; the caller owns it. */
struct dmat *twin_end_to_end(const struct model *model);

/* Collective on the grid. Measures the start; `scaled`: residual layers. */
void twin_start_measure(const struct model *model, bool scaled, struct twin_start *start);

/* Local. Frees what it owns. */
void twin_start_clear(struct twin_start *start);

/* Local. Whether architecture and update rule have reduced dynamics; else problems. */
bool twin_start_allows(const struct twin *twin, const struct twins_setting *setting, struct problems *problems);

/* Local. Whether this start has; else a problem that says how far it is from one. */
bool twin_start_fits(const struct twin *twin, const struct twin_start *start, const struct intrinsic_law *law,
                     const struct setting *run, struct problems *problems);

/* ---- twin_intrinsic_closed.c */

/* The closed solution of a run with two layers, squared error, and inputs with X Xᵀ = c I. */
struct closed;

/* Collective on the grid. NULL if there is none. The weights are those of the start. */
struct closed *closed_create(const struct setting *run, double lambda);

/* Local. Frees it and sets *closed to NULL. */
void closed_destroy(struct closed **closed);

/* Collective on the grid. max |Q Qᵀ − its closed form|, Q = [W_1ᵀ; W_2] of a model at this time. */
double closed_error(const struct closed *closed, const struct model *model, double time);

/* Local. Whether the network is one neuron f = a w·x, whose ν = w·β/a has a closed form, too. */
bool closed_is_neuron(const struct closed *closed);

/* Collective on the grid. ν of a model of one neuron (NaN if a = 0), and its closed form at this time. */
void closed_neuron(const struct closed *closed, const struct model *model, double time, double *nu, double *expected);

#endif
