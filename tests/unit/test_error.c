/* ranks: 1 2 4 */
/* The agreement of all ranks on the problems that one of them found. */
#include "base/error.h"
#include "unit.h"

static int rank, size;

static int find_ranks(void **state)
{
    (void)state;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return 0;
}

static void no_rank_has_a_problem(void **state)
{
    struct problems problems = {0};

    (void)state;
    assert_true(problems_none(&problems, MPI_COMM_WORLD));
    assert_int_equal(problems.count, 0);
    assert_int_equal(problems.code, EXIT_DONE);
}

static void first_problem_gives_the_code(void **state)
{
    struct problems problems = {0};

    (void)state;
    problems_add(&problems, EXIT_ENVIRONMENT, "%s is full", "disk");
    problems_add(&problems, EXIT_INPUT, "%d%%", 7);
    assert_int_equal(problems.count, 2);
    assert_int_equal(problems.code, EXIT_ENVIRONMENT);
    assert_string_equal(problems.text[0], "disk is full");
    assert_string_equal(problems.text[1], "7%");
    problems_clear(&problems);
    assert_int_equal(problems.count, 0);
    assert_int_equal(problems.code, EXIT_DONE);
    assert_null(problems.text);
}

/* Rank r has r + 1 problems, so that the ranks differ in number, text and code. */
static void lowest_rank_wins(void **state)
{
    struct problems problems = {0};

    (void)state;
    for (int i = 0; i <= rank; i++)
        problems_add(&problems, rank == 0 ? EXIT_DIVERGED : EXIT_INPUT, "rank %d problem %d", rank, i);
    assert_false(problems_none(&problems, MPI_COMM_WORLD));
    assert_int_equal(problems.count, 1);
    assert_int_equal(problems.code, EXIT_DIVERGED);
    assert_string_equal(problems.text[0], "rank 0 problem 0");
    problems_clear(&problems);
}

static void only_the_last_rank_has_problems(void **state)
{
    struct problems problems = {0};

    (void)state;
    if (rank == size - 1) {
        problems_add(&problems, EXIT_ENVIRONMENT, "first");
        problems_add(&problems, EXIT_INPUT, "%s", "");
        problems_add(&problems, EXIT_INPUT, "ε third");
    }
    assert_false(problems_none(&problems, MPI_COMM_WORLD));
    assert_int_equal(problems.count, 3);
    assert_int_equal(problems.code, EXIT_ENVIRONMENT);
    assert_string_equal(problems.text[0], "first");
    assert_string_equal(problems.text[1], "");
    assert_string_equal(problems.text[2], "ε third");
    problems_clear(&problems);
}

/* The agreement is that of the communicator: the halves of a split world don't hear of each other. */
static void agreement_stays_in_its_communicator(void **state)
{
    struct problems problems = {0};
    MPI_Comm half;

    (void)state;
    MPI_Comm_split(MPI_COMM_WORLD, rank % 2, rank, &half);
    if (rank % 2 == 1) problems_add(&problems, EXIT_INPUT, "rank %d", rank);
    assert_int_equal(problems_none(&problems, half), rank % 2 == 0);
    assert_int_equal(problems.count, rank % 2);
    if (rank % 2 == 1) assert_string_equal(problems.text[0], "rank 1");
    problems_clear(&problems);
    MPI_Comm_free(&half);
}

static const struct CMUnitTest error_tests[] = {
    cmocka_unit_test_setup(no_rank_has_a_problem, find_ranks),
    cmocka_unit_test_setup(first_problem_gives_the_code, find_ranks),
    cmocka_unit_test_setup(lowest_rank_wins, find_ranks),
    cmocka_unit_test_setup(only_the_last_rank_has_problems, find_ranks),
    cmocka_unit_test_setup(agreement_stays_in_its_communicator, find_ranks),
};

UNIT_MAIN(error_tests, NULL, NULL)
