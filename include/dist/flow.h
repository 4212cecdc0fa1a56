/* flow: ordinary differential equations of distributed vectors (PETSc TS). */
#ifndef EIGENTRAIN_DIST_FLOW_H
#define EIGENTRAIN_DIST_FLOW_H

#include <mpi.h>
#include <stdint.h>

/* Collective on comm. Integrates y' = rate(y) over `time` by the classical Runge–Kutta method in `steps` equal steps. y
 * [size] holds this rank's part, before and after; rate(context, y, dy) is called on every rank, four times a step. */
void flow_rk4(MPI_Comm comm, int size, double *y, double time, int64_t steps,
              void (*rate)(void *context, const double *y, double *dy), void *context);

#endif
