#include "theory/intrinsic.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/flow.h"

#include "intrinsic_private.h"

#include <math.h>
#include <string.h>

/* Singular values of a balanced start below this fraction of the largest are rounding. */
static const double RANK_THRESHOLD = 1e-12;

/* ---------------------------------------------------------------- K */

/* ln(b/a) without cancellation where they are nearly equal. */
static double log_ratio(double a, double b)
{
    return log1p((b - a) / a);
}

/* (a^N − b^N)/(a − b), a = x^{2/N}, b = y^{2/N}. */
static double balanced(int N, double x, double y)
{
    const double high = fmax(x, y), low = fmin(x, y), peak = pow(high, 2 - 2.0 / N);
    if (low == 0) return peak;
    const double t = 2.0 / N * log_ratio(high, low);
    return t == 0 ? N * peak : peak * expm1(N * t) / expm1(t);
}

/* The logarithmic mean of x² and y². */
static double logarithmic(double x, double y)
{
    const double high = fmax(x, y), low = fmin(x, y);
    if (low == 0) return 0;
    const double t = 2 * log_ratio(high, low);
    return high * high * (t == 0 ? 1 : expm1(t) / t);
}

/* The two summands of K for two layers: squares of the singular values of W_2 and of W_1. */
static double outer_square(double lambda, double sigma)
{
    const double root = sqrt(lambda * lambda + 4 * sigma * sigma);
    return lambda >= 0 ? (root + lambda) / 2 : 2 * sigma * sigma / (root - lambda);
}

static double inner_square(double lambda, double sigma)
{
    return outer_square(-lambda, sigma);
}

static void two_layers(const struct intrinsic_law *law, int r, const double *sigma, double *K, double *left,
                       double *right)
{
    const double lambda = law->lambda ? law->lambda[0] : 0;
    const bool wide = law->hidden > r; /* the hidden layer sees what Z does not move */
    for (int j = 0; j < r; j++) {
        for (int i = 0; i < r; i++) K[i + j * r] = outer_square(lambda, sigma[i]) + inner_square(lambda, sigma[j]);
        left[j] = (wide ? fmax(lambda, 0) : 0) + inner_square(lambda, sigma[j]);
        right[j] = outer_square(lambda, sigma[j]) + (wide ? fmax(-lambda, 0) : 0);
    }
}

/* gap[k] = max c − c_k ≥ 0 of c_0 = 0, c_k = λ_{N−1} + … + λ_{N−k}. */
static void gaps(const struct intrinsic_law *law, double *gap)
{
    const int N = law->depth;
    double c = 0, most = 0;
    for (int k = 1; k < N; k++) {
        gap[k] = c += law->lambda[N - 1 - k];
        most = fmax(most, c);
    }
    for (int k = 0; k < N; k++) gap[k] = most - (k ? gap[k] : 0);
}

/* x ≥ 0 with Π (x + gap_k) = σ². The product is convex and grows, so Newton's method comes down from above. */
static double root_above(int N, const double *gap, double sigma)
{
    if (sigma == 0) return 0;
    const double goal = log(sigma) * 2;
    double x = pow(sigma, 2.0 / N), low = 0, high = x;
    for (int turn = 0; turn < 200; turn++) {
        double value = 0, slope = 0;
        for (int k = 0; k < N; k++) {
            value += log(x + gap[k]);
            slope += 1 / (x + gap[k]);
        }
        if (value > goal)
            high = x;
        else
            low = x;
        double next = x - (value - goal) / slope;
        if (!(next > low && next < high)) next = (low + high) / 2;
        if (fabs(next - x) <= 2e-16 * x) return next;
        x = next;
    }
    return x;
}

/* All layers square: Σ_p Π_{k ≤ N−p−1} (α_i − c_k) Π_{k ≤ p−2} (β_j + e_k), where β_j + e_k = α_j − c_{N−1−k}. */
static void relaxed(const struct intrinsic_law *law, int r, const double *sigma, double *K)
{
    const int N = law->depth;
    double *gap = NEW(double, N), *x = NEW(double, r);
    gaps(law, gap);
    for (int i = 0; i < r; i++) x[i] = root_above(N, gap, sigma[i]);
    for (int j = 0; j < r; j++)
        for (int i = 0; i < r; i++) {
            double sum = 0;
            for (int p = 1; p <= N; p++) {
                double term = 1;
                for (int k = 0; k <= N - p - 1; k++) term *= x[i] + gap[k];
                for (int k = 0; k <= p - 2; k++) term *= x[j] + gap[N - 1 - k];
                sum += term;
            }
            K[i + j * r] = sum;
        }
    memory_free(x);
    memory_free(gap);
}

