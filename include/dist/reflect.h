/* reflect: random orthogonal matrices that take no memory. Q = D_0 H_1 D_1 H_2 D_2 … H_k D_k of order n with
 * Householder reflections H = I − 2 v vᵀ/‖v‖² of Gaussian vectors v and diagonal matrices D of random signs: all of
 * them functions of (seed, stream, global index), so that Q can be applied to a few columns where n × n numbers would
 * be too many. */
#ifndef EIGENTRAIN_DIST_REFLECT_H
#define EIGENTRAIN_DIST_REFLECT_H

#include "dist/dmat.h"

#include <stdint.h>

struct reflections {
    int64_t n;             /* order of Q */
    int count;             /* k */
    uint64_t seed, stream; /* which Q */
};

/* Collective on the grid. A ← Q A ('N') or Qᵀ A ('T') in place, for an A of n rows: 4 n operations a reflection and
 * column. Equal to rounding on every grid. */
void reflect_apply(const struct reflections *Q, char transposed, struct dmat *A);

#endif
