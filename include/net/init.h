/* init: the start of training. */
#ifndef EIGENTRAIN_NET_INIT_H
#define EIGENTRAIN_NET_INIT_H

#include "base/error.h"
#include "base/spec.h"
#include "net/model.h"

/* Collective on the grid. Fills the parameters of a model from `model.init`; biases start at 0 unless read
 * from a file, or given a scale (`uniform`).
 *   orthogonal   W_l = ε_l Q, Q the first rows or columns of a Haar-orthogonal matrix of order max(n_l, n_{l−1})
 *                (with init.head the last layer is gaussian or uniform with gain fan_in)
 *   householder  the same with Q a product of random reflections (dist/reflect.h)
 *   identity     ones on the diagonal, times ε_l
 *   gaussian     W_l = ε_l N(0, 1) · g,  uniform  W_l = ε_l U(−1, 1) · √3 · g,  with the gain g chosen by `gain`:
 *                none 1, fan_in 1/√n_{l−1}, orthogonal √min(n_l, n_{l−1})/√(n_l n_{l−1}): the Frobenius norm of
 *                `orthogonal` in expectation
 *   balanced     W_{l+1}ᵀ W_{l+1} = W_l W_lᵀ: W_l = Q_l Σ_l Q_{l−1}ᵀ with orthogonal Q_l as in householder and p
 * singular values ε (p − i)/p, i = 0 … p − 1, in every layer, p the smallest width, the others 0 relaxed_balanced
 * W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ = λ_l I by the same with other singular values: those p squares are ε² (p − i)²/p² in the
 * layer where they are smallest file         datasets W1 … WL (and b1 … bL) of an HDF5 file Random matrices are
 * functions of (seed, layer, global index). False with problems on every rank. */
bool init_fill(struct model *model, const struct spec *spec, struct problems *problems);

/* Local. Problems if the input asks for a balanced start that does not exist for these widths ([depth + 1]). */
void init_balanced_check(const struct spec *spec, int depth, const int64_t *width, struct problems *problems);

/* Collective on the grid. W ← W_l of any kind but `file` and the balanced ones, from stream + l of random numbers; the
 * shape is the caller's.
 */
void init_layer(struct dmat *W, const struct spec *spec, int l, uint64_t stream);

/* Collective on the grid. out ← W_l in ('N') or W_lᵀ in ('T') with the W_l (m × n) that init_fill gives a layer, of any
 * kind but `file` and the balanced ones. A square one of `householder` or `identity` is never formed. */
void init_apply(const struct spec *spec, int l, int64_t m, int64_t n, char transposed, const struct dmat *in,
                struct dmat *out);

/* Local. ε_l of any kind but `file`. */
double init_scale(const struct spec *spec, int l);

/* Collective on the grid. All layers of any kind but `file`, from other streams of random numbers: `stream` + l for
 * layer l.
 */
void init_random(struct model *model, const struct spec *spec, uint64_t stream);

#endif
