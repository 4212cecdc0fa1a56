/* krylov_eigen: extreme eigenpairs of a symmetric operator (declared in krylov.h).
 *
 * Lanczos iteration with full orthogonalisation and thick restarts (Wu, Simon, SIAM J. Matrix Anal. Appl. 22, 2000: for
 * a symmetric operator the same as Krylov–Schur). SLEPc's BV holds the basis, orthogonalises and rotates it. The course
 * of the iteration is ours, because three things are not to be had of the EPS of SLEPc 3.18: a test after every
 * product, not only at a restart; the products themselves, of which residuals are made; and a look for missed pairs
 * that goes on in the same basis. Hessian of 784-256-256-10, ten pairs at 1e-8, all products counted [run]: a cold
 * solve takes 40 (30 iterations, a fresh product, a look) where EPSKRYLOVSCHUR with a look of ten and ten residuals
 * took 53; ten tracked ones twenty steps of descent apart take 224 at a rate of 0.01, 411 by a start from the sum of
 * the last eigenvectors. The first of them, from one past solve, takes 27, and the eighth 18: twelve outliers cost
 * twelve in any case.
 *
 * Every product B v_j is kept by its components along the basis, as they were measured, and by what is left of it, the
 * next basis vector: B V = V' H to rounding, whatever B is. Residuals come from that; a fresh product with a
 * combination of all pairs must agree with it, else each pair has a product of its own. */
#include "base/memory.h"
#include "dist/krylov.h"

#include "krylov_private.h"
#include "krylov_space.h"

#include <math.h>
#include <string.h>

/* A solve for the largest eigenvalues θ of B = ±A. Krylov iteration finds one copy of a multiple eigenvalue, at least
 * until rounding brings in another. So a look follows: Lanczos steps from a random vector orthogonal to the whole basis
 * see what large values there are. One that was missed joins the basis, and the iteration goes on. */
struct solve {
    struct space space;
    const struct krylov_options *options;
    struct eigenpairs *E; /* lambda holds θ until the end */
    int most;             /* basis vectors of an iteration */
    double *theta, *Z;    /* [room] descending and [room × room] Ritz values and vectors of the whole space; owned */
    double largest;       /* largest |θ| that was seen */
    double seen, bound;   /* by the look: the largest Ritz value, and what could be at most */
    bool whole;           /* the account of the space tells all of B V */
    bool kept;            /* the old pairs still solve the problem */
    bool fill;            /* the iteration is not to end before the basis is full */
};

/* Steps of a look between restarts of it; of how many tracked solves one looks. */
enum { LOOK_STEPS = 10, LOOK_EVERY = 10 };

/* What is kept of a full basis. */
static const double KEEP = 0.85;

/* Old vectors of which the new basis holds this share (squared) have been tracked. */
static const double TRACKED = 0.8;

/* A missed eigenvector has a component of 1/√n of a random vector, and less than a 30th of that with a probability of
 * 3 %. */
static const double UNLUCKY = 30;

/* Residual of vectors behind the k wanted that are tracked with them, over the tolerance. */
static const double GUARDED = 3;

/* Old vectors can be good still if the start was foretold within so many tolerances. */
static const double KEPT = 100;

static const double ROUNDING = 1e-14;

/* Residual of Ritz pair i by the iteration's own account. */
static double estimate(const struct solve *s, int i)
{
    return fabs(*space_entry(&s->space, s->space.count, s->space.count - 1) *
                s->Z[s->space.count - 1 + i * s->space.count]);
}

/* How many of the leading Ritz pairs have converged. */
static int converged(const struct solve *s)
{
    int i = 0;
    while (i < s->E->rank && i < s->space.count && estimate(s, i) <= s->options->tolerance * s->largest) i++;
    return i;
}

/* Whether those behind them that are remembered, too, are good enough to extrapolate from. */
static bool guarded(const struct solve *s)
{
    const int cut = s->E->known > 0 ? s->E->cut : s->E->rank;
    for (int i = s->E->rank; i < cut && i < s->space.count; i++)
        if (estimate(s, i) > GUARDED * s->options->tolerance * s->largest) return false;
    return true;
}

