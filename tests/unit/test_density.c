/* ranks: 1 */
/* The smoothing of the probe `density`: widths and intervals of both rules, and exact densities of the known spectrum.
 */
#include "../../src/probes/density_private.h"

#include "unit.h"

enum { NODES = 1003 };

/* Share of the Marchenko-Pastur law of ratio 1/4 and scale 1 above 1.25 + cos φ. */
static double share_above(double phi)
{
    const double a = 1.25, root = sqrt((a - 1) / (a + 1));
    const double inner = atan2(root * sin(phi / 2), cos(phi / 2));

    return 2 / M_PI * (a * phi - sin(phi) - 2 * sqrt(a * a - 1) * inner);
}

/* 5, 4, 3 and the quantiles (i + 1/2)/1000, each with the weight 1/1003. */
static void known_spectrum(double *node, double *weight)
{
    for (int i = 0; i < 1000; i++) {
        double low = 0, high = M_PI;
        for (int k = 0; k < 60; k++) {
            const double middle = (low + high) / 2;
            *(share_above(middle) > 1 - (i + 0.5) / 1000 ? &high : &low) = middle;
        }
        node[i] = 1.25 + cos(low);
    }
    for (int i = 0; i < 3; i++) node[1000 + i] = 3 + i;
    for (int i = 0; i < NODES; i++) weight[i] = 1.0 / NODES;
}

static void kernel_rules(void **state)
{
    const double node[] = {NAN, -1, 3, 0.5, NAN};
    double low, high;

    (void)state;
    struct density_kernel kernel = {.rule = DENSITY_VARIANCE, .steps = 80};
    assert_close(density_interval(&kernel, 5, node, &low, &high), sqrt(4e-5), 1e-15);
    assert_close(low, -1.01, 1e-15);
    assert_close(high, 3.01, 1e-15);
    assert_close(density_interval(&kernel, 1, node + 2, &low, &high), sqrt(1e-5), 1e-15); /* never below that */
    kernel.rule = DENSITY_KAPPA;
    assert_close(density_interval(&kernel, 5, node, &low, &high), 2.2 * 2 / (79 * sqrt(8 * log(3))), 1e-15);
    assert_close(low, -1.2, 1e-15);
    assert_close(high, 3.2, 1e-15);
    assert_true(density_interval(&kernel, 1, node + 2, &low, &high) > 0); /* a single node has a width, too */
}

static void known_width(void **state)
{
    double node[NODES], weight[NODES], low, high;
    const struct density_kernel kernel = {.rule = DENSITY_KAPPA, .steps = 80};

    (void)state;
    known_spectrum(node, weight);
    assert_close(density_interval(&kernel, NODES, node, &low, &high), 0.02229300940, 1e-10);
}

static void exact_density(void **state)
{
    static const double x[] = {0.3, 0.5, 1, 1.5, 2, 3};
    static const double rho[] = {0.62989843, 0.83878027, 0.61461090, 0.40971801, 0.20975398, 0.01784187};
    double node[NODES + 1], weight[NODES + 1], grid[28], density[28];

    (void)state;
    known_spectrum(node, weight);
    node[NODES] = weight[NODES] = NAN; /* a step that a start vector did not make */
    density_smooth(NODES + 1, node, weight, 1, 0.3, 3, 0.02229300940, 28, grid, density);
    for (int i = 0; i < 6; i++) {
        const int at = (int)lround((x[i] - 0.3) / 0.1);
        assert_close(grid[at], x[i], 1e-14);
        assert_close(density[at], rho[i], 1e-7);
    }
    density_smooth(NODES, node, weight, 0.25, 0.3, 3, 0.02229300940, 28, grid, density);
    assert_close(density[7], 0.25 * rho[2], 1e-7); /* the factor: a mean over start vectors */
}

static void kernel_ends_unseen(void **state)
{
    const double node = 0, weight = 1;
    double grid[401], density[401], sum = 0;

    (void)state;
    density_smooth(1, &node, &weight, 1, -10, 10, 0.5, 401, grid, density);
    for (int i = 0; i < 401; i++) sum += 0.05 * density[i];
    assert_close(sum, 1, 1e-14);
    assert_close(density[200], 1 / (0.5 * sqrt(2 * M_PI)), 1e-15);
    assert_close(density[220], exp(-2) / (0.5 * sqrt(2 * M_PI)), 1e-15);
    assert_true(density[0] == 0 && density[120] > 0); /* 20 and 8 widths away */
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(kernel_rules),
    cmocka_unit_test(known_width),
    cmocka_unit_test(exact_density),
    cmocka_unit_test(kernel_ends_unseen),
};

UNIT_MAIN(tests, NULL, NULL)
