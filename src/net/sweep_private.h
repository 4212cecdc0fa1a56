/* sweep_private: the steps that all sweeps through the layers are made of (backprop, rop). Columns are samples j0 …
 * j0 + c − 1 of a dataset; an input that is NULL is the identity. */
#ifndef EIGENTRAIN_NET_SWEEP_PRIVATE_H
#define EIGENTRAIN_NET_SWEEP_PRIVATE_H

#include "net/model.h"

/* Collective on the grid. Z ← W a, or Z + W a with `add`. */
void sweep_multiply(const struct dmat *W, const struct dmat *a, int64_t j0, bool add, struct dmat *Z);

/* Collective on the grid. G ← D aᵀ, or G + D aᵀ with `add`; of an identity only the columns j0 … of G are touched. */
void sweep_weight_product(const struct dmat *D, const struct dmat *a, int64_t j0, bool add, struct dmat *G);

/* Collective on the grid. Z += b 1ᵀ; the bias lives on process column 0. `work` has room for the local rows. */
void sweep_add_bias(const struct dmat *bias, struct dmat *Z, double *work);

/* Collective on the grid. sums (on process column 0) += the row sums of D. `work` as above. */
void sweep_add_row_sums(const struct dmat *D, struct dmat *sums, double *work);

/* Local. a ← scale·a + skip. */
void sweep_add_skip(double scale, const struct dmat *skip, int64_t j0, struct dmat *a);

/* Local. The lowest layer that is trained; depth + 1 if there is none. */
int sweep_lowest_trainable(const struct model *model);

/* Local. Whether φ′ of a layer is anything else than 1. */
bool sweep_has_slope(const struct layer *layer);

#endif
