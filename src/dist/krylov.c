#include "dist/krylov.h"

#include "base/build.h"
#include "base/memory.h"
#include "dist/random.h"

#include "fortran.h"
#include "krylov_private.h"

#include <slepcsvd.h>

#include <math.h>
#include <string.h>

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

/* A solve. Lanczos iteration finds one copy of a multiple singular value, at least until rounding brings in another,
 * and stops where its space is exhausted. So the operator is solved again with all that was found projected out, from a
 * new random vector, until nothing large is left: A_found = (I − U Uᵀ) A (I − V Vᵀ) */
struct solve {
    const struct linop *A;
    const struct krylov_options *options;
    struct triplets *T;
    int found;     /* triplets in T so far, descending */
    bool wide;     /* m < n: SLEPc is given Aᵀ, so that it iterates in the smaller space, from our start vector */
    bool check;    /* all are found: the round only asks whether a larger one was missed */
    double *x, *y; /* [nloc], [mloc] work vectors; owned */
    int64_t products;
    double largest; /* largest singular value seen by the convergence test */
    double ritz;    /* the same of this round */
    int basis;      /* vectors asked for in this round */
    int held, seen; /* of them converged before this cycle, and tested in it */
    bool exhausted; /* the Krylov space of this round had fewer vectors than that */
};

/* Steps of a round that only looks for what was missed. */
enum { CHECK_BASIS = 10 };

/* Components along found vectors below this share of σ_1 are rounding errors. */
static const double ROUNDING = 1e-14;

/* x ← x − B Bᵀ x for `count` orthonormal vectors B. */
static void project_out(MPI_Comm comm, int n, int count, const double *B, double *x)
{
    const double unit = 1, zero = 0, minus = -1;
    const int step = 1, ld = n > 0 ? n : 1;
    if (count == 0) return;
    double *along = NEW(double, count);
    if (n > 0) dgemv_("T", &n, &count, &unit, B, &ld, x, &step, &zero, along, &step);
    MPI_Allreduce(MPI_IN_PLACE, along, count, MPI_DOUBLE, MPI_SUM, comm);
    if (n > 0) dgemv_("N", &n, &count, &minus, B, &ld, along, &step, &unit, x, &step);
    memory_free(along);
}

static void project_side(const struct solve *s, bool left, double *x)
{
    project_out(s->A->comm, left ? s->A->mloc : s->A->nloc, s->found, left ? s->T->left : s->T->right, x);
}

static double norm(MPI_Comm comm, int n, const double *x)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, comm);
    return sqrt(sum);
}

/* to ← A_found from, or its adjoint. */
static void apply_rest(struct solve *s, bool adjoint, const double *from, double *to)
{
    double *copy = adjoint ? s->y : s->x;
    if (s->found > 0) {
        memcpy(copy, from, (size_t)(adjoint ? s->A->mloc : s->A->nloc) * sizeof *copy);
        project_side(s, adjoint, copy);
        from = copy;
    }
    (adjoint ? s->A->apply_adjoint : s->A->apply)(s->A, from, to);
    project_side(s, !adjoint, to);
    s->products++;
}

static PetscErrorCode shell_apply(Mat M, Vec x, Vec y, bool transpose)
{
    struct solve *s;
    const PetscScalar *from;
    PetscScalar *to;
    must(MatShellGetContext(M, &s));
    must(VecGetArrayRead(x, &from));
    must(VecGetArrayWrite(y, &to));
    apply_rest(s, transpose != s->wide, from, to);
    must(VecRestoreArrayWrite(y, &to));
    must(VecRestoreArrayRead(x, &from));
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
    struct solve *s = context;
    if (sigma > s->largest) s->largest = sigma;
    if (sigma > s->ritz) s->ritz = sigma;
    s->seen++;
    *error = s->largest > 0 ? residual / s->largest : 0;
    return 0;
}

/* A value above this belongs among the k largest. */
static double missed_above(const struct solve *s)
{
    return s->T->sigma[s->T->rank - 1] + s->options->tolerance * s->largest;
}

/* SLEPc 3.18 goes on for ever from an exhausted space: that ends the round. (All vectors but those held are tested in
 * each cycle.) */
static PetscErrorCode stopping(SVD svd, PetscInt cycles, PetscInt most, PetscInt count, PetscInt wanted,
                               SVDConvergedReason *reason, void *context)
{
    struct solve *s = context;
    *reason = SVD_CONVERGED_ITERATING;
    s->exhausted = s->held + s->seen < s->basis;
    s->held = count;
    s->seen = 0;
    if (count >= wanted)
        *reason = SVD_CONVERGED_TOL;
    else if (s->exhausted || (s->check && s->ritz <= missed_above(s)))
        *reason = SVD_CONVERGED_USER;
    else if (s->products >= s->options->max_products || cycles >= most)
        *reason = SVD_DIVERGED_ITS;
    return 0;
}

