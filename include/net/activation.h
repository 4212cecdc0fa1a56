/* activation: entrywise nonlinearities and their derivatives, one fused vectorised pass. */
#ifndef EIGENTRAIN_NET_ACTIVATION_H
#define EIGENTRAIN_NET_ACTIVATION_H

#include <stdbool.h>
#include <stdint.h>

/* φ(0) = 0 for all. GELU is z·Φ(z) with the exact normal distribution; leaky ReLU has slope 0.01; the derivative of
 * ReLU and leaky ReLU at 0 is that of the negative side. */
enum activation {
    ACTIVATION_LINEAR,
    ACTIVATION_RELU,
    ACTIVATION_LEAKY_RELU,
    ACTIVATION_TANH,
    ACTIVATION_ELU,
    ACTIVATION_GELU,
    ACTIVATION_SILU,
    ACTIVATIONS
};

/* Local. The name in the input file ("gelu"). */
const char *activation_name(enum activation kind);

/* Local. The activation of that name; a name that is none is a bug (the input was checked). */
enum activation activation_of(const char *name);

/* Local. For n values: a ← φ(z) and, in place, z ← φ′(z). a and z do not overlap. */
void activation_apply(enum activation kind, int64_t n, double *restrict z, double *restrict a);

/* Local. a ← φ(z) without derivative; a and z may be the same. */
void activation_value(enum activation kind, int64_t n, const double *z, double *a);

/* Local. For n values, the way back through an activation: D ← scale · slope ∘ E. D and slope may be the same. */
void activation_pull(int64_t n, double scale, const double *slope, const double *E, double *D);

/* Local. Whether φ″ is anything else than 0: false for the piecewise linear ones, whose kinks count as φ″ = 0. */
bool activation_bends(enum activation kind);

/* Local. For n values, in place: z ← φ″(z); at the kink of ELU's second derivative that of the positive side. */
void activation_second(enum activation kind, int64_t n, double *z);

#endif
