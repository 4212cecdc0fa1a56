/* bench_hessian WIDTH START.h5 [RATE]: the Hessian of the network of hessian.yaml with such hidden layers and these
 * weights. Seconds of a gradient, of a product, and of a cold solve for ten pairs at 1e-8 with its memory; with a rate
 * products of cold solves and of tracked ones along ten snapshots twenty steps of descent apart. Prints one JSON
 * object.
 */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/backprop.h"
#include "net/dataset.h"
#include "net/model.h"
#include "net/rop.h"

#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RANK = 10, SNAPSHOTS = 10, APART = 20, REPEATS = 9, SOLVES = 3, ENOUGH = 10 /* seconds */ };

struct work {
    struct model *model;
    struct dataset *data;
    struct backprop *backprop;
    struct rop *rop;
    struct linop *A;
    struct params *gradient, *x, *y;
    struct krylov_options options;
    struct eigenpairs *E;
    double rate; /* of the descent; 0: take times */
};

static void take_gradient(void *context)
{
    struct work *w = context;
    backprop_gradient(w->backprop, w->model, w->data, w->gradient);
}

static void multiply(void *context)
{
    struct work *w = context;
    w->A->apply(w->A, w->x->local, w->y->local);
}

/* With the sweep that fills the work space. */
static void solve(void *context)
{
    struct work *w = context;
    rop_set(w->rop, w->model, w->data);
    krylov_eigen(w->A, &w->options, w->E);
}

/* Seconds of a gradient and of a product, taken in turns, and their ratio: medians. */
static void pair_up(struct work *w, double *gradient, double *product, double *ratio)
{
    double first[REPEATS], second[REPEATS], quotient[REPEATS];
    take_gradient(w);
    multiply(w);
    for (int r = 0; r < REPEATS; r++) {
        first[r] = bench_time(w->A->comm, take_gradient, w);
        second[r] = bench_time(w->A->comm, multiply, w);
        quotient[r] = second[r] / first[r];
    }
    *gradient = bench_median(first, REPEATS);
    *product = bench_median(second, REPEATS);
    *ratio = bench_median(quotient, REPEATS);
}

/* From now on memory_peak() is the peak of what follows. */
static void forget_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

static double worst_residual(const struct eigenpairs *E)
{
    double worst = 0;
    for (int i = 0; i < E->rank; i++)
        if (!(E->residual[i] <= worst)) worst = E->residual[i];
    return worst;
}

static void descend(struct work *w)
{
    for (int step = 0; step < APART; step++) {
        take_gradient(w);
        for (int64_t i = 0; i < w->gradient->size; i++) w->model->params->local[i] -= w->rate * w->gradient->local[i];
    }
}

/* Products of all solves along the way, by pairs tracked and by pairs found anew. */
static void follow(struct work *w, double *tracked, double *cold, double *last)
{
    struct eigenpairs *old = w->E, *fresh = NULL;
    *tracked = *cold = 0;
    for (int s = 0; s < SNAPSHOTS; s++) {
        descend(w);
        w->E = old;
        solve(w);
        *tracked += (double)w->E->products;
        eigenpairs_destroy(&fresh);
        w->E = fresh = eigenpairs_create(w->A, old->rank, false);
        solve(w);
        *cold += (double)w->E->products;
    }
    *last = 0;
    for (int i = 0; i < old->rank; i++) *last = fmax(*last, fabs(old->lambda[i] - fresh->lambda[i]) / fresh->lambda[0]);
    eigenpairs_destroy(&fresh);
    w->E = old;
}

/* Solves once before, for one pair: what a first solve loads is no memory of the next. */
static void warm_up(struct work *w)
{
    w->E = eigenpairs_create(w->A, 1, false);
    solve(w);
    eigenpairs_destroy(&w->E);
}

