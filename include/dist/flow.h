/* flow: ordinary differential equations y' = rate(y) of distributed vectors (PETSc TS). */
#ifndef EIGENTRAIN_DIST_FLOW_H
#define EIGENTRAIN_DIST_FLOW_H

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

/* rk4: the classical method of Runge and Kutta with a fixed step; adaptive: the pair of Dormand and Prince of orders 5
 * and 4, whose steps follow a tolerance. */
enum flow_method { FLOW_RK4, FLOW_ADAPTIVE };

/* An integrator with its work space. Between calls it remembers nothing of the solution or of its steps, so that a run
 * that is resumed goes on with the same bits. */
struct flow;

/* Collective on comm. For vectors of which this rank has `size` entries. tolerance (of FLOW_ADAPTIVE): the error of a
 * step, root of the mean over all entries of (error / (tolerance + tolerance |y|))², is at most 1. rate(context, y, dy)
 * puts y' into dy; it is called on every rank the same number of times. */
struct flow *flow_create(MPI_Comm comm, int size, enum flow_method method, double tolerance,
                         void (*rate)(void *context, const double *y, double *dy), void *context);

/* Local. Frees it and sets *flow to NULL. */
void flow_destroy(struct flow **flow);

/* Collective on comm. Moves y [size] on by `time` > 0, in `steps` equal steps (rk4: 4 rates each; the first rate asked
 * for is at y itself) or from a first trial of time / steps (adaptive). False if no step is short enough: y is then
 * somewhere on the way. */
bool flow_advance(struct flow *flow, double *y, double time, int64_t steps);

/* Local. Vectors of the solution's size that an integrator works with, for estimates. */
int flow_vectors(enum flow_method method);

/* Collective on comm. The same for once: y' = rate(y) over `time` by rk4 in `steps` equal steps. */
void flow_rk4(MPI_Comm comm, int size, double *y, double time, int64_t steps,
              void (*rate)(void *context, const double *y, double *dy), void *context);

#endif
