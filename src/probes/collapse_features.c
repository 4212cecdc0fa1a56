/* collapse_features: class means of the features of every layer, and what the deviations from them say. */
#include "collapse_private.h"

#include "base/memory.h"
#include "dist/factor.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Vectors of class means are zero if they are shorter than this many roundings of max(n_l, K) numbers of the size of
 * the features. */
static const double ROUNDINGS = 10;

/* The class means of one layer and the sums over its samples. */
struct means {
    struct dmat *mean;    /* n_l × K: class sums in the first pass, then μ_k; owned */
    struct dmat *centred; /* n_l × K: μ_k − μ; owned */
    struct dmat *basis;   /* min(n_l, K) × n_l: its left singular vectors as rows; owned */
    double *sigma;        /* [rank] its singular values above rounding; owned */
    int rank;
    double squares; /* Σ ‖h‖², in the first pass this rank's part */
    double zero;    /* what is smaller than this is rounding; infinite where features are too large to be squared */
    double *sum; /* [1 + rank] this rank's part of Σ ‖h − μ_k‖², then of Σ ⟨u_i, h − μ_k⟩²; owned */
};

/* What both passes carry along. */
struct work {
    int depth;           /* L */
    struct means *layer; /* [L] */
    double *distance;    /* [K × K] ‖μ_k − μ_k'‖² of the last features */
    int *nearest; /* [columns of a chunk] class whose mean is nearest, of the last features; NULL between chunks */
    double disagreeing; /* samples, this rank's part */
};

static inline double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

/* This rank's part of ‖A‖_F². */
static double sum_of_squares(const struct dmat *A)
{
    double sum = 0;
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) sum += column(A, jl)[il] * column(A, jl)[il];
    return sum;
}

/* ---------------------------------------------------------------- classes */

struct peak {
    double value;
    int row;
};

/* Row of the largest entry of every local column, over the process column; ties go to the lowest row. */
static void largest_rows(const struct dmat *A, int *row)
{
    struct peak *peak = NEW(struct peak, A->nloc);
    for (int jl = 0; jl < A->nloc; jl++) {
        peak[jl] = (struct peak){-INFINITY, to_int(A->m)};
        for (int il = 0; il < A->mloc; il++)
            if (column(A, jl)[il] > peak[jl].value) peak[jl] = (struct peak){column(A, jl)[il], (int)dmat_row(A, il)};
    }
    MPI_Allreduce(MPI_IN_PLACE, peak, A->nloc, MPI_DOUBLE_INT, MPI_MAXLOC, A->grid->col_comm);
    for (int jl = 0; jl < A->nloc; jl++) row[jl] = peak[jl].row;
    memory_free(peak);
}

void collapse_count(const struct dmat *Y, double *count)
{
    memset(count, 0, (size_t)Y->m * sizeof *count);
    for (int jl = 0; jl < Y->nloc; jl++)
        for (int il = 0; il < Y->mloc; il++) count[dmat_row(Y, il)] += column(Y, jl)[il];
    grid_sum(Y->grid, count, to_int(Y->m));
}

/* ---------------------------------------------------------------- first pass: means */

/* a_0 where the input is the identity; the caller owns it. */
static struct dmat *identity_columns(const struct grid *grid, int64_t features, int64_t first, int64_t columns)
{
    struct dmat *I = dmat_create(grid, features, columns);
    for (int jl = 0; jl < I->nloc; jl++)
        for (int il = 0; il < I->mloc; il++) column(I, jl)[il] = dmat_row(I, il) == dmat_col(I, jl) + first;
    return I;
}

static void add_class_sums(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct work *w = context;
    if (l == w->depth) return;
    struct dmat *mean = w->layer[l].mean, *input = a ? NULL : identity_columns(Y->grid, mean->m, first, Y->n);
    if (!a) a = input;
    dmat_gemm('N', 'T', 1, a, Y, first == 0 ? 0 : 1, mean);
    w->layer[l].squares += sum_of_squares(a);
    dmat_destroy(&input);
}

