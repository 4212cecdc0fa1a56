/* twin: small networks that are trained in lockstep beside the large one, on the same data and by the same rule, and
 * compared with it: that of the law of parsimony (compressed), or a random one of small width (narrow); and the reduced
 * dynamics of a linear network's end-to-end matrix (intrinsic). A run with twins has the same trajectory as one
 * without, bit for bit. */
#ifndef EIGENTRAIN_TRAIN_TWIN_H
#define EIGENTRAIN_TRAIN_TWIN_H

#include "base/error.h"
#include "dist/archive.h"
#include "dist/h5.h"
#include "net/backprop.h"
#include "net/dataset.h"
#include "probes/probe.h"
#include "probes/record.h"
#include "train/batches.h"

#include <stdbool.h>
#include <stdint.h>

/* The twins of a run. */
struct twins;

/* What they are made from; all borrowed. */
struct twins_setting {
    const struct setting *run;
    const struct probes *probes; /* their names are taken */
    struct batches *batches;
    struct backprop *backprop; /* of the large network, and room for a gradient: a case of the law starts from one */
    struct params *gradient;
};

/* Collective on the grid. Creates every twin of the input and declares its series, a group of its name. NULL with
 * problems on every rank: EXIT_INPUT, or EXIT_ENVIRONMENT if the subspaces of the law are not found. */
struct twins *twins_create(const struct twins_setting *setting, struct record *record, struct problems *problems);

/* Local. Frees them and sets *twins to NULL. */
void twins_destroy(struct twins **twins);

/* Collective on the grid. Loss and gradient of every twin on the batch of this step, where the large network has the
 * loss `loss`. A twin whose loss is below its tolerance, or no finite number, is trained no further. */
void twins_gradient(struct twins *twins, const struct dataset *batch, int64_t step, double loss);

/* Collective on the grid. The update from this step to the next. */
void twins_update(struct twins *twins, double lr);

/* Collective on the grid. Compares the twins with the large network; a row each for those that are due. Where the run
 * is `evaluated`, all have a row, without what is expensive. */
void twins_measure(struct twins *twins, const struct moment *moment, bool evaluated, bool last);

/* Collective on the grid. Saves or restores all that training and measurements depend on. */
void twins_archive(struct twins *twins, struct archive *archive);

/* Collective on the file's comm. The twins' weights into a snapshot: groups of their names. */
void twins_snapshot(const struct twins *twins, struct h5 *file);

/* Root only. Their times, beside those of the large network for the same steps, in the file's group `timing`. */
void twins_write_timing(const struct twins *twins, struct h5 *file);

/* Local. The theory checks, at the end of a run. */
void twins_check(const struct twins *twins, struct record *record);

/* Root only. How each of them ended, in a few lines. */
void twins_summary(const struct twins *twins);

#endif
