/* checkpoint: DIR/checkpoints/step_…h5, the state of a run at the beginning of a step, before anything of that step is
 * measured. A run that restarts from it goes through the same numbers, bit for bit on the same grid. */
#ifndef EIGENTRAIN_TRAIN_CHECKPOINT_H
#define EIGENTRAIN_TRAIN_CHECKPOINT_H

#include "base/error.h"
#include "dist/archive.h"
#include "train/rundir.h"

#include <stdbool.h>
#include <stdint.h>

/* How a state is put into an archive and taken out of it (see archive.h); context is the caller's. Problems: what the
 * archive itself cannot see, a part of the metrics that is missing, say. Collective. */
typedef void checkpoint_state(struct archive *archive, void *context, struct problems *problems);

/* Collective on the run's grid. Writes the checkpoint of `step`, and when it is complete removes all but the newest
 * `keep`. False with a problem if it could not be written: older ones are then untouched. */
bool checkpoint_save(const struct rundir *rundir, int64_t step, int keep, checkpoint_state *state, void *context,
                     struct problems *problems);

/* Collective on the run's grid. Restores the newest checkpoint that is whole; those that are not are warned of and
 * passed over. Returns its step; −1 with problems (EXIT_ENVIRONMENT) on every rank if there are checkpoints but none is
 * good; −2 if there are none. Says what differs from the program and machine that wrote it, where that means that the
 * numbers will be equal to rounding only. */
int64_t checkpoint_load(const struct rundir *rundir, checkpoint_state *state, void *context, struct problems *problems);

#endif
