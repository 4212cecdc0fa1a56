/* calibrate: a short measurement of this machine. */
#include "app/calibrate.h"

#include "base/launch.h"
#include "base/memory.h"
#include "base/timer.h"
#include "dist/factor.h"
#include "dist/h5.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/activation.h"
#include "net/loss.h"
#include "train/optimizer.h"
#include "train/schedule.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What can be clocked. `create` gets the calibrator and `what`, something that says how large. */
struct bench {
    void *(*create)(const struct estimate *e, const struct grid *self, const void *what);
    void (*run)(void *context);
    void (*destroy)(void *context);
    bool by_threads; /* several threads may run it at the same time: it calls neither MPI nor PETSc */
};

struct calibrator {
    MPI_Comm comm;
    int rank, size;
    struct estimate *e;
    struct calibration *c;
    struct grid *self; /* of this process alone; owned */
    int helpers;       /* threads that compute beside this process, in the place of ranks */
    double spent;      /* seconds on kernels */
};

/* Seconds that one measurement should take, and all products together. */
static const double LONG_ENOUGH = 0.02, ENOUGH = 2.5;

/* ---------------------------------------------------------------- the clock */

struct helper {
    pthread_t thread;
    const struct bench *bench;
    const struct calibrator *c;
    const void *what;
    atomic_bool *stop;
};

static void *help(void *context)
{
    const struct helper *h = context;
    void *mine = h->bench->create(h->c->e, h->c->self, h->what);
    while (!atomic_load(h->stop)) h->bench->run(mine);
    h->bench->destroy(mine);
    return NULL;
}

/* Median of three rounds, of the slowest rank. */
static double clock_rounds(struct calibrator *c, const struct bench *bench, void *mine)
{
    double round[3], once = timer_now();
    bench->run(mine);
    once = timer_now() - once;
    MPI_Bcast(&once, 1, MPI_DOUBLE, 0, c->comm);
    const int times = once > LONG_ENOUGH ? 1 : once < LONG_ENOUGH / 10000 ? 10000 : (int)(LONG_ENOUGH / once);
    for (int r = 0; r < 3; r++) {
        MPI_Barrier(c->comm);
        const double since = timer_now();
        for (int i = 0; i < times; i++) bench->run(mine);
        round[r] = (timer_now() - since) / times;
    }
    const double least = fmin(round[0], fmin(round[1], round[2])), most = fmax(round[0], fmax(round[1], round[2]));
    double median = round[0] + round[1] + round[2] - least - most;
    MPI_Allreduce(MPI_IN_PLACE, &median, 1, MPI_DOUBLE, MPI_MAX, c->comm);
    return median;
}

static double seconds_of(struct calibrator *c, const struct bench *bench, const void *what)
{
    const double since = timer_now();
    const int count = bench->by_threads ? c->helpers : 0;
    atomic_bool stop = false;
    struct helper *helper = NEW(struct helper, count);
    for (int i = 0; i < count; i++) {
        helper[i] = (struct helper){.bench = bench, .c = c, .what = what, .stop = &stop};
        ensure(pthread_create(&helper[i].thread, NULL, help, &helper[i]) == 0);
    }
    void *mine = bench->create(c->e, c->self, what);
    const double seconds = clock_rounds(c, bench, mine);
    atomic_store(&stop, true);
    for (int i = 0; i < count; i++) pthread_join(helper[i].thread, NULL);
    bench->destroy(mine);
    memory_free(helper);
    c->spent += timer_now() - since;
    return seconds;
}

/* ---------------------------------------------------------------- matrices to work on */

struct work {
    const struct estimate_kernel *kernel;
    struct dmat *A, *B, *C;
    struct model model;
    struct layer layer;
    int64_t width[2];
    struct params *gradient;
    struct optimizer *optimizer;
    struct loss loss;
    double *values, *more;
    int64_t count, window;
    enum activation activation;
    const struct spec *spec;
    volatile double sink;
};

