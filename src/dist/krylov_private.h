/* krylov_private: what the solvers of the krylov room share. */
#ifndef EIGENTRAIN_DIST_KRYLOV_PRIVATE_H
#define EIGENTRAIN_DIST_KRYLOV_PRIVATE_H

#include "base/error.h"
#include "dist/krylov.h"

#include <stdint.h>

/* PETSc's own error path takes seconds: whatever fails here is a bug of ours or a broken installation. */
#define must(call)                                                                                                     \
    do {                                                                                                               \
        PetscErrorCode code_ = (call);                                                                                 \
        if (code_) bug("%s failed with PETSc error %d", #call, (int)code_);                                            \
    } while (0)

/* Collective on comm. Up to `steps` Lanczos steps with full re-orthogonalisation for y = multiply(x): basis
 * [nloc × steps] holds the start vector of length 1 first. diagonal[steps] and next[steps] of the tridiagonal matrix;
 * next[j] is the length of what is left behind step j. Returns the steps done: fewer where nothing is left. */
int krylov_tridiagonal(MPI_Comm comm, int nloc, void (*multiply)(void *context, const double *x, double *y),
                       void *context, int steps, double *basis, double *diagonal, double *next);

/* Local. x ← what eigenpairs_remember will be given next, extrapolated from what it was given before (E->known > 0).
 * Returns the relative error that such an extrapolation had last. */
double eigenpairs_predict(const struct eigenpairs *E, double *x);

/* Collective on comm. Takes x [nloc] into the past of E, and chooses the degree of extrapolation that would have been
 * best for x. */
void eigenpairs_remember(struct eigenpairs *E, MPI_Comm comm, const double *x);

/* Local. Eigenvalues (ascending) and eigenvectors (columns of Z [n × n]) of that matrix. */
void krylov_tridiagonal_solve(int n, const double *diagonal, const double *next, double *theta, double *Z);

#endif
