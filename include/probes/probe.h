/* probe: what is measured during training. A probe sees the model as const and cannot change it; two runs that differ
 * only in their probes have the same trajectory, bit for bit. */
#ifndef EIGENTRAIN_PROBES_PROBE_H
#define EIGENTRAIN_PROBES_PROBE_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "net/backprop.h"
#include "net/model.h"
#include "probes/record.h"

#include <stdint.h>

/* What a probe may know of the run before its first step; all borrowed, read-only. For `plan` the model has no
 * parameters and there is no data. */
struct setting {
    const struct spec *spec;
    const struct model *model;   /* with the weights that training starts from, also at a resume */
    const struct dataset *train; /* the whole training set, or NULL */
    const struct loss *loss;
    const struct dataset *test; /* NULL without held-out samples */
};

/* What there is to see at one moment of training; all borrowed, read-only. */
struct moment {
    int64_t step;                  /* updates made so far */
    double time;                   /* Σ of the learning rates of these updates (time of the gradient flow) */
    double lr;                     /* learning rate of the update from this step */
    double loss;                   /* of the data that `gradient` was taken on */
    const struct model *model;     /* at this step */
    const struct params *gradient; /* at this step, before the update */
    const struct params *previous; /* parameters one update earlier; NULL unless needs_previous asked and step ≥ 1 */
    const struct params *velocity; /* v of heavy-ball momentum, whose last multiple the last update was; else NULL */
    const struct dataset *train;   /* the whole training set */
    const struct dataset *test;    /* NULL without held-out samples */
    const struct dataset *batch;   /* what `gradient` was taken on; the whole training set if steps see all of it */
    struct backprop *backprop;     /* work space, to run the network on data */
};

/* Matrices that a probe may look at (its `of:`). */
enum probe_of { PROBE_OF_WEIGHTS, PROBE_OF_GRADIENT, PROBE_OF_UPDATE, PROBE_OF_PRODUCT };

/* Local. From the input's word. */
enum probe_of probe_of(const char *word);

/* Local. The input's word for it. */
const char *probe_of_word(enum probe_of of);

/* Local. How likely all leading singular values of such a matrix lie in a bulk (see probe_solve), for all we know
 * before a run: those of weights may, at the start. */
double probe_bulk(enum probe_of of);

/* Collective on the grid. The matrix of layer l (1…L) at this moment, or NULL if there is none (an update before the
 * first step). *owned is set to what must be destroyed after use, or NULL. */
const struct dmat *probe_matrix(const struct moment *moment, enum probe_of of, int l, struct dmat **owned);

/* Collective on the file's comm. Writes the triplets of layer l into a snapshot: GROUP/left_l (n_l × k), GROUP/right_l
 * (n_{l−1} × k) and GROUP/singular_value_l. */
void probe_write_triplets(const struct triplets *T, struct h5 *file, const char *group, int l);

struct probe;

/* A matrix (or the end-to-end product) whose singular values a measurement finds. */
struct probe_solve {
    int64_t m, n;
    int64_t elements; /* that a product with it touches: m·n; of the end-to-end product, all weights */
    int factors;      /* matrices that a product with it passes through */
    int rank;         /* leading triplets, by Krylov iteration; 0: the full spectrum */
    int kept;         /* sets of singular vectors that stay until the next measurement */
    double tolerance; /* of the leading triplets, relative to the first value */
    double bulk; /* how likely all of them lie in a bulk, where Krylov iteration takes longer; 1: a random matrix */
};

/* What a measurement takes. */
struct probe_need {
    struct probe_solve *solve; /* [count], owned */
    int count;
    bool copies; /* each matrix is copied first */
    int passes;  /* how often the network is run over the training set */

    /* Distributed products beside those, and how often; with the steps since the measurement before. */
    struct product *multiply; /* [multiplies], owned */
    double *multiply_times;   /* [multiplies], owned */
    int multiplies;

    /* Curvature: arrays of the parameters' size that stay and go into checkpoints, `kept` after one measurement, and
     * `more` after each further one until they are `most`; and others while it measures; fractions for a block. */
    double kept, more, most, work;
    enum { NEED_NO_PRODUCTS, NEED_TRAIN, NEED_TEST, NEED_BATCH } products; /* the samples whose passes they keep */
    bool stays;                                                            /* these passes, between measurements */
};

