/* mixture_private: the parts of the probe `mixture`. */
#ifndef EIGENTRAIN_PROBES_MIXTURE_PRIVATE_H
#define EIGENTRAIN_PROBES_MIXTURE_PRIVATE_H

#include "net/mixture.h"
#include "probes/probe.h"

/* The last layer of a two-layer network with one output, on the training set. */
struct mixture_head {
    int units;        /* K */
    double *v;        /* [K] its weights; owned */
    double *gradient; /* [K × K] mean of e² h hᵀ, e = ŷ − y, h the hidden features; owned */
    double *hessian;  /* [K × K] mean of q h hᵀ, q = ŷ(1 − ŷ); owned */
    double *logit;    /* [clusters] output at the means of the clusters; owned */
};

/* Collective on the grid. Overlaps m (rows × axes) of the rows of the first layer with the means and products R (rows ×
 * rows; may be NULL) of their parts perpendicular to these, row after row, on every rank. */
void mixture_state(const struct dmat *W, int axes, double *m, double *R);

/* Collective on the grid. Measures them; mixture_head_free when done. The set of the clusters' means is `centres`. */
struct mixture_head mixture_head_measure(const struct moment *moment, const struct dataset *centres);

/* Local. Frees what it holds. */
void mixture_head_free(struct mixture_head *head);

/* Local. The noise-free set, every cluster once, on the grid. */
struct dataset *mixture_centres(const struct grid *grid, const struct mixture *mixture);

#endif
