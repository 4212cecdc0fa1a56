/* krylov_eigen: extreme eigenpairs of a symmetric operator (declared in krylov.h). */
#include "base/memory.h"
#include "dist/krylov.h"
#include "dist/random.h"

#include "fortran.h"
#include "krylov_private.h"

#include <slepceps.h>

#include <math.h>
#include <string.h>

/* A solve for the largest eigenvalues θ of B = ±A. Krylov iteration finds one copy of a multiple eigenvalue, at least
 * until rounding brings in another. So rounds follow with all that was found moved to the far end of the spectrum,
 * until a short Lanczos run from a random vector sees nothing large: B_found = (I − V Vᵀ) B (I − V Vᵀ) − shift V Vᵀ */
struct solve {
    const struct linop *A;
    const struct krylov_options *options;
    struct eigenpairs *E; /* lambda holds θ until the end */
    double sign;
    int found;      /* pairs in E so far, descending */
    double *x;      /* [nloc] work vector; owned */
    double largest; /* largest |θ| that was seen */
    double bound;   /* what could be, after an undecided look */
    double beyond;  /* the next θ after those of a full set, where a round has found it; else NaN */
    int64_t products;
    int basis, held, seen; /* vectors asked for in this round; of them converged before this cycle, and tested in it */
    bool exhausted;        /* the Krylov space of this round had fewer vectors than that */
};

/* Steps of the look for what was missed, and of one that goes on where the last solve's look ended; how often it goes
 * on before the next pair is solved for. */
enum { CHECK_STEPS = 10, TRACK_STEPS = 4, LOOKS = 3 };

/* What Krylov–Schur keeps of its vectors at a restart. It tests for convergence at restarts only: with more kept it
 * loses less there, and stops sooner. */
static const double KEEP = 0.85;

/* Old vectors of which the new ones hold this share (squared) have been tracked. */
static const double TRACKED = 0.8;

static const double ROUNDING = 1e-14;

static void sum_over(const struct solve *s, double *values, int count)
{
    MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, s->A->comm);
}

static double norm(const struct solve *s, const double *x)
{
    double sum = 0;
    for (int i = 0; i < s->A->nloc; i++) sum += x[i] * x[i];
    sum_over(s, &sum, 1);
    return sqrt(sum);
}

/* along ← Bᵀ x for `count` vectors B. */
static void components(const struct solve *s, int count, const double *B, const double *x, double *along)
{
    const double unit = 1, zero = 0;
    const int n = s->A->nloc, step = 1, ld = n > 0 ? n : 1;
    memset(along, 0, (size_t)count * sizeof *along);
    if (n > 0 && count > 0) dgemv_("T", &n, &count, &unit, B, &ld, x, &step, &zero, along, &step);
    sum_over(s, along, count);
}

/* x ← x + factor·B along. */
static void add_combination(const struct solve *s, int count, const double *B, const double *along, double factor,
                            double *x)
{
    const double unit = 1;
    const int n = s->A->nloc, step = 1, ld = n > 0 ? n : 1;
    if (n > 0 && count > 0) dgemv_("N", &n, &count, &factor, B, &ld, along, &step, &unit, x, &step);
}

/* x ← (I − B Bᵀ) x. */
static void project_out(const struct solve *s, int count, const double *B, double *x)
{
    double *along = NEW(double, count);
    components(s, count, B, x, along);
    add_combination(s, count, B, along, -1, x);
    memory_free(along);
}

/* to ← B_found from. */
static void apply_rest(struct solve *s, const double *from, double *to)
{
    const size_t n = (size_t)s->A->nloc;
    const double *V = s->E->vectors;
    double *along = NEW(double, s->found);
    if (s->found > 0) {
        memcpy(s->x, from, n * sizeof *from);
        components(s, s->found, V, from, along);
        add_combination(s, s->found, V, along, -1, s->x);
        from = s->x;
    }
    s->A->apply(s->A, from, to);
    for (size_t i = 0; i < n; i++) to[i] *= s->sign;
    if (s->found > 0) {
        project_out(s, s->found, V, to);
        add_combination(s, s->found, V, along, -2 * s->largest, to);
    }
    s->products++;
    memory_free(along);
}