/* Numbers of ordinary size: some instructions are slow for zeros and denormal ones. */
static struct dmat *matrix(const struct grid *self, int64_t m, int64_t n)
{
    struct dmat *A = dmat_create(self, m, n);
    for (int64_t i = 0; i < (int64_t)A->mloc * A->nloc; i++) A->local[i] = 1e-2 * (double)(i % 97 - 48);
    return A;
}

static void work_destroy(void *context)
{
    struct work *w = context;
    optimizer_destroy(&w->optimizer);
    params_destroy(&w->model.params);
    params_destroy(&w->gradient);
    dmat_destroy(&w->A);
    dmat_destroy(&w->B);
    dmat_destroy(&w->C);
    memory_free(w->values);
    memory_free(w->more);
    memory_free(w);
}

/* ---------------------------------------------------------------- kernels */

static void *create_product(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    const struct estimate_kernel *k = w->kernel = what;
    w->A = k->ta == 'N' ? matrix(self, k->m, k->k) : matrix(self, k->k, k->m);
    w->B = k->tb == 'N' ? matrix(self, k->k, k->n) : matrix(self, k->n, k->k);
    w->C = matrix(self, k->m, k->n);
    return w;
}

static void run_product(void *context)
{
    struct work *w = context;
    dmat_gemm(w->kernel->ta, w->kernel->tb, 1, w->A, w->B, 0, w->C);
}

static void *create_matrix(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    w->kernel = what;
    w->A = dmat_create(self, w->kernel->m, w->kernel->n);
    random_fill_normal(w->A, 1, 1);
    w->B = dmat_create(self, w->kernel->m, w->kernel->n);
    w->values = NEW(double, w->kernel->m + w->kernel->n);
    return w;
}

static void run_spectrum(void *context)
{
    struct work *w = context;
    dmat_copy(w->B, w->A);
    factor_local_singular_values(to_int(w->A->m), to_int(w->A->n), w->B->local, w->values);
}

static void run_qr(void *context)
{
    struct work *w = context;
    dmat_copy(w->B, w->A);
    factor_orthonormal(w->B);
}

static void *create_svd(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = create_matrix(e, self, what);
    const int64_t k = w->A->m < w->A->n ? w->A->m : w->A->n;
    dmat_destroy(&w->B);
    w->B = dmat_create(self, w->A->m, k);
    w->C = dmat_create(self, k, w->A->n);
    return w;
}

static void run_svd(void *context)
{
    struct work *w = context;
    factor_svd(w->A, w->B, w->values, w->C);
}

/* One cold start that is ended when it has filled its basis. */
static void run_krylov(void *context)
{
    struct work *w = context;
    const int64_t least = w->A->m < w->A->n ? w->A->m : w->A->n;
    const struct krylov_options options = {
        .tolerance = 1e-10, .max_products = 2 * krylov_need(least, to_int(w->kernel->k)).basis, .seed = 1, .stream = 1};
    struct linop *L = linop_of_matrix(w->A);
    struct triplets *T = triplets_create(L, to_int(w->kernel->k));
    krylov_svd(L, &options, T);
    w->count = T->products;
    triplets_destroy(&T);
    linop_destroy(&L);
}

static const struct bench kernel_bench[] = {
    [KERNEL_PRODUCT] = {create_product, run_product, work_destroy, true},
    [KERNEL_SPECTRUM] = {create_matrix, run_spectrum, work_destroy, true},
    [KERNEL_KRYLOV] = {create_matrix, run_krylov, work_destroy, false},
    [KERNEL_QR] = {create_matrix, run_qr, work_destroy, false},
    [KERNEL_SVD] = {create_svd, run_svd, work_destroy, false},
};

