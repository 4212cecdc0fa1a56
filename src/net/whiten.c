/* whiten: linear maps of the inputs that are found on the training set. */
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

/* Keeps the directions above the floor and sets the others to zero; returns how many are kept. */
static int64_t keep(double *sigma, int64_t k, double floor)
{
    int64_t kept = 0;
    while (kept < k && sigma[kept] > floor * sigma[0]) kept++;
    for (int64_t i = kept; i < k; i++) sigma[i] = 0;
    return kept;
}

int64_t whiten_bytes(const struct grid *grid, int64_t d, int64_t train, int64_t test)
{
    const int64_t k = d < train ? d : train;
    const int64_t factors = 2 * dmat_local_size(grid, d, k) + dmat_local_size(grid, k, train);
    const int64_t map = test > 0 ? 8 * (dmat_local_size(grid, d, d) + dmat_local_size(grid, d, test)) : 0;
    const int64_t svd = factor_svd_bytes(grid, d, train);
    return 8 * factors + (svd > map ? svd : map);
}

/* The SVD itself, not the Gram matrix: U Vᵀ is exact to rounding even where X is badly conditioned. */
void whiten_apply(struct data *data, double floor)
{
    struct dmat *X = data->train->X;
    const int64_t d = X->m, k = d < X->n ? d : X->n;
    struct dmat *U = dmat_create(X->grid, d, k), *Vt = dmat_create(X->grid, k, X->n),
                *scaled = dmat_create(X->grid, d, k);
    double *sigma = NEW(double, k);
    factor_svd(X, U, sigma, Vt);
    const int64_t kept = keep(sigma, k, floor);
    for (int jl = 0; jl < U->nloc; jl++)
        for (int il = 0; il < U->mloc; il++)
            if (sigma[dmat_col(U, jl)] == 0) U->local[il + (int64_t)jl * U->lld] = 0;
    dmat_gemm('N', 'N', 1, U, Vt, 0, X);
    if (data->test) {
        for (int jl = 0; jl < U->nloc; jl++)
            for (int il = 0; il < U->mloc; il++) {
                const double s = sigma[dmat_col(U, jl)];
                scaled->local[il + (int64_t)jl * U->lld] = s > 0 ? U->local[il + (int64_t)jl * U->lld] / s : 0;
            }
        struct dmat *map = dmat_create(X->grid, d, d), *Z = dmat_create(X->grid, d, data->test->X->n);
        dmat_gemm('N', 'T', 1, scaled, U, 0, map);
        dmat_gemm('N', 'N', 1, map, data->test->X, 0, Z);
        dmat_destroy(&data->test->X);
        data->test->X = Z;
        dmat_destroy(&map);
    }
    log_say("data: whitened, %lld of %lld directions kept", (long long)kept, (long long)d);
    dmat_destroy(&scaled);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
    memory_free(sigma);
}

double whiten_longest(const struct dmat *X)
{
    double *squares = NEW(double, X->nloc), most = 0;
    for (int j = 0; j < X->nloc; j++)
        for (int i = 0; i < X->mloc; i++) squares[j] += pow(X->local[i + (int64_t)j * X->lld], 2);
    MPI_Allreduce(MPI_IN_PLACE, squares, X->nloc, MPI_DOUBLE, MPI_SUM, X->grid->col_comm);
    for (int j = 0; j < X->nloc; j++) most = fmax(most, sqrt(squares[j]));
    MPI_Allreduce(MPI_IN_PLACE, &most, 1, MPI_DOUBLE, MPI_MAX, X->grid->comm);
    memory_free(squares);
    return most;
}
