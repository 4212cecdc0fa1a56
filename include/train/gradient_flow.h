/* gradient_flow: training by the flow itself in place of steps along the gradient. For layer l with its factor m_l of
 * the learning rate (0 if it is frozen) and weight decay λ
 *     W_l' = −m_l (∂R/∂W_l + λ W_l),
 * and a step of the run is the time `lr`: one step of the classical method of Runge and Kutta (train.integrator: rk4),
 * or as many as train.integrator_tolerance wants (adaptive). */
#ifndef EIGENTRAIN_TRAIN_GRADIENT_FLOW_H
#define EIGENTRAIN_TRAIN_GRADIENT_FLOW_H

#include "base/error.h"
#include "base/spec.h"
#include "net/backprop.h"
#include "net/model.h"

struct gradient_flow;

/* Local. Whether the input asks for it. */
bool gradient_flow_wanted(const struct spec *spec);

/* Local. Problems with what else the input asks for. */
void gradient_flow_check(const struct spec *spec, struct problems *problems);

/* Collective on the grid. For a model (borrowed) and the work space of its gradients (borrowed). */
struct gradient_flow *gradient_flow_create(const struct model *model, struct backprop *backprop,
                                           const struct spec *spec);

/* Local. Frees it and sets *flow to NULL. */
void gradient_flow_destroy(struct gradient_flow **flow);

/* Collective on the grid. Moves the model's parameters on by `time`; `gradient` is theirs on this dataset, the first
 * rate. Where no step is short enough they are NaN afterwards. */
void gradient_flow_step(struct gradient_flow *flow, struct model *model, const struct params *gradient,
                        const struct dataset *dataset, double time);

/* Local. How many arrays of the parameters' size it works with (0 without it), and how many gradients a step takes
 * beside the one at its start (with an adaptive method at least), for estimates. */
int gradient_flow_arrays(const struct spec *spec);

/* Local. See gradient_flow_arrays. */
int gradient_flow_gradients(const struct spec *spec);

#endif