/* A full basis ← its leading Ritz vectors; the next vector stays. */
static void restart(struct solve *s)
{
    const int all = s->space.count, wanted = s->E->rank + 1;
    const double left = *space_entry(&s->space, all, all - 1);
    int keep = (int)(KEEP * all) > wanted ? (int)(KEEP * all) : wanted;
    if (keep > all - 1) keep = all - 1;
    space_rotate(&s->space, all, s->Z, keep);
    must(BVCopyColumn(s->space.V, all, keep));
    space_set_diagonal(&s->space, keep, s->theta);
    for (int i = 0; i < keep; i++) *space_entry(&s->space, keep, i) = left * s->Z[all - 1 + i * all];
}

/* Products until k pairs have converged; with the pair behind them, so that the gap is seen. False if they did not. */
static bool iterate(struct solve *s)
{
    const int k = s->E->rank, enough = k < s->space.A->n ? k + 1 : k;
    while (!s->space.broken) {
        if (s->space.count == s->most && s->space.count < s->space.A->n) restart(s);
        space_expand(&s->space);
        if (s->space.broken) break;
        const bool last = s->space.products >= s->options->max_products || s->space.count == s->space.A->n;
        if (s->space.count < enough && !last) continue;
        space_ritz(&s->space, 0, s->theta, s->Z);
        s->largest = fmax(s->largest, fmax(fabs(s->theta[0]), fabs(s->theta[s->space.count - 1])));
        if (s->space.count >= enough && converged(s) == k && guarded(s) && !(s->fill && s->space.count < s->most))
            return true;
        if (last) break;
    }
    return s->space.count >= enough && !s->space.broken && converged(s) == k;
}

/* Residuals of the leading pairs from the products as they are kept in H, and how far that is from a fresh product with
 * the sum of these pairs, signs in turn: it counts for every one of them. */
static void find_residuals(struct solve *s, int pairs)
{
    struct eigenpairs *E = s->E;
    const int n = s->space.count;
    double *z = NEW(double, n);
    for (int i = 0; i < pairs; i++) {
        space_recall(&s->space, s->Z + i * n, s->theta[i], s->space.y);
        E->residual[i] = space_norm(s->space.y);
        for (int j = 0; j < n; j++) z[j] += (i % 2 ? -1 : 1) * s->Z[j + i * n];
    }
    space_combine(&s->space, 0, n, z, s->space.x);
    space_multiply(&s->space, s->space.x, s->space.y);
    space_recall(&s->space, z, 0, s->space.x);
    must(VecAXPY(s->space.y, -1, s->space.x));
    const double apart = space_norm(s->space.y);
    s->whole = apart <= 0.1 * s->options->tolerance * s->largest;
    for (int i = 0; i < pairs; i++) E->residual[i] += apart;
    memory_free(z);
}

/* The same with one product each, of vectors that stand in V. */
static void find_residuals_anew(struct solve *s, int pairs)
{
    for (int i = 0; i < pairs; i++) {
        Vec v;
        must(BVGetColumn(s->space.V, i, &v));
        space_multiply(&s->space, v, s->space.y);
        must(VecAXPY(s->space.y, -s->E->lambda[i], v));
        must(BVRestoreColumn(s->space.V, i, &v));
        s->E->residual[i] = space_norm(s->space.y);
    }
}

/* The basis ← its Ritz vectors, as many as leave room for a look; θ and residuals of the pairs wanted. */
static void settle(struct solve *s)
{
    const int k = s->E->rank, pairs = s->space.count < k ? s->space.count : k, most = s->space.room - 1 - LOOK_STEPS;
    if (s->whole) find_residuals(s, pairs);
    const int keep = s->space.count < most ? s->space.count : most;
    space_rotate(&s->space, s->space.count, s->Z, keep);
    space_set_diagonal(&s->space, keep, s->theta);
    memcpy(s->E->lambda, s->theta, (size_t)pairs * sizeof *s->theta);
}

/* A value above this belongs among the k largest. */
static double missed_above(const struct solve *s)
{
    return s->E->lambda[s->E->rank - 1] + s->options->tolerance * s->largest;
}

/* Whether `steps` Lanczos steps that saw values from low to high would have raised a missed vector with one above
 * `value` out of the random start: by Chebyshev's polynomial, than which those of Lanczos are no worse. */