/* C ← M − (Σ_k weight_k M_k) 1ᵀ. */
static void centre(const struct dmat *M, const double *weight, struct dmat *C)
{
    double *overall = NEW(double, M->mloc);
    for (int jl = 0; jl < M->nloc; jl++)
        for (int il = 0; il < M->mloc; il++) overall[il] += weight[dmat_col(M, jl)] * column(M, jl)[il];
    MPI_Allreduce(MPI_IN_PLACE, overall, M->mloc, MPI_DOUBLE, MPI_SUM, M->grid->row_comm);
    for (int jl = 0; jl < M->nloc; jl++)
        for (int il = 0; il < M->mloc; il++) column(C, jl)[il] = column(M, jl)[il] - overall[il];
    memory_free(overall);
}

/* norm[j] ← ‖M_j‖ of every column, on every rank. */
static void column_norms(const struct dmat *M, double *norm)
{
    memset(norm, 0, (size_t)M->n * sizeof *norm);
    for (int jl = 0; jl < M->nloc; jl++)
        for (int il = 0; il < M->mloc; il++) norm[dmat_col(M, jl)] += column(M, jl)[il] * column(M, jl)[il];
    grid_sum(M->grid, norm, to_int(M->n));
    for (int64_t j = 0; j < M->n; j++) norm[j] = sqrt(norm[j]);
}

static void scale_columns(struct dmat *M, const double *divisor)
{
    for (int jl = 0; jl < M->nloc; jl++)
        for (int il = 0; il < M->mloc; il++) column(M, jl)[il] /= divisor[dmat_col(M, jl)];
}

/* Sums of features of this size have such errors. */
static double rounding_of(const struct means *s, int64_t samples)
{
    const int64_t n = s->mean->m, K = s->mean->n;
    double *norm = NEW(double, K), size = sqrt(s->squares / (double)samples);
    column_norms(s->mean, norm);
    for (int64_t k = 0; k < K; k++) size = fmax(size, norm[k]);
    memory_free(norm);
    return ROUNDINGS * DBL_EPSILON * size * (double)(n > K ? n : K);
}

/* From class sums to means and the singular vectors of their deviations. */
static void finish_means(struct means *s, const double *count, int64_t samples)
{
    const struct grid *grid = s->mean->grid;
    const int64_t n = s->mean->m, K = s->mean->n;
    const int least = to_int(n < K ? n : K);
    double *weight = NEW(double, K);
    for (int64_t k = 0; k < K; k++) weight[k] = count[k] / (double)samples;
    scale_columns(s->mean, count);
    s->centred = dmat_create(grid, n, K);
    centre(s->mean, weight, s->centred);
    struct dmat *rows = dmat_create(grid, K, n), *U = dmat_create(grid, K, least);
    s->basis = dmat_create(grid, least, n);
    s->sigma = NEW(double, least);
    grid_sum(grid, &s->squares, 1);
    s->zero = isfinite(s->squares) ? rounding_of(s, samples) : INFINITY;
    if (isfinite(s->zero)) {
        dmat_transpose(s->centred, rows);
        factor_svd(rows, U, s->sigma, s->basis);
        while (s->rank < least && s->sigma[s->rank] > s->zero) s->rank++;
    }
    s->sum = NEW(double, 1 + s->rank);
    dmat_destroy(&U);
    dmat_destroy(&rows);
    memory_free(weight);
}

/* ---------------------------------------------------------------- second pass: deviations */

/* h − μ_k of the samples of a chunk; the caller owns it. Y is one-hot: the product picks the mean, without rounding. */
static struct dmat *deviations(const struct means *s, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct dmat *D = a ? dmat_create(a->grid, a->m, a->n) : identity_columns(Y->grid, s->mean->m, first, Y->n);
    if (a) dmat_copy(D, a);
    dmat_gemm('N', 'N', -1, s->mean, Y, 1, D);
    return D;
}

static void add_squares(struct means *s, const struct dmat *D)
{
    s->sum[0] += sum_of_squares(D);
    if (s->rank == 0) return;
    struct dmat *P = dmat_create(D->grid, s->basis->m, D->n);
    dmat_gemm('N', 'N', 1, s->basis, D, 0, P);
    for (int jl = 0; jl < P->nloc; jl++)
        for (int il = 0; il < P->mloc; il++) {
            const int64_t i = dmat_row(P, il);
            if (i < s->rank) s->sum[1 + i] += column(P, jl)[il] * column(P, jl)[il];
        }
    dmat_destroy(&P);
}

