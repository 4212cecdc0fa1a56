#include "sweep_private.h"

#include "base/error.h"

#include <string.h>

bool sweep_has_slope(const struct layer *layer)
{
    return layer->activation != ACTIVATION_LINEAR || layer->scale != 1;
}

int sweep_lowest_trainable(const struct model *model)
{
    int l = 1;
    while (l <= model->depth && !model->layer[l - 1].trainable) l++;
    return l;
}

void sweep_multiply(const struct dmat *W, const struct dmat *a, int64_t j0, bool add, struct dmat *Z)
{
    if (a) {
        dmat_gemm('N', 'N', 1, W, a, add ? 1 : 0, Z);
        return;
    }
    struct dmat *columns = dmat_columns(W, j0, j0 + Z->n);
    if (add)
        dmat_axpy(Z, 1, columns);
    else
        dmat_copy(Z, columns);
    dmat_destroy(&columns);
}

void sweep_weight_product(const struct dmat *D, const struct dmat *a, int64_t j0, bool add, struct dmat *G)
{
    if (a) {
        dmat_gemm('N', 'T', 1, D, a, add ? 1 : 0, G);
        return;
    }
    struct dmat *columns = dmat_columns(G, j0, j0 + D->n); /* no other chunk adds to these */
    dmat_copy(columns, D);
    dmat_destroy(&columns);
}

void sweep_add_bias(const struct dmat *bias, struct dmat *Z, double *work)
{
    const struct grid *grid = Z->grid;
    if (grid->mycol == 0) memcpy(work, bias->local, (size_t)Z->mloc * sizeof(double));
    MPI_Bcast(work, Z->mloc, MPI_DOUBLE, 0, grid->row_comm);
    for (int jl = 0; jl < Z->nloc; jl++)
        for (int il = 0; il < Z->mloc; il++) Z->local[il + (int64_t)jl * Z->lld] += work[il];
}

void sweep_add_row_sums(const struct dmat *D, struct dmat *sums, double *work)
{
    memset(work, 0, (size_t)D->mloc * sizeof(double));
    for (int jl = 0; jl < D->nloc; jl++)
        for (int il = 0; il < D->mloc; il++) work[il] += D->local[il + (int64_t)jl * D->lld];
    const bool root = D->grid->mycol == 0;
    ensure(sums); /* a layer with a bias has a gradient of it */
    MPI_Reduce(root ? MPI_IN_PLACE : work, work, D->mloc, MPI_DOUBLE, MPI_SUM, 0, D->grid->row_comm);
    for (int il = 0; root && il < D->mloc; il++) sums->local[il] += work[il];
}

void sweep_add_skip(double scale, const struct dmat *skip, int64_t j0, struct dmat *a)
{
    if (scale != 1) dmat_scale(a, scale);
    if (skip) {
        dmat_axpy(a, 1, skip);
        return;
    }
    for (int jl = 0; jl < a->nloc; jl++)
        for (int il = 0; il < a->mloc; il++)
            if (dmat_row(a, il) == dmat_col(a, jl) + j0) a->local[il + (int64_t)jl * a->lld] += 1;
}