static bool would_show(const struct solve *s, int steps, double value, double low, double high)
{
    if (steps < 3 || !(value > high && high > low)) return false;
    return cosh((steps - 1) * acosh((2 * value - low - high) / (high - low))) > UNLUCKY * sqrt((double)s->space.A->n);
}

enum verdict { NOTHING, MISSED, UNDECIDED, UNFINISHED };

/* After `steps` steps with these Ritz values; the residual of the largest. Within it there is an eigenvalue. */
static enum verdict judge(const struct solve *s, int steps, int taken, const double *theta, double residual)
{
    const double above = missed_above(s), accuracy = s->options->tolerance * s->largest;
    if (theta[0] > above) return MISSED;
    if (s->space.count == s->space.A->n || residual <= accuracy) return NOTHING;
    if (would_show(s, steps, above, theta[steps - 1], theta[0])) return NOTHING;
    return taken >= LOOK_STEPS && theta[0] + residual <= above ? NOTHING : UNDECIDED;
}

/* The look, from a random vector orthogonal to the basis. The vector of the largest Ritz value is the next one after
 * it. Unfinished, with all its vectors in the basis, where that is of kept vectors only: in a bulk a full basis leaves
 * less to look at. */
static enum verdict look(struct solve *s)
{
    const int base = s->space.count;
    double theta[LOOK_STEPS], Z[LOOK_STEPS * LOOK_STEPS];
    enum verdict verdict = UNDECIDED;
    if (base == s->space.A->n) return NOTHING;
    space_random_next(&s->space);
    for (int taken = 1, steps = 1; verdict == UNDECIDED; taken++, steps++) {
        space_expand(&s->space);
        if (s->space.broken) return UNDECIDED;
        space_ritz(&s->space, base, theta, Z);
        const double residual = fabs(*space_entry(&s->space, s->space.count, s->space.count - 1) * Z[steps - 1]);
        s->seen = theta[0];
        s->bound = theta[0] + residual;
        verdict = judge(s, steps, taken, theta, residual);
        if (verdict == NOTHING || (verdict == UNDECIDED && s->space.products >= s->options->max_products)) break;
        if (verdict == UNDECIDED && steps < LOOK_STEPS) continue;
        if (verdict == UNDECIDED && s->kept) return UNFINISHED;
        space_combine(&s->space, base, steps, Z, s->space.x);
        must(BVInsertVec(s->space.V, base, s->space.x));
        s->space.count = base;
        steps = 0;
    }
    s->space.count = base;
    return verdict;
}

/* The pairs found stay, and what was missed comes next to them. */
static void take_missed(struct solve *s)
{
    const int k = s->E->rank;
    must(BVCopyColumn(s->space.V, s->space.count, k));
    memcpy(s->theta, s->E->lambda, (size_t)k * sizeof *s->theta);
    space_set_diagonal(&s->space, k, s->theta);
    s->whole = s->kept = false;
}

/* Whether the basis holds most of each old vector: of a copy of a multiple eigenvalue that was lost it does not. */
static bool followed(const struct solve *s)
{
    const struct eigenpairs *E = s->E;
    double *along = NEW(double, s->space.count), least = 1;
    for (int i = 0; i < E->rank; i++) {
        Vec old = space_vector_over(s->space.A, E->vectors + (int64_t)i * E->nloc);
        double share = 0;
        space_components(&s->space, 0, s->space.count, old, along);
        must(VecDestroy(&old));
        for (int j = 0; j < s->space.count; j++) share += along[j] * along[j];
        least = fmin(least, share);
    }
    memory_free(along);
    return least > TRACKED;
}

/* Tracked pairs need a look every few solves only, or where the next value behind them has not been seen again: what
 * rises among them is in the iteration's space by its random part, unless it is an exact copy. */
static bool needs_look(const struct solve *s, bool tracked)
{
    const struct eigenpairs *E = s->E;
    const int k = E->rank;
    if (!tracked || s->space.count <= k || E->unseen + 1 >= LOOK_EVERY || s->space.round > 1) return true;
    const double next = s->space.sign * E->next;
    if (!(s->theta[k] >= next - 0.25 * fabs(E->lambda[k - 1] - next))) return true;
    return !followed(s);
}

/* The start: a random vector g; on a warm start the projection of g on the leading eigenvectors, extrapolated, with a
 * small part of g, so that what rises among them is found. */
