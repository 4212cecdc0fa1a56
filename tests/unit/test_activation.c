/* ranks: 1 */
/* Activations and their slopes against long double. */
#include "base/memory.h"
#include "dist/random.h"
#include "net/activation.h"
#include "unit.h"

#include <float.h>
#include <string.h>

static long double normal_below(long double z)
{
    return 0.5L * erfcl(-z * sqrtl(0.5L));
}

/* φ(z), and φ′(z) in *slope. */
static long double reference(enum activation kind, long double z, long double *slope)
{
    const long double sigmoid = 1 / (1 + expl(-z)), other = 1 / (1 + expl(z)), cosine = coshl(z);

    switch (kind) {
    case ACTIVATION_RELU:
        *slope = z > 0;
        return z > 0 ? z : 0;
    case ACTIVATION_LEAKY_RELU:
        *slope = z > 0 ? 1 : 0.01L;
        return z > 0 ? z : 0.01L * z;
    case ACTIVATION_TANH:
        *slope = 1 / (cosine * cosine);
        return tanhl(z);
    case ACTIVATION_ELU:
        *slope = z > 0 ? 1 : expl(z);
        return z > 0 ? z : expm1l(z);
    case ACTIVATION_GELU:
        *slope = normal_below(z) + z * expl(-0.5L * z * z) / sqrtl(2 * 3.14159265358979323846264L);
        return z * normal_below(z);
    case ACTIVATION_SILU:
        *slope = sigmoid * (1 + z * other);
        return z * sigmoid;
    default:
        *slope = 1;
        return z;
    }
}

/* Eight units in the last place, or 1e-15. */
static void check_number(enum activation kind, const char *what, double z, double found, long double expected)
{
    const long double error = fabsl(found - expected);

    if (error <= 1e-15L || error <= 8 * DBL_EPSILON * fabsl(expected)) return; /* false for NaN */
    print_error("%s %s(%.17g) = %.17g, expected %.20Lg\n", activation_name(kind), what, z, found, expected);
    fail();
}

static void check_points(enum activation kind, const double *points, int64_t n)
{
    double *z = NEW(double, n + 1), *a = NEW(double, n + 1), *only = NEW(double, n + 1);

    memcpy(z, points, (size_t)n * sizeof *z);
    memcpy(only, points, (size_t)n * sizeof *z);
    z[n] = a[n] = only[n] = 77;
    activation_apply(kind, n, z, a);
    activation_value(kind, n, only, only);
    for (int64_t i = 0; i < n; i++) {
        long double slope, value = reference(kind, points[i], &slope);
        check_number(kind, "value", points[i], a[i], value);
        check_number(kind, "value alone", points[i], only[i], value);
        check_number(kind, "slope", points[i], z[i], slope);
    }
    assert_true(z[n] == 77 && a[n] == 77 && only[n] == 77);
    memory_free(z);
    memory_free(a);
    memory_free(only);
}

static void activations(void **state)
{
    static const double special[] = {0.0,   -0.0, 1e-300, -1e-300, 5e-324, 1e-17, -1e-17, 1e-8, -1e-8, 0.5,
                                     -0.5,  1,    -1,     5,       -5,     8.3,   -8.3,   19,   -19,   38,
                                     -38,   40,   -40,    100,     -100,   709,   -709,   745,  -745,  1000,
                                     -1000, 1e5,  -1e5,   1e150,   -1e150, 1e300, -1e300};
    enum { SPECIAL = sizeof special / sizeof *special, MANY = 5000 };
    double *points = NEW(double, MANY);

    (void)state;
    for (int i = 0; i < MANY; i++) points[i] = (i % 3 ? 3 : 30) * random_normal(1, 1, (uint64_t)i);
    for (int kind = 0; kind < ACTIVATIONS; kind++) {
        check_points((enum activation)kind, special, SPECIAL);
        check_points((enum activation)kind, points, MANY);
        for (int n = 0; n <= 17; n++) check_points((enum activation)kind, points + n, n);
        for (int n = 510; n <= 514; n++) check_points((enum activation)kind, points, n);
        for (int i = 0; i < SPECIAL; i++) check_points((enum activation)kind, special + i, 1);
        assert_int_equal(activation_of(activation_name((enum activation)kind)), kind);
    }
    memory_free(points);
}

static const struct CMUnitTest activation_tests[] = {
    cmocka_unit_test(activations),
};

UNIT_MAIN(activation_tests, NULL, NULL)
