/* init: the start of training. */
#ifndef EIGENTRAIN_NET_INIT_H
#define EIGENTRAIN_NET_INIT_H

#include "base/error.h"
#include "base/spec.h"
#include "net/model.h"

/* Collective on the grid. Fills the parameters of a model from `model.init`; biases start at 0 unless read from a file.
 *   orthogonal   W_l = ε_l Q, Q the first rows or columns of a Haar-orthogonal matrix of order max(n_l, n_{l−1})
 *   gaussian     W_l = ε_l N(0, 1) · g,  uniform  W_l = ε_l U(−1, 1) · √3 · g,  with the gain g chosen by `gain`:
 *                none 1, fan_in 1/√n_{l−1}, orthogonal √min(n_l, n_{l−1})/√(n_l n_{l−1}): the Frobenius norm of
 * `orthogonal` in expectation file         datasets W1 … WL (and b1 … bL) of an HDF5 file Random matrices are functions
 * of (seed, layer, global index). False with problems on every rank. */
bool init_fill(struct model *model, const struct spec *spec, struct problems *problems);

/* Collective on the grid. The same for a random kind, from other streams of random numbers: `stream` + l for layer l.
 */
void init_random(struct model *model, const struct spec *spec, uint64_t stream);

#endif
