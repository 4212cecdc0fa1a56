/* backprop: loss and gradient of a model on a dataset, by chunks of columns. */
#ifndef EIGENTRAIN_NET_BACKPROP_H
#define EIGENTRAIN_NET_BACKPROP_H

#include "net/dataset.h"
#include "net/loss.h"
#include "net/model.h"

/* Work space: the activations of one chunk of c columns: n_l × c for every layer (a_l, then ∂ℓ/∂a_l), and once more for
 * every layer with an activation (z_l, then φ′(z_l), then D_l). */
struct backprop;

/* Collective on the grid. `chunk` columns are processed at a time (rounded up to a multiple of block × npcol, so that
 * chunks are views); 0: all of `samples`. */
struct backprop *backprop_create(const struct model *model, const struct loss *loss, int64_t samples, int64_t chunk);

/* Local. Frees it and sets *backprop to NULL. */
void backprop_destroy(struct backprop **backprop);

/* Collective on the grid. gradient ← ∂loss/∂params on the dataset, returns this rank's part of the loss (parts add up
 * to the loss over all ranks): the caller sums it together with whatever else it has to sum. Frozen layers get zeros.
 *     D_L = α ∂ℓ/∂f,  G_l = D_l a_{l−1}ᵀ,  D_{l−1} = φ′(z_{l−1}) ∘ (W_lᵀ D_l)    (and the residual terms) */
double backprop_gradient(struct backprop *backprop, const struct model *model, const struct dataset *dataset,
                         struct params *gradient);

/* Collective on the grid. Loss (complete, the same on every rank) and accuracy in [0, 1] (NaN unless loss_classifies).
 */
double backprop_evaluate(struct backprop *backprop, const struct model *model, const struct dataset *dataset,
                         double *accuracy);

/* Collective on the grid. How well the network finds what the loss does not show it, the same on every rank:
 * (1 / 2KN) ‖(1 − M) ∘ (F − Y)‖_F² for a dataset with a mask; with measurements all entries count. NaN for any other
 * dataset. */
double backprop_recovery(struct backprop *backprop, const struct model *model, const struct dataset *dataset);

/* Collective on the grid. The features of the network: runs it over the dataset, chunk by chunk, and calls
 * visit(context, l, a, Y, first) on every rank for l = 0 … L in each chunk: a = a_l (n_l × columns of the chunk, after
 * activation and skip; a_0 is the input, NULL if that is the identity; the output is α a_L) and the targets Y of the
 * chunk are read-only views that end with the call; `first` is the index of the chunk's first sample. `again`: this
 * repeats the last use of the work space, so that features that are still there (of a single chunk) are not computed
 * anew. */
void backprop_features(struct backprop *backprop, const struct model *model, const struct dataset *dataset, bool again,
                       void (*visit)(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first),
                       void *context);

/* Collective on the grid. For every layer l with an activation, φ in one line with its slope and no skip, for which
 * rate[l−1] is a matrix (n_l × n_l; NULL: not wanted): rate[l−1] ← Σ_i Δ_i φ(z_i)ᵀ − (φ′(z_i) ∘ Δ_i) z_iᵀ, with z the
 * layer's values before the activation and Δ = ∂loss/∂φ(z): what neurons whose gates differ exchange under the gradient
 * flow (Le and Jegelka, arXiv 2201.11968). A forward and a backward pass, and a third of one more. */
void backprop_gate_rates(struct backprop *backprop, const struct model *model, const struct dataset *dataset,
                         struct dmat *const *rate);

/* ---- what that takes, of a model that may have no parameters, on a grid that may be on paper only */

/* Local. The columns processed at a time, see backprop_create. */
int64_t backprop_columns(const struct grid *grid, int64_t samples, int64_t chunk);

/* Local. Bytes of this rank's work space for so many columns at a time. */
int64_t backprop_bytes(const struct model *model, int64_t columns);

/* Local. Bytes on a rank of the small layers that it has whole, with their gradient; 0 on a grid where none is. */
int64_t backprop_held_bytes(const struct model *model, bool identity);

/* C (m × n) from op(A) op(B) with inner index k. */
struct product {
    char ta, tb;
    int64_t m, n, k;
    bool held; /* with a matrix that every rank has whole (dmat_hold, dmat_collect) */
};

/* Local. The products of a chunk of `columns`: of the forward pass, with `gradient` of the backward pass, too.
 * `identity`: the input is the identity. The list has room for 3·depth; returns their number. */
int backprop_products(const struct model *model, int64_t columns, bool identity, bool gradient, struct product *list);

/* Local. What dmat_gemm does for such a product. */
struct gemm_need product_need(const struct grid *grid, const struct product *product);

#endif
