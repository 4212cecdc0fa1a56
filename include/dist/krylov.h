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
 * spectrum. In a bulk the k-th value of a random matrix lies (k/least)^{2/3} from its edge, so that products grow as
 * (k·least)^{1/3}; measured for k = 5 … 20 and 512 to 8192 rows, with tolerances 1e-4 and 1e-10: within 15 % [run]. */
struct krylov_need {
    int products;  /* with A or Aᵀ where there is a gap: one basis, and the check for missed copies */
    int in_a_bulk; /* the same where all values wanted lie in the bulk of a random matrix */
};

/* Local. That, for a tolerance relative to σ_1; 0: of no use in a bulk. */
struct krylov_need krylov_need(int64_t least, int k, double tolerance);

/* Local. Vectors on either side of such a solve. */
int krylov_basis(int64_t least, int k);

/* Local. Bytes of work space of such a solve on a rank with vectors of mloc and nloc entries. */
int64_t krylov_bytes(int64_t least, int k, int64_t mloc, int64_t nloc);

/* Largest or smallest eigenpairs of a symmetric operator, distributed as its vectors are. */
struct eigenpairs {
    int rank;         /* pairs wanted: k */
    bool smallest;    /* algebraically; else the largest */
    int64_t n;        /* size of the operator */
    int nloc;         /* local entries of a vector */
    double *lambda;   /* [k] from the outermost inwards, the same on every rank; NaN where not converged; owned */
    double *residual; /* [k] ‖A v − λ v‖ / scale of products that were made, no estimate; owned */
    double *vectors;  /* [nloc × k] column-major, owned; NULL before the first solve */
    int64_t *index;   /* [nloc] global index of every local entry; owned */
    double scale;     /* the largest modulus of an eigenvalue of A that was seen: what tolerances are relative to */
    double next;      /* the next eigenvalue inwards, as far as the solve saw it (it may lie further outwards, but not
                         beyond the last of the k); NaN if there is none */
    int converged;    /* number of outermost pairs that are converged */
    int64_t products; /* products that the solve took, all of them */
    bool filled;      /* holds a solution: the next solve starts from it */
    /* For that start: projections of one random vector on the leading eigenvectors of the last solves, latest first. */
    double *past[7]; /* [nloc] each, owned; NULL from `known` on */
    int known;       /* how many there are */
    int cut;         /* eigenvectors that they are projections on: k, or a few more to a larger gap */
    int order;       /* degree of the polynomial that would have foretold the latest best, and its relative error */
    double error;
    int unseen; /* solves since the last look for missed pairs */
};

/* Local. Room for k eigenpairs of A (m = n), empty. k ≤ n. */
struct eigenpairs *eigenpairs_create(const struct linop *A, int k, bool smallest);

/* Local. Frees it and sets *E to NULL. */
void eigenpairs_destroy(struct eigenpairs **E);

/* Collective on A->comm. The counterpart of triplets_archive. */
void eigenpairs_archive(struct eigenpairs **pairs, const struct linop *A, int k, bool smallest, const char *name,
                        struct archive *archive);

/* Collective on A->comm. Solves for the k outermost eigenpairs at that end by thick-restart Lanczos iteration (Wu,
 * Simon, SIAM J. Matrix Anal. Appl. 22, 2000) in a basis of SLEPc's, which tests after every product. The tolerance is
 * relative to the largest modulus seen. Multiple eigenvalues are found with all their copies: after it a look, Lanczos
 * steps from a random vector orthogonal to the whole basis, until one that was missed would have shown.
 *
 * Residuals come from the products that the iteration made, each kept by its components along the basis, and agree
 * with one fresh product with a combination of all pairs to a tenth of the tolerance; the difference is added to each.
 * Where they do not agree, or a look has added vectors, every pair has a fresh product.
 *
 * Warm-started from E if E->filled. Old pairs that still solve the problem are kept, with one product each, and only
 * the look is left. Else the start is foretold: Lanczos iteration takes one vector, and p outliers cost p products from
 * a start in their span, so the start is the projection P g of one random vector g on the leading eigenvectors: it is
 * smooth in time where single eigenvectors turn in each other's plane, and is extrapolated from the last solves by the
 * polynomial that would have foretold the last one best. (It takes solves at equal distances; others cost products
 * only.) A part of g of a tenth of the error expected brings in what rises. The look is then made in every tenth solve,
 * and where an old vector is not in the new space or the next value behind the last was not seen again.
 *
 * Unconverged pairs are NaN and counted out of `converged`. Random vectors come from our own generator by global index.
 */
void krylov_eigen(const struct linop *A, const struct krylov_options *options, struct eigenpairs *E);

/* Collective on A->comm. Lanczos quadrature of a symmetric operator from the start vector x (any length but 0): up to
 * `steps` steps with full re-orthogonalisation. nodes ascending and weights (their sum is 1), [steps] each:
 * xᵀ f(A) x / xᵀx = Σ weights f(nodes), exactly for polynomials of degree 2·steps − 1. Returns the number of nodes:
 * fewer than `steps` where the Krylov space ends, which is exact then. One product a step; `steps` vectors of work
 * space. */
int krylov_quadrature(const struct linop *A, int steps, const double *x, double *nodes, double *weights);

/* Local. Basis vectors that a solve for k pairs of n takes where the options leave it to choose. */
int krylov_eigen_basis(int64_t n, int k);

/* Local. Vectors of memory that such pairs hold after so many solves, and that a solve takes beside them (basis 0:
 * chosen); a first solve takes k more, where the results are. */
int krylov_eigen_kept(int k, int64_t solves);

/* Local. See there. */
int krylov_eigen_work(int64_t n, int k, int basis);

/* Collective on comm. Starts PETSc/SLEPc without any hidden input (no .petscrc, no options), once; and ends it. */
void krylov_start(MPI_Comm comm);

/* Collective on the comm of krylov_start. Ends PETSc and SLEPc, if krylov_start started them. */
void krylov_end(void);

#endif