static Vec vector_over(const struct linop *A, bool rows, double *local)
{
    Vec v;
    must(VecCreateMPIWithArray(A->comm, 1, rows ? A->mloc : A->nloc, rows ? A->m : A->n, local, &v));
    return v;
}

/* Random by global index; every round and side has numbers of its own. Scaled to length about 1. */
static void add_random(const struct solve *s, bool left, int round, double share, double *x)
{
    const struct linop *A = s->A;
    const int64_t n = left ? A->m : A->n;
    for (int i = 0; i < (left ? A->mloc : A->nloc); i++) {
        const int64_t index = (left ? A->row_index : A->col_index)(A, i) + round * n;
        x[i] += share * random_normal(s->options->seed, s->options->stream, (uint64_t)index) / sqrt((double)n);
    }
}

/* The start of the first round: random; on a warm start the sum of the old vectors with a small random part, because
 * Krylov iteration takes one vector only. */
static double *first_start(const struct solve *s)
{
    const struct triplets *T = s->T;
    const int n = s->wide ? T->mloc : T->nloc;
    const double *old = s->wide ? T->left : T->right;
    double *x = NEW(double, n);
    for (int i = 0; T->filled && i < T->converged; i++)
        for (int j = 0; j < n; j++) x[j] += old[j + (int64_t)i * n];
    add_random(s, s->wide, 0, T->filled ? 1e-8 : 1, x);
    return x;
}

static double *later_start(const struct solve *s, int round)
{
    double *x = NEW(double, s->wide ? s->A->mloc : s->A->nloc);
    add_random(s, s->wide, round, 1, x);
    project_side(s, s->wide, x);
    return x;
}

/* start ← A_foundᵀ A_found start, which leaves the null space out: there the iteration would break down. True if
 * nothing is left but rounding errors, as far as the start vector sees. */
static bool nothing_left(struct solve *s, double *start)
{
    const int n = s->wide ? s->A->nloc : s->A->mloc, from = s->wide ? s->A->mloc : s->A->nloc;
    double *image = NEW(double, n);
    apply_rest(s, s->wide, start, image);
    const bool nothing = norm(s->A->comm, n, image) <= ROUNDING * s->largest * norm(s->A->comm, from, start);
    if (!nothing) apply_rest(s, !s->wide, image, start);
    memory_free(image);
    return nothing;
}

/* Takes a triplet into its place among those found; the last one of a full set is dropped. False if the vectors are not
 * new ones. */
static bool insert(struct solve *s, double sigma, double *u, double *v)
{
    struct triplets *T = s->T;
    const size_t m = (size_t)T->mloc, n = (size_t)T->nloc;
    if (!isfinite(sigma) || (s->check && sigma <= missed_above(s))) return false;
    project_side(s, true, u);
    project_side(s, false, v);
    if (!(fabs(norm(s->A->comm, T->mloc, u) - 1) < 1e-9 && fabs(norm(s->A->comm, T->nloc, v) - 1) < 1e-9)) return false;
    if (s->found < T->rank) s->found++;
    int at = s->found - 1;
    for (; at > 0 && T->sigma[at - 1] < sigma; at--) {
        T->sigma[at] = T->sigma[at - 1];
        memcpy(T->left + (size_t)at * m, T->left + (size_t)(at - 1) * m, m * sizeof *u);
        memcpy(T->right + (size_t)at * n, T->right + (size_t)(at - 1) * n, n * sizeof *v);
    }
    T->sigma[at] = sigma;
    memcpy(T->left + (size_t)at * m, u, m * sizeof *u);
    memcpy(T->right + (size_t)at * n, v, n * sizeof *v);
    return true;
}

/* Takes what a round has found; returns how many new triplets that are. */
static int collect(struct solve *s, SVD svd, int wanted)
{
    PetscInt count;
    must(SVDGetConverged(svd, &count));
    double *u = NEW(double, s->A->mloc), *v = NEW(double, s->A->nloc), sigma;
    Vec left = vector_over(s->A, true, u), right = vector_over(s->A, false, v);
    int taken = 0;
    for (int i = 0; i < count && taken < wanted; i++, taken++) {
        must(SVDGetSingularTriplet(svd, i, &sigma, s->wide ? right : left, s->wide ? left : right));
        if (!insert(s, sigma, u, v)) break;
    }
    must(VecDestroy(&left));
    must(VecDestroy(&right));
    memory_free(u);
    memory_free(v);
    return taken;
}

