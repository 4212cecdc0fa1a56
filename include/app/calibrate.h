/* calibrate: a short measurement of this machine: how long the pieces of work take that an estimate counts. It runs the
 * program's own functions at the sizes that one rank will have (large ones cut down), on all ranks at the same time. */
#ifndef EIGENTRAIN_APP_CALIBRATE_H
#define EIGENTRAIN_APP_CALIBRATE_H

#include "app/estimate.h"
#include "base/error.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

struct calibration {
    struct estimate_rates rates;
    int ranks;           /* that took part */
    int busy;            /* processes or threads that computed at the same time on this node */
    int threads;         /* BLAS threads of each */
    bool messages;       /* measured between ranks; else assumed */
    bool disk;           /* measured with a temporary file, which is gone; else assumed */
    int64_t program;     /* resident bytes of a rank: program and libraries, with the buffers of BLAS */
    int64_t node_memory; /* bytes of this machine; 0: unknown */
    double flops;        /* rate of the products of a step on one rank, per second */
};

/* Collective on comm; krylov_start has been called. Takes a few seconds. Fills the seconds of the estimate's kernels,
 * and the calibration, the same on every rank. */
void calibrate(MPI_Comm comm, struct estimate *estimate, struct calibration *calibration);

/* Local. Puts what is known of another machine in the place of what was measured: seconds of a message, bytes per
 * second to a rank, flop per second of products on a rank; 0 leaves the measured one. */
void calibrate_replace(struct estimate *estimate, struct calibration *calibration, double latency, double bandwidth,
                       double flops);

#endif