/* The same shape, no larger than can be measured in a moment. */
static struct estimate_kernel cut(const struct estimate_kernel *kernel)
{
    static const double most[] = {
        [KERNEL_PRODUCT] = 4e9, [KERNEL_SPECTRUM] = 3e9, [KERNEL_KRYLOV] = 4e6, [KERNEL_QR] = 2e9, [KERNEL_SVD] = 3e9};
    struct estimate_kernel k = *kernel;
    if (k.kind == KERNEL_PRODUCT) {
        /* the width of C last: BLAS packs an operand of that width, and its buffer counts as memory of the program */
        while (2.0 * (double)k.m * (double)k.n * (double)k.k > most[KERNEL_PRODUCT]) {
            int64_t *longest = k.m > 512 || k.k > 512 ? (k.m > k.k ? &k.m : &k.k) : &k.n;
            *longest /= 2;
        }
        return k;
    }
    const double power = k.kind == KERNEL_KRYLOV ? 0.5 : 1.0 / 3, shrink = pow(most[k.kind] / kernel->size, power);
    const int64_t least = k.m < k.n ? k.m : k.n;
    if (shrink < 1) {
        k.m = (int64_t)ceil((double)k.m * shrink);
        k.n = (int64_t)ceil((double)k.n * shrink);
    }
    const int64_t smaller = k.m < k.n ? k.m : k.n;
    if (k.k < least && k.k >= smaller) k.k = smaller - 1; /* as large a share of the spectrum as it was, nearly */
    return k;
}

static double calls(const struct estimate_kernel *k)
{
    double sum = 0;
    for (int part = 0; part < TIMER_PARTS; part++) sum += k->calls[part];
    return sum;
}

static int by_weight(const void *a, const void *b)
{
    const struct estimate_kernel *x = a, *y = b;
    const double wx = x->size * calls(x), wy = y->size * calls(y);
    return x->kind != y->kind ? (int)x->kind - (int)y->kind : (wx < wy) - (wx > wy);
}

/* Of a shape that there was no time for: at the speed of the measured one that is nearest in size. */
static double at_speed_of_others(const struct estimate *e, int i)
{
    const struct estimate_kernel *k = &e->kernel[i];
    double speed = 1e9, nearest = INFINITY;
    for (int j = 0; j < i; j++) {
        const struct estimate_kernel *other = &e->kernel[j];
        const double apart = fabs(log(other->size / k->size));
        if (other->kind != k->kind || other->seconds <= 0 || apart >= nearest) continue;
        nearest = apart;
        speed = other->size / other->seconds;
    }
    return k->size / speed;
}

static void measure_kernels(struct calibrator *c)
{
    struct estimate *e = c->e;
    double products = 0;
    for (int i = 0; i < e->kernels; i++) {
        struct estimate_kernel *k = &e->kernel[i], small = cut(k);
        int too_long = k->kind == KERNEL_PRODUCT && products > ENOUGH;
        MPI_Bcast(&too_long, 1, MPI_INT, 0, c->comm);
        if (too_long) {
            k->seconds = at_speed_of_others(e, i);
            continue;
        }
        const double since = c->spent;
        small.size = estimate_size(&small);
        double seconds = seconds_of(c, &kernel_bench[k->kind], &small);
        if (k->kind == KERNEL_KRYLOV)
            seconds /= 2 * krylov_need(small.m < small.n ? small.m : small.n, to_int(small.k)).basis;
        k->seconds = seconds * k->size / small.size;
        if (k->kind == KERNEL_PRODUCT) products += c->spent - since;
    }
}

/* ---------------------------------------------------------------- passes */

/* Numbers that the activations of one rank have, as far as it matters for caches. */
static int64_t arena(const struct estimate *e)
{
    const int64_t most = (int64_t)1 << 23, all = e->memory[MEMORY_ACTIVATIONS] / 16 + 1024;
    return all < most ? all : most;
}

static void *create_arrays(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    w->count = arena(e);
    w->A = matrix(self, w->count, 1);
    w->B = matrix(self, w->count, 1);
    w->spec = e->spec;
    for (int l = 0; l < e->model->depth; l++)
        if (e->model->layer[l].activation != ACTIVATION_LINEAR) w->activation = e->model->layer[l].activation;
    w->window = dmat_local_size(&e->grid, e->model->width[1], e->chunk);
    if (w->window > w->count || w->window < 1) w->window = w->count;
    return w;
}

static void run_stream(void *context)
{
    struct work *w = context;
    dmat_axpy(w->A, 1e-9, w->B);
}

