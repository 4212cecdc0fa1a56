/* What trainer.c (the loop) and observe.c (what is written about it) share. */
#ifndef EIGENTRAIN_TRAIN_TRAINER_PRIVATE_H
#define EIGENTRAIN_TRAIN_TRAINER_PRIVATE_H

#include "net/backprop.h"
#include "net/dataset.h"
#include "net/model.h"
#include "probes/probe.h"
#include "probes/record.h"
#include "train/batches.h"
#include "train/gradient_flow.h"
#include "train/jt.h"
#include "train/optimizer.h"
#include "train/parts.h"
#include "train/project.h"
#include "train/reduction.h"
#include "train/trainer.h"
#include "train/twin.h"

struct trainer {
    const struct grid *grid; /* borrowed */
    const struct spec *spec; /* borrowed */
    struct loss loss_kind;
    struct data *data;           /* owned */
    struct batches *batches;     /* owned */
    struct model *model;         /* owned */
    struct reduction *reduction; /* model and data stand for larger ones; owned, or NULL */
    struct backprop *backprop;   /* owned */
    const struct dataset *batch; /* of the current step; borrowed */
    struct params *gradient;     /* at the current step; owned */
    struct params *previous;     /* parameters one update ago, kept only when a probe wants them; owned, or NULL */
    struct optimizer *optimizer; /* owned */
    struct gradient_flow *flow;  /* in place of its steps; owned, or NULL */
    struct jt *jt;               /* chooses the learning rate; owned, or NULL */
    struct project *project;     /* only a part of the gradient is followed; owned, or NULL */
    struct probes *probes;       /* owned */
    struct twins *twins;         /* owned */
    struct record *record;       /* owned */

    int64_t step, steps; /* updates made, updates wanted */
    double time;         /* Σ learning rates */
    double loss;         /* of the current step's data */
    double norm;         /* of the gradient */
    double lr;           /* of the current step's update */
    double budget;       /* Σ lr² norm² */
    bool has_previous;   /* `previous` is of step − 1 */

    /* restart.c */
    struct parts parts;           /* of the metrics; the root's */
    int64_t saved;                /* step of the last checkpoint, or −1 */
    int64_t first_step;           /* where this process began */
    int64_t checkpoint_every;     /* steps; 0: never */
    double checkpoint_seconds;    /* wall-clock time between checkpoints */
    double last_save, step_began; /* times of timer_now */
    double longest_step, save_seconds;
    double spent_before;          /* seconds that earlier processes spent on this run */
    bool stop, checkpoint_wanted; /* agreed on by all ranks */

    /* observe.c */
    struct record_group *train, *evaluated;
    int q_loss, q_norm, q_lr, q_budget, q_train_loss, q_train_accuracy, q_test_loss, q_test_accuracy, q_recovery;
    bool hides;                             /* the loss does not show all of the target: what it hides is evaluated */
    int64_t evaluate_every, snapshot_every; /* steps; 0: never; snapshots at −1: only at the end */
    double started, status_written;
    int lost_snapshots;
};

/* Collective on the grid. Declares the series of the run in the record. */
void observe_prepare(struct trainer *t);

/* Collective on the grid. Everything that is measured, recorded and written at this step; `last`: the run ends here. */
void observe_step(struct trainer *t, const struct rundir *rundir, bool last, struct problems *problems);

/* Collective on the grid. Writes metrics.h5 unless the run was stopped, and tells the user how it ended; returns the
 * exit code. */
int observe_end(struct trainer *t, const struct rundir *rundir, struct problems *problems);

/* Local. Seconds spent on this run, in this process and those before it. */
double observe_seconds(const struct trainer *t);

/* Local (the root acts). status.json of a run that goes on: at once, or if the last one is old. */
void observe_status(struct trainer *t, const struct rundir *rundir, bool now);

/* ---- restart.c */

/* What ranks wish for, part of the step's Allreduce: to stop, to write a checkpoint. */
enum { RESTART_WISHES = 2 };

/* Local. Reads when checkpoints are due. */
void restart_prepare(struct trainer *t);

/* Local. This rank's wishes. */
void restart_look(struct trainer *t, double wishes[RESTART_WISHES]);

/* Local. What the sums of all wishes mean, the same on every rank. */
void restart_agree(struct trainer *t, const double wishes[RESTART_WISHES]);

/* Collective on the grid. Writes a checkpoint if one is due at the beginning of this step; a failure is warned of. */
void restart_save(struct trainer *t, const struct rundir *rundir);

/* Collective on the grid. Restores the newest good checkpoint, if the directory holds an earlier part of this run.
 * False with problems on every rank if it holds checkpoints and none is good. */
bool restart_load(struct trainer *t, const struct rundir *rundir, struct problems *problems);

/* Local. metrics.h5 is there: removes the parts. */
void restart_end(struct trainer *t, const struct rundir *rundir);

#endif
