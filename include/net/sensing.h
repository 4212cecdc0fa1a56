/* sensing: a matrix known by its inner products with random matrices. */
#ifndef EIGENTRAIN_NET_SENSING_H
#define EIGENTRAIN_NET_SENSING_H

#include "dist/dmat.h"

#include <stdint.h>

/* m measurements y_k = ⟨A_k, Φ⟩ of a matrix Φ, A_k of its shape with independent standard normal entries. */
struct sensing {
    int64_t count;  /* m */
    int mloc, nloc; /* local size of Φ, as of every A_k */
    double *A;      /* [mloc·nloc × m] the local parts of A_1 … A_m, each column-major; owned */
    double *y;      /* [m] the same on every rank; owned */
    double *misfit; /* [m] work space: ⟨A_k, F⟩ − y_k; owned */
};

/* Collective on the grid. Measures Φ `count` times. Element (i, j) of A_k is a function of (seed, i, j, k): the same on
 * every grid. */
struct sensing *sensing_create(const struct dmat *Phi, int64_t count, uint64_t seed);

/* Local. Frees it and sets *sensing to NULL. */
void sensing_destroy(struct sensing **sensing);

/* Collective on the grid. For F of the shape and layout of Φ: returns this rank's part (the root has all of it) of
 * scale · ½ Σ_k (⟨A_k, F⟩ − y_k)². */
double sensing_value(const struct sensing *sensing, double scale, const struct dmat *F);

/* Collective on the grid. The same, and F ← scale · Σ_k (⟨A_k, F⟩ − y_k) A_k, its derivative. */
double sensing_derivative(const struct sensing *sensing, double scale, struct dmat *F);

/* Local. Bytes of m measurements of a rows × cols matrix on the rank with the largest share; the grid may be on paper
 * only. */
int64_t sensing_bytes(const struct grid *grid, int64_t rows, int64_t cols, int64_t count);

#endif