static void begin(struct solve *s, bool tracked)
{
    space_random_next(&s->space);
    if (!tracked) return;
    double *x;
    must(VecGetArrayWrite(s->space.x, &x));
    const double error = eigenpairs_predict(s->E, x);
    must(VecRestoreArrayWrite(s->space.x, &x));
    must(VecScale(s->space.x, 1 / space_norm(s->space.x)));
    must(BVCopyVec(s->space.V, 0, s->space.y));
    must(VecAXPY(s->space.x, 0.1 * fmin(error, 1), s->space.y));
    must(BVInsertVec(s->space.V, 0, s->space.x));
    space_normalize(&s->space, 0);
}

/* Basis vector i ← old vector i, with one product. Whether it still is an eigenvector. */
static bool keep_vector(struct solve *s, int i)
{
    struct eigenpairs *E = s->E;
    Vec v = space_vector_over(s->space.A, E->vectors + (int64_t)i * E->nloc);
    space_multiply(&s->space, v, s->space.y);
    must(VecDot(v, s->space.y, &s->theta[i]));
    must(VecAXPY(s->space.y, -s->theta[i], v));
    must(BVInsertVec(s->space.V, i, v));
    must(VecDestroy(&v));
    E->residual[i] = space_norm(s->space.y);
    s->largest = fmax(s->largest, fabs(s->theta[i]));
    return E->residual[i] <= s->options->tolerance * E->scale;
}

/* A warm start whose old pairs still solve the problem (the end of training): they are kept, and only the look is left.
 * The innermost is tried first: it costs one product if they do not, and none where the last solves tell that they
 * cannot. */
static bool keep_old(struct solve *s)
{
    struct eigenpairs *E = s->E;
    const double slack = 10 * ROUNDING * E->scale;
    bool good = E->known == 1 || E->error <= KEPT * s->options->tolerance;
    for (int i = E->rank - 1; good && i >= 0; i--)
        good = keep_vector(s, i) && (i == E->rank - 1 || s->theta[i] >= s->theta[i + 1] - slack);
    if (!good) s->largest = 0; /* of vectors that are none */
    if (!good) return false;
    space_set_diagonal(&s->space, E->rank, s->theta);
    memcpy(E->lambda, s->theta, (size_t)E->rank * sizeof *s->theta);
    return true;
}

/* Rounds until k pairs are found and none that is larger is seen. Returns how many are surely the leading ones. */
static int solve_rounds(struct solve *s, bool tracked)
{
    struct eigenpairs *E = s->E;
    const int k = E->rank;
    enum verdict verdict = MISSED;
    s->seen = s->bound = -INFINITY;
    s->kept = tracked && keep_old(s);
    if (!s->kept) begin(s, tracked);
    while (verdict == MISSED || verdict == UNFINISHED) {
        if (!s->kept) {
            const bool done = iterate(s);
            if (s->space.broken || s->space.count == 0) return 0;
            const int sure = converged(s);
            settle(s);
            s->fill = false;
            if (!done) return sure;
        }
        if (s->space.count > k) s->seen = s->theta[k];
        if (!needs_look(s, tracked && s->whole)) {
            E->unseen++;
            break;
        }
        const double behind = s->seen;
        E->unseen = 0;
        verdict = look(s);
        s->seen = fmax(s->seen, behind);
        if (verdict == MISSED) take_missed(s);
        if (verdict == UNFINISHED) {
            s->kept = s->whole = false;
            s->fill = true;
        }
    }
    const double most = verdict == UNDECIDED ? s->bound : -INFINITY;
    E->next = k < E->n ? s->space.sign * s->seen : NAN;
    int sure = k;
    while (sure > 0 && most > E->lambda[sure - 1] + s->options->tolerance * s->largest) sure--;
    return sure;
}

static double gap_behind(const struct solve *s, int j)
{
    return j < s->space.count ? s->theta[j - 1] - s->theta[j] : 0;
}

/* Remembers the projection of g on the leading eigenvectors: on k of them, or on a few more if a larger gap is behind
 * those. It depends smoothly on the operator only as long as there is a gap, so where the place of the gap changes the
 * memory begins anew. */
