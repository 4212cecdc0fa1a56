/* estimate: what a run takes, by arithmetic: memory, products, passes over memory, messages, files. Nothing is
 * allocated that grows with the problem, nothing is read but the heads of data files, and the process grid is on paper:
 * it may be larger than the machine. What each piece of work costs in seconds is measured by `calibrate`. */
#ifndef EIGENTRAIN_APP_ESTIMATE_H
#define EIGENTRAIN_APP_ESTIMATE_H

#include "base/error.h"
#include "base/spec.h"
#include "base/timer.h"
#include "net/dataset.h"
#include "net/model.h"
#include "probes/probe.h"
#include "train/batches.h"

#include <stdbool.h>
#include <stdint.h>

/* Work that is counted in units of one kind, of the rank with the largest share. */
enum estimate_rate {
    RATE_STREAM,   /* bytes read and written by copying, adding, multiplying element by element */
    RATE_SUM,      /* elements added up one after the other (norms) */
    RATE_ACTIVATE, /* elements through the activation function and its slope */
    RATE_UPDATE,   /* parameters through the optimizer's rule */
    RATE_LOSS,     /* outputs: loss and derivative */
    RATE_SCORE,    /* outputs: loss and accuracy */
    RATE_NORMAL,   /* random numbers */
    RATE_TOUCH,    /* bytes of memory used for the first time */
    RATE_PIXEL,    /* bytes of gzipped images */
    RATE_STEP,     /* steps: what each costs beside its work */
    RATE_MESSAGE,  /* messages received */
    RATE_SENT,     /* bytes received in them */
    RATE_FILE,     /* files completed */
    RATE_DATASET,  /* arrays in them */
    RATE_DISK,     /* bytes written, and brought to the disk */
    RATES
};

/* Work whose speed depends on its shape: measured shape by shape. */
enum estimate_kind {
    KERNEL_PRODUCT,  /* C (m × n) from op(A) op(B), inner index k, on one rank */
    KERNEL_SPECTRUM, /* all singular values of an m × n matrix on one rank */
    KERNEL_KRYLOV,   /* one product of a Krylov solve for k triplets, with its share of the orthogonalisation */
    KERNEL_QR,       /* orthonormal columns of an m × n matrix */
    KERNEL_SVD,      /* all singular triplets of an m × n matrix on one rank */
};

struct estimate_kernel {
    enum estimate_kind kind;
    char ta, tb; /* of a product */
    int64_t m, n, k;
    double size;               /* flops; of a Krylov product, numbers read */
    double calls[TIMER_PARTS]; /* in the whole run; fractions: a share of the work of one call */
    double seconds;            /* of one call; set by calibrate */
};

/* Bytes on the rank with the largest share. */
enum estimate_memory {
    MEMORY_DATA,        /* inputs and targets, batches */
    MEMORY_WEIGHTS,     /* weights, gradient, optimizer */
    MEMORY_ACTIVATIONS, /* work space of backprop */
    MEMORY_PANELS,      /* buffers of distributed products */
    MEMORY_PROBES,      /* vectors kept by probes, series in memory */
    MEMORIES
};

/* What one probe takes. */
struct estimate_probe {
    int64_t times;          /* measurements in the run */
    struct probe_need need; /* of one */
    double flops;           /* of one, over all ranks: of full spectra, or of the products below */
    double products;        /* of one, in Krylov solves: an estimate, in the middle of the next two */
    double least_products, most_products;
};

/* Numbers and bytes of files. */
struct estimate_disk {
    int64_t metrics, arrays;                            /* metrics.h5: bytes and datasets */
    int64_t snapshots, snapshot, snapshot_arrays;       /* number; bytes and datasets of each */
    int64_t checkpoints, checkpoint, checkpoint_arrays; /* the same */
    int64_t kept;                                       /* checkpoints that stay */
};

/* One step. */
struct estimate_step {
    double flops, mine;   /* in products, of all ranks and of this one */
    double traffic;       /* bytes read and written by passes over memory */
    double messages;      /* received */
    double received;      /* bytes in them */
    double amount[RATES]; /* all that is counted in units, beside the products */
};

/* A step on a grid of some shape, under the model. */
struct estimate_shape {
    int nprow, npcol, block;
    struct estimate_step step;
    double seconds;
    double efficiency; /* seconds on one rank, over ranks × seconds */
};

struct estimate {
    const struct spec *spec;        /* borrowed */
    struct grid grid;               /* on paper: no contexts; the process with the largest share, (0, 0) */
    struct data_sizes loaded, data; /* of what the input describes, and of what is trained on */
    struct batches_need batches;
    struct model *model;          /* without parameters; owned */
    struct record *record;        /* owned */
    struct probes *probes;        /* owned */
    struct estimate_probe *probe; /* [probes->count], owned */
    int64_t parameters;           /* of the whole network */
    int64_t steps, evaluations;
    int64_t chunk; /* columns that pass through the network at a time */
    bool reduced;  /* model.parametrization: compressed; then `data` and `model` are those of the small network */

    int64_t memory[MEMORIES]; /* while training */
    int64_t temporary;        /* the most that comes on top of that, or of what there is of it at that moment */
    const char *moment;       /* when: "whitening"; static */
    int64_t peak;             /* the largest sum; without the program itself */

    struct estimate_disk disk;
    double amount[TIMER_PARTS][RATES]; /* in the whole run */
    struct estimate_kernel *kernel;    /* [kernels], owned */
    int kernels;
    struct estimate_step step;
};

/* Seconds for one unit of each rate. */
struct estimate_rates {
    double seconds[RATES];
};

/* Collective on comm. The estimate for a run on `ranks` ranks. Finds what trainer_create would find wrong with the
 * input, too; NULL with problems on every rank. */
struct estimate *estimate_create(MPI_Comm comm, const struct spec *spec, int ranks, struct problems *problems);

/* Local. Counts the work of the run into amount, kernel and step (estimate_work.c). */
void estimate_count(struct estimate *estimate);

/* Local. Counts the work of the steps alone into amount, kernel and step. */
void estimate_count_steps(struct estimate *estimate);

/* Local. What a step takes on grids of all shapes of so many ranks (estimate_shapes.c), from 1 × ranks to ranks × 1, if
 * every rank makes products at `flops` per second, whatever their shape, and all else at the rates. Sets *best to the
 * one that takes least; returns an owned array [*count] (memory_free). */
struct estimate_shape *estimate_shapes(const struct estimate *estimate, int ranks, const struct estimate_rates *rates,
                                       double flops, int *count, int *best);

/* Local. The same for one shape, with the block size that the input asks for. */
struct estimate_shape estimate_shape(const struct estimate *estimate, int nprow, int npcol,
                                     const struct estimate_rates *rates, double flops);

/* Local. The flops of a kernel's call; of a Krylov product, the numbers it reads. */
double estimate_size(const struct estimate_kernel *kernel);

/* Local. How often something happens that is due at every `every`-th step, from 0 on, and at the last one. */
int64_t estimate_times(int64_t steps, int64_t every);

/* Local. Whether the target is never formed: a compressed run with a target in factors. */
bool estimate_in_factors(const struct estimate *estimate);

/* Local. The products that a Krylov solve probably takes. */
double estimate_products(const struct probe_solve *solve);

/* Local. Frees it and sets *estimate to NULL. */
void estimate_destroy(struct estimate **estimate);

/* Local. Predicted seconds of a part of the run: what calibrate has measured times what there is to do. */
double estimate_seconds(const struct estimate *estimate, const struct estimate_rates *rates, enum timer_part part);

#endif
