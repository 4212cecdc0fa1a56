/* bench_grids INPUT [KEY=VALUE]…: a training step on the grid that `auto` chooses beside all shapes of the grid, with
 * all blocks, by turns. Prints one JSON object. */
#include "dist/krylov.h"
#include "net/layout.h"

#include "bench.h"
#include "training.h"

#include <string.h>

enum { ROUNDS = 7, MOST = 64 };

static const int blocks[] = {64, 128, 256, 512};
enum { BLOCKS = sizeof blocks / sizeof *blocks };

static const double AT_LEAST = 0.1; /* seconds of one measurement */

struct candidate {
    char name[64];
    struct spec *spec; /* owned */
    struct grid *grid; /* owned */
    struct training_steps steps;
    double seconds[ROUNDS];
};

/* rows 0: auto. False with problems. */
static bool create(struct candidate *c, int argc, char **argv, int rows, int block, struct problems *problems)
{
    char text[2][32];
    const char *const changes[] = {text[0], text[1]};
    snprintf(text[0], sizeof text[0], "grid.rows=%d", rows);
    snprintf(text[1], sizeof text[1], "grid.block=%d", block);
    c->spec = training_input(argc, argv, rows > 0 ? 2 : 0, changes, problems);
    c->grid = c->spec ? layout_create(MPI_COMM_WORLD, c->spec, problems) : NULL;
    if (!c->grid) return false;
    snprintf(c->name, sizeof c->name, "%d x %d in blocks of %d", c->grid->nprow, c->grid->npcol, c->grid->block);
    return training_create(&c->steps.training, c->grid, c->spec, problems);
}

static void destroy(struct candidate *c)
{
    training_destroy(&c->steps.training);
    grid_destroy(&c->grid);
    spec_destroy(&c->spec);
}

/* The fastest of all in the median counts as the best; the ratio of auto to it is the median over the rounds. */
static void measure(struct candidate *list, int count)
{
    const MPI_Comm comm = MPI_COMM_WORLD;
    double share[ROUNDS], median[MOST];
    int rank, best = 0;
    for (int i = 0; i < count; i++) training_step(&list[i].steps.training);
    list[0].steps.times = 1;
    const double once = bench_time(comm, training_run, &list[0].steps);
    const int times = once < AT_LEAST ? (int)(AT_LEAST / once) + 1 : 1;
    for (int i = 0; i < count; i++) list[i].steps.times = times;
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < count; i++) list[i].seconds[r] = bench_time(comm, training_run, &list[i].steps) / times;
    for (int i = 0; i < count; i++) {
        double sorted[ROUNDS];
        memcpy(sorted, list[i].seconds, sizeof sorted);
        median[i] = bench_median(sorted, ROUNDS);
        if (median[i] < median[best]) best = i;
    }
    for (int r = 0; r < ROUNDS; r++) share[r] = list[0].seconds[r] / list[best].seconds[r];
    MPI_Comm_rank(comm, &rank);
    if (rank > 0) return;
    for (int i = 0; i < count; i++) fprintf(stderr, "%s: %.4g ms\n", list[i].name, 1e3 * median[i]);
    printf("{\"auto\": \"%s\", \"auto_seconds\": %.6g, \"best\": \"%s\", \"best_seconds\": %.6g, \"ratio\": %.4f}\n",
           list[0].name, median[0], list[best].name, median[best], bench_median(share, ROUNDS));
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    static struct candidate list[MOST];
    struct problems problems = {0};
    int size, count = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    krylov_start(MPI_COMM_WORLD);
    bool possible = create(&list[count++], argc, argv, 0, 0, &problems);
    for (int rows = 1; rows <= size; rows++)
        for (int b = 0; possible && size % rows == 0 && b < BLOCKS && count < MOST; b++)
            possible = create(&list[count++], argc, argv, rows, blocks[b], &problems);
    if (!possible) return training_refuse(&problems);
    measure(list, count);
    for (int i = 0; i < count; i++) destroy(&list[i]);
    krylov_end();
    MPI_Finalize();
    return 0;
}
