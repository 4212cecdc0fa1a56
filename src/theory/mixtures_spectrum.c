/* mixtures_spectrum: bulk and outliers of the blocks of Hessian and second moment of the gradients. */
#include "base/memory.h"
#include "dist/factor.h"
#include "theory/mixtures.h"

#include <math.h>
#include <string.h>

enum { POINTS = 8192 };

/* ---------------------------------------------------------------- the law at one S */

/* v and h at the points of every class. */
struct law {
    int k, r, count;
    double lambda, phi;
    const double *p; /* borrowed */
    double *v;       /* [k · count × r]; owned */
    double *h;       /* [k · count]; owned */
};

/* z(S) = −1/S + φ Σ_b p_b E[h/(λφ + S h)], or its derivative. */
static double z_of(const struct law *law, double S, bool derivative)
{
    double sum = 0;
    for (int b = 0; b < law->k; b++)
        for (int i = 0; i < law->count; i++) {
            const double h = law->h[b * law->count + i], x = h / (law->lambda * law->phi + S * h);
            sum += law->p[b] * (derivative ? -x * x : x);
        }
    return (derivative ? 1 / (S * S) : -1 / S) + law->phi * sum / law->count;
}

/* F(S) = λφ Σ_b p_b E[h v vᵀ/(λφ + S h)], or its derivative by S; r × r. */
static void F_of(const struct law *law, double S, bool derivative, double *F)
{
    const int r = law->r;
    const double scale = law->lambda * law->phi;
    memset(F, 0, (size_t)(r * r) * sizeof *F);
    for (int b = 0; b < law->k; b++)
        for (int i = 0; i < law->count; i++) {
            const double *v = law->v + (int64_t)(b * law->count + i) * r, h = law->h[b * law->count + i];
            const double x = h / (scale + S * h), w = scale * law->p[b] / law->count * (derivative ? -x * x : x);
            for (int s = 0; s < r; s++)
                for (int t = 0; t <= s; t++) F[t + s * r] += w * v[s] * v[t];
        }
    for (int s = 0; s < r; s++)
        for (int t = 0; t < s; t++) F[s + t * r] = F[t + s * r];
}

/* Eigenvalues of z(S) I − F(S), ascending. Every one of them increases with S and ends above 0, so that outlier number
 * i is where number i of them is zero. */
static void pencil(const struct law *law, double S, double *work, double *value, double *V)
{
    const int r = law->r;
    F_of(law, S, false, work);
    for (int i = 0; i < r * r; i++) work[i] = -work[i];
    const double z = z_of(law, S, false);
    for (int i = 0; i < r; i++) work[i + i * r] += z;
    factor_local_eigenpairs(r, work, value, V);
}

/* Where z, which is convex, is least between `first` and 0. */
static double least_of_z(const struct law *law, double first)
{
    double low = first, high = first * 1e-12;
    if (z_of(law, low, true) >= 0) return low;
    for (int i = 0; i < 100 && high - low > -1e-15 * low; i++) {
        const double S = 0.5 * (low + high);
        if (z_of(law, S, true) < 0)
            low = S;
        else
            high = S;
    }
    return 0.5 * (low + high);
}

/* The zero of eigenvalue number i between S = low (where it is negative) and 0: regula falsi with the Illinois
 * correction, in 1/S, where the eigenvalue is nearly a straight line. */
static double zero_of(const struct law *law, int i, double low, double below, double *work, double *value, double *V)
{
    double x = 1 / low, fx = below, y = x, fy = fx;
    while (fy < 0) {
        y *= 2;
        pencil(law, 1 / y, work, value, V);
        fy = value[i];
    }
    for (int again = 0; again < 60 && fabs(y - x) > 1e-13 * fabs(x); again++) {
        const double middle = (fx * y - fy * x) / (fx - fy);
        pencil(law, 1 / middle, work, value, V);
        const double f = value[i];
        if (f == 0) return 1 / middle;
        if (f * fy < 0) {
            x = y;
            fx = fy;
        } else {
            fx /= 2;
        }
        const bool still = fabs(middle - y) <= 1e-14 * fabs(y);
        y = middle;
        fy = f;
        if (still) break;
    }
    return 1 / y;
}

/* ---------------------------------------------------------------- outliers */

