#include "theory/laws.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"

#include "laws_private.h"

#include <math.h>
#include <string.h>

static const double RANK_THRESHOLD = 1e-9; /* of the largest singular value */
static const double STEP = 1e-30;          /* imaginary: derivatives without cancellation */
static const int64_t MOST_ENTRIES = 4000000, MOST_PARAMETERS = 600, MOST_METRIC = 2000;

bool laws_fit(const struct laws_net *net)
{
    const int64_t parameters = laws_parameters(net), paths = laws_paths(net);
    return parameters <= MOST_PARAMETERS && paths >= 0 && paths * parameters <= MOST_ENTRIES &&
           (net->relu || paths <= MOST_METRIC);
}

/* ---------------------------------------------------------------- the laws */

/* Hidden layers k = 1 … L − 1 whose neurons stand between W_k and W_{k+1} alone. */
static bool has_laws(const struct laws_net *net, int k)
{
    return !net->pairs || (k % 2 == 0 && k + 1 < net->depth);
}

static bool is_trained(const struct laws_net *net, int l)
{
    return !net->trained || net->trained[l - 1];
}

/* Embedding and head, both trained: one more law, a matrix, of the stream between them. */
static bool has_stream(const struct laws_net *net)
{
    return net->pairs && is_trained(net, 1) && is_trained(net, net->depth) && !net->bias;
}

int64_t laws_rows(const struct laws_net *net)
{
    int64_t rows = 0;
    for (int k = 1; k < net->depth; k++) {
        const int64_t n = net->width[k];
        if (has_laws(net, k)) rows += net->relu ? n : n * (n + 1) / 2;
    }
    return rows + (has_stream(net) ? (int64_t)net->width[1] * (net->width[1] + 1) / 2 : 0);
}

/* row += sign · d(WᵀW)_{pq} (columns p, q of W_l), or d(W Wᵀ)_{pq} (its rows). */
static void add_square(const struct laws_net *net, const double *theta, int l, bool rows, int p, int q, double sign,
                       double *row)
{
    const int m = net->width[l], n = net->width[l - 1], length = rows ? n : m;
    const int64_t start = laws_weight(net, l);
    for (int i = 0; i < length; i++) {
        const int64_t at_p = start + (rows ? p + (int64_t)i * m : i + (int64_t)p * m);
        const int64_t at_q = start + (rows ? q + (int64_t)i * m : i + (int64_t)q * m);
        row[at_p] += sign * theta[at_q];
        row[at_q] += sign * theta[at_p];
    }
}

void laws_jacobian(const struct laws_net *net, const double *theta, double *J)
{
    const int64_t parameters = laws_parameters(net);
    double *row = J;
    memset(J, 0, (size_t)laws_rows(net) * (size_t)parameters * sizeof *J);
    for (int k = 1; k < net->depth; k++)
        for (int p = 0; has_laws(net, k) && p < net->width[k]; p++)
            for (int q = p; q < (net->relu ? p + 1 : net->width[k]); q++, row += parameters) {
                add_square(net, theta, k + 1, false, p, q, 1, row);
                add_square(net, theta, k, true, p, q, -1, row);
                if (laws_has_bias(net, k)) row[laws_bias(net, k) + p] -= 2 * theta[laws_bias(net, k) + p];
            }
    for (int p = 0; has_stream(net) && p < net->width[1]; p++)
        for (int q = p; q < net->width[1]; q++, row += parameters)
            for (int l = 1; l <= net->depth; l++) {
                const bool adds = l % 2 == 1 && l < net->depth; /* to the stream: embedding and every B */
                add_square(net, theta, l, adds, p, q, adds ? 1 : -1, row);
            }
}

int64_t laws_theory(const struct laws_net *net)
{
    if (has_stream(net)) return -1;
    if (net->relu) return laws_rows(net);
    if (net->depth != 2) return -1;
    const int64_t h = net->width[1], both = (int64_t)net->width[0] + net->width[2], q = h < both ? h : both;
    return q * (2 * h + 1 - q) / 2;
}

/* ---------------------------------------------------------------- ranks */

