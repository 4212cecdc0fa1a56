/* ranks: 1 2 4 */
/* Differential equations with known solutions: orders, tolerances, steps that are far too long, reuse. */
#include "dist/flow.h"
#include "dist/krylov.h"
#include "unit.h"

#include <math.h>

/* This rank's entries of y' = −c y³ with c = (i + 1)·speed for entry i, or of y' = y² with `explosive`. */
struct decay {
    int first, size, calls;
    double speed;
    bool explosive;
};

static struct decay decay_of(double speed)
{
    int rank;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return (struct decay){.first = rank == 0 ? 0 : 2, .size = rank < 2 ? 2 : 0, .speed = speed};
}

static void rate(void *context, const double *y, double *dy)
{
    struct decay *d = context;

    d->calls++;
    for (int i = 0; i < d->size; i++)
        dy[i] = d->explosive ? y[i] * y[i] : -(d->first + i + 1) * d->speed * y[i] * y[i] * y[i];
}

/* y' = −c y³ from 1: y = 1/√(1 + 2ct). */
static double error_of(const struct decay *d, const double *y, double time)
{
    double worst = 0;

    for (int i = 0; i < d->size; i++)
        worst = fmax(worst, fabs(y[i] - 1 / sqrt(1 + 2 * (d->first + i + 1) * d->speed * time)));
    MPI_Allreduce(MPI_IN_PLACE, &worst, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return worst;
}

static double error_after(enum flow_method method, double tolerance, double speed, int64_t steps, int *calls)
{
    struct decay d = decay_of(speed);
    struct flow *flow = flow_create(MPI_COMM_WORLD, d.size, method, tolerance, rate, &d);
    double y[2] = {1, 1};

    assert_true(flow_advance(flow, y, 0.5, steps));
    assert_true(flow_advance(flow, y, 1.5, steps)); /* the same integrator goes on */
    flow_destroy(&flow);
    assert_null(flow);
    *calls = d.calls;
    return error_of(&d, y, 2);
}

static void classical_steps(void **state)
{
    double once[2] = {1, 1}, twice[2] = {1, 1};
    struct decay d = decay_of(0.25);
    int calls;
    (void)state;

    const double coarse = error_after(FLOW_RK4, 0, 0.25, 64, &calls),
                 fine = error_after(FLOW_RK4, 0, 0.25, 128, &calls);
    assert_true(fine < 1e-9);
    assert_in_range((int)round(coarse / fine), 14, 18); /* of fourth order */
    assert_int_equal(calls, 2 * 128 * 4);
    flow_rk4(MPI_COMM_WORLD, d.size, once, 0.5, 8, rate, &d);
    struct flow *flow = flow_create(MPI_COMM_WORLD, d.size, FLOW_RK4, 0, rate, &d);
    for (int i = 0; i < 8; i++) flow_advance(flow, twice, 0.5 / 8, 1);
    flow_destroy(&flow);
    assert_memory_equal(once, twice, sizeof once);
}

static void tolerances(void **state)
{
    int calls, more;
    (void)state;

    assert_true(error_after(FLOW_ADAPTIVE, 1e-6, 0.25, 1, &calls) < 3e-6);
    assert_true(error_after(FLOW_ADAPTIVE, 1e-11, 0.25, 1, &more) < 3e-11);
    assert_true(more > calls);
}

/* The first trial overflows: the step is taken back without a trace. */
static void steps_far_too_long(void **state)
{
    int calls;
    (void)state;

    assert_true(error_after(FLOW_ADAPTIVE, 1e-10, 1e3, 1, &calls) < 1e-9);
    assert_true(error_after(FLOW_ADAPTIVE, 1e-10, 1e8, 1, &calls) < 1e-9);
}

/* No solution beyond t = 1. */
static void no_step_short_enough(void **state)
{
    struct decay d = decay_of(1);
    double y[2] = {1, 1};
    (void)state;

    d.explosive = true;
    struct flow *flow = flow_create(MPI_COMM_WORLD, d.size, FLOW_ADAPTIVE, 1e-8, rate, &d);
    assert_false(flow_advance(flow, y, 2, 1));
    y[0] = y[1] = 1;
    assert_true(flow_advance(flow, y, 0.5, 1));
    for (int i = 0; i < d.size; i++) assert_true(fabs(y[i] - 2) < 1e-6);
    flow_destroy(&flow);
}

static const struct CMUnitTest flow_tests[] = {
    cmocka_unit_test(classical_steps),
    cmocka_unit_test(tolerances),
    cmocka_unit_test(steps_far_too_long),
    cmocka_unit_test(no_step_short_enough),
};

UNIT_MAIN(flow_tests, krylov_start, krylov_end)
