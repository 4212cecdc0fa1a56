/* What calibrate.c (the clock, kernels by shape, the program's own memory) and calibrate_rates.c (passes over memory,
 * messages, files) share. */
#ifndef EIGENTRAIN_APP_CALIBRATE_PRIVATE_H
#define EIGENTRAIN_APP_CALIBRATE_PRIVATE_H

#include "app/calibrate.h"
#include "net/loss.h"
#include "train/optimizer.h"

struct calibrator {
    MPI_Comm comm;
    int rank, size;
    struct estimate *e;
    struct calibration *c;
    struct grid *self; /* of this process alone; owned */
    int helpers;       /* threads that compute beside this process, in the place of ranks */
};

/* What a bench works on; each uses some of it, and owns it. */
struct work {
    const struct estimate_kernel *kernel; /* borrowed */
    const struct spec *spec;              /* borrowed */
    struct dmat *A, *B, *C;
    struct work *next, *turn; /* further operands, so that they are not found in the cache, owned; those to take now */
    double *values;
    enum activation activation;
    int64_t window; /* elements that are passed through it at a time */
    struct loss loss;
    struct layer layer;
    int64_t width[2];
    struct model model; /* of that one layer */
    struct params *gradient;
    struct optimizer *optimizer;
    double units; /* that one run does */
    volatile double sink;
};

/* What can be clocked. */
struct bench {
    struct work *(*create)(const struct calibrator *c,
                           const struct estimate_kernel *kernel); /* Local. kernel or NULL */
    void (*run)(struct work *work); /* Local, or collective on a grid of this process alone */
    bool by_threads;                /* several threads may run it at once: it calls neither MPI nor PETSc */
};

/* Local. Bytes that a step goes through before it comes back to the same place, as far as it matters for caches. */
int64_t calibrate_working_set(const struct estimate *e);

/* Local. A matrix with numbers of ordinary size: some instructions are slow for zeros and denormal ones. */
struct dmat *calibrate_matrix(const struct grid *grid, int64_t m, int64_t n);

/* Collective on the comm. Seconds for one unit of the bench: median of three rounds on the slowest rank, while all
 * ranks, or in their place helping threads, do the same. */
double calibrate_clock(struct calibrator *c, const struct bench *bench, const struct estimate_kernel *kernel);

/* Collective on the comm. The rates of passes over memory and the like. */
void calibrate_passes(struct calibrator *c);

/* Collective on the comm. Those of messages, if there are ranks to exchange them. */
void calibrate_messages(struct calibrator *c);

/* Collective on the comm. Those of files. */
void calibrate_files(struct calibrator *c);

#endif