/* A (rows × n, row by row) as LAPACK wants it, without the columns of layers that are not trained. */
static double *columns_of(const struct laws_net *net, int64_t rows, const double *A, int *n)
{
    const int64_t all = laws_parameters(net);
    double *B = NEW(double, rows *all);
    *n = 0;
    for (int l = 1; l <= net->depth; l++)
        for (int64_t j = laws_weight(net, l); is_trained(net, l) && j < laws_weight(net, l + 1); j++, ++*n)
            for (int64_t i = 0; i < rows; i++) B[i + rows * *n] = A[i * all + j];
    return B;
}

static int rank_of(const struct laws_net *net, int64_t rows, const double *A, double *basis)
{
    int n;
    if (rows == 0) return 0;
    double *B = columns_of(net, rows, A, &n);
    const int rank = n == 0 ? 0 : factor_local_null_space(to_int(rows), n, B, RANK_THRESHOLD, basis);
    memory_free(B);
    return rank;
}

/* J (rows × n) at θ + iεv; v NULL: at θ. */
static void jacobian_along(const struct laws_net *net, const double *theta, const double *v, double *J)
{
    const int64_t n = laws_parameters(net), entries = laws_paths(net) * n;
    double complex *at = NEW(double complex, n), *derivative = NEW(double complex, entries);
    for (int64_t i = 0; i < n; i++) at[i] = v ? theta[i] + I * STEP * v[i] : theta[i];
    laws_phi_jacobian(net, at, derivative);
    for (int64_t i = 0; i < entries; i++) J[i] = v ? cimag(derivative[i]) / STEP : creal(derivative[i]);
    memory_free(derivative);
    memory_free(at);
}

static double norm(int64_t count, const double *A)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += A[i] * A[i];
    return sqrt(sum);
}

/* max |dM·v| over the columns of the basis: dM·v = (dJ·v) Jᵀ + J (dJ·v)ᵀ. */
static double metric_change(const struct laws_net *net, const double *theta, const double *J, const double *basis,
                            int count)
{
    const int rows = to_int(laws_paths(net)), n = to_int(laws_parameters(net));
    double *along = NEW(double, (int64_t)rows *n), *product = NEW(double, (int64_t)rows *rows), most = 0;
    for (int k = 0; k < count; k++) {
        jacobian_along(net, theta, basis + (int64_t)k * n, along);
        factor_local_product('T', 'N', rows, rows, n, along, J, product); /* J is row by row: its transpose here */
        for (int i = 0; i < rows; i++)
            for (int j = 0; j <= i; j++)
                most = fmax(most, fabs(product[i + (int64_t)j * rows] + product[j + (int64_t)i * rows]));
    }
    memory_free(product);
    memory_free(along);
    return most;
}

static int64_t trained_parameters(const struct laws_net *net)
{
    int64_t count = 0;
    for (int l = 1; l <= net->depth; l++)
        if (is_trained(net, l)) count += laws_weight(net, l + 1) - laws_weight(net, l);
    return count;
}

struct laws_counts laws_count(const struct laws_net *net, const double *theta)
{
    const int64_t n = laws_parameters(net), paths = laws_paths(net), laws = laws_rows(net);
    struct laws_counts c = {.parameters = trained_parameters(net), .paths = paths};
    double *stacked = NEW(double, (paths + laws) * n), *h = stacked + paths * n, *basis = NEW(double, n *n);
    ensure(laws_fit(net) && (net->pairs || !net->trained));
    if (net->pairs)
        laws_pairs_gradients(net, theta, stacked);
    else
        jacobian_along(net, theta, NULL, stacked);
    laws_jacobian(net, theta, h);
    const double size = norm(laws * n, h), factor = size > 0 ? norm(paths * n, stacked) / size : 0;
    for (int64_t i = 0; factor > 0 && i < laws * n; i++) h[i] *= factor; /* of one size: one threshold for both */
    c.phi = rank_of(net, paths, stacked, NULL);
    c.laws = rank_of(net, laws, h, NULL);
    c.both = rank_of(net, paths + laws, stacked, basis);
    const int left = to_int(c.parameters) - c.both;
    c.criterion = net->pairs            ? NAN
                  : left == 0           ? 0
                  : paths > MOST_METRIC ? NAN
                                        : metric_change(net, theta, stacked, basis, left);
    c.lie = laws_lie(net, theta);
    memory_free(basis);
    memory_free(stacked);
    return c;
}
