#include "net/loss.h"

#include "base/memory.h"
#include "net/sensing.h"

#include <math.h>

struct loss loss_of(const struct spec *spec)
{
    return (struct loss){
        .kind = spec_is(spec, "loss.kind", "mse")           ? LOSS_MSE
                : spec_is(spec, "loss.kind", "masked_mse")  ? LOSS_MASKED_MSE
                : spec_is(spec, "loss.kind", "sensing")     ? LOSS_SENSING
                : spec_is(spec, "loss.kind", "logistic")    ? LOSS_LOGISTIC
                : spec_is(spec, "loss.kind", "exponential") ? LOSS_EXPONENTIAL
                                                            : LOSS_CROSS_ENTROPY,
        .reduction = spec_is(spec, "loss.reduction", "sum")        ? LOSS_SUM
                     : spec_is(spec, "loss.reduction", "mean")     ? LOSS_MEAN
                     : spec_is(spec, "loss.reduction", "observed") ? LOSS_OBSERVED
                                                                   : LOSS_SAMPLES,
    };
}

const char *loss_formula(const struct loss *loss)
{
    static const char *const formulas[] = {[LOSS_MSE] = "1/(2s) sum_i |f(x_i) - y_i|^2",
                                           [LOSS_CROSS_ENTROPY] = "-(1/s) sum_i sum_c y_ic log softmax(f(x_i))_c",
                                           [LOSS_LOGISTIC] = "(1/s) sum_i sum_c log(1 + exp f_c(x_i)) - y_ic f_c(x_i)",
                                           [LOSS_EXPONENTIAL] = "(1/s) sum_i sum_c exp(-sign(y_ic) f_c(x_i))",
                                           [LOSS_MASKED_MSE] = "1/(2s) |M o (f(X) - Y)|_F^2",
                                           [LOSS_SENSING] = "1/(2s) sum_k (<A_k, f(X)> - y_k)^2"};
    return formulas[loss->kind];
}

double loss_scale(const struct loss *loss, int64_t outputs, int64_t samples)
{
    const bool entries =
        loss->reduction == LOSS_OBSERVED || (loss->reduction == LOSS_MEAN && loss->kind != LOSS_CROSS_ENTROPY);
    if (loss->reduction == LOSS_SUM) return 1;
    return entries ? 1 / ((double)outputs * (double)samples) : 1 / (double)samples;
}

double loss_scale_on(const struct loss *loss, const struct dataset *set)
{
    if (loss->reduction == LOSS_OBSERVED && set->M) return set->observed > 0 ? 1 / (double)set->observed : 0;
    if (loss->reduction == LOSS_MEAN && loss->kind == LOSS_SENSING) return 1 / (double)set->sensing->count;
    return loss_scale(loss, set->outputs, set->samples);
}

/* A single output of these losses is a sign. */
static bool of_signs(const struct loss *loss, int64_t outputs)
{
    return outputs == 1 && (loss->kind == LOSS_LOGISTIC || loss->kind == LOSS_EXPONENTIAL);
}

bool loss_classifies(const struct loss *loss, bool classes, int64_t outputs)
{
    return classes || of_signs(loss, outputs);
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

/* Σ e_i², e = f − y or, with a mask, m∘(f − y); D ← scale·m∘e unless it is NULL. */
static double errors(int n, double scale, const double *f, const double *y, const double *mask, double *D)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < n; i++) {
        const double m = mask ? mask[i] : 1, error = (f[i] - y[i]) * m;
        sum += error * error;
        if (D) D[i] = scale * error * m;
    }
    return sum;
}

/* M NULL: all entries count. D NULL: no derivative. */
static double squared_error(double scale, const struct dmat *F, const struct dmat *Y, const struct dmat *M, double *D,
                            int64_t ldd)
{
    double sum = 0;
    for (int j = 0; j < F->nloc; j++)
        sum += errors(F->mloc, scale, column(F, j), column(Y, j), M ? column(M, j) : NULL, D ? D + j * ldd : NULL);
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

/* log(1 + e^f) − y f, y within 0 and 1, without overflow and with all digits where it is small. */
static double logistic(double scale, const struct dmat *F, const struct dmat *Y, double *D, int64_t ldd)
{
    double sum = 0;
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double f = column(F, j)[i], y = fmin(fmax(column(Y, j)[i], 0), 1), small = exp(-fabs(f));
            sum += log1p(small) + (f > 0 ? (1 - y) * f : -y * f);
            if (D) D[i + j * ldd] = scale * (f > 0 ? (1 - y) - small / (1 + small) : small / (1 + small) - y);
        }
    return scale * sum;
}

