/* layout: the process grid for a network. */
#ifndef EIGENTRAIN_NET_LAYOUT_H
#define EIGENTRAIN_NET_LAYOUT_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/grid.h"

/* Collective on comm. The grid that `grid` of the input asks for. `auto` takes the shape that moves the fewest numbers
 * in a training step: with P × Q processes a layer m × n on c columns receives 3 [(m/P) n (1 − 1/Q) + n (c/Q) (1 −
 * 1/P)] numbers a rank. NULL with problems on every rank if rows × cols cannot be the number of ranks. */
struct grid *layout_create(MPI_Comm comm, const struct spec *spec, struct problems *problems);

#endif
