/* calibrate: a short measurement of this machine: the clock, the kernels whose speed depends on their shape, the memory
 * of the program itself. */
#include "calibrate_private.h"

#include "base/launch.h"
#include "base/memory.h"
#include "base/timer.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

/* Seconds that one measurement should take, and all products together. */
static const double LONG_ENOUGH = 0.02, ENOUGH = 2.5;

/* ---------------------------------------------------------------- what to work on */

struct dmat *calibrate_matrix(const struct grid *grid, int64_t m, int64_t n)
{
    struct dmat *A = dmat_create(grid, m, n);
    for (int64_t i = 0; i < (int64_t)A->mloc * A->nloc; i++) A->local[i] = 1e-2 * (double)(i % 97 - 48);
    return A;
}

int64_t calibrate_working_set(const struct estimate *e)
{
    const int64_t most = (int64_t)1 << 27, all = e->memory[MEMORY_ACTIVATIONS] + e->memory[MEMORY_WEIGHTS];
    return all < most ? all : most;
}

static void work_destroy(struct work *w)
{
    if (!w) return;
    work_destroy(w->next);
    optimizer_destroy(&w->optimizer);
    params_destroy(&w->model.params);
    params_destroy(&w->gradient);
    dmat_destroy(&w->A);
    dmat_destroy(&w->B);
    dmat_destroy(&w->C);
    memory_free(w->values);
    memory_free(w);
}

/* ---------------------------------------------------------------- the clock */

struct helper {
    pthread_t thread;
    const struct calibrator *c;
    const struct bench *bench;
    const struct estimate_kernel *kernel;
    atomic_bool *stop;
};

static void *help(void *context)
{
    const struct helper *h = context;
    struct work *mine = h->bench->create(h->c, h->kernel);
    while (!atomic_load(h->stop)) h->bench->run(mine);
    work_destroy(mine);
    return NULL;
}

/* The first run warms up, and tells how many make a round. */
static double clock_rounds(const struct calibrator *c, const struct bench *bench, struct work *mine)
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
    double median = (round[0] + round[1] + round[2] - least - most) / mine->units;
    MPI_Allreduce(MPI_IN_PLACE, &median, 1, MPI_DOUBLE, MPI_MAX, c->comm);
    return median;
}

double calibrate_clock(struct calibrator *c, const struct bench *bench, const struct estimate_kernel *kernel)
{
    const int count = bench->by_threads ? c->helpers : 0;
    atomic_bool stop = false;
    struct helper *helper = NEW(struct helper, count);
    for (int i = 0; i < count; i++) {
        helper[i] = (struct helper){.c = c, .bench = bench, .kernel = kernel, .stop = &stop};
        ensure(pthread_create(&helper[i].thread, NULL, help, &helper[i]) == 0);
    }
    struct work *mine = bench->create(c, kernel);
    const double seconds = clock_rounds(c, bench, mine);
    atomic_store(&stop, true);
    for (int i = 0; i < count; i++) pthread_join(helper[i].thread, NULL);
    work_destroy(mine);
    memory_free(helper);
    return seconds;
}

/* ---------------------------------------------------------------- kernels */

static struct work *create_operands(const struct calibrator *c, const struct estimate_kernel *k)
{
    struct work *w = NEW(struct work, 1);
    w->A = k->ta == 'N' ? calibrate_matrix(c->self, k->m, k->k) : calibrate_matrix(c->self, k->k, k->m);
    w->B = k->tb == 'N' ? calibrate_matrix(c->self, k->k, k->n) : calibrate_matrix(c->self, k->n, k->k);
    w->C = calibrate_matrix(c->self, k->m, k->n);
    return w;
}

/* As a step does, each product takes other operands than the one before. */
static struct work *create_product(const struct calibrator *c, const struct estimate_kernel *k)
{
    const int64_t bytes = 8 * (k->m * k->k + k->k * k->n + k->m * k->n), set = calibrate_working_set(c->e);
    struct work *w = create_operands(c, k), *last = w;
    for (int64_t i = 1; i < 16 && (i + 1) * bytes <= set; i++) last = last->next = create_operands(c, k);
    w->kernel = k;
    w->units = 1;
    w->turn = w;
    return w;
}

static void run_product(struct work *w)
{
    const struct work *now = w->turn;
    dmat_gemm(w->kernel->ta, w->kernel->tb, 1, now->A, now->B, 0, now->C);
    w->turn = now->next ? now->next : w;
}

static struct work *create_matrix(const struct calibrator *c, const struct estimate_kernel *k)
{
    struct work *w = NEW(struct work, 1);
    w->kernel = k;
    w->A = dmat_create(c->self, k->m, k->n);
    random_fill_normal(w->A, 1, 1);
    w->values = NEW(double, k->m + k->n);
    w->units = 1;
    return w;
}

/* With room for a copy. */
static struct work *create_matrices(const struct calibrator *c, const struct estimate_kernel *k)
{
    struct work *w = create_matrix(c, k);
    w->B = dmat_create(c->self, k->m, k->n);
    return w;
}

