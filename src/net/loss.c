#include "net/loss.h"

#include "base/memory.h"

#include <math.h>

struct loss loss_of(const struct spec *spec)
{
    return (struct loss){
        .kind = spec_is(spec, "loss.kind", "mse") ? LOSS_MSE : LOSS_CROSS_ENTROPY,
        .reduction = spec_is(spec, "loss.reduction", "sum")    ? LOSS_SUM
                     : spec_is(spec, "loss.reduction", "mean") ? LOSS_MEAN
                                                               : LOSS_SAMPLES,
    };
}

double loss_scale(const struct loss *loss, int64_t outputs, int64_t samples)
{
    if (loss->reduction == LOSS_SUM) return 1;
    if (loss->reduction == LOSS_MEAN && loss->kind == LOSS_MSE) return 1 / ((double)outputs * (double)samples);
    return 1 / (double)samples;
}

static inline const double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

/* For every local column: the largest f, log Σ_c e^{f_c − largest} and Σ_c y_c, over the process column. The first two
 * are not added up: their sum would lose the digits of the second. */
static void column_sums(const struct dmat *F, const struct dmat *Y, double *largest, double *log_sum, double *weight)
{
    const int n = F->nloc;
    double *sums = NEW(double, 2 * n);
    for (int j = 0; j < n; j++) {
        largest[j] = -INFINITY;
        for (int i = 0; i < F->mloc; i++) largest[j] = fmax(largest[j], column(F, j)[i]);
    }
    if (F->grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, largest, n, MPI_DOUBLE, MPI_MAX, F->grid->col_comm);
    for (int j = 0; j < n; j++)
        for (int i = 0; i < F->mloc; i++) {
            sums[j] += exp(column(F, j)[i] - largest[j]);
            sums[n + j] += column(Y, j)[i];
        }
    if (F->grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, sums, 2 * n, MPI_DOUBLE, MPI_SUM, F->grid->col_comm);
    for (int j = 0; j < n; j++) {
        log_sum[j] = log(sums[j]);
        weight[j] = sums[n + j];
    }
    memory_free(sums);
}

static double squared_error(double scale, const struct dmat *F, const struct dmat *Y, double *D, int64_t ldd)
{
    double sum = 0;
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double error = column(F, j)[i] - column(Y, j)[i];
            sum += error * error;
            if (D) D[i + j * ldd] = scale * error;
        }
    return 0.5 * scale * sum;
}

static double cross_entropy(double scale, const struct dmat *F, const struct dmat *Y, double *D, int64_t ldd)
{
    double sum = 0, *largest = NEW(double, 3 * F->nloc), *log_sum = largest + F->nloc, *weight = log_sum + F->nloc;
    column_sums(F, Y, largest, log_sum, weight);
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double log_share = column(F, j)[i] - largest[j] - log_sum[j], y = column(Y, j)[i];
            sum -= y == 0 ? 0 : y * log_share;
            if (D) D[i + j * ldd] = scale * (weight[j] * exp(log_share) - y);
        }
    memory_free(largest);
    return scale * sum;
}

double loss_derivative(const struct loss *loss, double scale, struct dmat *F, const struct dmat *Y)
{
    return (loss->kind == LOSS_MSE ? squared_error : cross_entropy)(scale, F, Y, F->local, F->lld);
}

struct peak {
    double value;
    int row;
};

/* Row of the largest entry of every local column, over the process column; ties go to the lowest row. */
static void column_peaks(const struct dmat *A, struct peak *peak)
{
    for (int j = 0; j < A->nloc; j++) {
        peak[j] = (struct peak){-INFINITY, to_int(A->m)};
        for (int i = 0; i < A->mloc; i++)
            if (column(A, j)[i] > peak[j].value) peak[j] = (struct peak){column(A, j)[i], (int)dmat_row(A, i)};
    }
    if (A->grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, peak, A->nloc, MPI_DOUBLE_INT, MPI_MAXLOC, A->grid->col_comm);
}

double loss_value(const struct loss *loss, double scale, const struct dmat *F, const struct dmat *Y, double *correct)
{
    struct peak *output = NEW(struct peak, 2 * F->nloc), *target = output + F->nloc;
    column_peaks(F, output);
    column_peaks(Y, target);
    *correct = 0;
    for (int j = 0; F->grid->myrow == 0 && j < F->nloc; j++) *correct += output[j].row == target[j].row;
    memory_free(output);
    return (loss->kind == LOSS_MSE ? squared_error : cross_entropy)(scale, F, Y, NULL, 0);
}
