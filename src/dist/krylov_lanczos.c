/* krylov_lanczos: Lanczos iteration with full re-orthogonalisation, from a vector of the caller's (declared in krylov.h
 * and krylov_private.h). SLEPc has none that gives nodes and weights. */
#include "base/memory.h"
#include "dist/krylov.h"

#include "fortran.h"
#include "krylov_private.h"

#include <math.h>
#include <string.h>

/* What is left of a vector below this share of its length is rounding. */
static const double EXHAUSTED = 1e-13;

static double norm(MPI_Comm comm, int n, const double *x)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, comm);
    return sqrt(sum);
}

/* x ← x − B Bᵀ x; along ← along + Bᵀ x. */
static void project(MPI_Comm comm, int n, int count, const double *B, double *x, double *along)
{
    const double unit = 1, zero = 0, minus = -1;
    const int step = 1, ld = n > 0 ? n : 1;
    double *part = NEW(double, count);
    if (n > 0) dgemv_("T", &n, &count, &unit, B, &ld, x, &step, &zero, part, &step);
    MPI_Allreduce(MPI_IN_PLACE, part, count, MPI_DOUBLE, MPI_SUM, comm);
    if (n > 0) dgemv_("N", &n, &count, &minus, B, &ld, part, &step, &unit, x, &step);
    for (int k = 0; k < count; k++) along[k] += part[k];
    memory_free(part);
}

int krylov_tridiagonal(MPI_Comm comm, int nloc, void (*multiply)(void *context, const double *x, double *y),
                       void *context, int steps, double *basis, double *diagonal, double *next)
{
    double *y = NEW(double, nloc), *along = NEW(double, steps), largest = 0;
    int done = 0;
    while (done < steps) {
        const double *x = basis + (int64_t)done * nloc;
        multiply(context, x, y);
        const double length = norm(comm, nloc, y);
        memset(along, 0, (size_t)steps * sizeof *along);
        project(comm, nloc, done + 1, basis, y, along);
        project(comm, nloc, done + 1, basis, y, along);
        diagonal[done] = along[done];
        next[done] = norm(comm, nloc, y);
        if (length > largest) largest = length;
        const double left = next[done++];
        if (!(left > EXHAUSTED * largest) || done == steps) break;
        for (int i = 0; i < nloc; i++) basis[(int64_t)done * nloc + i] = y[i] / left;
    }
    memory_free(along);
    memory_free(y);
    return done;
}

void krylov_tridiagonal_solve(int n, const double *diagonal, const double *next, double *theta, double *Z)
{
    double *e = NEW(double, n), *work = NEW(double, 2 * n);
    int info;
    memcpy(theta, diagonal, (size_t)n * sizeof *theta);
    memcpy(e, next, (size_t)n * sizeof *e);
    dstev_("V", &n, theta, e, Z, &n, work, &info);
    ensure(info == 0);
    memory_free(work);
    memory_free(e);
}

static void apply(void *context, const double *x, double *y)
{
    const struct linop *A = context;
    A->apply(A, x, y);
}

int krylov_quadrature(const struct linop *A, int steps, const double *x, double *nodes, double *weights)
{
    ensure(A->m == A->n && A->mloc == A->nloc && steps >= 1);
    if (steps > A->n) steps = to_int(A->n);
    const double length = norm(A->comm, A->nloc, x);
    double *basis = NEW(double, (int64_t)steps * A->nloc), *diagonal = NEW(double, 2 * steps), *next = diagonal + steps;
    ensure(length > 0);
    for (int i = 0; i < A->nloc; i++) basis[i] = x[i] / length;
    const int count = krylov_tridiagonal(A->comm, A->nloc, apply, (void *)A, steps, basis, diagonal, next);
    double *Z = NEW(double, (int64_t)count *count);
    krylov_tridiagonal_solve(count, diagonal, next, nodes, Z);
    for (int k = 0; k < count; k++) weights[k] = Z[(int64_t)k * count] * Z[(int64_t)k * count];
    memory_free(Z);
    memory_free(diagonal);
    memory_free(basis);
    return count;
}
