#include "dist/basis.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"

#include "fortran.h"

#include <math.h>
#include <string.h>

/* Singular values of a tall distributed matrix (nloc × k here) through the R factors of all ranks' parts, stacked:
 * nothing is squared, so that small ones keep their digits. */
static void tall_singular_values(MPI_Comm comm, int nloc, int k, const double *A, double *sigma)
{
    int size, info;
    MPI_Comm_size(comm, &size);
    const int rows = nloc > k ? nloc : k;
    double *part = NEW(double, (int64_t)rows *k), *tau = NEW(double, k), *work = NEW(double, 64 * k);
    double *triangle = NEW(double, k *k), *parts = NEW(double, (int64_t)size *k *k);
    for (int j = 0; j < k; j++)
        for (int i = 0; i < nloc; i++) part[i + (int64_t)j * rows] = A[i + (int64_t)j * nloc];
    const int lwork = 64 * k;
    dgeqrf_(&rows, &k, part, &rows, tau, work, &lwork, &info);
    ensure(info == 0);
    for (int j = 0; j < k; j++)
        for (int i = 0; i <= j; i++) triangle[i + j * k] = part[i + (int64_t)j * rows];
    MPI_Allgather(triangle, k * k, MPI_DOUBLE, parts, k * k, MPI_DOUBLE, comm);
    const int m = size * k;
    double *stack = NEW(double, (int64_t)m *k);
    for (int p = 0; p < size; p++)
        for (int j = 0; j < k; j++)
            for (int i = 0; i < k; i++) stack[p * k + i + (int64_t)j * m] = parts[(int64_t)p * k * k + i + j * k];
    factor_local_singular_values(m, k, stack, sigma);
    memory_free(stack);
    memory_free(parts);
    memory_free(triangle);
    memory_free(work);
    memory_free(tau);
    memory_free(part);
}

/* Local part of AᵀB (ka × kb), summed over all ranks. */
static void inner(MPI_Comm comm, int n, int ka, const double *A, int kb, const double *B, double *C)
{
    const double unit = 1, zero = 0;
    memset(C, 0, (size_t)(ka * kb) * sizeof *C);
    if (n > 0) dgemm_("T", "N", &ka, &kb, &n, &unit, A, &n, B, &n, &zero, C, &ka);
    MPI_Allreduce(MPI_IN_PLACE, C, ka * kb, MPI_DOUBLE, MPI_SUM, comm);
}

void basis_overlap(const struct basis *U, const struct basis *V, double *overlap)
{
    ensure(U->n == V->n);
    double *whole = NEW(double, U->n * U->k), *mine = NEW(double, (int64_t)V->nloc * U->k);
    for (int j = 0; j < U->k; j++)
        for (int i = 0; i < U->nloc; i++) whole[U->global[i] + j * U->n] = U->local[i + (int64_t)j * U->nloc];
    MPI_Allreduce(MPI_IN_PLACE, whole, to_int(U->n * U->k), MPI_DOUBLE, MPI_SUM, U->comm);
    for (int j = 0; j < U->k; j++)
        for (int i = 0; i < V->nloc; i++) mine[i + (int64_t)j * V->nloc] = whole[V->global[i] + j * U->n];
    inner(V->comm, V->nloc, U->k, mine, V->k, V->local, overlap);
    memory_free(mine);
    memory_free(whole);
}

void basis_inner(const struct basis *U, const struct basis *V, double *overlap)
{
    ensure(U->n == V->n && U->nloc == V->nloc);
    inner(U->comm, U->nloc, U->k, U->local, V->k, V->local, overlap);
}

void basis_angles(const struct basis *U, const struct basis *V, double *angles)
{
    const int k = U->k, n = U->nloc;
    ensure(V->k == k && V->nloc == n && U->n == V->n);
    if (k == 0) return;
    double *cosine = NEW(double, k), *sine = NEW(double, k), *overlap = NEW(double, k *k);
    double *rest = NEW(double, (int64_t)n *k);
    const double minus = -1, unit = 1;
    inner(U->comm, n, k, U->local, k, V->local, overlap);
    memcpy(rest, V->local, (size_t)n * (size_t)k * sizeof *rest);
    if (n > 0) dgemm_("N", "N", &n, &k, &k, &minus, U->local, &n, overlap, &k, &unit, rest, &n);
    tall_singular_values(U->comm, n, k, rest, sine);
    factor_local_singular_values(k, k, overlap, cosine);
    for (int i = 0; i < k; i++)
        angles[i] = cosine[i] * cosine[i] > 0.5 ? asin(fmin(1, sine[k - 1 - i])) : acos(fmin(1, cosine[i]));
    memory_free(rest);
    memory_free(overlap);
    memory_free(sine);
    memory_free(cosine);
}