/* Coordinates of x^a: m_a on the means, and behind them the factor C of R = C Cᵀ, with pivots, until nothing is left.
 */
static int factor_residual(int k, const double *R, double *C)
{
    double *left = NEW(double, k), trace = 0;
    int rank = 0;
    for (int a = 0; a < k; a++) trace += left[a] = R[a * k + a];
    for (; rank < k; rank++) {
        int pivot = 0;
        for (int a = 1; a < k; a++)
            if (left[a] > left[pivot]) pivot = a;
        if (!(left[pivot] > 1e-12 * trace) || left[pivot] < 1e-300) break;
        const double root = sqrt(left[pivot]);
        for (int a = 0; a < k; a++) {
            double sum = R[a * k + pivot];
            for (int i = 0; i < rank; i++) sum -= C[a * k + i] * C[pivot * k + i];
            C[a * k + rank] = left[a] > 0 ? sum / root : 0;
        }
        for (int a = 0; a < k; a++) left[a] = a == pivot ? 0 : left[a] - C[a * k + rank] * C[a * k + rank];
    }
    memory_free(left);
    return rank;
}

static void set_rows(struct outliers *o, const double *m, const double *R)
{
    const int k = o->k;
    double *C = NEW(double, k *k);
    o->order = k + factor_residual(k, R, C);
    o->rows = NEW(double, (int64_t)o->order *k);
    for (int a = 0; a < k; a++)
        for (int i = 0; i < o->order; i++) o->rows[i + a * o->order] = i < k ? m[a * k + i] : C[a * k + i - k];
    memory_free(C);
}

/* π_a at s = (x^c · v)_c. */
static double probability(const struct outliers *o, const double *v, int a, double *s)
{
    double largest = -INFINITY, total = 0;
    for (int c = 0; c < o->k; c++) {
        s[c] = 0;
        for (int i = 0; i < o->order; i++) s[c] += o->rows[i + c * o->order] * v[i];
        largest = fmax(largest, s[c]);
    }
    for (int c = 0; c < o->k; c++) total += exp(s[c] - largest);
    return exp(s[a] - largest) / total;
}

static void fill_law(struct law *law, const struct outliers *o, enum mixture_matrix matrix, int a)
{
    const int r = law->r;
    struct normal_points *points = normal_points_create(r, law->count);
    double *s = NEW(double, law->k);
    law->v = NEW(double, (int64_t)law->k * law->count * r);
    law->h = NEW(double, (int64_t)law->k * law->count);
    for (int b = 0; b < law->k; b++)
        for (int i = 0; i < law->count; i++) {
            double *v = law->v + (int64_t)(b * law->count + i) * r;
            for (int j = 0; j < r; j++) v[j] = (j == b) + points->value[(int64_t)i * r + j] / sqrt(law->lambda);
            const double pi = probability(o, v, a, s);
            law->h[b * law->count + i] = matrix == MIXTURE_HESSIAN ? pi * (1 - pi) : (pi - (a == b)) * (pi - (a == b));
        }
    memory_free(s);
    normal_points_destroy(&points);
}

/* Value, direction e and projection 1/(eᵀ(I − F′)e), F′ = (dF/dS)/(dz/dS), of outlier i at S. */
static void note(struct outliers *o, const struct law *law, int i, double S, double *work, double *eigen, double *V)
{
    const int r = o->order;
    pencil(law, S, work, eigen, V);
    double *e = o->vector + (int64_t)i * r, turned = 0;
    memcpy(e, V + (int64_t)i * r, (size_t)r * sizeof *e);
    F_of(law, S, true, work);
    for (int s = 0; s < r; s++)
        for (int t = 0; t < r; t++) turned += e[s] * work[s + t * r] * e[t];
    o->value[i] = z_of(law, S, false);
    o->projection[i] = 1 / (1 - turned / z_of(law, S, true));
}

