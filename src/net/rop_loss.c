/* rop_loss: the curvature of the loss as a function of the outputs, declared in rop_private.h. */
#include "base/memory.h"
#include "net/sensing.h"

#include "rop_private.h"

#include <math.h>
#include <string.h>

static inline double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

static void over_column(const struct grid *grid, double *values, int count, MPI_Op op)
{
    if (grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, op, grid->col_comm);
}

/* For ℓ = −Σ_c y_c log π_c with π the softmax of f: (Σ_c y_c) (π∘r − π (πᵀr)), column by column. */
static void cross_entropy(double scale, const struct dmat *F, const struct dmat *Y, struct dmat *R)
{
    const int n = F->nloc;
    double *largest = NEW(double, 4 * n), *total = largest + n, *along = total + n, *weight = along + n;
    for (int j = 0; j < n; j++) {
        largest[j] = -INFINITY;
        for (int i = 0; i < F->mloc; i++) largest[j] = fmax(largest[j], column(F, j)[i]);
    }
    over_column(F->grid, largest, n, MPI_MAX);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double e = exp(column(F, j)[i] - largest[j]);
            total[j] += e;
            along[j] += e * column(R, j)[i];
            weight[j] += column(Y, j)[i];
        }
    over_column(F->grid, total, 3 * n, MPI_SUM);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double share = exp(column(F, j)[i] - largest[j]) / total[j];
            double *r = column(R, j) + i;
            *r = scale * weight[j] * share * (*r - along[j] / total[j]);
        }
    memory_free(largest);
}

/* ŷ (1 − ŷ) r with ŷ = 1/(1 + e^{−f}). */
static void logistic(double scale, const struct dmat *F, struct dmat *R)
{
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double small = exp(-fabs(column(F, j)[i]));
            column(R, j)[i] *= scale * small / ((1 + small) * (1 + small));
        }
}

/* e^{−σ f} r. */
static void exponential(double scale, const struct dmat *F, const struct dmat *Y, struct dmat *R)
{
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++)
            column(R, j)[i] *= scale * exp(column(Y, j)[i] > 0 ? -column(F, j)[i] : column(F, j)[i]);
}

static void masked(double scale, const struct dmat *M, struct dmat *R)
{
    for (int j = 0; j < R->nloc; j++)
        for (int i = 0; i < R->mloc; i++) column(R, j)[i] *= scale * column(M, j)[i] * column(M, j)[i];
}

/* Σ_k ⟨A_k, R⟩ A_k. */
static void sensing(double scale, const struct sensing *s, struct dmat *R)
{
    const int64_t size = (int64_t)s->mloc * s->nloc;
    double *along = NEW(double, s->count);
    ensure(R->mloc == s->mloc && R->nloc == s->nloc && (R->lld == s->mloc || s->mloc == 0));
    for (int64_t k = 0; k < s->count; k++)
        for (int64_t i = 0; i < size; i++) along[k] += s->A[k * size + i] * R->local[i];
    grid_sum(R->grid, along, to_int(s->count));
    memset(R->local, 0, (size_t)size * sizeof *R->local);
    for (int64_t k = 0; k < s->count; k++)
        for (int64_t i = 0; i < size; i++) R->local[i] += scale * along[k] * s->A[k * size + i];
    memory_free(along);
}

void rop_loss_curvature(const struct loss *loss, const struct dataset *set, int64_t j0, const struct dmat *F,
                        struct dmat *R)
{
    const double scale = loss_scale_on(loss, set);
    const bool labelled = loss->kind == LOSS_CROSS_ENTROPY || loss->kind == LOSS_EXPONENTIAL;
    struct dmat *part = labelled ? dmat_columns(set->Y, j0, j0 + R->n)
                        : set->M ? dmat_columns(set->M, j0, j0 + R->n)
                                 : NULL;
    if (loss->kind == LOSS_CROSS_ENTROPY)
        cross_entropy(scale, F, part, R);
    else if (loss->kind == LOSS_LOGISTIC)
        logistic(scale, F, R);
    else if (loss->kind == LOSS_EXPONENTIAL)
        exponential(scale, F, part, R);
    else if (loss->kind == LOSS_SENSING)
        sensing(scale, set->sensing, R);
    else if (part)
        masked(scale, part, R);
    else
        dmat_scale(R, scale);
    dmat_destroy(&part);
}
