/* layout: the process grid for a network. */
#ifndef EIGENTRAIN_NET_LAYOUT_H
#define EIGENTRAIN_NET_LAYOUT_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"

#include <stdbool.h>

struct layout {
    int nprow, npcol, block;
};

/* Local. The process rows and columns, and the block size, that `grid` of the input asks for on `size` ranks. `auto`
 * takes the shape that moves the fewest numbers in a training step: with P × Q processes a layer m × n on c columns
 * receives 3 [(m/P) n (1 − 1/Q) + n (c/Q) (1 − 1/P)] numbers a rank. `block: auto` is 64, except on one process row,
 * where it is up to 512 so that every process has one block, or as few as possible, of each width and of the columns of
 * a step, and no more than lets `train.microbatch` samples be processed at a time. False with a problem if rows × cols
 * cannot be the number of ranks. */
bool layout_choose(const struct spec *spec, int size, struct layout *layout, struct problems *problems);

/* Local. The block size that `grid.block` of the input asks for on a grid of this shape. */
int layout_block(const struct spec *spec, int nprow, int npcol);

/* Collective on comm. The grid of that shape. NULL with problems on every rank if there is none. */
struct grid *layout_create(MPI_Comm comm, const struct spec *spec, struct problems *problems);

#endif
