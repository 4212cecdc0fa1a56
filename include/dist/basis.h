/* basis: a few orthonormal vectors, distributed: overlaps and principal angles. */
#ifndef EIGENTRAIN_DIST_BASIS_H
#define EIGENTRAIN_DIST_BASIS_H

#include <mpi.h>
#include <stdint.h>

/* k vectors of length n; local entries, borrowed. */
struct basis {
    MPI_Comm comm;
    int64_t n;
    int k, nloc;
    const double *local;   /* [nloc × k] column-major */
    const int64_t *global; /* [nloc] global index of every local entry; each belongs to exactly one rank */
};

/* Collective on comm. overlap[i + j·U->k] = ⟨u_i, v_j⟩, the same on every rank. The two may be distributed differently
 * (U is gathered: n × k numbers, small beside a matrix). */
void basis_overlap(const struct basis *U, const struct basis *V, double *overlap);

/* Collective on comm. The same for two with the same distribution, and nothing is gathered. */
void basis_inner(const struct basis *U, const struct basis *V, double *overlap);

/* Collective on comm. The k principal angles between the spans of two orthonormal bases with the same k and the same
 * distribution, in radians, ascending. Accurate near 0 (from the sines, Björck and Golub 1973) and near π/2. */
void basis_angles(const struct basis *U, const struct basis *V, double *angles);

#endif
