/* What intrinsic.c (the dynamics) and intrinsic_thin.c (its form for low rank) share. */
#ifndef EIGENTRAIN_THEORY_INTRINSIC_PRIVATE_H
#define EIGENTRAIN_THEORY_INTRINSIC_PRIVATE_H

#include "theory/intrinsic.h"

struct intrinsic {
    struct intrinsic_law law; /* its lambda is owned */
    double *lambda;           /* [N − 1] owned, or NULL */
    struct dmat *Z;           /* m × n, owned */
    struct dmat *G;           /* ∇f, owned */
    int rank;                 /* r: modes that move */
    bool thin;                /* Z = U S Vᵀ is followed by its factors */
    double *state; /* [m·r + n·r + r·r] U, V with orthonormal columns, S; whole on every rank; owned, or NULL */
    void (*gradient)(void *context, const struct dmat *Z, struct dmat *G); /* while it advances */
    void *context;
};

/* ---- intrinsic_thin.c */

/* Collective on the grid. The factors of Z, from its leading triplets A (m × k), sigma, Bt (k × n), k ≥ rank. */
void intrinsic_thin_start(struct intrinsic *x, const struct dmat *A, const double *sigma, const struct dmat *Bt);

/* Collective on the grid. Moves the factors on, and Z with them. */
void intrinsic_thin_advance(struct intrinsic *x, double time, int64_t steps);

/* Collective on the grid. Saves or restores the factors. */
void intrinsic_thin_archive(struct intrinsic *x, struct archive *archive);

#endif