static bool is_balanced(const struct intrinsic_law *law)
{
    if (law->kind == INTRINSIC_INFINITE || !law->lambda) return true;
    for (int k = 0; k < law->depth - 1; k++)
        if (law->lambda[k] != 0) return false;
    return true;
}

void intrinsic_metric(const struct intrinsic_law *law, int64_t m, int64_t n, int r, const double *sigma, double *K,
                      double *left, double *right)
{
    const bool infinite = law->kind == INTRINSIC_INFINITE;
    if (law->kind == INTRINSIC_TWO_LAYERS) {
        two_layers(law, r, sigma, K, left, right);
        return;
    }
    for (int j = 0; j < r; j++) {
        left[j] = right[j] = infinite ? 0 : pow(sigma[j], 2 - 2.0 / law->depth);
        for (int i = 0; i < r; i++)
            K[i + j * r] = infinite ? logarithmic(sigma[i], sigma[j]) : balanced(law->depth, sigma[i], sigma[j]);
    }
    if (is_balanced(law)) return;
    ensure(m == n && r == m); /* nothing is beside the r modes */
    for (int j = 0; j < r; j++) left[j] = right[j] = 0;
    relaxed(law, r, sigma, K);
}

bool intrinsic_exists(const struct intrinsic_law *law, int64_t m, int64_t n)
{
    const int64_t least = m < n ? m : n, most = m < n ? n : m;
    if (is_balanced(law)) return true;
    if (law->kind == INTRINSIC_TWO_LAYERS) return law->hidden <= least || law->hidden >= most;
    return m == n;
}

/* ---------------------------------------------------------------- life */

static int numerical_rank(int count, const double *sigma)
{
    int rank = 0;
    while (rank < count && sigma[rank] > RANK_THRESHOLD * sigma[0]) rank++;
    return rank > 0 ? rank : 1;
}

struct intrinsic *intrinsic_create(const struct intrinsic_law *law, const struct dmat *Z)
{
    ensure(intrinsic_exists(law, Z->m, Z->n));
    struct intrinsic *x = NEW(struct intrinsic, 1);
    const int least = to_int(Z->m < Z->n ? Z->m : Z->n);
    x->law = *law;
    if (law->lambda && law->kind != INTRINSIC_INFINITE) {
        x->lambda = NEW(double, law->depth);
        memcpy(x->lambda, law->lambda, (size_t)(law->depth - 1) * sizeof *x->lambda);
    }
    x->law.lambda = x->lambda;
    x->Z = dmat_create(Z->grid, Z->m, Z->n);
    x->G = dmat_create(Z->grid, Z->m, Z->n);
    dmat_copy(x->Z, Z);
    x->rank = law->kind == INTRINSIC_TWO_LAYERS && law->hidden < least ? to_int(law->hidden) : least;
    if (!is_balanced(law)) return x;
    struct dmat *A = dmat_create(Z->grid, Z->m, least), *Bt = dmat_create(Z->grid, least, Z->n);
    double *sigma = NEW(double, least);
    factor_svd(Z, A, sigma, Bt);
    x->rank = numerical_rank(least, sigma);
    x->thin = x->rank < least;
    if (x->thin) intrinsic_thin_start(x, A, sigma, Bt);
    memory_free(sigma);
    dmat_destroy(&Bt);
    dmat_destroy(&A);
    return x;
}

void intrinsic_destroy(struct intrinsic **intrinsic)
{
    struct intrinsic *x = *intrinsic;
    if (!x) return;
    dmat_destroy(&x->Z);
    dmat_destroy(&x->G);
    memory_free(x->state);
    memory_free(x->lambda);
    memory_free(x);
    *intrinsic = NULL;
}

const struct dmat *intrinsic_matrix(const struct intrinsic *x)
{
    return x->Z;
}

int intrinsic_rank(const struct intrinsic *x)
{
    return x->thin ? x->rank : 0;
}

void intrinsic_archive(struct intrinsic *x, struct archive *archive)
{
    archive_matrix(archive, "matrix", x->Z);
    if (x->thin) intrinsic_thin_archive(x, archive);
}

/* ---------------------------------------------------------------- Z as a whole */

