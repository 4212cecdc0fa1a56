/* What laws.c (ranks), laws_phi.c (φ and its derivatives), laws_pairs.c (skip connections) and laws_lie.c share. */
#ifndef EIGENTRAIN_THEORY_LAWS_PRIVATE_H
#define EIGENTRAIN_THEORY_LAWS_PRIVATE_H

#include "theory/laws.h"

#include <complex.h>

/* Local. Where W_l (l = 1 … L), and where b_l begins in θ. */
int64_t laws_weight(const struct laws_net *net, int l);

/* Local. See laws_weight. */
int64_t laws_bias(const struct laws_net *net, int l);

/* Local. Whether layer l has a bias. */
bool laws_has_bias(const struct laws_net *net, int l);

/* Local. J_φ at a complex θ: J[paths × parameters], row by row. With θ + iεv the imaginary part over ε is the
 * derivative along v, to rounding. */
void laws_phi_jacobian(const struct laws_net *net, const double complex *theta, double complex *J);

/* Local. Number of rows of J_h, and J_h itself: J[rows × parameters], row by row. */
int64_t laws_rows(const struct laws_net *net);

/* Local. See laws_rows. */
void laws_jacobian(const struct laws_net *net, const double *theta, double *J);

/* Local. Gradients of random combinations of the outputs at random inputs: J[paths × parameters], row by row. */
void laws_pairs_gradients(const struct laws_net *net, const double *theta, double *J);

#endif
