/* krylov_space: a Krylov space as krylov_eigen builds it (declared in krylov_space.h). */
#include "krylov_space.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"

#include "krylov_private.h"

#include <math.h>
#include <string.h>

/* What is left of a vector below this share of its length is rounding. */
static const double EXHAUSTED = 1e-13;

void space_create(struct space *s)
{
    Vec like = space_vector_over(s->A, NULL);
    must(VecDuplicate(like, &s->x));
    must(VecDuplicate(like, &s->y));
    must(BVCreate(s->A->comm, &s->V));
    must(BVSetSizesFromVec(s->V, like, s->room));
    must(BVSetType(s->V, BVMAT));
    must(BVSetOrthogonalization(s->V, BV_ORTHOG_CGS, BV_ORTHOG_REFINE_IFNEEDED, PETSC_DEFAULT, BV_ORTHOG_BLOCK_GS));
    must(VecDestroy(&like));
    s->H = NEW(double, s->room * s->room);
}

void space_destroy_work(struct space *s)
{
    must(VecDestroy(&s->x));
    must(VecDestroy(&s->y));
}

void space_destroy_basis(struct space *s)
{
    must(BVDestroy(&s->V));
    memory_free(s->H);
}

void space_forget(struct space *s, int first)
{
    double *columns;
    must(BVGetArray(s->V, &columns));
    const int64_t nloc = s->A->nloc;
    memory_forget(columns + first * nloc, (size_t)((s->room - first) * nloc) * sizeof *columns);
    must(BVRestoreArray(s->V, &columns));
}

double *space_entry(const struct space *s, int i, int j)
{
    return s->H + i + (int64_t)j * s->room;
}

double space_norm(Vec x)
{
    double length;
    must(VecNorm(x, NORM_2, &length));
    return length;
}

static double column_norm(const struct space *s, int j)
{
    double length;
    must(BVNormColumn(s->V, j, NORM_2, &length));
    return length;
}

void space_components(const struct space *s, int first, int count, Vec x, double *along)
{
    must(BVSetActiveColumns(s->V, first, first + count));
    must(BVDotVec(s->V, x, along));
}

void space_combine(const struct space *s, int first, int count, double *along, Vec x)
{
    must(BVSetActiveColumns(s->V, first, first + count));
    must(BVMultVec(s->V, 1, 0, x, along));
}

/* Column j ← (I − V Vᵀ) column j, for those before it; along gets the components if wanted. Projected again where much
 * was taken away. Returns the length of what is left. */
static double orthogonalize(const struct space *s, int j, double *along)
{
    double left;
    must(BVSetActiveColumns(s->V, 0, s->room));
    must(BVOrthogonalizeColumn(s->V, j, along, &left, NULL));
    return left;
}

/* Column j + 1, which is B v_j, ← it without its components along v_j and along the vectors whose products had one
 * along v_j: B is symmetric, so these are nearly all, and the whole basis need be gone through once only after that,
 * not twice. known[j + 1] ← them. */
static void subtract_known(const struct space *s, int j, double *known)
{
    int first = 0;
    for (int i = 0; i < j; i++) known[i] = *space_entry(s, j, i);
    while (first < j && known[first] == 0) first++;
    must(BVSetActiveColumns(s->V, j, s->room));
    must(BVDotColumn(s->V, j + 1, known + j));
    must(BVSetActiveColumns(s->V, first, s->room));
    must(BVMultColumn(s->V, -1, 1, j + 1, known + first));
}

void space_random(const struct space *s, int round, Vec x)
{
    const struct linop *A = s->A;
    double *local;
    must(VecGetArrayWrite(x, &local));
    for (int i = 0; i < A->nloc; i++) {
        const int64_t index = A->row_index(A, i) + round * A->n;
        local[i] = random_normal(s->seed, s->stream, (uint64_t)index) / sqrt((double)A->n);
    }
    must(VecRestoreArrayWrite(x, &local));
}

/* Column j ← (I − V Vᵀ) of it, of length 1. False if hardly anything is left. */
static bool orthonormalize(const struct space *s, int j)
{
    for (int pass = 0; pass < 2; pass++) { /* scaled in between: what was small is precise then */
        const double left = orthogonalize(s, j, NULL);
        if (!(left >= 1e-6)) return false;
        must(BVScaleColumn(s->V, j, 1 / left));
    }
    return true;
}