static void run_sum(void *context)
{
    struct work *w = context;
    double sum = 0;
    for (int64_t i = 0; i < w->count; i++) sum += w->A->local[i] * w->A->local[i];
    w->sink = sum;
}

/* z is overwritten by the slope, which is a number of ordinary size again. */
static void run_activate(void *context)
{
    struct work *w = context;
    for (int64_t i = 0; i < w->count; i += w->window) {
        const int64_t n = w->count - i < w->window ? w->count - i : w->window;
        activation_apply(w->activation, n, w->A->local + i, w->B->local + i);
    }
}

static void *create_optimizer(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    const int64_t most = (int64_t)1 << 22, size = params_size(e->model);
    w->width[0] = 1;
    w->width[1] = size < most ? size : most;
    w->layer =
        (struct layer){.n_in = 1, .n_out = w->width[1], .trainable = true, .lr_multiplier = 1, .skip = -1, .scale = 1};
    w->model = (struct model){.grid = self, .depth = 1, .width = w->width, .layer = &w->layer};
    w->model.params = params_create(&w->model);
    w->gradient = params_create(&w->model);
    w->optimizer = optimizer_create(&w->model, e->spec);
    w->count = w->gradient->size;
    for (int64_t i = 0; i < w->count; i++) w->gradient->local[i] = 1e-3 * (double)(i % 89 + 1);
    return w;
}

static void run_optimizer(void *context)
{
    struct work *w = context;
    optimizer_step(w->optimizer, &w->model, w->gradient, 1e-9);
}

static void *create_outputs(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    const int64_t rows = e->data.outputs < 4096 ? e->data.outputs : 4096, most = (int64_t)1 << 20;
    const int64_t cols = e->chunk * rows < most ? e->chunk : most / rows;
    w->A = matrix(self, rows, cols);
    w->B = matrix(self, rows, cols);
    w->count = rows * cols;
    w->loss = loss_of(e->spec);
    return w;
}

static void run_loss(void *context)
{
    struct work *w = context;
    w->sink = loss_derivative(&w->loss, 1, w->A, w->B);
}

static void run_score(void *context)
{
    struct work *w = context;
    double correct;
    w->sink = loss_value(&w->loss, 1, w->A, w->B, &correct);
}

static void *create_random(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    w->A = dmat_create(self, 256, 64);
    w->count = 256 * 64;
    return w;
}

static void run_random(void *context)
{
    struct work *w = context;
    random_fill_normal(w->A, 1, 1);
}

static void *create_touch(const struct estimate *e, const struct grid *self, const void *what)
{
    struct work *w = NEW(struct work, 1);
    w->count = (int64_t)1 << 26; /* so large that it always is fresh memory */
    return w;
}

static void run_touch(void *context)
{
    memory_free(NEW(char, (int64_t)1 << 26));
}

static void run_step(void *context)
{
    struct work *w = context;
    w->sink = schedule_rate(w->spec, 1) + schedule_rate(w->spec, 2);
}

static const struct bench STREAM = {create_arrays, run_stream, work_destroy, true},
                          SUM = {create_arrays, run_sum, work_destroy, true},
                          ACTIVATE = {create_arrays, run_activate, work_destroy, true},
                          UPDATE = {create_optimizer, run_optimizer, work_destroy, true},
                          LOSS = {create_outputs, run_loss, work_destroy, true},
                          SCORE = {create_outputs, run_score, work_destroy, true},
                          NORMAL = {create_random, run_random, work_destroy, true},
                          TOUCH = {create_touch, run_touch, work_destroy, true},
                          STEP = {create_arrays, run_step, work_destroy, true};

/* Seconds for one unit; `count` units are what one run of the bench does. */
static double per_unit(struct calibrator *c, const struct bench *bench, double units)
{
    const double seconds = seconds_of(c, bench, NULL);
    return units > 0 ? seconds / units : 0;
}

