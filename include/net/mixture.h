/* mixture: samples of Gaussian mixtures, a function of (seed, stream, index of the sample).
 *
 *   gaussian_mixture   cluster b = class b of k, mean μ_b = e_b, target one-hot
 *   xor_mixture        clusters +e_1, −e_1 (y = 1) and +e_2, −e_2 (y = 0)
 *   binary_mixture     clusters +e_1 (y = 1) and −e_1 (y = 0)
 * Every input is its cluster's mean plus N(0, I/λ). */
#ifndef EIGENTRAIN_NET_MIXTURE_H
#define EIGENTRAIN_NET_MIXTURE_H

#include "base/error.h"
#include "base/spec.h"
#include "net/dataset.h"
#include "net/model.h"

#include <stdbool.h>
#include <stdint.h>

/* Where the mean of a cluster lies: sign · e_axis (axis counted from 0). */
struct cluster {
    int64_t axis;
    double sign;
    bool positive; /* y = 1, where there is a single output */
};

struct mixture {
    int64_t features;  /* d */
    int64_t outputs;   /* k classes, or 1 */
    int64_t clusters;  /* k, 4 or 2 */
    bool classes;      /* targets are one-hot */
    bool equal;        /* sample i of a set is of cluster i mod `clusters` */
    bool online;       /* the training set is the beginning of the stream of fresh samples */
    double lambda;     /* inverse variance, may be infinite */
    double *weight;    /* [clusters] p_b, their sum is 1; owned */
    double *cumulated; /* [clusters] p_0 + … + p_b; owned */
};

/* Local. Whether data.kind is one of these mixtures. */
bool mixture_is(const struct spec *spec);

/* Local. Whether there are enough features for the means, and a weight a class; else problems. */
bool mixture_fits(const struct spec *spec, struct problems *problems);

/* Local. From `data` of an input for which mixture_is and that fits. */
struct mixture *mixture_of(const struct spec *spec);

/* Local. Frees it and sets *mixture to NULL. */
void mixture_destroy(struct mixture **mixture);

/* Local. The mean of cluster b and its target. */
struct cluster mixture_cluster(const struct mixture *mixture, int64_t b);

/* Local. The training or the test set of the input; NULL with problems (the same on every rank). */
struct dataset *mixture_create(const struct grid *grid, const struct spec *spec, bool train, struct problems *problems);

/* Local. X and Y of `set` ← samples first … first + N − 1 of the endless stream of fresh samples (train.online), of
 * random clusters: what step s of a run with batches of B has seen begins at first = s·B. */
void mixture_fresh(const struct mixture *mixture, struct dataset *set, uint64_t seed, uint64_t first);

/* Local. Whether a network can start at the clusters (model.init.kind: clusters): two layers and one output, on
 * clusters that are no classes; else problems. */
bool mixture_starts(const struct spec *spec, const struct model *model, struct problems *problems);

/* Local. W_l ← the start at the clusters: row i of the first layer (l = 1) is the mean of cluster i mod `clusters`, and
 * entry i of the second one 1 or −1, as the output should be there. At λ = ∞, √C times that is a fixed point of descent
 * with weight decay (theory/mixtures: xor_constant, binary_constant). */
void mixture_start(struct dmat *W, const struct spec *spec, int l);

#endif
