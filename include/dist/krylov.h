/* krylov: leading singular triplets and extreme eigenpairs of a linop (SLEPc, matrix-free). */
#ifndef EIGENTRAIN_DIST_KRYLOV_H
#define EIGENTRAIN_DIST_KRYLOV_H

#include "base/error.h"
#include "dist/archive.h"
#include "dist/linop.h"

#include <stdbool.h>
#include <stdint.h>

/* Leading singular triplets, distributed as the operator's vectors are. */
struct triplets {
    int rank;         /* triplets wanted: k */
    int64_t m, n;     /* size of the operator */
    int mloc, nloc;   /* local entries of left and right vectors */
    double *sigma;    /* [k] descending, the same on every rank; NaN where not converged; owned */
    double *residual; /* [k] √(‖A v − σ u‖² + ‖Aᵀ u − σ v‖²) / σ_1, measured, not estimated; owned */
    double *left;     /* [mloc × k] column-major, owned */
    double *right;    /* [nloc × k] column-major, owned */
    int64_t *row;     /* [mloc] global index of every local entry of a left vector; owned */
    int64_t *col;     /* [nloc] the same for right vectors; owned */
    int converged;    /* number of leading triplets that are converged */
    int64_t products; /* products with A or Aᵀ that the solver needed (the residual check is not counted) */
    bool filled;      /* holds a solution: the next solve starts from it */
};

struct krylov_options {
    double tolerance; /* relative to σ_1 */
    int basis;        /* ncv; 0: chosen */
    int64_t max_products;
    uint64_t seed, stream; /* start vector */
};

/* Local. Room for the k leading triplets of A, empty. k ≤ min(m, n). */
struct triplets *triplets_create(const struct linop *A, int k);

/* Local. Frees it and sets *T to NULL. */
void triplets_destroy(struct triplets **T);

/* Collective on A->comm. Saves or restores the k leading triplets of an operator with the layout of A, for the next
 * warm start; *triplets may be NULL, and is created or destroyed to be what was saved. */
void triplets_archive(struct triplets **triplets, const struct linop *A, int k, const char *name,
                      struct archive *archive);

/* Collective on A->comm. Solves for the leading triplets; warm-started from T if T->filled: old
 * triplets that still solve the problem are kept, else Krylov iteration starts from their sum. Multiple values are
 * found with all their copies: what was found is projected out and the rest is asked for anything larger. A zero
 * operator gives zeros and orthonormal vectors from the generator. Unconverged triplets are NaN in sigma and counted
 * out of `converged`; never silent. The start vector comes from our own generator by global index, so it doesn't depend
 * on the rank count.
 */
void krylov_svd(const struct linop *A, const struct krylov_options *options, struct triplets *T);

/* What a solve for k triplets of an operator with min(m, n) = least takes. How often it is restarted depends on the
 * spectrum; measured in trained networks with k = 5 … 40 [run]. */
struct krylov_need {
    int basis;     /* vectors on either side */
    int products;  /* with A or Aᵀ where there is a gap: one basis, and the check for missed copies */
    int in_a_bulk; /* the same where the last values wanted lie in a bulk */
};

/* Local. That. */
struct krylov_need krylov_need(int64_t least, int k);

/* Local. Bytes of work space of such a solve on a rank with vectors of mloc and nloc entries. */
int64_t krylov_bytes(int64_t least, int k, int64_t mloc, int64_t nloc);

/* Largest or smallest eigenpairs of a symmetric operator, distributed as its vectors are. */
struct eigenpairs {
    int rank;         /* pairs wanted: k */
    bool smallest;    /* algebraically; else the largest */
    int64_t n;        /* size of the operator */
    int nloc;         /* local entries of a vector */
    double *lambda;   /* [k] from the outermost inwards, the same on every rank; NaN where not converged; owned */
    double *residual; /* [k] ‖A v − λ v‖ / scale, measured, not estimated; owned */
    double *vectors;  /* [nloc × k] column-major, owned */
    double *inner;    /* [nloc] about the eigenvector of `next`, from which the next solve's check goes on; owned */
    int64_t *index;   /* [nloc] global index of every local entry; owned */
    double scale;     /* the largest modulus of an eigenvalue of A that was seen: what tolerances are relative to */
    double next;   /* the next eigenvalue inwards, as far as the last check saw it (a bound from outside the bulk that
                      gets no closer than the check looked); NaN if there is none */
    int converged; /* number of outermost pairs that are converged */
    int64_t products; /* products that the solver needed (the residual check is not counted) */
    bool filled;      /* holds a solution: the next solve starts from it */
};

/* Local. Room for k eigenpairs of A (m = n), empty. k ≤ n. */
struct eigenpairs *eigenpairs_create(const struct linop *A, int k, bool smallest);

/* Local. Frees it and sets *E to NULL. */
void eigenpairs_destroy(struct eigenpairs **E);

/* Collective on A->comm. The counterpart of triplets_archive. */
void eigenpairs_archive(struct eigenpairs **pairs, const struct linop *A, int k, bool smallest, const char *name,
                        struct archive *archive);

/* Collective on A->comm. Solves for the k outermost eigenpairs at that end by Krylov–Schur; warm-started from E if
 * E->filled: old pairs that still solve the problem are kept (one product each), else the iteration starts from their
 * sum, and where the new vectors hold most of that, the check for missed ones is a short one that goes on where the
 * last ended. Multiple eigenvalues are found with all their copies, as by krylov_svd. The tolerance is relative to the
 * largest modulus seen. Unconverged pairs are NaN and counted out of `converged`. Start vectors come from our own
 * generator by global index. */
void krylov_eigen(const struct linop *A, const struct krylov_options *options, struct eigenpairs *E);

/* Collective on A->comm. Lanczos quadrature of a symmetric operator from the start vector x (any length but 0): up to
 * `steps` steps with full re-orthogonalisation. nodes ascending and weights (their sum is 1), [steps] each:
 * xᵀ f(A) x / xᵀx = Σ weights f(nodes), exactly for polynomials of degree 2·steps − 1. Returns the number of nodes:
 * fewer than `steps` where the Krylov space ends, which is exact then. One product a step; `steps` vectors of work
 * space. */
int krylov_quadrature(const struct linop *A, int steps, const double *x, double *nodes, double *weights);

/* Local. Basis vectors that such a solve for k pairs of n takes where the options leave it to choose. */
int krylov_eigen_basis(int64_t n, int k);

/* Collective on comm. Starts PETSc/SLEPc without any hidden input (no .petscrc, no options), once; and ends it. */
void krylov_start(MPI_Comm comm);

/* Collective on the comm of krylov_start. Ends PETSc and SLEPc, if krylov_start started them. */
void krylov_end(void);

#endif
