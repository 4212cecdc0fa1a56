/* mixtures: the course of one-pass stochastic gradient descent in the limit of many dimensions. */
#include "theory/mixtures.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum { POINTS = 4096 };
static const double STEP = 0.1;

/* ---------------------------------------------------------------- points of a normal law */

static double density(double x)
{
    return 0.39894228040143267794 * exp(-0.5 * x * x);
}

/* Newton's iteration for the lower half from a point left of the root: the distribution is convex there, so that the
 * iteration runs down to the root and stays. On log Φ, which is concave, it is quick in the far tail, too. */
double normal_quantile(double p)
{
    ensure(p > 0 && p < 1);
    if (p > 0.5) return -normal_quantile(1 - p);
    double x = p < 0.02 ? -sqrt(-2 * log(p)) : 2.5 * (p - 0.5);
    for (int i = 0; i < 60; i++) {
        const double below = 0.5 * erfc(-x * 0.70710678118654752440);
        const double change = log(below / p) * below / density(x);
        x -= change;
        if (fabs(change) < 1e-15 * (1 + fabs(x))) break;
    }
    return x;
}

/* Fractions of the powers of 1/g, g the root of g^(n+1) = g + 1: the sequence of these multiples fills the cube
 * evenly. */
static double even_ratio(int dimension)
{
    double g = 1.5;
    for (int i = 0; i < 60; i++) g = pow(1 + g, 1.0 / (dimension + 1));
    return 1 / g;
}

/* A ← L with A = L Lᵀ, lower triangle, order n, row after row. Directions of no length get zeros. */
static void cholesky(int n, double *A)
{
    for (int j = 0; j < n; j++) {
        double left = A[j * n + j];
        for (int i = 0; i < j; i++) left -= A[j * n + i] * A[j * n + i];
        const double pivot = left > 1e-14 * A[j * n + j] ? sqrt(left) : 0;
        for (int i = j + 1; i < n; i++) {
            double sum = A[i * n + j];
            for (int l = 0; l < j; l++) sum -= A[i * n + l] * A[j * n + l];
            A[i * n + j] = pivot > 0 ? sum / pivot : 0;
        }
        A[j * n + j] = pivot;
        for (int i = 0; i < j; i++) A[i * n + j] = 0;
    }
}

/* x ← L⁻¹ x for all points, L the factor of their covariance. */
static void whiten(struct normal_points *points)
{
    const int n = points->dimension;
    double *L = NEW(double, n *n);
    for (int i = 0; i < points->count; i++)
        for (int a = 0; a < n; a++)
            for (int b = 0; b <= a; b++)
                L[a * n + b] += points->value[i * n + a] * points->value[i * n + b] / points->count;
    cholesky(n, L);
    for (int i = 0; i < points->count; i++) {
        double *x = points->value + (int64_t)i * n;
        for (int a = 0; a < n; a++) {
            for (int b = 0; b < a; b++) x[a] -= L[a * n + b] * x[b];
            x[a] /= L[a * n + a];
        }
    }
    memory_free(L);
}

struct normal_points *normal_points_create(int dimension, int count)
{
    ensure(count % 2 == 0 && count > 2 * dimension);
    struct normal_points *points = NEW(struct normal_points, 1);
    points->dimension = dimension;
    points->count = count;
    points->value = NEW(double, (int64_t)count *dimension);
    const double ratio = even_ratio(dimension);
    for (int i = 0; i < count / 2; i++) {
        double power = 1;
        for (int j = 0; j < dimension; j++) {
            power *= ratio;
            const double u = fmod(0.5 + (i + 1) * power, 1);
            const double x = normal_quantile(fmin(fmax(u, 1e-12), 1 - 1e-12));
            points->value[(int64_t)2 * i * dimension + j] = x;
            points->value[(int64_t)(2 * i + 1) * dimension + j] = -x;
        }
    }
    whiten(points);
    return points;
}

void normal_points_destroy(struct normal_points **points)
{
    if (!*points) return;
    memory_free((*points)->value);
    memory_free(*points);
    *points = NULL;
}

/* ---------------------------------------------------------------- expectations */