/* One solve for `wanted` triplets of what is left; returns how many were found. */
static int solve_round(struct solve *s, int wanted, int64_t basis, double *start)
{
    const struct linop *A = s->A;
    const int64_t rest = (A->m < A->n ? A->m : A->n) - s->found;
    const int mloc = s->wide ? A->nloc : A->mloc, nloc = s->wide ? A->mloc : A->nloc;
    Mat M;
    SVD svd;
    must(MatCreateShell(A->comm, mloc, nloc, s->wide ? A->n : A->m, s->wide ? A->m : A->n, s, &M));
    must(MatShellSetOperation(M, MATOP_MULT, (void (*)(void))shell_mult));
    must(MatShellSetOperation(M, MATOP_MULT_TRANSPOSE, (void (*)(void))shell_mult_transpose));
    must(SVDCreate(A->comm, &svd));
    must(SVDSetOperators(svd, M, NULL));
    must(SVDSetProblemType(svd, SVD_STANDARD));
    must(SVDSetType(svd, SVDTRLANCZOS));
    must(SVDSetWhichSingularTriplets(svd, SVD_LARGEST));
    must(SVDSetConvergenceTestFunction(svd, converged, s, NULL));
    must(SVDSetStoppingTestFunction(svd, stopping, s, NULL));
    must(SVDSetTrackAll(svd, PETSC_TRUE));
    s->basis = to_int(basis < rest ? basis : rest);
    s->held = s->seen = 0;
    must(SVDSetDimensions(svd, wanted, s->basis, PETSC_DEFAULT));
    must(SVDSetTolerances(svd, s->options->tolerance, to_int(s->options->max_products)));
    Vec first = vector_over(A, s->wide, start);
    must(SVDSetInitialSpaces(svd, 1, &first, 0, NULL));
    must(SVDSolve(svd));
    const int taken = collect(s, svd, wanted);
    must(VecDestroy(&first));
    must(SVDDestroy(&svd));
    must(MatDestroy(&M));
    return taken;
}

/* A random unit vector orthogonal to those found (projected twice: one may lose digits). */
static void new_vector(const struct solve *s, bool left, double *x)
{
    const int n = left ? s->T->mloc : s->T->nloc;
    double length = 0;
    for (int attempt = 0; length < 1e-4; attempt++) {
        memset(x, 0, (size_t)n * sizeof *x);
        add_random(s, left, s->found + (attempt + 1) * (s->T->rank + 1), 1, x);
        project_side(s, left, x);
        length = norm(s->A->comm, n, x);
    }
    for (int i = 0; i < n; i++) x[i] /= length;
    project_side(s, left, x);
    length = norm(s->A->comm, n, x);
    for (int i = 0; i < n; i++) x[i] /= length;
}

/* Only zeros are left: any orthonormal vectors belong to them. */
static void fill_with_zeros(struct solve *s)
{
    double *u = NEW(double, s->A->mloc), *v = NEW(double, s->A->nloc);
    while (s->found < s->T->rank) {
        new_vector(s, true, u);
        new_vector(s, false, v);
        ensure(insert(s, 0, u, v));
    }
    memory_free(u);
    memory_free(v);
}

/* residual[i] of triplets first ≤ i < first + count relative to σ_1, with two products each. `rayleigh` first sets σ_i
 * to ⟨u_i, A v_i⟩. */
static void find_residuals(const struct solve *s, int first, int count, bool rayleigh)
{
    const struct linop *A = s->A;
    struct triplets *T = s->T;
    const size_t m = (size_t)A->mloc, n = (size_t)A->nloc, all = (size_t)count;
    const double *U = T->left + (size_t)first * m, *V = T->right + (size_t)first * n;
    double *Y = NEW(double, m *all), *X = NEW(double, n *all), *sums = NEW(double, all);
    linop_apply_block(A, count, V, Y);
    linop_apply_adjoint_block(A, count, U, X);
    if (rayleigh) {
        for (size_t i = 0; i < all; i++)
            for (size_t k = 0; k < m; k++) sums[i] += U[i * m + k] * Y[i * m + k];
        MPI_Allreduce(MPI_IN_PLACE, sums, count, MPI_DOUBLE, MPI_SUM, A->comm);
        memcpy(T->sigma + first, sums, all * sizeof *sums);
        memset(sums, 0, all * sizeof *sums);
    }
    for (size_t i = 0; i < all; i++) {
        const double sigma = T->sigma[(size_t)first + i];
        for (size_t k = 0; k < m; k++) sums[i] += pow(Y[i * m + k] - sigma * U[i * m + k], 2);
        for (size_t k = 0; k < n; k++) sums[i] += pow(X[i * n + k] - sigma * V[i * n + k], 2);
    }
    MPI_Allreduce(MPI_IN_PLACE, sums, count, MPI_DOUBLE, MPI_SUM, A->comm);
    for (int i = 0; i < count; i++) T->residual[first + i] = sqrt(sums[i]) / (T->sigma[0] > 0 ? T->sigma[0] : 1);
    memory_free(sums);
    memory_free(X);
    memory_free(Y);
}

