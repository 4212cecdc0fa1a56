/* bench_svd FIRST.h5 SECOND.h5 NAME RANK TOLERANCE: leading singular triplets of matrix NAME in two snapshots: of the
 * first from a cold start, of the second from a cold and from a warm one. Prints one JSON object. */
#include "base/error.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "dist/random.h"

#include "bench.h"

#include <stdio.h>

struct solve {
    const struct linop *A;
    struct krylov_options options;
    struct triplets *T;
};

static void solve(void *context)
{
    struct solve *s = context;
    krylov_svd(s->A, &s->options, s->T);
}

/* Seconds of the best of three solves that all start from the same state. */
static double cold(struct solve *s, struct triplets **T, int rank)
{
    double best = 1e300;
    for (int r = 0; r < 3; r++) {
        triplets_destroy(T);
        s->T = *T = triplets_create(s->A, rank);
        const double seconds = bench_time(s->A->comm, solve, s);
        if (seconds < best) best = seconds;
    }
    return best;
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    krylov_start(MPI_COMM_WORLD);
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct grid *grid = grid_create(MPI_COMM_WORLD, 1, size, 64);
    struct problems problems = {0};
    struct dmat *first = argc == 6 ? h5_read_matrix(grid, argv[1], argv[3], &problems) : NULL;
    struct dmat *second = first ? h5_read_matrix(grid, argv[2], argv[3], &problems) : NULL;
    if (!second) {
        problems_print(&problems);
        MPI_Abort(MPI_COMM_WORLD, EXIT_INPUT);
        return EXIT_INPUT;
    }
    const int rank = atoi(argv[4]);
    struct linop *A = linop_of_matrix(first), *B = linop_of_matrix(second);
    struct solve s = {.A = A, .options = {atof(argv[5]), 0, 100000, 1, RANDOM_KRYLOV}};
    struct triplets *T = NULL, *U = NULL;
    const double seconds_first = cold(&s, &T, rank);
    const int64_t products_first = T->products;
    s.A = B;
    const double seconds_cold = cold(&s, &U, rank);
    s.T = T;
    const double seconds_warm = bench_time(B->comm, solve, &s);
    double worst = 0;
    for (int i = 0; i < rank; i++)
        if (!(T->residual[i] <= worst)) worst = T->residual[i];
    if (grid->rank == 0)
        printf("{\"first_seconds\": %.5g, \"first_products\": %lld, \"cold_seconds\": %.5g, \"cold_products\": %lld, "
               "\"warm_seconds\": %.5g, \"warm_products\": %lld, \"warm_residual\": %.3g, \"converged\": %d, "
               "\"sigma_1\": %.17g, \"sigma_last\": %.17g}\n",
               seconds_first, (long long)products_first, seconds_cold, (long long)U->products, seconds_warm,
               (long long)T->products, worst, T->converged, T->sigma[0], T->sigma[rank - 1]);
    triplets_destroy(&T);
    triplets_destroy(&U);
    linop_destroy(&A);
    linop_destroy(&B);
    dmat_destroy(&first);
    dmat_destroy(&second);
    grid_destroy(&grid);
    krylov_end();
    MPI_Finalize();
    return 0;
}