/* A kind of probe. One file in src/probes defines one, and probe.c lists it. */
struct probe_kind {
    const char *name; /* `kind:` in the input */
    /* Collective. Creates probe->state and declares the quantities of its group in the record; problems: EXIT_INPUT. */
    void (*create)(struct probe *probe, const struct setting *setting, struct record *record,
                   struct problems *problems);
    /* Local. An update with this learning rate has been made, from a point with this loss of the step's data: for what
     * follows the training step by step; may be NULL. */
    void (*advance)(struct probe *probe, double lr, double loss);
    /* Collective. Before anything is measured at a step, and at every step, due or not: what must be seen of its
     * weights and gradient; may be NULL. */
    void (*look)(struct probe *probe, const struct moment *moment);
    /* Collective. After every update: it was made with this gradient and learning rate, and these are the new weights;
     * may be NULL. */
    void (*follow)(struct probe *probe, const struct model *model, const struct params *gradient, double lr);
    /* Collective. Measures; puts its quantities into the record's current row. */
    void (*measure)(struct probe *probe, const struct moment *moment, struct record *record);
    /* Collective. Writes vectors of the last measurement into a snapshot, below group probe->name; may be NULL. */
    void (*snapshot)(const struct probe *probe, struct h5 *file);
    /* Collective. Saves or restores what the next measurements depend on: references, vectors of warm starts; may be
     * NULL if there is nothing of the kind. */
    void (*archive)(struct probe *probe, const struct model *model, struct archive *archive);
    /* Local. What a measurement takes, for `plan`; the model may have no parameters. NULL: next to nothing. */
    void (*need)(const struct probe *probe, const struct model *model, struct probe_need *need);
    /* Local. The run has come to its end: records theory checks (record_check); may be NULL. */
    void (*check)(const struct probe *probe, struct record *record);
    /* Root only. Says in a few lines what was measured last, at the end of a run; may be NULL. */
    void (*summary)(const struct probe *probe, const struct record *record);
    void (*destroy)(struct probe *probe); /* Local. Frees probe->state */
};

struct probe {
    const struct probe_kind *kind; /* borrowed */
    char *name;                    /* its group in metrics.h5; owned */
    char *key;                     /* its path in the input, "probes[0]"; owned */
    int64_t every;                 /* steps between measurements */
    int64_t start;                 /* step of the first one */
    uint64_t seed;                 /* run.seed, for start vectors */
    bool needs_previous;           /* moment.previous is wanted when it is due; set by create */
    struct record_group *group;    /* borrowed from the record */
    void *state;                   /* owned by the probe */
};

/* The probes of a run. */
struct probes {
    struct probe *probe; /* [count], owned */
    int count;
};

/* Collective on the grid. Creates every probe of the input. Problems on every rank. */
struct probes *probes_create(const struct setting *setting, struct record *record, struct problems *problems);

/* Local. Frees them and sets *probes to NULL. */
void probes_destroy(struct probes **probes);

/* Local. Whether a probe measures at `step`: at `start` and every so many steps after it, and at the last step. */
bool probe_due(const struct probe *probe, int64_t step, bool last);

/* Local. Whether some probe that is due at `step` wants the parameters of the step before. */
bool probes_need_previous(const struct probes *probes, int64_t step, bool last);

/* Collective on the grid. Lets all probes look at the step, and measures with every one that is due. */
void probes_measure(struct probes *probes, const struct moment *moment, bool last, struct record *record);

/* Local. Tells all probes of an update. */
void probes_advance(struct probes *probes, double lr, double loss);

/* Collective on the grid. The update of a step, for the probes that follow every one; counts as their time. */
void probes_follow(struct probes *probes, const struct model *model, const struct params *gradient, double lr);

/* Local. The theory checks of all probes, at the end of a run. */
void probes_check(const struct probes *probes, struct record *record);

/* Collective on the grid. Saves or restores the state of all probes. */
void probes_archive(struct probes *probes, const struct model *model, struct archive *archive);

/* Root only. The probes' closing words. */
void probes_summary(const struct probes *probes, const struct record *record);

/* Collective on the grid. Writes what the probes hold into a snapshot file. */
void probes_snapshot(const struct probes *probes, struct h5 *file);

#endif