/* e^{−σ f}. */
static double exponential(double scale, const struct dmat *F, const struct dmat *Y, double *D, int64_t ldd)
{
    double sum = 0;
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double sign = column(Y, j)[i] > 0 ? 1 : -1, e = exp(-sign * column(F, j)[i]);
            sum += e;
            if (D) D[i + j * ldd] = -scale * sign * e;
        }
    return scale * sum;
}

/* Of a chunk of columns; D as above. */
static double entrywise(const struct loss *loss, double scale, const struct dmat *F, const struct dmat *Y,
                        const struct dmat *M, double *D, int64_t ldd)
{
    if (loss->kind == LOSS_CROSS_ENTROPY) return cross_entropy(scale, F, Y, D, ldd);
    if (loss->kind == LOSS_LOGISTIC) return logistic(scale, F, Y, D, ldd);
    if (loss->kind == LOSS_EXPONENTIAL) return exponential(scale, F, Y, D, ldd);
    return squared_error(scale, F, Y, M, D, ldd);
}

double loss_derivative(const struct loss *loss, double scale, struct dmat *F, const struct dmat *Y)
{
    return entrywise(loss, scale, F, Y, NULL, F->local, F->lld);
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

/* Of a single output. */
static double count_signs(const struct dmat *F, const struct dmat *Y)
{
    double correct = 0;
    for (int j = 0; F->mloc > 0 && j < F->nloc; j++) correct += (column(F, j)[0] > 0) == (column(Y, j)[0] > 0);
    return correct;
}

static double count_correct(const struct loss *loss, const struct dmat *F, const struct dmat *Y)
{
    if (of_signs(loss, F->m)) return count_signs(F, Y);
    struct peak *output = NEW(struct peak, 2 * F->nloc), *target = output + F->nloc;
    double correct = 0;
    column_peaks(F, output);
    column_peaks(Y, target);
    for (int j = 0; F->grid->myrow == 0 && j < F->nloc; j++) correct += output[j].row == target[j].row;
    memory_free(output);
    return correct;
}

double loss_value(const struct loss *loss, double scale, const struct dmat *F, const struct dmat *Y, double *correct)
{
    *correct = count_correct(loss, F, Y);
    return entrywise(loss, scale, F, Y, NULL, NULL, 0);
}

/* ---------------------------------------------------------------- on a dataset */

/* Columns of Y and M that belong to a chunk of outputs. */
struct chunk {
    struct dmat *Y, *M; /* owned views; M may be NULL */
};

static struct chunk chunk_of(const struct dataset *set, int64_t j0, const struct dmat *F)
{
    return (struct chunk){dmat_columns(set->Y, j0, j0 + F->n), set->M ? dmat_columns(set->M, j0, j0 + F->n) : NULL};
}

static void chunk_end(struct chunk *chunk)
{
    dmat_destroy(&chunk->Y);
    dmat_destroy(&chunk->M);
}

double loss_derivative_on(const struct loss *loss, const struct dataset *set, int64_t j0, struct dmat *F)
{
    const double scale = loss_scale_on(loss, set);
    if (loss->kind == LOSS_SENSING) return sensing_derivative(set->sensing, scale, F);
    struct chunk chunk = chunk_of(set, j0, F);
    const double part = entrywise(loss, scale, F, chunk.Y, chunk.M, F->local, F->lld);
    chunk_end(&chunk);
    return part;
}

double loss_value_on(const struct loss *loss, const struct dataset *set, int64_t j0, const struct dmat *F,
                     double *correct)
{
    const double scale = loss_scale_on(loss, set);
    *correct = 0;
    if (loss->kind == LOSS_SENSING) return sensing_value(set->sensing, scale, F);
    struct chunk chunk = chunk_of(set, j0, F);
    if (loss_classifies(loss, set->classification, F->m)) *correct = count_correct(loss, F, chunk.Y);
    const double part = entrywise(loss, scale, F, chunk.Y, chunk.M, NULL, 0);
    chunk_end(&chunk);
    return part;
}

double loss_unseen_on(const struct dataset *set, int64_t j0, const struct dmat *F)
{
    struct chunk chunk = chunk_of(set, j0, F);
    double sum = 0;
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) {
            const double error = column(F, j)[i] - column(chunk.Y, j)[i];
            sum += chunk.M && column(chunk.M, j)[i] != 0 ? 0 : error * error;
        }
    chunk_end(&chunk);
    return sum;
}