static void measure_passes(struct calibrator *c)
{
    const struct estimate *e = c->e;
    double *seconds = c->c->rates.seconds;
    struct work *outputs = create_outputs(e, c->self, NULL);
    const double elements = (double)arena(e), weights = (double)params_size(e->model),
                 most = (double)((int64_t)1 << 22);
    seconds[RATE_STREAM] = per_unit(c, &STREAM, 24 * elements);
    seconds[RATE_SUM] = per_unit(c, &SUM, elements);
    seconds[RATE_ACTIVATE] = per_unit(c, &ACTIVATE, elements);
    seconds[RATE_UPDATE] = per_unit(c, &UPDATE, weights < most ? weights : most);
    seconds[RATE_LOSS] = per_unit(c, &LOSS, (double)outputs->count);
    seconds[RATE_SCORE] = per_unit(c, &SCORE, (double)outputs->count);
    seconds[RATE_NORMAL] = per_unit(c, &NORMAL, 256 * 64);
    seconds[RATE_TOUCH] = per_unit(c, &TOUCH, (double)((int64_t)1 << 26));
    seconds[RATE_STEP] = per_unit(c, &STEP, 1) + 5e-6;
    work_destroy(outputs);
}

/* ---------------------------------------------------------------- messages */

/* All ranks send to the next and receive from the one before at the same time, as products do. */
static double exchange(const struct calibrator *c, int bytes, int times, char *in, char *out)
{
    const int next = (c->rank + 1) % c->size, last = (c->rank + c->size - 1) % c->size;
    MPI_Barrier(c->comm);
    const double since = timer_now();
    for (int i = 0; i < times; i++)
        MPI_Sendrecv(out, bytes, MPI_CHAR, next, 0, in, bytes, MPI_CHAR, last, 0, c->comm, MPI_STATUS_IGNORE);
    double seconds = (timer_now() - since) / times;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, c->comm);
    return seconds;
}

/* Alone: shared memory takes a microsecond a message, and copies twice. */
static void measure_messages(struct calibrator *c)
{
    const int small = 16, large = 1 << 20;
    double *seconds = c->c->rates.seconds;
    c->c->messages = c->size > 1;
    seconds[RATE_MESSAGE] = 1e-6;
    seconds[RATE_SENT] = 4 * seconds[RATE_STREAM];
    if (c->size == 1) return;
    char *in = NEW(char, large), *out = NEW(char, large);
    exchange(c, large, 10, in, out);
    seconds[RATE_MESSAGE] = fmin(exchange(c, small, 1000, in, out), exchange(c, small, 1000, in, out));
    seconds[RATE_SENT] = fmin(exchange(c, large, 50, in, out), exchange(c, large, 50, in, out)) / large;
    memory_free(in);
    memory_free(out);
}

/* ---------------------------------------------------------------- files */

/* Seconds for a file with `arrays` arrays of rows × cols, written as snapshots are; negative if it can't be. */
static double write_file(const struct calibrator *c, const struct grid *grid, int arrays, int64_t rows, int64_t cols)
{
    const char *folder = getenv("TMPDIR");
    long id = (long)getpid();
    MPI_Bcast(&id, 1, MPI_LONG, 0, c->comm); /* one name for all */
    char *path = memory_text("%s/eigentrain-plan-%ld.h5", folder && *folder ? folder : "/tmp", id), name[16];
    struct problems problems = {0};
    struct dmat *A = matrix(grid, rows, cols);
    MPI_Barrier(c->comm);
    const double since = timer_now();
    struct h5 *file = h5_create(c->comm, path, "eigentrain plan", &problems);
    for (int i = 0; file && i < arrays; i++) {
        snprintf(name, sizeof name, "A%d", i);
        h5_write_matrix(file, name, NULL, NULL, A, NULL);
    }
    if (file) h5_commit(&file, &problems);
    double seconds = problems.count ? -1 : timer_now() - since;
    MPI_Bcast(&seconds, 1, MPI_DOUBLE, 0, c->comm);
    if (c->rank == 0) unlink(path);
    dmat_destroy(&A);
    memory_free(path);
    problems_clear(&problems);
    return seconds;
}

