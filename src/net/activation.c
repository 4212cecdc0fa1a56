#include "net/activation.h"

#include "base/error.h"

#include <math.h>
#include <string.h>

/* glibc has vector forms of these functions (libmvec, at most 4 ulp); its headers offer them only under -ffast-math, so
 * they are declared here. The loops below are compiled for several instruction sets, chosen when the program starts. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#define VECTOR __attribute__((simd("notinbranch")))
VECTOR double exp(double);
VECTOR double expm1(double);
VECTOR double tanh(double);
#if !defined(__SANITIZE_ADDRESS__) /* instruction-set dispatch runs before the sanitizer is ready */
#define DISPATCHED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef DISPATCHED
#define DISPATCHED
#endif

static const char *const names[ACTIVATIONS] = {"linear", "relu", "leaky_relu", "tanh", "elu", "gelu", "silu"};
static const double LEAK = 0.01, FAR = 37;
static const double INV_SQRT_2PI = 0.39894228040143267794;

const char *activation_name(enum activation kind)
{
    return names[kind];
}

enum activation activation_of(const char *name)
{
    for (int i = 0; i < ACTIVATIONS; i++)
        if (strcmp(name, names[i]) == 0) return (enum activation)i;
    bug("no activation is called %s", name);
}

/* Σ c_j xʲ. */
#define POLYNOMIAL(c, x) horner(sizeof(c) / sizeof *(c), c, x)
static inline double horner(int count, const double *c, double x)
{
    double sum = c[count - 1];
    for (int j = count - 2; j >= 0; j--) sum = c[j] + x * sum;
    return sum;
}

/* exp(v) for −700 ≤ v ≤ 0, to a unit in the last place. v = n log 2 + r, and the magic number leaves n in the last bits
 * of t; the polynomial is the best of degree 11 for |r| ≤ log 2 / 2 (relative error 4e-18). */
static inline double exp_inline(double v)
{
    static const double c[] = {1,
                               1,
                               0.50000000000000106,
                               0.16666666666666411,
                               0.041666666666530564,
                               0.0083333333334957643,
                               0.0013888888943524524,
                               0.00019841269503569695,
                               2.4801493206640096e-05,
                               2.7557589263958634e-06,
                               2.7630210414071067e-07,
                               2.4999083799743020e-08};
    const double magic = 0x1.8p52, t = v * 1.44269504088896340736 + magic, n = t - magic;
    const double r = v - n * 6.93147180369123816490e-01 - n * 1.90821492927058770002e-10; /* the first exact */
    double e = POLYNOMIAL(c, r);
    uint64_t bits, exponent;
    memcpy(&bits, &e, sizeof bits);
    memcpy(&exponent, &t, sizeof exponent);
    bits += exponent << 52;
    memcpy(&e, &bits, sizeof e);
    return e;
}

/* Φ(−y) exp(y²/2) for y ≥ 0 (Mills' ratio over √2π): the best rational function of these degrees on [0, 9], with a
 * relative error of 9e-18 exp(y²/4). */
static inline double normal_tail(double y)
{
    static const double p[] = {0.5,
                               0.57732890174189862,
                               0.33446638841731818,
                               0.11936687031515527,
                               0.027918540145371205,
                               0.0042502453770081909,
                               0.00038997540526308894,
                               1.6727478952669576e-05};
    static const double q[] = {1,
                               1.9525423642866607,
                               1.7268361836125589,
                               0.90624000869373985,
                               0.30979503540394401,
                               0.070957647294466938,
                               0.010695785754144831,
                               0.00097752082953835188,
                               4.1929616082964096e-05};
    return POLYNOMIAL(p, y) / POLYNOMIAL(q, y);
}

/* One function an activation: φ(z) into a, φ′(z) into d. Written once and used for both entry points. */
#define KERNEL(name, body)                                                                                             \
    DISPATCHED static void name(int64_t n, const double *z, double *a, double *d)                                      \
    {                                                                                                                  \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                                            \
        {                                                                                                              \
            const double x = z[i];                                                                                     \
            double value, slope;                                                                                       \
            body;                                                                                                      \
            a[i] = value;                                                                                              \
            d[i] = slope;                                                                                              \
        }                                                                                                              \
    }

