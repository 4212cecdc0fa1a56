/* trainer: the training loop. */
#ifndef EIGENTRAIN_TRAIN_TRAINER_H
#define EIGENTRAIN_TRAIN_TRAINER_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"
#include "train/rundir.h"

/* Collective on the grid. Everything a run needs before its first step: data, model, probes, work space. */
struct trainer;

/* NULL with problems on every rank. Creates nothing on disk. */
struct trainer *trainer_create(const struct grid *grid, const struct spec *spec, struct problems *problems);
void trainer_destroy(struct trainer **trainer);

/* Collective on the grid. Trains, measures and writes metrics.h5 and snapshots into the run directory. Returns the exit
 * code (EXIT_DONE, EXIT_DIVERGED, EXIT_ENVIRONMENT). */
int trainer_run(struct trainer *trainer, const struct rundir *rundir, struct problems *problems);

#endif