/* The run's own directory may be on another file system: this is the speed of TMPDIR. */
static void measure_files(struct calibrator *c)
{
    const int64_t rows = 1024, cols = 1024;
    const int many = 16;
    double *seconds = c->c->rates.seconds;
    struct grid *grid = grid_create(c->comm, 1, c->size, 64);
    write_file(c, grid, 1, 8, 8);
    const double empty = write_file(c, grid, 1, 8, 8), full = write_file(c, grid, many, 8, 8),
                 large = write_file(c, grid, 1, rows, cols);
    grid_destroy(&grid);
    c->c->disk = empty >= 0 && full >= 0 && large >= 0;
    seconds[RATE_FILE] = c->c->disk ? empty : 0.02;
    seconds[RATE_DATASET] = c->c->disk ? fmax(full - empty, 0) / (many - 1) : 0.001;
    seconds[RATE_DISK] = c->c->disk ? fmax(large - empty, 0) / (8.0 * (double)(rows * cols)) : 5e-9;
}

/* ---------------------------------------------------------------- the program itself */

/* Runs a little of everything that the run will use, so that the libraries' pages and buffers are there, and looks how
 * much memory that is. */
static void measure_program(struct calibrator *c)
{
    const struct estimate *e = c->e;
    const struct estimate_kernel *widest = NULL;
    for (int i = 0; i < e->kernels; i++) {
        struct estimate_kernel small = {.kind = e->kernel[i].kind, .m = 64, .n = 64, .k = 5};
        const struct bench *bench = &kernel_bench[small.kind];
        if (small.kind == KERNEL_PRODUCT) {
            if (!widest || e->kernel[i].n > widest->n) widest = &e->kernel[i];
            continue;
        }
        void *work = bench->create(e, c->self, &small);
        bench->run(work);
        bench->destroy(work);
    }
    if (widest) {
        struct estimate_kernel small = cut(widest);
        void *work = create_product(e, c->self, &small);
        run_product(work);
        work_destroy(work);
    }
    c->c->program = memory_resident();
    MPI_Allreduce(MPI_IN_PLACE, &c->c->program, 1, MPI_INT64_T, MPI_MAX, c->comm);
}

/* How many compute at the same time on this node. Alone, threads take the place of the other ranks. */
static void choose_helpers(struct calibrator *c)
{
    MPI_Comm node;
    MPI_Comm_split_type(c->comm, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &node);
    MPI_Comm_size(node, &c->c->busy);
    MPI_Comm_free(&node);
    if (c->size == 1) {
        const int cores = launch_threads(), planned = c->e->grid.size;
        c->c->busy = planned < cores ? planned : cores;
        launch_set_threads(cores / c->c->busy);
        if (cores / c->c->busy == 1) c->helpers = c->c->busy - 1;
    }
    c->c->ranks = c->size;
    c->c->threads = launch_threads();
}

static int64_t node_memory(void)
{
    return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

static double product_rate(const struct estimate *e)
{
    double flops = 0, seconds = 0;
    for (int i = 0; i < e->kernels; i++) {
        const struct estimate_kernel *k = &e->kernel[i];
        if (k->kind != KERNEL_PRODUCT) continue;
        flops += k->size * k->calls[TIMER_GRADIENT];
        seconds += k->seconds * k->calls[TIMER_GRADIENT];
    }
    return seconds > 0 ? flops / seconds : 0;
}

void calibrate(MPI_Comm comm, struct estimate *e, struct calibration *calibration)
{
    struct calibrator c = {.comm = comm, .e = e, .c = calibration};
    *calibration = (struct calibration){.node_memory = node_memory()};
    MPI_Comm_rank(comm, &c.rank);
    MPI_Comm_size(comm, &c.size);
    c.self = grid_create(MPI_COMM_SELF, 1, 1, e->grid.block);
    choose_helpers(&c);
    qsort(e->kernel, (size_t)e->kernels, sizeof *e->kernel, by_weight);
    measure_files(&c);
    measure_messages(&c);
    measure_program(&c);
    measure_passes(&c);
    measure_messages(&c);
    measure_kernels(&c);
    calibration->flops = product_rate(e);
    grid_destroy(&c.self);
}