/* What is averaged over the population. */
struct average {
    double *pi;     /* [k × k] E[π_a | c], row a */
    double *square; /* [k × k] E[π_a π_b] */
    double *moment; /* [k × k] E[(y_a − π_a)(y_b − π_b)] */
    double loss, accuracy;
};

/* Adds what one point s of class c tells, with weight w. */
static void add_point(const struct effective *e, int c, double w, const double *s, double *pi, struct average *sum)
{
    const int k = e->k;
    double largest = s[0];
    int peak = 0;
    for (int a = 1; a < k; a++)
        if (s[a] > largest) {
            largest = s[a];
            peak = a;
        }
    double total = pi[0] = exp(s[0] - largest);
    for (int a = 1; a < k; a++) total += pi[a] = exp(s[a] - largest);
    for (int a = 0; a < k; a++) {
        pi[a] /= total;
        sum->pi[a * k + c] += w * pi[a];
        for (int b = 0; b <= a; b++) sum->square[a * k + b] += e->p[c] * w * pi[a] * pi[b];
    }
    sum->loss += e->p[c] * w * (log(total) + largest - s[c]);
    sum->accuracy += peak == c ? e->p[c] * w : 0;
}

/* s given class c is N(m_·c, (m mᵀ + R)/λ). */
static void take_average(const struct effective *e, const double *m, const double *R, struct average *sum)
{
    const int k = e->k;
    double *L = NEW(double, k *k + 2 * k), *s = L + k * k, *pi = s + k;
    memset(sum->pi, 0, (size_t)(3 * k * k) * sizeof *sum->pi);
    sum->loss = sum->accuracy = 0;
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++) {
            L[a * k + b] = R[a * k + b] / e->lambda;
            for (int c = 0; c < k; c++) L[a * k + b] += m[a * k + c] * m[b * k + c] / e->lambda;
        }
    cholesky(k, L);
    for (int c = 0; c < k; c++)
        for (int i = 0; i < e->points->count; i++) {
            const double *g = e->points->value + (int64_t)i * k;
            for (int a = 0; a < k; a++) {
                s[a] = m[a * k + c];
                for (int b = 0; b <= a; b++) s[a] += L[a * k + b] * g[b];
            }
            add_point(e, c, 1.0 / e->points->count, s, pi, sum);
        }
    for (int a = 0; a < k; a++)
        for (int b = 0; b <= a; b++) {
            sum->square[b * k + a] = sum->square[a * k + b];
            sum->moment[a * k + b] = sum->square[a * k + b] + (a == b ? e->p[a] : 0) - e->p[b] * sum->pi[a * k + b] -
                                     e->p[a] * sum->pi[b * k + a];
            sum->moment[b * k + a] = sum->moment[a * k + b];
        }
    memory_free(L);
}

static struct average average_create(int k)
{
    double *values = NEW(double, (int64_t)3 * k * k);
    return (struct average){values, values + k * k, values + (int64_t)2 * k * k, 0, 0};
}

/* ---------------------------------------------------------------- the equations */

struct effective *effective_create(int k, const double *p, double lambda, double decay, double noise)
{
    struct effective *e = NEW(struct effective, 1);
    *e = (struct effective){.k = k, .lambda = lambda, .decay = decay, .noise = noise};
    e->p = NEW(double, k);
    e->m = NEW(double, k *k);
    e->R = NEW(double, k *k);
    memcpy(e->p, p, (size_t)k * sizeof *p);
    e->whole = NEW(double, 2 * k * k);
    for (int a = 0; a < k; a++) e->R[a * k + a] = e->whole[k * k + a * k + a] = 1;
    e->points = normal_points_create(k, POINTS);
    return e;
}

void effective_destroy(struct effective **effective)
{
    if (!*effective) return;
    normal_points_destroy(&(*effective)->points);
    memory_free((*effective)->whole);
    memory_free((*effective)->R);
    memory_free((*effective)->m);
    memory_free((*effective)->p);
    memory_free(*effective);
    *effective = NULL;
}