void space_random_next(struct space *s)
{
    do {
        Vec next;
        must(BVGetColumn(s->V, s->count, &next));
        space_random(s, s->round++, next);
        must(BVRestoreColumn(s->V, s->count, &next));
    } while (!orthonormalize(s, s->count));
}

void space_multiply(struct space *s, Vec x, Vec y)
{
    const double *from;
    double *to;
    must(VecGetArrayRead(x, &from));
    must(VecGetArrayWrite(y, &to));
    s->A->apply(s->A, from, to);
    for (int i = 0; i < s->A->nloc; i++) to[i] *= s->sign;
    must(VecRestoreArrayWrite(y, &to));
    must(VecRestoreArrayRead(x, &from));
    s->products++;
}

/* Column j + 1 ← B column j. */
static void multiply_column(struct space *s, int j)
{
    Vec x, y;
    must(BVGetColumn(s->V, j, &x));
    must(BVGetColumn(s->V, j + 1, &y));
    space_multiply(s, x, y);
    must(BVRestoreColumn(s->V, j + 1, &y));
    must(BVRestoreColumn(s->V, j, &x));
}

void space_expand(struct space *s)
{
    const int j = s->count;
    double *h = space_entry(s, 0, j), rest = NAN;
    multiply_column(s, j);
    const double length = column_norm(s, j + 1);
    memset(h, 0, (size_t)s->room * sizeof *h);
    if (isfinite(length)) {
        double *known = NEW(double, j + 1);
        subtract_known(s, j, known);
        rest = orthogonalize(s, j + 1, h);
        for (int i = 0; i <= j; i++) h[i] += known[i];
        memory_free(known);
    }
    s->count++;
    s->broken = s->broken || !isfinite(rest);
    if (length > s->length) s->length = length;
    if (s->broken || s->count == s->A->n) return;
    if (rest > EXHAUSTED * s->length) {
        h[j + 1] = rest;
        must(BVScaleColumn(s->V, j + 1, 1 / rest));
    } else {
        space_random_next(s);
    }
}

void space_ritz(const struct space *s, int from, double *theta, double *Z)
{
    const int n = s->count - from;
    double *S = NEW(double, 2 * n * n + n), *U = S + n * n, *value = U + n * n;
    for (int j = 0; j < n; j++) memcpy(S + j * n, space_entry(s, from, from + j), (size_t)(j + 1) * sizeof *S);
    factor_local_eigenpairs(n, S, value, U);
    for (int i = 0; i < n; i++) {
        theta[i] = value[n - 1 - i];
        memcpy(Z + i * n, U + (n - 1 - i) * n, (size_t)n * sizeof *Z);
    }
    MPI_Bcast(theta, n, MPI_DOUBLE, 0, s->A->comm); /* all ranks go the same way */
    MPI_Bcast(Z, n * n, MPI_DOUBLE, 0, s->A->comm);
    memory_free(S);
}

void space_rotate(const struct space *s, int from, double *Z, int to)
{
    Mat Q;
    must(MatCreateSeqDense(PETSC_COMM_SELF, from, to, Z, &Q));
    must(BVSetActiveColumns(s->V, 0, from));
    must(BVMultInPlace(s->V, Q, 0, to));
    must(MatDestroy(&Q));
}

void space_recall(const struct space *s, const double *z, double theta, Vec y)
{
    const int n = s->count;
    double *c = NEW(double, n + 1);
    for (int j = 0; j < n; j++)
        for (int i = 0; i <= n; i++) c[i] += *space_entry(s, i, j) * z[j];
    for (int i = 0; i < n; i++) c[i] -= theta * z[i];
    space_combine(s, 0, n < s->A->n ? n + 1 : n, c, y);
    memory_free(c);
}

Vec space_vector_over(const struct linop *A, const double *local)
{
    Vec v;
    must(VecCreateMPIWithArray(A->comm, 1, A->nloc, A->n, local, &v));
    return v;
}

void space_set_diagonal(struct space *s, int count, const double *theta)
{
    memset(s->H, 0, (size_t)s->room * (size_t)s->room * sizeof *s->H);
    for (int i = 0; i < count; i++) *space_entry(s, i, i) = theta[i];
    s->count = count;
}

void space_normalize(const struct space *s, int j)
{
    must(BVScaleColumn(s->V, j, 1 / column_norm(s, j)));
}
