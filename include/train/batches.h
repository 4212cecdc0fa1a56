/* batches: the training data of a step. */
#ifndef EIGENTRAIN_TRAIN_BATCHES_H
#define EIGENTRAIN_TRAIN_BATCHES_H

#include "base/error.h"
#include "base/spec.h"
#include "net/dataset.h"
#include "net/model.h"

struct batches;

/* Collective on the grid. `train` is borrowed. For full-batch training of a linear network with squared loss the data
 * is compressed once (design: X = R Q). NULL with problems on every rank. */
struct batches *batches_create(const struct dataset *train, const struct model *model, const struct spec *spec,
                               struct problems *problems);
void batches_destroy(struct batches **batches);

/* Collective on the grid. The data of the update from `step` to step + 1: everything, or for batches of size B the
 * columns p[kB … (k+1)B) of a random permutation p of epoch e, with e and k quotient and remainder of step by floor(N /
 * B); with train.order: sequential the samples (step·B + j) mod N; with train.online the samples step·B … step·B + B −
 * 1 of the stream of fresh ones. A function of (seed, step) only. Borrowed, valid until the next call. */
const struct dataset *batches_at(struct batches *batches, int64_t step);

/* Local. Columns that a step processes (for work space). */
int64_t batches_columns(const struct batches *batches);

/* Local. Whether every step sees all samples. */
bool batches_full(const struct batches *batches);

/* What batches_create makes of data of a given size. */
struct batches_need {
    int64_t columns; /* that a step processes */
    bool compressed;
    int64_t bytes, extra; /* on the rank with the largest share: kept; and beside them while they are made */
};

/* Local. That, for a model that may have no parameters; what batches_create would refuse is a problem. */
struct batches_need batches_need(const struct spec *spec, const struct model *model, const struct data_sizes *data,
                                 struct problems *problems);

#endif