static void run_spectrum(struct work *w)
{
    dmat_copy(w->B, w->A);
    factor_local_singular_values(to_int(w->A->m), to_int(w->A->n), w->B->local, w->values);
}

static void run_qr(struct work *w)
{
    dmat_copy(w->B, w->A);
    factor_orthonormal(w->B);
}

static struct work *create_svd(const struct calibrator *c, const struct estimate_kernel *k)
{
    struct work *w = create_matrix(c, k);
    const int64_t least = k->m < k->n ? k->m : k->n;
    w->B = dmat_create(c->self, k->m, least);
    w->C = dmat_create(c->self, least, k->n);
    return w;
}

static void run_svd(struct work *w)
{
    factor_svd(w->A, w->B, w->values, w->C);
}

/* One cold start that is ended when it has filled its basis. */
static void run_krylov(struct work *w)
{
    const int64_t least = w->A->m < w->A->n ? w->A->m : w->A->n;
    const int rank = to_int(w->kernel->k);
    const struct krylov_options options = {
        .tolerance = 1e-10, .max_products = 2 * krylov_basis(least, rank), .seed = 1, .stream = 1};
    struct linop *L = linop_of_matrix(w->A);
    struct triplets *T = triplets_create(L, rank);
    krylov_svd(L, &options, T);
    w->units = (double)T->products;
    triplets_destroy(&T);
    linop_destroy(&L);
}

static const struct bench kernel_bench[] = {
    [KERNEL_PRODUCT] = {create_product, run_product, true},
    [KERNEL_SPECTRUM] = {create_matrices, run_spectrum, true},
    [KERNEL_KRYLOV] = {create_matrix, run_krylov, false},
    [KERNEL_QR] = {create_matrices, run_qr, false},
    [KERNEL_SVD] = {create_svd, run_svd, false},
};

/* The same shape, no larger than can be measured in a moment. */
static struct estimate_kernel cut(const struct estimate_kernel *kernel)
{
    static const double most[] = {[KERNEL_PRODUCT] = 4e9,
                                  [KERNEL_SPECTRUM] = 3e9,
                                  [KERNEL_KRYLOV] = 1.6e7,
                                  [KERNEL_QR] = 2e9,
                                  [KERNEL_SVD] = 3e9};
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
        if (k.kind == KERNEL_KRYLOV && k.k > 2) k.k = 2; /* the matrix is most of a product: a short basis will do */
    }
    const int64_t smaller = k.m < k.n ? k.m : k.n, possible = k.k < least && smaller > 1 ? smaller - 1 : smaller;
    if (k.k > possible) k.k = possible; /* the vectors of one rank may be shorter than their number */
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
    const double began = timer_now();
    for (int i = 0; i < e->kernels; i++) {
        struct estimate_kernel *k = &e->kernel[i], small = cut(k);
        int too_long = k->kind == KERNEL_PRODUCT && timer_now() - began > ENOUGH;
        MPI_Bcast(&too_long, 1, MPI_INT, 0, c->comm);
        if (too_long)
            k->seconds = at_speed_of_others(e, i);
        else
            k->seconds = calibrate_clock(c, &kernel_bench[k->kind], &small) * k->size / estimate_size(&small);
    }
}

/* ---------------------------------------------------------------- the program itself */

static void run_once(const struct calibrator *c, struct estimate_kernel kernel)
{
    const struct bench *bench = &kernel_bench[kernel.kind];
    struct work *work = bench->create(c, &kernel);
    bench->run(work);
    work_destroy(work);
}

/* Runs a little of everything that the run will use, so that the libraries' pages and buffers are there, and looks how
 * much memory that is. */
static void measure_program(struct calibrator *c)
{
    const struct estimate *e = c->e;
    const struct estimate_kernel *widest = NULL;
    for (int i = 0; i < e->kernels; i++) {
        if (e->kernel[i].kind != KERNEL_PRODUCT)
            run_once(c, (struct estimate_kernel){.kind = e->kernel[i].kind, .m = 64, .n = 64, .k = 5});
        else if (!widest || e->kernel[i].n > widest->n)
            widest = &e->kernel[i];
    }
    if (widest) run_once(c, cut(widest));
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
    calibrate_files(&c);
    calibrate_messages(&c);
    measure_program(&c);
    calibrate_passes(&c);
    measure_kernels(&c);
    calibration->flops = product_rate(e);
    grid_destroy(&c.self);
}

void calibrate_replace(struct estimate *e, struct calibration *c, double latency, double bandwidth, double flops)
{
    if (latency > 0) c->rates.seconds[RATE_MESSAGE] = latency;
    if (bandwidth > 0) c->rates.seconds[RATE_SENT] = 1 / bandwidth;
    if (flops <= 0) return;
    c->flops = flops;
    for (int i = 0; i < e->kernels; i++)
        if (e->kernel[i].kind == KERNEL_PRODUCT) e->kernel[i].seconds = e->kernel[i].size / flops;
}
