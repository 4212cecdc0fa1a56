/* jt: the learning rate of Ji and Telgarsky (ICLR 2019, arXiv 1810.02032) for deep linear networks with one output and
 * the logistic loss of samples of length at most 1:
 *     η = min(1/β(r), train.lr),  β(r) = 2 L² r^{2L−2} (1/4 + 1),
 * with a radius r ≥ 1 such that no layer is longer than r, before the step and after it. r begins with the longest
 * layer and is multiplied by 1.1 as often as the step of that rate would leave the ball. Then the risk R never
 * increases, and Σ η² |∇R|² ≤ 2 R(0). */
#ifndef EIGENTRAIN_TRAIN_JT_H
#define EIGENTRAIN_TRAIN_JT_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/archive.h"
#include "net/dataset.h"
#include "net/model.h"

#include <stdbool.h>

struct jt;

/* Local. Whether the input asks for it. */
bool jt_wanted(const struct spec *spec);

/* Local. Problems if the network, its loss or its training is not that of the theorem; the model may have no
 * parameters. */
void jt_check(const struct spec *spec, const struct model *model, struct problems *problems);

/* Collective on the grid. NULL with a problem on every rank if there are samples longer than 1. */
struct jt *jt_create(const struct spec *spec, const struct dataset *train, struct problems *problems);

/* Local. Frees it and sets *jt to NULL. */
void jt_destroy(struct jt **jt);

/* Collective on the grid. The rate of the step along this gradient; the same bits on every rank. */
double jt_rate(struct jt *jt, const struct model *model, const struct params *gradient);

/* Local. Saves or restores the radius. */
void jt_archive(struct jt *jt, struct archive *archive);

#endif
