/* unit: cmocka under MPI, for all unit tests.
 *
 * A test source begins with a comment that declares the rank counts it runs on, for example "ranks: 1 2 4 6", and ends
 * with UNIT_MAIN. All ranks run the same tests in the same order. A failed assertion aborts its rank, so that mpirun
 * ends the others instead of leaving them in a collective call. */
#ifndef EIGENTRAIN_TESTS_UNIT_H
#define EIGENTRAIN_TESTS_UNIT_H

#include "base/launch.h"

#include <math.h>
#include <mpi.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* Collective on MPI_COMM_WORLD. Runs the tests between start and finish (for libraries, such as krylov_start and
 * krylov_end; NULL: none) and returns the exit status of main. Failures appear on standard error, from whichever rank.
 */
static inline int unit_main(int argc, char **argv, const char *name, const struct CMUnitTest *tests, size_t count,
                            void (*start)(MPI_Comm), void (*finish)(void))
{
    int rank;

    launch_prepare(argv); /* the BLAS kernel and MPI-IO that the program itself uses */
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank != 0 && !freopen("/dev/null", "w", stdout)) MPI_Abort(MPI_COMM_WORLD, 1);
    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (start) start(MPI_COMM_WORLD);
    int failed = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
    if (finish) finish();
    MPI_Finalize();
    return failed != 0;
}

/* main() for an array of struct CMUnitTest. */
#define UNIT_MAIN(tests, start, finish)                                                                                \
    int main(int argc, char **argv)                                                                                    \
    {                                                                                                                  \
        return unit_main(argc, argv, #tests, tests, sizeof(tests) / sizeof((tests)[0]), start, finish);                \
    }

static inline void unit_close(double a, double b, double tolerance, const char *text_a, const char *text_b,
                              const char *file, int line)
{
    if (fabs(a - b) <= tolerance) return; /* false for NaN too */
    print_error("%s = %.17g, %s = %.17g, difference %.3g, tolerance %.3g\n", text_a, a, text_b, b, fabs(a - b),
                tolerance);
    _fail(file, line);
}

/* Fails unless |a − b| ≤ tol; a NaN fails. */
#define assert_close(a, b, tol) unit_close(a, b, tol, #a, #b, __FILE__, __LINE__)

#endif