static void remember(struct solve *s)
{
    struct eigenpairs *E = s->E;
    if (s->kept) { /* nothing has changed */
        double *same = memcpy(NEW(double, E->nloc), E->past[0], (size_t)E->nloc * sizeof *same);
        eigenpairs_remember(E, s->space.A->comm, same);
        memory_free(same);
        return;
    }
    int best = E->rank;
    for (int j = best; j < s->space.count && j <= E->rank + 2; j++)
        if (gap_behind(s, j) > gap_behind(s, best)) best = j;
    const bool stays = E->known > 0 && gap_behind(s, E->cut) >= 0.25 * gap_behind(s, best);
    if (!stays) {
        E->known = 0;
        E->cut = best;
    }
    double *along = NEW(double, E->cut);
    const double *x;
    space_random(&s->space, 0, s->space.y);
    space_components(&s->space, 0, E->cut, s->space.y, along);
    space_combine(&s->space, 0, E->cut, along, s->space.x);
    must(VecGetArrayRead(s->space.x, &x));
    eigenpairs_remember(E, s->space.A->comm, x);
    must(VecRestoreArrayRead(s->space.x, &x));
    memory_free(along);
}

int krylov_eigen_basis(int64_t n, int k)
{
    const int64_t basis = 3 * (int64_t)k + 12;
    return to_int(basis < n ? basis : n);
}

static int room_of(int basis, int k)
{
    return (basis > k + LOOK_STEPS ? basis : k + LOOK_STEPS) + 1;
}

int krylov_eigen_work(int64_t n, int k, int basis)
{
    return room_of(basis > 0 && basis < n ? basis : basis > 0 ? to_int(n) : krylov_eigen_basis(n, k), k) + 2;
}

static void solve_create(struct solve *s)
{
    const int64_t n = s->space.A->n, basis = s->options->basis;
    const int k = s->E->rank;
    s->most = basis == 0 ? krylov_eigen_basis(n, k) : to_int(basis < n ? basis : n);
    if (s->most <= k) s->most = to_int(k < n ? k + 1 : k);
    s->space.room = room_of(s->most, k);
    space_create(&s->space);
    s->theta = NEW(double, s->space.room);
    s->Z = NEW(double, s->space.room * s->space.room);
    s->whole = true;
}

static void take_vectors(const struct solve *s)
{
    struct eigenpairs *E = s->E;
    if (!E->vectors) E->vectors = NEW(double, (int64_t)E->rank * E->nloc);
    for (int i = 0; i < E->rank; i++) {
        Vec to = space_vector_over(s->space.A, E->vectors + (int64_t)i * E->nloc);
        must(BVCopyVec(s->space.V, i, to));
        must(VecDestroy(&to));
    }
}

static void finish(struct solve *s)
{
    space_destroy_work(&s->space);
    space_forget(&s->space, s->E->rank);
    take_vectors(s);
    space_destroy_basis(&s->space);
    memory_free(s->theta);
    memory_free(s->Z);
}

/* Eigenvalues and relative residuals of what is sure; the rest is NaN. */
static void report(struct solve *s)
{
    struct eigenpairs *E = s->E;
    const double enough = 10 * fmax(s->options->tolerance, ROUNDING);
    E->scale = s->largest;
    E->products = s->space.products;
    for (int i = 0; i < E->rank; i++) {
        E->residual[i] /= s->largest > 0 ? s->largest : 1;
        if (i < E->converged && !(E->residual[i] <= enough)) E->converged = i;
        E->lambda[i] *= s->space.sign;
        if (i >= E->converged) E->lambda[i] = E->residual[i] = NAN;
    }
    E->filled = E->converged == E->rank;
}

void krylov_eigen(const struct linop *A, const struct krylov_options *options, struct eigenpairs *E)
{
    if (E->rank == 0) return;
    ensure(A->m == A->n && A->mloc == E->nloc && A->n == E->n);
    struct solve s = {.space = {.A = A, .sign = E->smallest ? -1 : 1, .seed = options->seed, .stream = options->stream},
                      .options = options,
                      .E = E};
    const bool tracked = E->filled && E->known > 0;
    if (!tracked) {
        E->known = 0;
        memory_free(E->vectors);
        E->vectors = NULL;
    }
    solve_create(&s);
    E->converged = solve_rounds(&s, tracked);
    if (!s.whole) find_residuals_anew(&s, s.space.count < E->rank ? s.space.count : E->rank);
    report(&s);
    if (E->filled) remember(&s);
    finish(&s);
}
