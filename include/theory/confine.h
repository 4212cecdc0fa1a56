/* confine: where the changes of a layer's weights stay (arXiv 2602.06208). From the first gradient G of a layer that
 * starts as W(0) = ε E with orthonormal columns: L and R are its K leading left and right singular vectors, and
 *     V_1 = span[ R , Eᵀ L ]    moves on the input side,    V_2 its complement
 *     U_2 = E V_2               is quiet on the output side, U_1 its complement,
 * so that of the four blocks U_iᵀ W V_j only (1,1) changes: exactly in linear networks, nearly with smooth activations.
 * A layer with fewer rows than columns has the same statement for its transpose. No complement is ever formed. */
#ifndef EIGENTRAIN_THEORY_CONFINE_H
#define EIGENTRAIN_THEORY_CONFINE_H

#include "dist/archive.h"
#include "dist/dmat.h"

#include <stdbool.h>
#include <stdint.h>

/* The subspaces of one layer. */
struct confine {
    bool transposed;  /* the layer has fewer rows than columns */
    bool orthonormal; /* E has orthonormal columns: the statement has a meaning */
    double epsilon;   /* ε */
    struct dmat *E;   /* W(0)/ε, or its transpose: never wider than high; owned */
    struct dmat *V;   /* V_1, orthonormal columns; owned, NULL before the first gradient */
};

/* Collective on the grid. For a layer that starts at W (copied); the subspaces come later. */
struct confine *confine_create(const struct dmat *W);

/* Local. Frees it and sets *c to NULL. */
void confine_destroy(struct confine **c);

/* Collective on the grid. V_1 from the leading singular vectors of the first gradient: left (m × K), right (n × K). */
void confine_find(struct confine *c, const struct dmat *left, const struct dmat *right);

/* Collective on the grid. Saves or restores V_1. */
void confine_archive(struct confine *c, struct archive *archive);

/* Collective on the grid. An orthonormal basis (n × q) of span[ right , Eᵀ left ] for E m × n: directions that are
 * there already (singular values below 1e-8) are left out. */
struct dmat *confine_span(const struct dmat *E, const struct dmat *left, const struct dmat *right);

/* Squares of Frobenius norms of the parts of a matrix M of the layer's shape. */
struct confine_parts {
    double total;       /* ‖M‖² */
    double outside;     /* ‖M V_2‖² + ‖U_2ᵀ M V_1‖²: all but block (1,1), without cancellation */
    double block[2][2]; /* ‖U_iᵀ M V_j‖² at [i − 1][j − 1] */
};

/* Collective on the grid. The parts of M; without `blocks` only the first two, which is cheaper. */
struct confine_parts confine_measure(const struct confine *c, const struct dmat *M, bool blocks);

/* Collective on the grid. The leading singular values sigma[0 … rank] of A, one more than the rank (NaN where not
 * converged; 0 beyond the size), and vectors left (m × rank), right (n × rank) unless they are NULL. Small matrices are
 * solved whole, larger ones by Krylov iteration to `tolerance`. */
void confine_leading(const struct dmat *A, int rank, double tolerance, uint64_t seed, double *sigma, struct dmat *left,
                     struct dmat *right);

/* Collective on the grid. The largest principal angle between the spans of two m × k matrices with orthonormal columns,
 * in degrees. */
double confine_angle(const struct dmat *A, const struct dmat *B);

#endif