struct outliers *outliers_create(int k, const double *m, const double *R, const double *p, double lambda, double phi,
                                 enum mixture_matrix matrix, int a)
{
    struct outliers *o = NEW(struct outliers, 1);
    o->k = k;
    set_rows(o, m, R);
    const int r = o->order;
    struct law law = {.k = k, .r = r, .count = POINTS, .lambda = lambda, .phi = phi, .p = p};
    fill_law(&law, o, matrix, a);
    o->value = NEW(double, r);
    o->projection = NEW(double, r);
    o->vector = NEW(double, r *r);
    double *work = NEW(double, (int64_t)2 * r * r + 2 * r), *V = work + r * r, *eigen = V + r * r, *at_edge = eigen + r;
    const double S = least_of_z(&law, -lambda * phi / (matrix == MIXTURE_HESSIAN ? 0.25 : 1));
    o->edge = z_of(&law, S, false);
    pencil(&law, S, work, at_edge, V);
    while (o->count < r && at_edge[o->count] < 0) {
        const int i = o->count++;
        note(o, &law, i, zero_of(&law, i, S, at_edge[i], work, eigen, V), work, eigen, V);
    }
    memory_free(work);
    memory_free(law.h);
    memory_free(law.v);
    return o;
}

void outliers_destroy(struct outliers **outliers)
{
    if (!*outliers) return;
    memory_free((*outliers)->rows);
    memory_free((*outliers)->vector);
    memory_free((*outliers)->projection);
    memory_free((*outliers)->value);
    memory_free(*outliers);
    *outliers = NULL;
}

double outliers_projection_on_means(const struct outliers *o, int i)
{
    double sum = 0;
    for (int c = 0; c < o->k; c++) sum += o->vector[c + i * o->order] * o->vector[c + i * o->order];
    return o->projection[i] * sum;
}

double outliers_alignment(const struct outliers *o, int a, int j)
{
    const double *x = o->rows + (int64_t)a * o->order;
    double length = 0, sum = 0;
    for (int s = 0; s < o->order; s++) length += x[s] * x[s];
    if (o->count < j || !(length > 0)) return NAN;
    for (int i = 0; i < j; i++) {
        double along = 0;
        for (int s = 0; s < o->order; s++) along += x[s] * o->vector[s + i * o->order];
        sum += o->projection[i] * along * along;
    }
    return sqrt(sum / length);
}

/* ---------------------------------------------------------------- closed forms */

static void sort_outliers(int count, double *value, double *projection)
{
    for (int i = 1; i < count; i++)
        for (int j = i; j > 0 && value[j] > value[j - 1]; j--) {
            const double v = value[j], w = projection[j];
            value[j] = value[j - 1];
            projection[j] = projection[j - 1];
            value[j - 1] = v;
            projection[j - 1] = w;
        }
}

/* With weights that are constant on each class the points need no place: one a class says it all. */
int outliers_at_zero(int k, const double *p, double lambda, double phi, const double *h, double *edge, double *value,
                     double *projection)
{
    double *weight = NEW(double, k), largest = 0;
    for (int b = 0; b < k; b++) largest = fmax(largest, weight[b] = h[b]);
    const struct law law = {.k = k, .count = 1, .lambda = lambda, .phi = phi, .p = p, .h = weight};
    const double S = least_of_z(&law, -lambda * phi / largest * (1 - 1e-14));
    int count = 0;
    *edge = z_of(&law, S, false);
    for (int b = 0; b < k; b++) {
        const double own = -lambda * phi / (h[b] * (1 + lambda * phi * p[b]));
        double A = 0;
        if (!(own > S)) continue;
        for (int c = 0; c < k; c++) A += p[c] * h[c] * h[c] / pow(lambda * phi + own * h[c], 2);
        value[count] = z_of(&law, own, false);
        projection[count++] = (1 - own * own * phi * A) / (1 + 1 / (lambda * phi * p[b]));
    }
    sort_outliers(count, value, projection);
    memory_free(weight);
    return count;
}

void outliers_bulk(double h, double lambda, double phi, double *lower, double *upper)
{
    const double root = sqrt(1 / phi);
    *lower = phi < 1 ? 0 : h / lambda * (1 - root) * (1 - root);
    *upper = h / lambda * (1 + root) * (1 + root);
}

struct noise_free noise_free_of(int k, double r)
{
    const double p = exp(r) / (exp(r) + k - 1), q = 1 / (exp(r) + k - 1);
    return (struct noise_free){.loss = -log(p),
                               .hessian = {p * q, q / k},
                               .hessian_block = {p * (1 - p) / k, q * (1 - q) / k},
                               .second_moment = (k - 1) * q * q,
                               .second_moment_block = {(1 - p) * (1 - p) / k, q * q / k}};
}
