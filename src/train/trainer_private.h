/* What trainer.c (the loop) and observe.c (what is written about it) share. */
#ifndef EIGENTRAIN_TRAIN_TRAINER_PRIVATE_H
#define EIGENTRAIN_TRAIN_TRAINER_PRIVATE_H

#include "net/backprop.h"
#include "net/dataset.h"
#include "net/model.h"
#include "probes/probe.h"
#include "probes/record.h"
#include "train/batches.h"
#include "train/optimizer.h"
#include "train/trainer.h"

struct trainer {
    const struct grid *grid; /* borrowed */
    const struct spec *spec; /* borrowed */
    struct loss loss_kind;
    struct data *data;           /* owned */
    struct batches *batches;     /* owned */
    struct model *model;         /* owned */
    struct backprop *backprop;   /* owned */
    struct params *gradient;     /* at the current step; owned */
    struct params *previous;     /* parameters one update ago, kept only when a probe wants them; owned, or NULL */
    struct optimizer *optimizer; /* owned */
    struct probes *probes;       /* owned */
    struct record *record;       /* owned */

    int64_t step, steps; /* updates made, updates wanted */
    double time;         /* Σ learning rates */
    double loss;         /* of the current step's data */
    double norm;         /* of the gradient */
    bool has_previous;   /* `previous` is of step − 1 */

    /* observe.c */
    struct record_group *train, *evaluated;
    int q_loss, q_norm, q_lr, q_train_loss, q_train_accuracy, q_test_loss, q_test_accuracy;
    int64_t evaluate_every, snapshot_every; /* steps; 0: never; snapshots at −1: only at the end */
    double started;
};

/* Collective on the grid. Declares the series of the run in the record. */
void observe_prepare(struct trainer *t);

/* Collective on the grid. Everything that is measured, recorded and written at this step; `last`: the run ends here. */
void observe_step(struct trainer *t, const struct rundir *rundir, bool last, struct problems *problems);

/* Collective on the grid. Writes metrics.h5 and tells the user how it ended. */
void observe_end(struct trainer *t, const struct rundir *rundir, int code, struct problems *problems);

#endif
