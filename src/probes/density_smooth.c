/* density_smooth: the kernel of the probe `density`, declared in density_private.h. */
#include "density_private.h"

#include <math.h>
#include <string.h>

/* A Gaussian is 0 to rounding farther than so many widths away. */
static const double REACH = 9;

static const double MARGIN = 0.01, WIDENING = 0.05, KAPPA = 3;

const char *density_rule_formula(enum density_rule rule)
{
    return rule == DENSITY_VARIANCE ? "sqrt(1e-5 max(1, range of the nodes)) unless given"
                                    : "2 / ((m - 1) sqrt(8 log 3)) times half the length of the grid unless given";
}

double density_interval(const struct density_kernel *kernel, int64_t count, const double *node, double *low,
                        double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (int64_t j = 0; j < count; j++) {
        *low = fmin(*low, node[j]);
        *high = fmax(*high, node[j]);
    }
    const double range = *high - *low;
    const double margin = kernel->rule == DENSITY_KAPPA && range > 0 ? WIDENING * range : MARGIN;
    *low -= margin;
    *high += margin;
    if (kernel->rule == DENSITY_VARIANCE) return sqrt(1e-5 * fmax(1, range));
    return (*high - *low) / ((kernel->steps - 1) * sqrt(8 * log(KAPPA)));
}

void density_smooth(int64_t count, const double *node, const double *weight, double factor, double low, double high,
                    double sigma, int points, double *grid, double *density)
{
    const double spacing = (high - low) / (points - 1), top = factor / (sigma * sqrt(2 * M_PI));
    for (int i = 0; i < points; i++) grid[i] = low + spacing * i;
    memset(density, 0, (size_t)points * sizeof *density);
    for (int64_t j = 0; j < count; j++) {
        const double first = ceil((node[j] - REACH * sigma - low) / spacing);
        const double last = floor((node[j] + REACH * sigma - low) / spacing);
        if (!(first <= last)) continue; /* NaN too */
        for (int i = first > 0 ? (int)first : 0; i < points && i <= last; i++) {
            const double x = (grid[i] - node[j]) / sigma;
            density[i] += top * weight[j] * exp(-0.5 * x * x);
        }
    }
}
