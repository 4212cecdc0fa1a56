/* collapse_head: the numbers of neural collapse at the last layer (Papyan, Han and Donoho, PNAS 117, 2020), declared in
 * collapse_private.h. Here the class means are taken from their own mean, whatever the sizes of the classes. */
#include "collapse_private.h"

#include "base/memory.h"
#include "dist/factor.h"

#include <math.h>

/* Means whose smallest direction is this much below the largest (in squares) span fewer than K − 1 dimensions. */
static const double DEGENERATE = 1e-12;

static double norm_of(int64_t count, const double *x)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* ‖A/‖A‖_F − E‖_F with E = (I − 11ᵀ/K)/√(K − 1), the Gram matrix of a simplex; NaN for zeros. */
static double off_simplex(int64_t K, const double *A)
{
    const double size = norm_of(K * K, A), scale = 1 / sqrt((double)(K - 1));
    double sum = 0;
    if (!(size > 0)) return NAN;
    for (int64_t j = 0; j < K; j++)
        for (int64_t i = 0; i < K; i++) {
            const double simplex = ((i == j) - 1 / (double)K) * scale, d = A[i + j * K] / size - simplex;
            sum += d * d;
        }
    return sqrt(sum);
}

static double spread_of_norms(int64_t K, const double *G)
{
    double mean = 0, variance = 0;
    for (int64_t k = 0; k < K; k++) mean += sqrt(G[k + k * K]) / (double)K;
    for (int64_t k = 0; k < K; k++) variance += pow(sqrt(G[k + k * K]) - mean, 2) / (double)K;
    return sqrt(variance) / mean;
}

/* ‖Wᵀ/‖W‖_F − M/‖M‖_F‖_F. */
static double duality_of(const struct dmat *W, const struct dmat *M)
{
    const double size = dmat_norm(W), spread = dmat_norm(M);
    struct dmat *T = dmat_create(W->grid, W->n, W->m);
    dmat_transpose(W, T);
    dmat_scale(T, 1 / size);
    dmat_axpy(T, -1 / spread, M);
    const double distance = dmat_norm(T);
    dmat_destroy(&T);
    return size > 0 ? distance : NAN;
}

/* A B or Aᵀ B with K × K entries, on every rank; owned by the caller. */
static double *small_product(char ta, const struct dmat *A, const struct dmat *B)
{
    double *product = NEW(double, B->n * B->n);
    struct dmat *P = dmat_create(B->grid, B->n, B->n);
    dmat_gemm(ta, 'N', 1, A, B, 0, P);
    dmat_gather(P, product, -1);
    dmat_destroy(&P);
    return product;
}

/* Whether the means span K − 1 dimensions; G is their Gram matrix. */
static bool spans(int64_t K, const double *G)
{
    double *copy = NEW(double, K *(K + 1)), *value = copy + K * K;
    bool finite = true;
    for (int64_t i = 0; i < K * K; i++) {
        copy[i] = G[i];
        finite = finite && isfinite(G[i]);
    }
    if (finite) factor_local_singular_values(to_int(K), to_int(K), copy, value);
    const bool full = finite && value[0] > 0 && value[K - 2] > DEGENERATE * value[0];
    memory_free(copy);
    return full;
}

static double finite_or_nan(double x)
{
    return isfinite(x) ? x : NAN;
}

struct collapse_head collapse_head_of(const struct dmat *centred, const struct dmat *W, double within, bool defined)
{
    const int64_t K = centred->n;
    struct collapse_head head = {NAN, NAN, NAN, NAN, NAN, NAN};
    double *G = small_product('T', centred, centred), between = 0;
    if (defined && spans(K, G)) {
        double *WM = small_product('N', W, centred);
        for (int64_t k = 0; k < K; k++) between += G[k + k * K] / (double)K;
        head.quotient = finite_or_nan(within / between);
        head.norm_cv = finite_or_nan(spread_of_norms(K, G));
        head.simplex = finite_or_nan(off_simplex(K, G));
        head.head_simplex = finite_or_nan(off_simplex(K, WM));
        head.self_duality = finite_or_nan(duality_of(W, centred));
        memory_free(WM);
    }
    memory_free(G);
    return head;
}
