/* What twin.c (the lockstep), twin_compressed.c, twin_narrow.c and twin_intrinsic.c (how the kinds are made) share. */
#ifndef EIGENTRAIN_TRAIN_TWIN_PRIVATE_H
#define EIGENTRAIN_TRAIN_TWIN_PRIVATE_H

#include "train/optimizer.h"
#include "train/twin.h"

/* What belongs to a compressed network only. */
struct compressed;

/* What belongs to a compressed network between the target's singular vectors only. */
struct aligned;

/* What belongs to reduced dynamics only. */
struct intrinsic_twin;

/* What is timed: the twin; the large network for the same steps; both until their losses are below the tolerance. */
enum clock { CLOCK_TWIN, CLOCK_NETWORK, CLOCK_TWIN_TO, CLOCK_NETWORK_TO, CLOCKS };

struct twin {
    char *name; /* its group in metrics.h5; owned */
    char *key;  /* its path in the input, "twins[0]"; owned */
    int number; /* counted from 0 */
    int64_t every;
    struct model *model;              /* owned */
    struct backprop *backprop;        /* owned */
    struct params *gradient;          /* owned */
    struct optimizer *optimizer;      /* owned */
    struct compressed *compressed;    /* owned; NULL for a twin that has no theory */
    struct aligned *aligned;          /* owned; NULL unless its basis is the target's */
    struct intrinsic_twin *intrinsic; /* owned; NULL unless it follows reduced dynamics */
    const struct dataset *batch;      /* of the current step; borrowed */

    double tolerance;
    double loss;                      /* of the current step's data, or of the last one it was trained on */
    int64_t updates;                  /* made */
    bool frozen;                      /* it is trained no further */
    int64_t reached, network_reached; /* the first steps with a loss below the tolerance, of both networks; −1 */

    double clock[CLOCKS]; /* seconds of gradients and updates; until a tolerance: NaN before it is reached */

    struct record_group *group;                           /* borrowed from the record */
    int q_loss, q_recovery, q_reached, q_network_reached; /* q_recovery −1: all of the target is seen */
};

/* Local. The rank that the key of a twin asks for, or data.rank; a problem and 1 if there is neither. */
int twin_rank(const struct twin *twin, const struct spec *spec, struct problems *problems);

/* ---- twin_narrow.c */

/* Collective on the grid. A network like the large one, but with hidden layers of a small width; its start is of the
 * same kind, from random numbers of its own. NULL with problems. */
struct model *narrow_create(const struct twin *twin, const struct setting *run, struct problems *problems);

/* ---- twin_compressed.c */

/* Collective on the grid. The compressed network of the input, with twin->compressed if it is that of the law. NULL
 * with problems. */
struct model *compressed_create(struct twin *twin, const struct twins_setting *setting, struct problems *problems);

/* Local. Frees it and sets *compressed to NULL. */
void compressed_destroy(struct compressed **compressed);

/* Local. Declares what is compared with the large network. */
void compressed_declare(struct twin *twin);

/* Local. An update with this learning rate has been made. */
void compressed_advance(struct compressed *compressed, double lr);

/* Collective on the grid. Compares the twin with the large network after as many updates of both. */
void compressed_measure(struct twin *twin, const struct moment *moment);

/* Collective on the grid. Saves or restores the subspaces, the scalars, and the largest deviations so far. */
void compressed_archive(struct compressed *compressed, const struct dmat *like, struct archive *archive);

/* Local. The theory checks. */
void compressed_check(const struct twin *twin, struct record *record);

/* Local. An outer factor learns with γ times the learning rate. */
void twin_set_outer(struct layer *layer, double gamma);

/* Local. An inner layer learns as the one that it stands for. */
void twin_set_inner(struct layer *layer, const struct layer *large);

/* Local. A problem unless the large network is f(X) = α W_L … W_1 X. */
void twin_check_product(const struct twin *twin, const struct setting *run, struct problems *problems);

/* ---- twin_target.c */

/* Collective on the grid. The network with outer factors of the target's singular vectors, and twin->aligned. NULL with
 * problems. */
struct model *aligned_create(struct twin *twin, const struct setting *run, double gamma, struct problems *problems);

/* Local. Frees it and sets *aligned to NULL. */
void aligned_destroy(struct aligned **aligned);

/* Local. Declares what is compared with the target. */
void aligned_declare(struct twin *twin);

/* Collective on the grid. The leading singular vectors of both networks beside the target's. */
void aligned_measure(struct twin *twin, const struct moment *moment);

/* ---- twin_intrinsic.c */

/* Collective on the grid. One layer, the end-to-end matrix, and twin->intrinsic. NULL with problems. */
struct model *intrinsic_twin_create(struct twin *twin, const struct twins_setting *setting, struct problems *problems);

/* Local. Frees it and sets *intrinsic to NULL. */
void intrinsic_twin_destroy(struct intrinsic_twin **intrinsic);

/* Local. Declares what is compared with the large network. */
void intrinsic_twin_declare(struct twin *twin);

/* Collective on the grid. The step that takes the place of an update with this learning rate. */
void intrinsic_twin_advance(struct twin *twin, double lr);

/* Collective on the grid. Compares the twin with the large network after as many updates of both. */
void intrinsic_twin_measure(struct twin *twin, const struct moment *moment);

/* Collective on the grid. Saves or restores the state and the largest deviations so far. */
void intrinsic_twin_archive(struct intrinsic_twin *intrinsic, struct archive *archive);

/* Local. The theory checks. */
void intrinsic_twin_check(const struct twin *twin, struct record *record);

/* Root only. How far it was from the network. */
void intrinsic_twin_summary(const struct twin *twin);

#endif
