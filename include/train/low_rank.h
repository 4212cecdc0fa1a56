/* low_rank: model.parametrization: low_rank. A small network in place of the full one (arXiv 2602.06208): its outer
 * factors start in a subspace V (d × r) of the inputs, which the first gradient of the full network's first layer
 * gives, and everything is trained. With P = W_{L−1} … W_1 / ∏ε of the full network's start and ε_l its scales:
 *     merged     [ ε_1 Vᵀ, ε_2 I, …, ε_{L−2} I, ε_{L−1} P V, W_L ]             L weights
 *     factored   [ Vᵀ, ε_1 I, …, ε_{L−1} I, P V, W_L ]                     L + 2 weights
 * V is any orthonormal basis of the subspace: random numbers choose which, the same on every process grid. The subspace
 * is span[ R , W_1ᵀ L ] of the r/2 leading singular vectors; for an odd r the weakest direction of (r + 1)/2 is left
 * out. It is an ordinary model of these widths (net/model.h): memory and work are the small network's, in every step.
 * The full network exists during the set-up only. */
#ifndef EIGENTRAIN_TRAIN_LOW_RANK_H
#define EIGENTRAIN_TRAIN_LOW_RANK_H

#include "base/error.h"
#include "base/spec.h"
#include "net/dataset.h"
#include "net/loss.h"
#include "net/model.h"

#include <stdbool.h>

/* Collective on the grid. The small network, for the training set that the first gradient is taken on. NULL with
 * problems on every rank. */
struct model *low_rank_create(const struct grid *grid, const struct spec *spec, const struct dataset *train,
                              const struct loss *loss, struct problems *problems);

#endif