/* The nearest class mean of every sample of the chunk. With y its own class,
 *     ‖h − μ_k‖² = ‖h − μ_y‖² + 2 ⟨h − μ_y, μ_y − μ⟩ + ‖μ_y − μ_k‖² − 2 ⟨h − μ_y, μ_k − μ⟩,
 * where only the last two terms depend on k. */
static void find_nearest(struct work *w, const struct means *s, const struct dmat *D, const struct dmat *Y)
{
    int *own = NEW(int, Y->nloc);
    struct dmat *Z = dmat_create(Y->grid, Y->m, Y->n);
    largest_rows(Y, own);
    dmat_gemm('T', 'N', 2, s->centred, D, 0, Z);
    for (int jl = 0; jl < Z->nloc; jl++)
        for (int il = 0; il < Z->mloc; il++) column(Z, jl)[il] -= w->distance[dmat_row(Z, il) + own[jl] * Z->m];
    w->nearest = NEW(int, Y->nloc);
    largest_rows(Z, w->nearest);
    dmat_destroy(&Z);
    memory_free(own);
}

static void compare_output(struct work *w, const struct dmat *output)
{
    int *said = NEW(int, output->nloc);
    largest_rows(output, said);
    for (int jl = 0; output->grid->myrow == 0 && jl < output->nloc; jl++) w->disagreeing += said[jl] != w->nearest[jl];
    memory_free(said);
    memory_free(w->nearest);
    w->nearest = NULL;
}

static void add_deviations(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct work *w = context;
    if (l == w->depth) {
        compare_output(w, a);
        return;
    }
    struct dmat *D = deviations(&w->layer[l], a, Y, first);
    add_squares(&w->layer[l], D);
    if (l == w->depth - 1) find_nearest(w, &w->layer[l], D, Y);
    dmat_destroy(&D);
}

/* ---------------------------------------------------------------- numbers */

/* G[k + k'·K] = ⟨A_k, A_k'⟩, on every rank; owned by the caller. */
static double *gram(const struct dmat *A)
{
    double *G = NEW(double, A->n * A->n);
    struct dmat *product = dmat_create(A->grid, A->n, A->n);
    dmat_gemm('T', 'N', 1, A, A, 0, product);
    dmat_gather(product, G, -1);
    dmat_destroy(&product);
    return G;
}

/* Squared distances between the columns of A, from their centred copy C: exact to rounding of the distances. */
static double *distances(const struct dmat *C)
{
    const int64_t K = C->n;
    double *G = gram(C), *d = NEW(double, K *K);
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < K; j++)
            d[i + j * K] = i == j ? 0 : fmax(G[i + i * K] + G[j + j * K] - 2 * G[i + j * K], 0);
    memory_free(G);
    return d;
}

/* 1 − cos is half the squared distance of the unit vectors, which keeps its digits where all means nearly agree. */
static double discrimination_of(const struct dmat *mean, double zero)
{
    const int64_t K = mean->n;
    double *norm = NEW(double, 2 * K), *equal = norm + K, least = INFINITY;
    struct dmat *unit = dmat_create(mean->grid, mean->m, K), *centred = dmat_create(mean->grid, mean->m, K);
    column_norms(mean, norm);
    bool defined = true;
    for (int64_t k = 0; k < K; k++) defined = defined && norm[k] > zero;
    for (int64_t k = 0; k < K; k++) equal[k] = 1 / (double)K;
    if (defined) {
        dmat_copy(unit, mean);
        scale_columns(unit, norm);
        centre(unit, equal, centred);
        double *d = distances(centred);
        for (int64_t i = 0; i < K; i++)
            for (int64_t j = 0; j < i; j++) least = fmin(least, d[i + j * K] / 2);
        memory_free(d);
    }
    dmat_destroy(&centred);
    dmat_destroy(&unit);
    memory_free(norm);
    return defined ? least : NAN;
}

