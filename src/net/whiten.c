/* whiten: linear maps of the inputs that are found on the training set. */
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "net/dataset.h"

#include <math.h>

static void subtract(struct dmat *X, const double *mean)
{
    for (int jl = 0; jl < X->nloc; jl++)
        for (int il = 0; il < X->mloc; il++) X->local[il + (int64_t)jl * X->lld] -= mean[il];
}

void whiten_centre(struct data *data)
{
    const struct dmat *X = data->train->X;
    double *mean = NEW(double, X->mloc);
    for (int jl = 0; jl < X->nloc; jl++)
        for (int il = 0; il < X->mloc; il++) mean[il] += X->local[il + (int64_t)jl * X->lld];
    MPI_Allreduce(MPI_IN_PLACE, mean, X->mloc, MPI_DOUBLE, MPI_SUM, X->grid->row_comm);
    for (int il = 0; il < X->mloc; il++) mean[il] /= (double)X->n;
    subtract(data->train->X, mean);
    if (data->test) subtract(data->test->X, mean);
    memory_free(mean);
}

static void replace(struct dmat **X, const struct dmat *T)
{
    struct dmat *Z = dmat_create((*X)->grid, (*X)->m, (*X)->n);
    dmat_gemm('N', 'N', 1, T, *X, 0, Z);
    dmat_destroy(X);
    *X = Z;
}

/* X ← (X Xᵀ)^(−1/2) X without the eigendirections below `floor` times the largest eigenvalue. Returns how many stay. */
static int64_t pass(struct data *data, double floor)
{
    struct dmat *X = data->train->X;
    const int64_t d = X->m;
    struct dmat *gram = dmat_create(X->grid, d, d), *V = dmat_create(X->grid, d, d);
    double *lambda = NEW(double, d);
    dmat_gemm('N', 'T', 1, X, X, 0, gram);
    factor_symmetric(gram, lambda, V);
    int64_t kept = 0;
    for (int64_t i = 0; i < d; i++) kept += lambda[i] > floor * lambda[d - 1];
    dmat_copy(gram, V);
    for (int jl = 0; jl < V->nloc; jl++) {
        const double value = lambda[dmat_col(V, jl)];
        for (int il = 0; il < V->mloc; il++)
            V->local[il + (int64_t)jl * V->lld] *= value > floor * lambda[d - 1] ? 1 / sqrt(value) : 0;
    }
    struct dmat *T = dmat_create(X->grid, d, d);
    dmat_gemm('N', 'T', 1, V, gram, 0, T);
    replace(&data->train->X, T);
    if (data->test) replace(&data->test->X, T);
    dmat_destroy(&T);
    dmat_destroy(&V);
    dmat_destroy(&gram);
    memory_free(lambda);
    return kept;
}

/* One pass through the Gram matrix leaves X Xᵀ = I up to its squared condition number; the second pass, on a matrix that is almost
 * orthonormal already, up to rounding. */
void whiten_apply(struct data *data, double floor)
{
    const int64_t kept = pass(data, floor * floor);
    pass(data, 0.25);
    log_say("data: whitened, %lld of %lld directions kept", (long long)kept, (long long)data->train->features);
}