static PetscErrorCode shell_mult(Mat M, Vec x, Vec y)
{
    struct solve *s;
    const PetscScalar *from;
    PetscScalar *to;
    must(MatShellGetContext(M, &s));
    must(VecGetArrayRead(x, &from));
    must(VecGetArrayWrite(y, &to));
    apply_rest(s, from, to);
    must(VecRestoreArrayWrite(y, &to));
    must(VecRestoreArrayRead(x, &from));
    return 0;
}

/* Residual relative to the largest modulus. */
static PetscErrorCode converged(EPS eps, PetscScalar theta, PetscScalar unused, PetscReal residual, PetscReal *error,
                                void *context)
{
    struct solve *s = context;
    if (fabs(theta) > s->largest && s->found == 0) s->largest = fabs(theta);
    s->seen++;
    *error = s->largest > 0 ? residual / s->largest : 0;
    return 0;
}

/* SLEPc would go on from an exhausted space with a random vector of its own: that ends the round. (All vectors but
 * those held are tested in each cycle of Krylov–Schur.) */
static PetscErrorCode stopping(EPS eps, PetscInt cycles, PetscInt most, PetscInt count, PetscInt wanted,
                               EPSConvergedReason *reason, void *context)
{
    struct solve *s = context;
    *reason = EPS_CONVERGED_ITERATING;
    s->exhausted = s->basis > 0 && count - s->held == s->seen && s->held + s->seen < s->basis;
    s->held = to_int(count);
    s->seen = 0;
    if (count >= wanted)
        *reason = EPS_CONVERGED_TOL;
    else if (s->exhausted)
        *reason = EPS_CONVERGED_USER;
    else if (s->products >= s->options->max_products || cycles >= most)
        *reason = EPS_DIVERGED_ITS;
    return 0;
}

static Vec vector_over(const struct linop *A, double *local)
{
    Vec v;
    must(VecCreateMPIWithArray(A->comm, 1, A->nloc, A->n, local, &v));
    return v;
}

/* A random unit vector orthogonal to those found, by global index; every round has numbers of its own. Projected twice:
 * one may lose digits. */
static void random_start(const struct solve *s, int round, double *x)
{
    const struct linop *A = s->A;
    double length = 0;
    for (int attempt = 0; length < 1e-6; attempt++) {
        for (int i = 0; i < A->nloc; i++) {
            const int64_t index = A->row_index(A, i) + (round + 1000 * attempt) * A->n;
            x[i] = random_normal(s->options->seed, s->options->stream, (uint64_t)index) / sqrt((double)A->n);
        }
        project_out(s, s->found, s->E->vectors, x);
        length = norm(s, x);
    }
    for (int i = 0; i < A->nloc; i++) x[i] /= length;
    project_out(s, s->found, s->E->vectors, x);
    length = norm(s, x);
    for (int i = 0; i < A->nloc; i++) x[i] /= length;
}

/* Takes a pair into its place among those found; the last one of a full set is dropped. False if the vector is not a
 * new one. */
static bool insert(struct solve *s, double theta, double *v)
{
    struct eigenpairs *E = s->E;
    const size_t n = (size_t)E->nloc;
    if (!isfinite(theta)) return false;
    project_out(s, s->found, E->vectors, v);
    if (!(fabs(norm(s, v) - 1) < 1e-9)) return false;
    if (s->found < E->rank) s->found++;
    int at = s->found - 1;
    for (; at > 0 && E->lambda[at - 1] < theta; at--) {
        E->lambda[at] = E->lambda[at - 1];
        memcpy(E->vectors + (size_t)at * n, E->vectors + (size_t)(at - 1) * n, n * sizeof *v);
    }
    E->lambda[at] = theta;
    memcpy(E->vectors + (size_t)at * n, v, n * sizeof *v);
    return true;
}