static double equinorm_of(const double *G, int64_t K)
{
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < K; k++) mean += sqrt(G[k + k * K]) / (double)K;
    for (int64_t k = 0; k < K; k++) variance += pow(sqrt(G[k + k * K]) - mean, 2) / (double)K;
    return sqrt(variance) / mean;
}

static double equiangular_of(const double *G, int64_t K, double zero)
{
    double sum = 0;
    for (int64_t k = 0; k < K; k++)
        if (sqrt(G[k + k * K]) <= zero) return NAN;
    for (int64_t i = 0; i < K; i++)
        for (int64_t j = 0; j < i; j++)
            sum += fabs(G[i + j * K] / sqrt(G[i + i * K] * G[j + j * K]) + 1 / (double)(K - 1));
    return sum / (0.5 * (double)K * (double)(K - 1));
}

/* Infinities come from numbers that are too large to be squared. */
static double finite_or_nan(double x)
{
    return isfinite(x) ? x : NAN;
}

static struct collapse_layer numbers_of(const struct means *s, int64_t samples)
{
    const int64_t K = s->mean->n;
    struct collapse_layer r = {NAN, finite_or_nan(discrimination_of(s->mean, s->zero)), NAN, NAN, NAN};
    if (s->rank == 0) return r; /* all class means are equal */
    double *G = gram(s->centred), between = 0, inverse = 0;
    for (int64_t k = 0; k < K; k++) between += G[k + k * K] / (double)K;
    for (int i = 0; i < s->rank; i++) inverse += s->sum[1 + i] / (s->sigma[i] * s->sigma[i]);
    r.compression = finite_or_nan(s->sum[0] / (double)samples / between);
    r.nc1 = finite_or_nan(inverse / (double)samples); /* Σ_B⁺ = K Σ_i u_i u_iᵀ / σ_i² */
    r.equinorm = finite_or_nan(equinorm_of(G, K));
    r.equiangular = finite_or_nan(equiangular_of(G, K, s->zero));
    memory_free(G);
    return r;
}

static struct collapse_head head_of(const struct means *s, const struct dmat *W, int64_t samples)
{
    const int64_t K = s->mean->n;
    double *equal = NEW(double, K);
    struct dmat *M = dmat_create(s->mean->grid, s->mean->m, K);
    for (int64_t k = 0; k < K; k++) equal[k] = 1 / (double)K;
    centre(s->mean, equal, M);
    const struct collapse_head head = collapse_head_of(M, W, s->sum[0] / (double)samples, s->rank > 0);
    dmat_destroy(&M);
    memory_free(equal);
    return head;
}

static void free_work(struct work *w)
{
    for (int l = 0; l < w->depth; l++) {
        struct means *s = &w->layer[l];
        dmat_destroy(&s->mean);
        dmat_destroy(&s->centred);
        dmat_destroy(&s->basis);
        memory_free(s->sigma);
        memory_free(s->sum);
    }
    memory_free(w->layer);
    memory_free(w->distance);
}

void collapse_features(const struct moment *moment, const double *count, struct collapse_layer *layer,
                       struct collapse_head *head)
{
    const struct model *model = moment->model;
    const struct dataset *train = moment->train;
    const int L = model->depth;
    struct work w = {.depth = L, .layer = NEW(struct means, L)};
    for (int l = 0; l < L; l++) w.layer[l].mean = dmat_create(model->grid, model->width[l], train->outputs);
    backprop_features(moment->backprop, model, train, false, add_class_sums, &w);
    for (int l = 0; l < L; l++) finish_means(&w.layer[l], count, train->samples);
    const struct means *last = &w.layer[L - 1];
    w.distance = distances(last->centred);
    backprop_features(moment->backprop, model, train, true, add_deviations, &w);
    for (int l = 0; l < L; l++) {
        grid_sum(model->grid, w.layer[l].sum, 1 + w.layer[l].rank);
        layer[l] = numbers_of(&w.layer[l], train->samples);
    }
    grid_sum(model->grid, &w.disagreeing, 1);
    *head = head_of(last, model->params->W[L - 1], train->samples);
    head->disagreement = isfinite(last->zero) ? w.disagreeing / (double)train->samples : NAN;
    free_work(&w);
}
