/* mixtures_xor: where two-layer networks end on XOR and binary mixtures. */
#include "theory/mixtures.h"

#include <math.h>

double xor_constant(double alpha)
{
    return alpha < 0.125 ? log((1 - 4 * alpha) / (4 * alpha)) : 0;
}

double binary_constant(double alpha)
{
    return alpha < 0.25 ? log((1 - 2 * alpha) / (2 * alpha)) : 0;
}

/* Choices of `learned` clusters times the maps of the units onto all of them, over 4^units: inclusion and exclusion. */
double xor_occupancy(int units, int learned)
{
    static const double choose[5][5] = {
        {1, 0, 0, 0, 0}, {1, 1, 0, 0, 0}, {1, 2, 1, 0, 0}, {1, 3, 3, 1, 0}, {1, 4, 6, 4, 1}};
    if (learned < 0 || learned > 4) return 0;
    double onto = 0;
    for (int left = 0; left <= learned; left++)
        onto += (left % 2 ? -1 : 1) * choose[learned][left] * pow((learned - left) / 4.0, units);
    return choose[4][learned] * onto;
}

static double density(double x)
{
    return 0.39894228040143267794 * exp(-0.5 * x * x);
}

static double distribution(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752440);
}

/* Where the edge of activity of a unit lies on an axis (0: μ, 1: ν), in standard deviations. */
static double edge_of_activity(const double *error, int axis)
{
    const double plus = error[2 * axis], minus = error[2 * axis + 1];
    return normal_quantile(minus / (plus + minus));
}

/* The units of a cluster are active on some samples of the other axis: its logit is moved by these. */
static void find_strengths(struct xor_end *end, double small, const bool learned[4])
{
    for (int again = 0; again < 500; again++)
        for (int c = 0; c < 4; c++) {
            const int other = c < 2 ? 2 : 0;
            const double sign = c % 2 ? -1 : 1, a = edge_of_activity(end->error, c / 2);
            const double leak = density(a) + sign * a * distribution(sign * a);
            if (learned[c])
                end->strength[c] = log((1 - end->error[c]) / end->error[c]) +
                                   small * leak * (end->strength[other] + end->strength[other + 1]);
        }
}

struct xor_end xor_end_of(double alpha, double lambda, const bool learned[4])
{
    struct xor_end end = {.error = {0.5, 0.5, 0.5, 0.5}};
    const double small = 1 / sqrt(lambda);
    if (!(alpha < 0.125)) return end;
    for (int c = 0; c < 4; c++)
        if (learned[c]) end.error[c] = 4 * alpha;
    for (int again = 0; again < 500; again++)
        for (int c = 0; c < 4; c++) {
            const int other = c < 2 ? 2 : 0;
            if (learned[c])
                end.error[c] = 4 * alpha + (end.error[other] + end.error[other + 1]) *
                                               density(edge_of_activity(end.error, other / 2)) * small;
        }
    find_strengths(&end, small, learned);
    for (int c = 0; c < 4; c++) {
        end.gradient[c] = end.error[c] * end.error[c] * end.strength[c] / 4;
        end.hessian[c] = end.error[c] * (1 - end.error[c]) * end.strength[c] / 4;
    }
    return end;
}

double xor_misalignment(double alpha, double lambda, double c, double plus, double minus)
{
    return c / lambda * (4 * alpha * alpha + plus * minus / 4) / (2 * alpha);
}