/* A value above this belongs among the k largest. */
static double missed_above(const struct solve *s)
{
    return s->E->lambda[s->E->rank - 1] + s->options->tolerance * s->largest;
}

/* Takes what a round has found; returns how many new pairs that are. */
static int collect(struct solve *s, EPS eps, int wanted)
{
    PetscInt count;
    must(EPSGetConverged(eps, &count));
    double *v = NEW(double, s->A->nloc), theta;
    Vec vector = vector_over(s->A, v);
    int taken = 0;
    for (int i = 0; i < count && taken < wanted; i++, taken++) {
        must(EPSGetEigenpair(eps, i, &theta, NULL, vector, NULL));
        if (s->found == s->E->rank && theta <= missed_above(s)) {
            s->beyond = theta;
            break;
        }
        if (!insert(s, theta, v)) break;
    }
    must(VecDestroy(&vector));
    memory_free(v);
    return taken;
}

/* One Krylov–Schur solve for `wanted` pairs of what is left. Returns how many were found. */
static int solve_round(struct solve *s, int wanted, int basis, double *start)
{
    const struct linop *A = s->A;
    Mat M;
    EPS eps;
    must(MatCreateShell(A->comm, A->nloc, A->nloc, A->n, A->n, s, &M));
    must(MatShellSetOperation(M, MATOP_MULT, (void (*)(void))shell_mult));
    must(EPSCreate(A->comm, &eps));
    must(EPSSetOperators(eps, M, NULL));
    must(EPSSetProblemType(eps, EPS_HEP));
    must(EPSSetType(eps, EPSKRYLOVSCHUR));
    must(EPSSetWhichEigenpairs(eps, EPS_LARGEST_REAL));
    must(EPSSetConvergenceTestFunction(eps, converged, s, NULL));
    must(EPSSetStoppingTestFunction(eps, stopping, s, NULL));
    must(EPSSetTrackAll(eps, PETSC_TRUE));
    s->basis = to_int(basis < A->n - s->found ? basis : A->n - s->found);
    s->held = s->seen = 0;
    /* SLEPc wants more vectors than pairs unless these are all: what is missing is left to the next round */
    if (s->found > 0 && s->basis < 2) s->basis = 2;
    if (s->found > 0 && wanted >= s->basis) wanted = s->basis - 1;
    must(EPSSetDimensions(eps, wanted, s->basis, PETSC_DEFAULT));
    must(EPSKrylovSchurSetRestart(eps, KEEP));
    must(EPSSetTolerances(eps, s->options->tolerance, to_int(s->options->max_products)));
    Vec first = vector_over(A, start);
    must(EPSSetInitialSpace(eps, 1, &first));
    must(EPSSolve(eps));
    const int taken = collect(s, eps, wanted);
    must(VecDestroy(&first));
    must(EPSDestroy(&eps));
    must(MatDestroy(&M));
    return taken;
}

static void multiply_rest(void *context, const double *x, double *y)
{
    apply_rest(context, x, y);
}

/* Lanczos steps on what is left from a vector there: the largest Ritz value, whose vector replaces x, and its residual.
 */
static double lanczos(struct solve *s, int most, double *x, double *residual)
{
    const int n = s->A->nloc;
    const int64_t rest = s->A->n - s->found;
    const int steps = rest < most ? to_int(rest) : most;
    double diagonal[CHECK_STEPS], next[CHECK_STEPS], theta[CHECK_STEPS], Z[CHECK_STEPS * CHECK_STEPS];
    double *basis = NEW(double, (int64_t)steps *n);
    memcpy(basis, x, (size_t)n * sizeof *x);
    const int count = krylov_tridiagonal(s->A->comm, n, multiply_rest, s, steps, basis, diagonal, next);
    krylov_tridiagonal_solve(count, diagonal, next, theta, Z);
    memset(x, 0, (size_t)n * sizeof *x);
    add_combination(s, count, basis, Z + (size_t)(count - 1) * (size_t)count, 1, x);
    memory_free(basis);
    *residual = fabs(next[count - 1] * Z[(size_t)count * (size_t)count - 1]);
    return theta[count - 1];
}

