/* schedule: the learning rate of a step. */
#ifndef EIGENTRAIN_TRAIN_SCHEDULE_H
#define EIGENTRAIN_TRAIN_SCHEDULE_H

#include "base/spec.h"

#include <stdint.h>

/* Local. Learning rate of the update that leads from `step` to step + 1:
 *   constant  lr (and of jt, which chooses itself: train/jt.h)
 *   step      lr · factor^(number of `milestones` ≤ step)
 *   cosine    final + (lr − final)·½(1 + cos(π·step/steps)), after a linear warm-up of `warmup` steps */
double schedule_rate(const struct spec *spec, int64_t step);

#endif