/* What is not as good as was asked for is not converged. */
static void measure_residuals(const struct solve *s)
{
    struct triplets *T = s->T;
    const double enough = 10 * fmax(s->options->tolerance, ROUNDING);
    if (T->converged > 0) find_residuals(s, 0, T->converged, false);
    for (int i = 0; i < T->rank; i++) {
        if (i < T->converged && !(T->residual[i] <= enough)) T->converged = i;
        if (i >= T->converged) T->sigma[i] = T->residual[i] = NAN;
    }
}

/* A warm start whose old triplets still solve the problem (a frozen layer, the end of training): they are kept, and
 * only the check for missed ones is left to do. The last triplet is tried first: it costs two products if they do not.
 */
static void keep_old(struct solve *s)
{
    struct triplets *T = s->T;
    if (!T->filled || T->converged < T->rank) return;
    const int last = T->rank - 1;
    find_residuals(s, last, 1, true);
    s->products += 2;
    if (!(T->residual[last] <= s->options->tolerance)) return;
    find_residuals(s, 0, last, true);
    s->products += 2 * last;
    bool good = true;
    for (int i = 0; i < last; i++)
        good = good && T->residual[i] <= s->options->tolerance && T->sigma[i] >= T->sigma[i + 1];
    if (!good) return;
    s->found = T->rank;
    s->largest = T->sigma[0];
}

/* Rounds until k triplets are found and none that is larger was missed; returns how many are surely the leading ones.
 */
static int solve_rounds(struct solve *s, int64_t basis)
{
    const int k = s->T->rank;
    const int64_t least = s->A->m < s->A->n ? s->A->m : s->A->n;
    double *start = s->found ? later_start(s, 0) : first_start(s);
    int failures = 0;
    for (int round = 1; s->found < least && s->products < s->options->max_products; round++) {
        s->check = s->found == k;
        s->ritz = 0;
        if (nothing_left(s, start)) {
            fill_with_zeros(s);
            break;
        }
        const int taken = solve_round(s, s->check ? 1 : k - s->found, s->check ? CHECK_BASIS : basis, start);
        if (taken == 0 && (s->check || !s->exhausted || ++failures > 3)) break;
        memory_free(start);
        start = later_start(s, round);
    }
    memory_free(start);
    int sure = s->found;
    while (s->check && s->ritz > missed_above(s) && sure > 0 && s->T->sigma[sure - 1] < s->ritz) sure--;
    return sure;
}

/* A larger basis needs fewer restarts and products, and more memory and orthogonalisation; measured with k = 20 at
 * width 1024: 4k is the fastest. */
static int64_t default_basis(int k)
{
    const int64_t extra = 2 * k < 10 ? 10 : 2 * k > 60 ? 60 : 2 * k;
    return 2 * k + extra;
}

int krylov_basis(int64_t least, int k)
{
    return to_int(default_basis(k) < least ? default_basis(k) : least);
}

struct krylov_need krylov_need(int64_t least, int k, double tolerance)
{
    const int basis = krylov_basis(least, k);
    const int check = k < least ? 2 * CHECK_BASIS + 4 : 4, behind_a_gap = 2 * basis + check;
    if (tolerance <= 0 || basis == least) return (struct krylov_need){behind_a_gap, behind_a_gap};
    const double edge = 0.58 * (13.8 - log10(tolerance)) * cbrt((double)k * (double)least);
    return (struct krylov_need){.products = behind_a_gap,
                                .in_a_bulk = edge + check > behind_a_gap ? (int)edge + check : behind_a_gap};
}

int64_t krylov_bytes(int64_t least, int k, int64_t mloc, int64_t nloc)
{
    const int64_t basis = krylov_basis(least, k);
    return 8 * ((basis + 3) * (mloc + nloc) + 6 * basis * basis); /* both sides' vectors; SLEPc's projected matrices */
}

void krylov_svd(const struct linop *A, const struct krylov_options *options, struct triplets *T)
{
    if (T->rank == 0) return;
    const int64_t least = A->m < A->n ? A->m : A->n;
    int64_t basis = options->basis ? options->basis : krylov_basis(least, T->rank);
    if (basis > least) basis = least;
    struct solve s = {.A = A, .options = options, .T = T, .wide = A->m < A->n};
    s.x = NEW(double, A->nloc);
    s.y = NEW(double, A->mloc);
    keep_old(&s);
    T->converged = solve_rounds(&s, basis);
    T->products = s.products;
    measure_residuals(&s);
    T->filled = T->converged > 0;
    memory_free(s.y);
    memory_free(s.x);
}