/* The first m rows and n columns of B. */
static struct dmat *leading(const struct dmat *B, int64_t m, int64_t n)
{
    struct dmat *A = dmat_create(B->grid, m, n);
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] = B->local[il + (int64_t)jl * B->lld];
    return A;
}

static void scale_columns(struct dmat *A, const double *factor)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] *= factor[dmat_col(A, jl)];
}

static void scale_rows(struct dmat *A, const double *factor)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] *= factor[dmat_row(A, il)];
}

/* The three parts of K: r × r, r columns, r rows. */
struct metric {
    int r;
    double *K, *left, *right;
};

/* A_ij ← (K_ij − left_j − right_i) A_ij: what the middle has beyond the outer terms. */
static void multiply_middle(struct dmat *A, const struct metric *metric)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) {
            const int64_t i = dmat_row(A, il), j = dmat_col(A, jl);
            A->local[il + (int64_t)jl * A->lld] *= metric->K[i + j * metric->r] - metric->left[j] - metric->right[i];
        }
}

/* dZ ← −[A (K̃ ∘ AᵀGB) Bᵀ + G B diag(left) Bᵀ + A diag(right) Aᵀ G], K̃ the middle: the sum over the modes that move;
 * between directions where Z is 0 on both sides K is 0, or there are none. */
static void field(const struct dmat *G, const struct dmat *A, const struct dmat *Bt, const struct metric *metric,
                  struct dmat *dZ)
{
    struct dmat *GB = dmat_create(G->grid, G->m, metric->r), *AtG = dmat_create(G->grid, metric->r, G->n);
    struct dmat *middle = dmat_create(G->grid, metric->r, metric->r);
    dmat_gemm('N', 'T', 1, G, Bt, 0, GB);
    dmat_gemm('T', 'N', 1, A, G, 0, AtG);
    dmat_gemm('T', 'N', 1, A, GB, 0, middle);
    multiply_middle(middle, metric);
    scale_columns(GB, metric->left);
    scale_rows(AtG, metric->right);
    dmat_gemm('N', 'N', 1, A, middle, 1, GB);
    dmat_gemm('N', 'N', -1, GB, Bt, 0, dZ);
    dmat_gemm('N', 'N', -1, A, AtG, 1, dZ);
    dmat_destroy(&middle);
    dmat_destroy(&AtG);
    dmat_destroy(&GB);
}

static void whole_rate(void *context, const double *y, double *dy)
{
    struct intrinsic *x = context;
    const struct grid *grid = x->Z->grid;
    const int64_t m = x->Z->m, n = x->Z->n, least = m < n ? m : n, r = x->rank;
    struct dmat *dZ = dmat_over(grid, m, n, dy);
    memcpy(x->Z->local, y, (size_t)dmat_local_size(grid, m, n) * sizeof *y);
    x->gradient(x->context, x->Z, x->G);
    struct dmat *A = dmat_create(grid, m, least), *Bt = dmat_create(grid, least, n);
    double *sigma = NEW(double, least);
    struct metric metric = {x->rank, NEW(double, r *r), NEW(double, r), NEW(double, r)};
    factor_svd(x->Z, A, sigma, Bt);
    intrinsic_metric(&x->law, m, n, x->rank, sigma, metric.K, metric.left, metric.right);
    struct dmat *first = leading(A, m, r), *second = leading(Bt, r, n);
    field(x->G, first, second, &metric, dZ);
    dmat_destroy(&second);
    dmat_destroy(&first);
    memory_free(metric.right);
    memory_free(metric.left);
    memory_free(metric.K);
    memory_free(sigma);
    dmat_destroy(&Bt);
    dmat_destroy(&A);
    dmat_destroy(&dZ);
}

void intrinsic_advance(struct intrinsic *x, double time, int64_t steps,
                       void (*gradient)(void *context, const struct dmat *Z, struct dmat *G), void *context)
{
    x->gradient = gradient;
    x->context = context;
    if (x->thin) {
        intrinsic_thin_advance(x, time, steps);
        return;
    }
    const int64_t size = dmat_local_size(x->Z->grid, x->Z->m, x->Z->n);
    double *y = NEW(double, size);
    memcpy(y, x->Z->local, (size_t)size * sizeof *y);
    flow_rk4(x->Z->grid->comm, to_int(size), y, time, steps, whole_rate, x);
    memcpy(x->Z->local, y, (size_t)size * sizeof *y);
    memory_free(y);
}