/* What a look for missed pairs says. */
enum verdict { NOTHING, MISSED, UNDECIDED };

/* The look, from x in what is left. Within the residual of the largest Ritz value, *seen, there is an eigenvalue: as
 * long as that could belong among the k largest the look goes on, a few times. */
static enum verdict look(struct solve *s, int steps, double *x, double *seen)
{
    double residual = 0;
    for (int again = 0; again < LOOKS; again++) {
        *seen = lanczos(s, steps, x, &residual);
        if (*seen > missed_above(s)) return MISSED;
        if (*seen + residual <= missed_above(s)) return NOTHING;
        steps = CHECK_STEPS;
        const double length = norm(s, x);
        for (int i = 0; i < s->A->nloc; i++) x[i] /= length;
    }
    s->bound = *seen + residual;
    return UNDECIDED;
}

/* x ← what the last solve's look found, with a random part, in what is left. */
static void look_on(const struct solve *s, double *x)
{
    const struct eigenpairs *E = s->E;
    for (int pass = 0; pass < 2; pass++) {
        for (int k = 0; pass == 0 && k < E->nloc; k++) x[k] = 0.1 * x[k] + E->inner[k];
        project_out(s, s->found, E->vectors, x);
        const double length = norm(s, x);
        for (int k = 0; k < E->nloc; k++) x[k] /= length;
    }
}

/* residual[i] relative to the largest modulus, with one product each, into the rest of E's room. */
static void find_residuals(const struct solve *s, double *y)
{
    struct eigenpairs *E = s->E;
    for (int i = 0; i < s->found; i++) {
        const double *v = E->vectors + (int64_t)i * E->nloc;
        s->A->apply(s->A, v, y);
        for (int k = 0; k < E->nloc; k++) y[k] = s->sign * y[k] - E->lambda[i] * v[k];
        E->residual[i] = norm(s, y) / (s->largest > 0 ? s->largest : 1);
    }
}

/* θ of old pair i and the residual of its vector, with one product; y is work space. */
static double old_residual(struct solve *s, int i, double *y)
{
    struct eigenpairs *E = s->E;
    const double *v = E->vectors + (int64_t)i * E->nloc;
    double theta = 0;
    s->A->apply(s->A, v, y);
    s->products++;
    for (int k = 0; k < E->nloc; k++) theta += v[k] * y[k];
    sum_over(s, &theta, 1);
    for (int k = 0; k < E->nloc; k++) y[k] -= theta * v[k];
    E->lambda[i] = s->sign * theta;
    if (fabs(theta) > s->largest) s->largest = fabs(theta);
    return norm(s, y);
}

/* A warm start whose old pairs still solve the problem (the end of training): they are kept, and only the look for
 * missed ones is left. The innermost is tried first: it costs one product if they do not. */
static void keep_old(struct solve *s)
{
    struct eigenpairs *E = s->E;
    if (!E->filled || E->converged < E->rank) return;
    double *y = NEW(double, E->nloc), scale = E->scale;
    bool good = true;
    for (int i = E->rank - 1; good && i >= 0; i--) {
        good = old_residual(s, i, y) <= s->options->tolerance * scale;
        good = good && (i == E->rank - 1 || E->lambda[i] >= E->lambda[i + 1] - 10 * ROUNDING * scale);
    }
    memory_free(y);
    if (good)
        s->found = E->rank;
    else
        s->largest = 0; /* of vectors that are none: the solve finds its own */
}

/* Random; on a warm start the sum of the old vectors, and of the one that may have risen among them, with a small
 * random part, because Krylov iteration takes one vector only. */
