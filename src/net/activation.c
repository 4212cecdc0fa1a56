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
VECTOR double erf(double);
VECTOR double tanh(double);
#if !defined(__SANITIZE_ADDRESS__) /* instruction-set dispatch runs before the sanitizer is ready */
#define DISPATCHED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#endif
#ifndef DISPATCHED
#define DISPATCHED
#endif

static const char *const names[ACTIVATIONS] = {"linear", "relu", "leaky_relu", "tanh", "elu", "gelu", "silu"};
static const double LEAK = 0.01;
static const double SQRT_HALF = 0.70710678118654752440, INV_SQRT_2PI = 0.39894228040143267794;

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
KERNEL(gelu, const double P = 0.5 * (1 + erf(x * SQRT_HALF)); value = x * P;
       slope = P + x * INV_SQRT_2PI * exp(-0.5 * x * x))
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
