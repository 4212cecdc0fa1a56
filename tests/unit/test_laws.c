/* ranks: 1 */
/* Conservation laws: ranks and counts of an independent computation (shared specification of intrinsic dynamics,
 * section 6), and the path-lifting, which does not see how a neuron's weights are scaled. */
#include "base/memory.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "theory/laws.h"
#include "unit.h"

#include <math.h>

enum { MOST = 256 };

static void fill(double *theta, int64_t count, uint64_t stream)
{
    for (int64_t i = 0; i < count; i++) theta[i] = random_normal(3, stream, (uint64_t)i);
}

static struct laws_counts counts(struct laws_net net)
{
    double theta[MOST];
    assert_true(laws_parameters(&net) <= MOST && laws_fit(&net));
    fill(theta, laws_parameters(&net), 1);
    return laws_count(&net, theta);
}

static void test_relu(void **state)
{
    static const struct {
        int depth, width[5], without[4], with[4]; /* dim θ, ranks of J_φ, J_h, and of both */
    } cases[] = {{2, {2, 3, 2}, {12, 9, 3, 12}, {15, 12, 3, 15}},
                 {3, {2, 3, 2, 2}, {16, 11, 5, 16}, {21, 16, 5, 21}},
                 {4, {3, 2, 3, 2, 1}, {20, 13, 7, 20}, {27, 20, 7, 27}}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int biased = 0; biased < 2; biased++) {
            bool bias[4] = {0};
            for (int l = 0; l < cases[i].depth - 1; l++) bias[l] = biased; /* of hidden layers */
            const struct laws_net net = {.depth = cases[i].depth, .width = cases[i].width, .bias = bias, .relu = true};
            const struct laws_counts c = counts(net);
            const int *expected = biased ? cases[i].with : cases[i].without;
            assert_int_equal(c.parameters, expected[0]);
            assert_int_equal(c.phi, expected[1]);
            assert_int_equal(c.laws, expected[2]);
            assert_int_equal(c.both, expected[3]);
            assert_int_equal(laws_theory(&net), expected[2]);
            assert_true(c.criterion == 0);
            assert_int_equal(c.lie, cases[i].depth == 2 ? expected[1] : -1);
        }
}

static void test_linear(void **state)
{
    static const struct {
        int depth, width[4], laws, both, parameters, lie; /* lie 0: not given */
    } cases[] = {{2, {1, 5, 2}, 12, 14, 15, 3},     {2, {2, 2, 2}, 3, 7, 8, 5},       {2, {2, 2, 3}, 3, 9, 10, 0},
                 {2, {3, 4, 3}, 10, 19, 24, 0},     {2, {2, 6, 2}, 18, 22, 24, 0},    {2, {4, 4, 4}, 10, 26, 32, 0},
                 {2, {1, 3, 2}, 6, 8, 9, 3},        {2, {2, 5, 1}, 12, 14, 15, 3},    {2, {3, 2, 3}, 3, 11, 12, 9},
                 {3, {2, 3, 3, 2}, 12, 16, 21, -1}, {3, {3, 3, 3, 3}, 12, 21, 27, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct laws_net net = {.depth = cases[i].depth, .width = cases[i].width};
        const struct laws_counts c = counts(net);
        assert_int_equal(c.parameters, cases[i].parameters);
        assert_int_equal(c.laws, cases[i].laws);
        assert_int_equal(c.both, cases[i].both);
        assert_true(c.criterion > 1e-2);
        if (cases[i].lie) assert_int_equal(c.lie, cases[i].lie);
        if (net.depth > 2) continue;
        assert_int_equal(laws_theory(&net), cases[i].laws);
        assert_int_equal(c.parameters - c.lie, cases[i].laws);
    }
}

/* As many laws as are known, for random sizes. */
static void test_random_sizes(void **state)
{
    for (uint64_t i = 0; i < 24; i++) {
        int width[3];
        for (int l = 0; l < 3; l++) width[l] = 1 + (int)random_below(5, 2, 3 * i + (uint64_t)l, 4);
        const bool bias[2] = {i % 3 == 0, i % 5 == 0}, relu = i % 2 == 1;
        const struct laws_counts c =
            counts((struct laws_net){.depth = 2, .width = width, .bias = relu ? bias : NULL, .relu = relu});
        assert_int_equal(c.parameters - c.lie, c.laws);
    }
}

static void test_pairs(void **state)
{
    static const struct {
        int m, h, rank;
    } cases[] = {{2, 2, 12}, {3, 3, 30}, {4, 4, 56}, {4, 2, 28}, {1, 3, 2}};
    static const bool trained[] = {false, true, true, true, true, false};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int m = cases[i].m, h = cases[i].h, width[] = {m, m, h, m, h, m, m};
        const struct laws_counts c =
            counts((struct laws_net){.depth = 6, .width = width, .relu = true, .pairs = true, .trained = trained});
        assert_int_equal(c.parameters, 4 * m * h);
        assert_int_equal(c.phi, cases[i].rank);
        assert_int_equal(c.laws, 2 * h);
    }
}

/* Into a neuron times a, out of it divided by a. */
static void test_rescaling(void **state)
{
    static const int width[] = {3, 4, 3, 2};
    static const bool bias[] = {true, true, false};
    const struct laws_net net = {.depth = 3, .width = width, .bias = bias, .relu = true};
    const int64_t parameters = laws_parameters(&net), paths = laws_paths(&net);
    double theta[MOST], phi[MOST], scaled[MOST];
    assert_int_equal(paths, 3 * 4 * 3 * 2 + 4 * 3 * 2 + 3 * 2);
    assert_true(parameters <= MOST && paths <= MOST);
    fill(theta, parameters, 1);
    laws_phi(&net, theta, phi);
    const int64_t second = 4 * 3 + 4, third = second + 3 * 4 + 3; /* W_2, W_3 */
    for (int k = 0; k < 4; k++) {                                 /* the first hidden layer */
        const double a = exp(random_normal(3, 9, (uint64_t)k));
        for (int j = 0; j < 3; j++) theta[k + 4 * j] *= a;
        theta[12 + k] *= a;
        for (int i = 0; i < 3; i++) theta[second + i + 3 * k] /= a;
    }
    for (int k = 0; k < 3; k++) { /* the second */
        const double a = exp(random_normal(3, 10, (uint64_t)k));
        for (int j = 0; j < 4; j++) theta[second + k + 3 * j] *= a;
        theta[second + 12 + k] *= a;
        for (int i = 0; i < 2; i++) theta[third + i + 2 * k] /= a;
    }
    laws_phi(&net, theta, scaled);
    for (int64_t i = 0; i < paths; i++) assert_close(scaled[i], phi[i], 1e-13 * fabs(phi[i]));
}

static void test_size(void **state)
{
    static const int width[] = {30, 200, 30}, deep[] = {9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9};
    assert_false(laws_fit(&(struct laws_net){.depth = 2, .width = width}));
    const struct laws_net net = {.depth = 12, .width = deep, .relu = true};
    assert_int_equal(laws_paths(&net), -1);
    assert_false(laws_fit(&net));
}

static const struct CMUnitTest laws[] = {
    cmocka_unit_test(test_relu),  cmocka_unit_test(test_linear),    cmocka_unit_test(test_random_sizes),
    cmocka_unit_test(test_pairs), cmocka_unit_test(test_rescaling), cmocka_unit_test(test_size),
};

UNIT_MAIN(laws, krylov_start, krylov_end)