static void first_start(const struct solve *s, double *x)
{
    const struct eigenpairs *E = s->E;
    random_start(s, 0, x);
    for (int k = 0; E->filled && k < E->nloc; k++) {
        x[k] = 1e-2 * x[k] + E->inner[k];
        for (int i = 0; i < E->converged; i++) x[k] += E->vectors[k + (int64_t)i * E->nloc];
    }
}

/* Whether the pairs found hold most of x, which is made of old ones. */
static bool tracks(const struct solve *s, const double *x)
{
    const struct eigenpairs *E = s->E;
    double *along = NEW(double, E->rank), sum = 0;
    components(s, s->found, E->vectors, x, along);
    for (int i = 0; i < s->found; i++) sum += along[i] * along[i];
    memory_free(along);
    return s->found == E->rank && sum > TRACKED * norm(s, x) * norm(s, x);
}

/* The first round, if there is need for one. Returns whether the pairs are those of the last solve, moved a little. */
static bool begin(struct solve *s, int basis, double *start)
{
    struct eigenpairs *E = s->E;
    const bool warm = E->filled && E->converged == E->rank;
    keep_old(s);
    if (s->found > 0) return true;
    first_start(s, start);
    solve_round(s, E->rank, basis, start);
    return warm && tracks(s, start);
}

/* Rounds until k pairs are found and none that is larger is seen; returns how many are surely the leading ones. */
static int solve_rounds(struct solve *s, int basis)
{
    struct eigenpairs *E = s->E;
    const int k = E->rank;
    double *start = NEW(double, E->nloc), seen = -INFINITY;
    bool tracked = begin(s, basis, start);
    int failures = s->found == 0;
    enum verdict verdict = MISSED;
    for (int round = 1; s->found < E->n && s->products < s->options->max_products; round++) {
        random_start(s, round, start);
        if (s->found == k) {
            if (tracked) look_on(s, start);
            verdict = look(s, tracked ? TRACK_STEPS : CHECK_STEPS, start, &seen);
            memcpy(E->inner, start, (size_t)E->nloc * sizeof *start);
            if (verdict == NOTHING) break;
            tracked = false;
        }
        s->beyond = NAN;
        const int taken = solve_round(s, s->found == k ? 1 : k - s->found, basis, start);
        if (verdict == UNDECIDED && !isnan(s->beyond)) {
            seen = s->beyond;
            break;
        }
        if (taken == 0 && ++failures > 3) break;
    }
    memory_free(start);
    if (verdict == UNDECIDED && s->products >= s->options->max_products) seen = s->bound;
    E->next = s->found == k && k < E->n ? s->sign * seen : NAN;
    int sure = s->found;
    while (sure > 0 && seen > E->lambda[sure - 1] + s->options->tolerance * s->largest) sure--;
    return sure;
}

int krylov_eigen_basis(int64_t n, int k)
{
    const int64_t basis = 2 * k + (k < 5 ? 8 : 4);
    return to_int(basis < n ? basis : n);
}

void krylov_eigen(const struct linop *A, const struct krylov_options *options, struct eigenpairs *E)
{
    if (E->rank == 0) return;
    ensure(A->m == A->n && A->mloc == E->nloc && A->n == E->n);
    int basis = options->basis ? options->basis : krylov_eigen_basis(A->n, E->rank);
    if (basis > A->n) basis = to_int(A->n);
    struct solve s = {.A = A, .options = options, .E = E, .sign = E->smallest ? -1 : 1};
    s.x = NEW(double, A->nloc);
    E->converged = solve_rounds(&s, basis);
    E->products = s.products;
    E->scale = s.largest;
    find_residuals(&s, s.x);
    const double enough = 10 * fmax(options->tolerance, ROUNDING);
    for (int i = 0; i < E->rank; i++) {
        if (i < E->converged && !(E->residual[i] <= enough)) E->converged = i;
        E->lambda[i] *= s.sign;
        if (i >= E->converged) E->lambda[i] = E->residual[i] = NAN;
    }
    E->filled = E->converged > 0;
    memory_free(s.x);
}
