/* density_private: from nodes and weights to a smooth curve. */
#ifndef EIGENTRAIN_PROBES_DENSITY_PRIVATE_H
#define EIGENTRAIN_PROBES_DENSITY_PRIVATE_H

#include <stdint.h>

/* variance: σ² = 1e-5 max(1, range of the nodes); the interval is 0.01 wider at either end (arXiv 1901.10159).
 * kappa: the interval is 5 % wider at either end; mapped to [−1, 1], σ = 2 / ((m − 1) √(8 ln 3)) (arXiv 1811.07062). */
enum density_rule { DENSITY_VARIANCE, DENSITY_KAPPA };

struct density_kernel {
    enum density_rule rule;
    int steps; /* m */
};

/* Local. The rule in words, for the descriptions of series. */
const char *density_rule_formula(enum density_rule rule);

/* Local. σ, and the interval [*low, *high], for these nodes; NaN among them are none. */
double density_interval(const struct density_kernel *kernel, int64_t count, const double *node, double *low,
                        double *high);

/* Local. grid ← `points` equidistant points from low to high; density ← factor Σ_j weight_j N(x; node_j, σ²) there. */
void density_smooth(int64_t count, const double *node, const double *weight, double factor, double low, double high,
                    double sigma, int points, double *grid, double *density);

#endif
