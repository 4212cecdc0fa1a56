/* grids: calls a test on every grid shape and block size that the number of ranks allows. */
#ifndef EIGENTRAIN_TESTS_GRIDS_H
#define EIGENTRAIN_TESTS_GRIDS_H

#include "dist/grid.h"

static const int grids_blocks[] = {1, 3, 64};
enum { GRIDS_BLOCKS = 3 };

/* Collective on MPI_COMM_WORLD. All block sizes on one and two ranks; on more, one a shape in turn: oversubscribed
 * ranks are slow. */
static inline void on_every_grid(void (*test)(struct grid *grid))
{
    int size, shape = 0;

    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int nprow = 1; nprow <= size; nprow++) {
        if (size % nprow != 0) continue;
        for (int b = 0; b < GRIDS_BLOCKS; b++) {
            if (size > 2 && b != (shape + size / 4) % GRIDS_BLOCKS) continue;
            struct grid *grid = grid_create(MPI_COMM_WORLD, nprow, size / nprow, grids_blocks[b]);
            test(grid);
            grid_destroy(&grid);
        }
        shape++;
    }
}

#endif
