/* trainer: the training loop. */
#ifndef EIGENTRAIN_TRAIN_TRAINER_H
#define EIGENTRAIN_TRAIN_TRAINER_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"
#include "train/rundir.h"

/* Everything a run needs before its first step: data, model, probes, work space. */
struct trainer;

/* Collective on the grid. Reads the data and initialises the network; creates nothing on disk. NULL with problems on
 * every rank. The spec is borrowed. */
struct trainer *trainer_create(const struct grid *grid, const struct spec *spec, struct problems *problems);

/* Collective on the grid. Frees the trainer and sets it to NULL. */
void trainer_destroy(struct trainer **trainer);

/* Local. Whether a resumed directory holds a run that has ended already: with all steps made, below the tolerance, or
 * diverged. Its exit code (EXIT_DONE or EXIT_DIVERGED, the latter with a problem), said in the log; −1 if it goes on.
 */
int trainer_ended(const struct trainer *trainer, const struct rundir *rundir, struct problems *problems);

/* Collective on the grid. Trains from the beginning, or from the newest checkpoint of a resumed directory; measures and
 * writes metrics, snapshots and checkpoints into the run directory. Returns the exit code (EXIT_DONE, EXIT_DIVERGED,
 * EXIT_ENVIRONMENT, EXIT_STOPPED), with problems for all but done and stopped. */
int trainer_run(struct trainer *trainer, const struct rundir *rundir, struct problems *problems);

#endif
