/* optimizer: one update of the parameters from a gradient. Weight decay λ is decoupled: W ← (1 − ηλ) W − η·direction.
 *   gd, sgd   direction g (gradient_flow has a step of its own: train/gradient_flow.h)
 *   momentum  v ← μ v + g,  direction v
 *   nesterov  v ← μ v + g,  direction g + μ v
 *   rmsprop   v ← β₂ v + (1 − β₂) g²,  direction g/(√v + ε)
 *   adam      m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  direction m̂/(√v̂ + ε), with bias correction */
#ifndef EIGENTRAIN_TRAIN_OPTIMIZER_H
#define EIGENTRAIN_TRAIN_OPTIMIZER_H

#include "base/spec.h"
#include "net/model.h"

struct optimizer;

/* Collective on the grid. State of the model's layout, zero. */
struct optimizer *optimizer_create(const struct model *model, const struct spec *spec);

/* Local. Frees it and sets *optimizer to NULL. */
void optimizer_destroy(struct optimizer **optimizer);

/* Local. Updates the trainable parameters of the model with learning rate lr times each layer's multiplier. */
void optimizer_step(struct optimizer *optimizer, struct model *model, const struct params *gradient, double lr);

/* Collective on the grid. Saves or restores the state: the number of updates, velocities and moments. */
void optimizer_archive(struct optimizer *optimizer, struct archive *archive);

/* Local. v of momentum, borrowed; NULL with the other rules. */
const struct params *optimizer_velocity(const struct optimizer *optimizer);

/* Local. How many arrays of the parameters' size the state holds (0, 1 or 2), for estimates. */
int optimizer_arrays(const struct spec *spec);

#endif
