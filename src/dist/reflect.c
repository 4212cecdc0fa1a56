#include "dist/reflect.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/random.h"

/* Numbers of Q in its stream: first the signs of D_0 … D_k, then the vectors of H_1 … H_k. */
static uint64_t sign_index(const struct reflections *Q, int which, int64_t i)
{
    return (uint64_t)which * (uint64_t)Q->n + (uint64_t)i;
}

static uint64_t vector_index(const struct reflections *Q, int which, int64_t i)
{
    return (uint64_t)(Q->count + which) * (uint64_t)Q->n + (uint64_t)i;
}

/* A ← D_which A. */
static void change_signs(const struct reflections *Q, int which, struct dmat *A)
{
    double *sign = NEW(double, A->mloc);
    for (int il = 0; il < A->mloc; il++)
        sign[il] = random_bits(Q->seed, Q->stream, sign_index(Q, which, dmat_row(A, il))) & 1 ? -1 : 1;
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] *= sign[il];
    memory_free(sign);
}

/* A ← H_which A. Each process column holds all rows: one sum down it, of ‖v‖² and vᵀA together. */
static void reflect(const struct reflections *Q, int which, struct dmat *A)
{
    double *v = NEW(double, A->mloc), *sums = NEW(double, A->nloc + 1);
    for (int il = 0; il < A->mloc; il++) {
        v[il] = random_normal(Q->seed, Q->stream, vector_index(Q, which, dmat_row(A, il)));
        sums[A->nloc] += v[il] * v[il];
    }
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) sums[jl] += v[il] * A->local[il + (int64_t)jl * A->lld];
    MPI_Allreduce(MPI_IN_PLACE, sums, A->nloc + 1, MPI_DOUBLE, MPI_SUM, A->grid->col_comm);
    for (int jl = 0; jl < A->nloc; jl++) {
        const double factor = 2 * sums[jl] / sums[A->nloc];
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] -= factor * v[il];
    }
    memory_free(sums);
    memory_free(v);
}

void reflect_apply(const struct reflections *Q, char transposed, struct dmat *A)
{
    ensure(A->m == Q->n && (transposed == 'N' || transposed == 'T'));
    const bool forward = transposed == 'T'; /* Qᵀ A begins with D_0, Q A with D_k */
    change_signs(Q, forward ? 0 : Q->count, A);
    for (int i = 1; i <= Q->count; i++) {
        const int which = forward ? i : Q->count + 1 - i;
        reflect(Q, which, A);
        change_signs(Q, forward ? which : which - 1, A);
    }
}
