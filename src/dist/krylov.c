#include "dist/krylov.h"

#include "base/build.h"
#include "base/memory.h"
#include "dist/random.h"

#include <slepcsvd.h>

#include <math.h>
#include <string.h>

/* PETSc's own error path takes seconds: whatever fails here is a bug of ours or a broken installation. */
#define must(call)                                                                                                     \
    do {                                                                                                               \
        PetscErrorCode code_ = (call);                                                                                 \
        if (code_) bug("%s failed with PETSc error %d", #call, (int)code_);                                            \
    } while (0)

static bool started_here = false;

void krylov_start(MPI_Comm comm)
{
    PetscBool running;
    must(SlepcInitialized(&running));
    if (running) return;
    PETSC_COMM_WORLD = comm;
    /* no .petscrc, no PETSC_OPTIONS, no signal handlers: nothing hidden */
    static char program[] = "eigentrain", skip[] = "-skip_petscrc", quiet[] = "-no_signal_handler";
    static char *list[] = {program, skip, quiet, NULL};
    char **argv = list;
    int argc = 3;
    unsetenv("PETSC_OPTIONS");
    unsetenv("SLEPC_OPTIONS");
    must(SlepcInitialize(&argc, &argv, NULL, NULL));
    must(PetscPushErrorHandler(PetscReturnErrorHandler, NULL));
    build_add("petsc", "%d.%d.%d", PETSC_VERSION_MAJOR, PETSC_VERSION_MINOR, PETSC_VERSION_SUBMINOR);
    build_add("slepc", "%d.%d.%d", SLEPC_VERSION_MAJOR, SLEPC_VERSION_MINOR, SLEPC_VERSION_SUBMINOR);
    started_here = true;
}

void krylov_end(void)
{
    if (started_here) must(SlepcFinalize());
    started_here = false;
}

struct triplets *triplets_create(const struct linop *A, int k)
{
    ensure(k >= 0 && k <= (A->m < A->n ? A->m : A->n));
    struct triplets *T = NEW(struct triplets, 1);
    T->rank = k;
    T->m = A->m;
    T->n = A->n;
    T->mloc = A->mloc;
    T->nloc = A->nloc;
    T->sigma = NEW(double, k);
    T->residual = NEW(double, k);
    T->left = NEW(double, (int64_t)k * A->mloc);
    T->right = NEW(double, (int64_t)k * A->nloc);
    T->row = NEW(int64_t, A->mloc);
    T->col = NEW(int64_t, A->nloc);
    for (int i = 0; i < A->mloc; i++) T->row[i] = A->row_index(A, i);
    for (int j = 0; j < A->nloc; j++) T->col[j] = A->col_index(A, j);
    return T;
}

void triplets_destroy(struct triplets **T)
{
    if (!*T) return;
    memory_free((*T)->sigma);
    memory_free((*T)->residual);
    memory_free((*T)->left);
    memory_free((*T)->right);
    memory_free((*T)->row);
    memory_free((*T)->col);
    memory_free(*T);
    *T = NULL;
}

/* What PETSc's callbacks need to know of a solve. */
struct solve {
    const struct linop *A;
    int64_t products;
    double largest; /* largest singular value seen by the convergence test */
};

static PetscErrorCode shell_apply(Mat M, Vec x, Vec y, bool adjoint)
{
    struct solve *solve;
    const PetscScalar *from;
    PetscScalar *to;
    must(MatShellGetContext(M, &solve));
    must(VecGetArrayRead(x, &from));
    must(VecGetArrayWrite(y, &to));
    (adjoint ? solve->A->apply_adjoint : solve->A->apply)(solve->A, from, to);
    must(VecRestoreArrayWrite(y, &to));
    must(VecRestoreArrayRead(x, &from));
    solve->products++;
    return 0;
}

static PetscErrorCode shell_mult(Mat M, Vec x, Vec y)
{
    return shell_apply(M, x, y, false);
}

static PetscErrorCode shell_mult_transpose(Mat M, Vec x, Vec y)
{
    return shell_apply(M, x, y, true);
}

/* Residual relative to the largest singular value: small ones need no more digits than the matrix has. */
static PetscErrorCode converged(SVD svd, PetscReal sigma, PetscReal residual, PetscReal *error, void *context)
{
    struct solve *solve = context;
    if (sigma > solve->largest) solve->largest = sigma;
    *error = solve->largest > 0 ? residual / solve->largest : 0;
    return 0;
}

static Vec vector_over(const struct linop *A, bool rows, double *local)
{
    Vec v;
    must(VecCreateMPIWithArray(A->comm, 1, rows ? A->mloc : A->nloc, rows ? A->m : A->n, local, &v));
    return v;
}

/* Start in the space of right vectors: random by global index; on a warm start the sum of the old vectors with a small
 * random part, because Krylov iteration takes one vector only. */
static void start_vector(const struct linop *A, const struct krylov_options *options, const struct triplets *T,
                         double *x)
{
    double share = 1;
    if (T->filled) {
        for (int i = 0; i < T->converged; i++)
            for (int j = 0; j < A->nloc; j++) x[j] += T->right[j + (int64_t)i * A->nloc];
        share = 1e-6;
    }
    for (int j = 0; j < A->nloc; j++)
        x[j] +=
            share * random_normal(options->seed, options->stream, (uint64_t)A->col_index(A, j)) / sqrt((double)A->n);
}

/* Measured residuals, with two products a triplet. */
static void measure_residuals(const struct linop *A, struct triplets *T)
{
    double *y = NEW(double, A->mloc), *x = NEW(double, A->nloc), *sums = NEW(double, T->rank);
    for (int i = 0; i < T->converged; i++) {
        const double *u = T->left + (int64_t)i * A->mloc, *v = T->right + (int64_t)i * A->nloc;
        A->apply(A, v, y);
        A->apply_adjoint(A, u, x);
        for (int k = 0; k < A->mloc; k++) sums[i] += (y[k] - T->sigma[i] * u[k]) * (y[k] - T->sigma[i] * u[k]);
        for (int k = 0; k < A->nloc; k++) sums[i] += (x[k] - T->sigma[i] * v[k]) * (x[k] - T->sigma[i] * v[k]);
    }
    MPI_Allreduce(MPI_IN_PLACE, sums, T->rank, MPI_DOUBLE, MPI_SUM, A->comm);
    for (int i = 0; i < T->rank; i++)
        T->residual[i] = i < T->converged ? sqrt(sums[i]) / (T->sigma[0] > 0 ? T->sigma[0] : 1) : NAN;
    memory_free(sums);
    memory_free(x);
    memory_free(y);
}

static void collect(SVD svd, const struct linop *A, struct triplets *T)
{
    PetscInt found;
    must(SVDGetConverged(svd, &found));
    T->converged = found < T->rank ? (int)found : T->rank;
    for (int i = 0; i < T->rank; i++) {
        T->sigma[i] = NAN;
        if (i >= T->converged) continue;
        Vec u = vector_over(A, true, T->left + (int64_t)i * A->mloc);
        Vec v = vector_over(A, false, T->right + (int64_t)i * A->nloc);
        must(SVDGetSingularTriplet(svd, i, &T->sigma[i], u, v));
        must(VecDestroy(&u));
        must(VecDestroy(&v));
    }
}

void krylov_svd(const struct linop *A, const struct krylov_options *options, struct triplets *T)
{
    if (T->rank == 0) return;
    struct solve solve = {.A = A};
    const int64_t least = A->m < A->n ? A->m : A->n;
    int64_t basis = options->basis ? options->basis : 2 * T->rank + 10;
    if (basis > least) basis = least;
    Mat M;
    SVD svd;
    must(MatCreateShell(A->comm, A->mloc, A->nloc, A->m, A->n, &solve, &M));
    must(MatShellSetOperation(M, MATOP_MULT, (void (*)(void))shell_mult));
    must(MatShellSetOperation(M, MATOP_MULT_TRANSPOSE, (void (*)(void))shell_mult_transpose));
    must(SVDCreate(A->comm, &svd));
    must(SVDSetOperators(svd, M, NULL));
    must(SVDSetProblemType(svd, SVD_STANDARD));
    must(SVDSetType(svd, SVDTRLANCZOS));
    must(SVDSetWhichSingularTriplets(svd, SVD_LARGEST));
    must(SVDSetConvergenceTestFunction(svd, converged, &solve, NULL));
    int64_t cycles = options->max_products / (2 * (basis - T->rank > 0 ? basis - T->rank : 1)) + 1;
    must(SVDSetDimensions(svd, T->rank, (PetscInt)basis, PETSC_DEFAULT));
    must(SVDSetTolerances(svd, options->tolerance, to_int(cycles)));
    double *x = NEW(double, A->nloc);
    start_vector(A, options, T, x);
    Vec start = vector_over(A, false, x);
    must(SVDSetInitialSpaces(svd, 1, &start, 0, NULL));
    must(SVDSolve(svd));
    T->products = solve.products;
    collect(svd, A, T);
    measure_residuals(A, T);
    T->filled = T->converged > 0;
    must(VecDestroy(&start));
    memory_free(x);
    must(SVDDestroy(&svd));
    must(MatDestroy(&M));
}