KERNEL(linear, value = x; slope = 1)
KERNEL(relu, value = x > 0 ? x : 0; slope = x > 0 ? 1 : 0)
KERNEL(leaky_relu, value = x > 0 ? x : LEAK * x; slope = x > 0 ? 1 : LEAK)
KERNEL(tanh_, value = tanh(x); slope = 1 - value * value)
KERNEL(elu, const double e = expm1(x < 0 ? x : 0); value = x > 0 ? x : e; slope = x > 0 ? 1 : e + 1)
/* Written out, since Φ and its slope share one exponential: 1.8 times as fast as with erf and exp of libmvec [run].
 * Beyond FAR both are 0 or 1. */
KERNEL(gelu, const double y = fabs(x) > FAR ? FAR : fabs(x); const double e = exp_inline(-0.5 * y * y);
       const double below = e * normal_tail(y); const double P = x > 0 ? 1 - below : below;
       value = fabs(x) > FAR ? (x > 0 ? x : 0) : x * P; slope = P + (x > 0 ? y : -y) * INV_SQRT_2PI * e)
/* The smaller of σ(x) and σ(−x) is never a difference of larger numbers. */
KERNEL(silu, const double t = exp(-fabs(x)); const double r = 1 / (1 + t); const double s = x > 0 ? r : t * r;
       value = x * s; slope = s * (1 + x * (x > 0 ? t * r : r)))

typedef void kernel(int64_t n, const double *z, double *a, double *d);
static kernel *const kernels[ACTIVATIONS] = {linear, relu, leaky_relu, tanh_, elu, gelu, silu};

void activation_apply(enum activation kind, int64_t n, double *restrict z, double *restrict a)
{
    kernels[kind](n, z, a, z);
}

void activation_value(enum activation kind, int64_t n, const double *z, double *a)
{
    double unused[512];
    for (int64_t i = 0; i < n; i += 512) kernels[kind](n - i < 512 ? n - i : 512, z + i, a + i, unused);
}

DISPATCHED void activation_pull(int64_t n, double scale, const double *slope, const double *E, double *D)
{
    _Pragma("omp simd") for (int64_t i = 0; i < n; i++) D[i] = scale * slope[i] * E[i];
}

/* φ″, in place of z. */
#define BEND(name, body)                                                                                               \
    DISPATCHED static void name(int64_t n, double *z)                                                                  \
    {                                                                                                                  \
        _Pragma("omp simd") for (int64_t i = 0; i < n; i++)                                                            \
        {                                                                                                              \
            const double x = z[i];                                                                                     \
            double bend;                                                                                               \
            body;                                                                                                      \
            z[i] = bend;                                                                                               \
        }                                                                                                              \
    }

BEND(tanh_bend, const double value = tanh(x); bend = -2 * value * (1 - value * value))
BEND(elu_bend, const double e = exp(x < 0 ? x : 0); bend = x < 0 ? e : 0)
/* Far out it is zero; x² must not be infinite there. */
BEND(gelu_bend, const double y = fabs(x) < 40 ? x : 40; bend = (2 - y * y) * INV_SQRT_2PI * exp(-0.5 * y * y))
BEND(silu_bend, const double y = fabs(x) < 1000 ? fabs(x) : 1000; const double t = exp(-y);
     const double r = 1 / (1 + t); bend = t * r * r * (2 - y * (1 - t) * r))

static void (*const bends[ACTIVATIONS])(int64_t n, double *z) = {[ACTIVATION_TANH] = tanh_bend,
                                                                 [ACTIVATION_ELU] = elu_bend,
                                                                 [ACTIVATION_GELU] = gelu_bend,
                                                                 [ACTIVATION_SILU] = silu_bend};

bool activation_bends(enum activation kind)
{
    return bends[kind] != NULL;
}

void activation_second(enum activation kind, int64_t n, double *z)
{
    if (bends[kind])
        bends[kind](n, z);
    else
        memset(z, 0, (size_t)n * sizeof *z);
}
