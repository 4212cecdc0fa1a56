/* scalars: the complement of the moving subspaces (parsimony.h) in a run. Each layer is a scalar ρ_l there: they are
 * followed with the run's optimizer, and so is what the complement adds to loss, gradient and end-to-end matrix. */
#ifndef EIGENTRAIN_THEORY_SCALARS_H
#define EIGENTRAIN_THEORY_SCALARS_H

#include "base/spec.h"
#include "dist/archive.h"
#include "net/model.h"
#include "theory/parsimony.h"

#include <stdint.h>

struct scalars;

/* Local. At the start of training of `large` (whose parameters are not looked at) by gradient descent, plain or with
 * momentum, where the law's theorem is exact. `scale` is α²/s of output scale and loss. */
struct scalars *scalars_create(const struct parsimony *law, const struct model *large, const struct spec *spec,
                               double scale);

/* Local. Frees them and sets *scalars to NULL. */
void scalars_destroy(struct scalars **scalars);

/* Local. An update with this learning rate has been made. */
void scalars_advance(struct scalars *scalars, double lr);

/* Local. ρ_l of a layer l = 1 … L; 0 for the last one with few outputs, which has no complement. */
double scalars_rho(const struct scalars *scalars, int l);

/* Local. Order of the complement: d − q. */
int64_t scalars_order(const struct scalars *scalars);

/* Local. (d − q) ∏ρ²: squared norm of the end-to-end matrix there; 0 with few outputs. */
double scalars_gap(const struct scalars *scalars);

/* Local. What it adds to the loss: α² (d − q) ∏ρ² / 2s. */
double scalars_loss(const struct scalars *scalars);

/* Local. What it adds to the squared norm of the gradient: Σ_l (d − q) (α²/s · ρ_l ∏_{k≠l} ρ_k²)² over trained layers.
 */
double scalars_gradient(const struct scalars *scalars);

/* Collective on the archive's comm. Saves or restores the values. */
void scalars_archive(struct scalars *scalars, struct archive *archive);

#endif