static void measure_time(struct work *w)
{
    double gradient, product, ratio, seconds[SOLVES];
    rop_set(w->rop, w->model, w->data);
    pair_up(w, &gradient, &product, &ratio);
    warm_up(w);
    w->E = eigenpairs_create(w->A, RANK, false);
    const int64_t before = memory_resident();
    forget_peak();
    int solves = 0;
    for (double spent = 0; solves < SOLVES && spent < ENOUGH; spent += seconds[solves++]) {
        w->E->filled = false; /* a cold one again */
        seconds[solves] = bench_time(w->A->comm, solve, w);
    }
    const int64_t grown = memory_peak() - before;
    const double median = bench_median(seconds, solves);
    if (w->model->grid->rank == 0)
        printf("{\"gradient_seconds\": %.5g, \"product_seconds\": %.5g, \"ratio\": %.5g, \"solve_seconds\": %.5g, "
               "\"products\": %.0f, \"residual\": %.3g, \"lambda_1\": %.12g, \"lambda_10\": %.12g, "
               "\"solve_bytes\": %lld, \"vector_bytes\": %lld, \"basis\": %d}\n",
               gradient, product, ratio, median, (double)w->E->products, worst_residual(w->E), w->E->lambda[0],
               w->E->lambda[RANK - 1], (long long)grown, (long long)(8 * w->x->size),
               krylov_eigen_basis(w->A->n, RANK));
}

static void measure_tracking(struct work *w)
{
    double tracked, cold, apart;
    w->E = eigenpairs_create(w->A, RANK, false);
    solve(w);
    follow(w, &tracked, &cold, &apart);
    if (w->model->grid->rank == 0)
        printf("{\"tracked_products\": %.0f, \"cold_products\": %.0f, \"apart\": %.3g}\n", tracked, cold, apart);
}

static void run(struct grid *grid, const char *width, const char *start, double rate)
{
    struct problems problems = {0};
    char *text = memory_text("data: {kind: fashion_mnist, train: 2000, test: 0}\nloss: {kind: cross_entropy}\n"
                             "model: {widths: [784, %s, %s, 10], activation: tanh, init: {kind: file, file: %s}}\n",
                             width, width, start);
    struct spec *spec = spec_read(text, strlen(text), "bench", 0, NULL, &problems);
    struct data *data = spec ? data_create(grid, spec, &problems) : NULL;
    struct work w = {.options = {.tolerance = 1e-8, .max_products = 100000, .seed = 1, .stream = RANDOM_KRYLOV},
                     .rate = rate};
    w.model = data ? model_create(grid, spec, 784, 10, &problems) : NULL;
    if (!w.model) {
        problems_print(&problems);
        MPI_Abort(grid->comm, EXIT_INPUT);
        return;
    }
    const struct loss loss = loss_of(spec);
    w.data = data->train;
    w.backprop = backprop_create(w.model, &loss, 2000, 0);
    w.rop = rop_create(w.model, &loss, 2000, 0);
    w.A = rop_operator(w.rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, 0);
    w.gradient = params_create(w.model);
    w.x = params_create(w.model);
    w.y = params_create(w.model);
    memcpy(w.x->local, w.model->params->local, (size_t)w.x->size * sizeof(double));
    (rate > 0 ? measure_tracking : measure_time)(&w);
    eigenpairs_destroy(&w.E);
    params_destroy(&w.y);
    params_destroy(&w.x);
    params_destroy(&w.gradient);
    linop_destroy(&w.A);
    rop_destroy(&w.rop);
    backprop_destroy(&w.backprop);
    model_destroy(&w.model);
    data_destroy(&data);
    spec_destroy(&spec);
    memory_free(text);
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    krylov_start(MPI_COMM_WORLD);
    const bool right = argc == 3 || argc == 4;
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct grid *grid = grid_create(MPI_COMM_WORLD, 1, size, 64);
    if (right) run(grid, argv[1], argv[2], argc == 4 ? strtod(argv[3], NULL) : 0);
    grid_destroy(&grid);
    krylov_end();
    MPI_Finalize();
    return right ? 0 : EXIT_INPUT;
}