/* Time derivatives dm, dR at m, R. */
static void slopes(const struct effective *e, const double *m, const double *R, struct average *mean, double *H,
                   double *dm, double *dR)
{
    const int k = e->k;
    take_average(e, m, R, mean);
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++) {
            double own = 0;
            for (int c = 0; c < k; c++) own += e->p[c] * mean->pi[a * k + c];
            H[a * k + b] = (a == b ? own : 0) - mean->square[a * k + b];
        }
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++) {
            double drift = 0, shrink = 0;
            for (int c = 0; c < k; c++) {
                drift += H[a * k + c] * m[c * k + b];
                shrink += H[a * k + c] * R[c * k + b] + H[b * k + c] * R[c * k + a];
            }
            dm[a * k + b] = -e->decay * m[a * k + b] + e->p[b] * ((a == b) - mean->pi[a * k + b]) - drift / e->lambda;
            dR[a * k + b] = -2 * e->decay * R[a * k + b] + (e->noise * mean->moment[a * k + b] - shrink) / e->lambda;
        }
}

/* y ← x + h d, of m and R after one another. */
static void go(int size, const double *x, double h, const double *d, double *y)
{
    for (int i = 0; i < size; i++) y[i] = x[i] + h * d[i];
}

/* The classical step of fourth order from `state` (m, then R). `work` holds five states and H. */
static void runge_kutta(const struct effective *e, double h, double *state, double *work, struct average *mean)
{
    static const double node[4] = {0, 0.5, 0.5, 1}, weight[4] = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6};
    const int half = e->k * e->k, size = 2 * half;
    double *at = work, *slope = work + size, *sum = work + 2 * size, *H = work + 3 * size;
    memset(slope, 0, (size_t)size * sizeof *slope);
    memcpy(sum, state, (size_t)size * sizeof *sum);
    for (int stage = 0; stage < 4; stage++) {
        go(size, state, h * node[stage], slope, at);
        slopes(e, at, at + half, mean, H, slope, slope + half);
        go(size, sum, h * weight[stage], slope, sum);
    }
    memcpy(state, sum, (size_t)size * sizeof *sum);
}

/* The start is at m and R. */
void effective_start(struct effective *e, const double *m, const double *R)
{
    const int half = e->k * e->k;
    for (int i = 0; i < half; i++) {
        e->m[i] = e->whole[i] = m[i];
        e->R[i] = e->whole[half + i] = R[i];
    }
    e->time = 0;
    e->steps = 0;
}

void effective_run(struct effective *e, double until)
{
    const int half = e->k * e->k;
    double *state = NEW(double, (int64_t)9 * half), *work = state + 2 * half;
    struct average mean = average_create(e->k);
    for (; (double)(e->steps + 1) * STEP <= until; e->steps++) runge_kutta(e, STEP, e->whole, work, &mean);
    const double rest = until - (double)e->steps * STEP;
    memcpy(state, e->whole, (size_t)half * 2 * sizeof *state);
    if (rest > 0) runge_kutta(e, rest, state, work, &mean);
    memcpy(e->m, state, (size_t)half * sizeof *state);
    memcpy(e->R, state + half, (size_t)half * sizeof *state);
    e->time = until;
    memory_free(mean.pi);
    memory_free(state);
}

double effective_loss(const struct effective *e, double *accuracy)
{
    struct average mean = average_create(e->k);
    take_average(e, e->m, e->R, &mean);
    memory_free(mean.pi);
    if (accuracy) *accuracy = mean.accuracy;
    return mean.loss;
}

double effective_alignment_squared(int k, const double *m, const double *R, int a)
{
    double inside = 0;
    for (int c = 0; c < k; c++) inside += m[a * k + c] * m[a * k + c];
    return inside / (inside + R[a * k + a]);
}

double effective_fixed_point(int k, double decay)
{
    double low = 0, high = 1 / (decay * k);
    for (int i = 0; i < 200; i++) {
        const double u = 0.5 * (low + high), pi = 1 / (1 + (k - 1) * exp(-u * k / (k - 1)));
        if (decay * u < (1 - pi) / k)
            low = u;
        else
            high = u;
    }
    return 0.5 * (low + high);
}

void effective_archive(struct effective *e, struct archive *archive)
{
    archive_int(archive, "steps", &e->steps);
    archive_reals(archive, "state", (int64_t)2 * e->k * e->k, e->whole);
}
