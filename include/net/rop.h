/* rop: products of curvature matrices with vectors, by sweeps of distributed products (Pearlmutter 1994; Schraudolph
 * 2002). No matrix is formed, nothing is gathered: a vector has the layout of struct params. */
#ifndef EIGENTRAIN_NET_ROP_H
#define EIGENTRAIN_NET_ROP_H

#include "dist/linop.h"
#include "net/dataset.h"
#include "net/loss.h"
#include "net/model.h"

/* Of the loss (1/s) Σ_i ℓ_i of a dataset with N samples, of which g_i = (N/s) ∇ℓ_i are the per-sample gradients, their
 * mean being the gradient g:
 *   hessian   ∇² of the loss + ridge·I
 *   ggn       generalised Gauss–Newton: (1/s) Σ J_iᵀ (∂²ℓ_i/∂f²) J_i, J_i = ∂f_i/∂θ
 *   g         second moment (1/N) Σ g_i g_iᵀ
 *   g_centred covariance g − g gᵀ
 *   remainder ∇² of the loss − ggn, by a product with each
 * The moments need a loss that is a sum over samples (rop_defined). */
enum rop_kind { ROP_HESSIAN, ROP_GGN, ROP_G, ROP_G_CENTRED, ROP_REMAINDER, ROP_KINDS };

/* Part of the parameters. */
struct rop_part {
    int layer;         /* 1 … L; 0: all of them */
    int64_t unit;      /* the weights into one unit of that layer and its bias, counted from 0; −1: all units */
    bool weights_only; /* without the biases; of one layer only */
};

/* All of them. */
#define ROP_ALL ((struct rop_part){.layer = 0, .unit = -1})

/* The work space: per layer and column a_l, φ′, φ″∘E, D and two tangents. */
struct rop;

/* Collective on the grid. For datasets of up to `samples` columns, `chunk` of them at a time (see backprop_create; 0:
 * all at once). */
struct rop *rop_create(const struct model *model, const struct loss *loss, int64_t samples, int64_t chunk);

/* Local. Frees it and sets *rop to NULL; operators of it must be gone. */
void rop_destroy(struct rop **rop);

/* Collective on the grid. From now on operators are those of the model with its present weights on `dataset` (both
 * borrowed). Returns the loss, the same on every rank. A dataset of one chunk is swept here, and only here: after a
 * change of the weights this has to be called again. */
double rop_set(struct rop *rop, const struct model *model, const struct dataset *dataset);

/* Local. Whether that matrix exists for this loss and dataset: no second moment of gradients for measurements and
 * compressed data, which have no samples. */
bool rop_defined(const struct loss *loss, const struct dataset *dataset, enum rop_kind kind);

/* Local. The matrix as an operator, or the block of it in the rows of part `row` and the columns of part `col`; both
 * are everything, or neither is. Vectors hold the local elements of a part in the order of struct params; global
 * indices count a part's elements in the order W_1 by rows, b_1, W_2, …. Frozen layers have rows and columns of zeros.
 * `ridge` is added on the diagonal of the Hessian. */
struct linop *rop_operator(struct rop *rop, enum rop_kind kind, struct rop_part row, struct rop_part col, double ridge);

/* Local. x ← the elements of a part, in the order of its vectors, of parameters with the layout of the model's. */
void rop_take(const struct model *model, struct rop_part part, const struct params *params, double *x);

/* Collective on the grid. gradient ← the gradient of the loss (without ridge). */
void rop_gradient(struct rop *rop, struct params *gradient);

/* Collective on the grid. The exact trace of g, without any product: (N/s²) Σ_i Σ_l ‖d_l,i‖² (‖a_{l−1,i}‖² + 1 with a
 * bias). */
double rop_trace_g(struct rop *rop);

/* Local. Bytes of this rank's work space for so many columns at a time; the grid may be on paper only. */
int64_t rop_bytes(const struct model *model, int64_t columns);

#endif
