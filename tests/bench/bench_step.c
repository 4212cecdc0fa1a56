/* bench_step WIDTH: a training step (GELU, depth 4, width = batch) beside the same DGEMMs run by every rank for itself
 * at the same time, alternating; and the memory of a training run beside its count. Prints one JSON object. */
#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "dist/krylov.h"
#include "net/backprop.h"
#include "net/layout.h"
#include "train/batches.h"
#include "train/optimizer.h"

#include "bench.h"

#include <stdio.h>
#include <string.h>

enum { DEPTH = 4, REPEATS = 9 };

void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
            const int *ldc);

/* The products of one step: L forward, L − 1 backward, L weight gradients. */
static const char shapes[][3] = {"NN", "NN", "NN", "NN", "TN", "TN", "TN", "NT", "NT", "NT", "NT"};
enum { PRODUCTS = sizeof shapes / sizeof *shapes };

struct local {
    int n;
    double *A, *B, *C; /* [n × n] */
};

static void local_products(void *context)
{
    const struct local *w = context;
    const double one = 1, zero = 0;
    for (int i = 0; i < PRODUCTS; i++)
        dgemm_(&shapes[i][0], &shapes[i][1], &w->n, &w->n, &w->n, &one, w->A, &w->n, w->B, &w->n, &zero, w->C, &w->n);
}

static void warm_up(void)
{
    struct local w = {256, NEW(double, 256 * 256), NEW(double, 256 * 256), NEW(double, 256 * 256)};
    local_products(&w);
    memory_free(w.A);
    memory_free(w.B);
    memory_free(w.C);
}

struct training {
    struct model *model;
    const struct dataset *data;
    struct backprop *backprop;
    struct params *gradient;
    struct optimizer *optimizer;
    double loss;
};

static void step(void *context)
{
    struct training *t = context;
    t->loss = backprop_gradient(t->backprop, t->model, t->data, t->gradient);
    grid_sum(t->model->grid, &t->loss, 1);
    optimizer_step(t->optimizer, t->model, t->gradient, 1e-6);
}

static struct spec *describe(int width, struct problems *problems)
{
    char *text = memory_text("data: {kind: gaussian, features: %d, outputs: %d, train: %d}\n"
                             "model: {width: %d, depth: %d, activation: gelu}\n"
                             "train: {optimizer: gd, lr: 1e-6}\n",
                             width, width, width, width, DEPTH);
    struct spec *spec = spec_read(text, strlen(text), "bench", 0, NULL, problems);
    memory_free(text);
    return spec;
}

static int64_t bytes_by_count(const struct training *t)
{
    const struct grid *grid = t->model->grid;
    const int64_t data = dmat_local_size(grid, t->data->features, t->data->samples) +
                         dmat_local_size(grid, t->data->outputs, t->data->samples);
    return (2 * t->model->params->size + data) * (int64_t)sizeof(double) +
           backprop_bytes(t->model, backprop_columns(grid, t->data->samples, 0));
}

static void measure(struct training *t, int width)
{
    const struct grid *grid = t->model->grid;
    double local[REPEATS], ours[REPEATS], share[REPEATS];
    const int64_t n = (int64_t)width * width;
    step(t);
    const double peak = (double)memory_peak();
    struct local work = {width, NEW(double, n), NEW(double, n), NEW(double, n)};
    for (int64_t i = 0; i < n; i++) work.A[i] = work.B[i] = 1e-3 * (double)(i % 997);
    local_products(&work);
    for (int r = 0; r < REPEATS; r++) {
        local[r] = bench_time(grid->comm, local_products, &work);
        ours[r] = bench_time(grid->comm, step, t);
        share[r] = local[r] / (grid->size * ours[r]); /* pair by pair: the machine's own speed drifts */
    }
    const double flops = PRODUCTS * 2.0 * (double)n * width, a = bench_median(local, REPEATS),
                 b = bench_median(ours, REPEATS);
    if (grid->rank == 0)
        printf("{\"width\": %d, \"ranks\": %d, \"grid\": \"%d x %d\", \"step_seconds\": %.6g, \"gflops\": %.5g, "
               "\"local_gflops\": %.5g, \"ratio\": %.4f, \"peak\": %.0f, ",
               width, grid->size, grid->nprow, grid->npcol, b, flops / b / 1e9, grid->size * flops / a / 1e9,
               bench_median(share, REPEATS), peak);
    memory_free(work.A);
    memory_free(work.B);
    memory_free(work.C);
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    const int width = argc > 1 ? atoi(argv[1]) : 1024;
    struct problems problems = {0};
    struct spec *spec = describe(width, &problems);
    struct grid *grid = spec ? layout_create(MPI_COMM_WORLD, spec, &problems) : NULL;
    if (!grid) {
        problems_print(&problems);
        MPI_Abort(MPI_COMM_WORLD, EXIT_INPUT);
        return EXIT_INPUT;
    }
    krylov_start(MPI_COMM_WORLD);
    warm_up(); /* BLAS allocates its own buffers at its first product */
    const int64_t before = memory_peak();
    struct data *data = data_create(grid, spec, &problems);
    struct training t = {.data = data->train};
    t.model = model_create(grid, spec, width, width, &problems);
    const struct loss loss = loss_of(spec);
    t.backprop = backprop_create(t.model, &loss, width, 0);
    t.gradient = params_create(t.model);
    t.optimizer = optimizer_create(t.model, spec);
    measure(&t, width);
    if (grid->rank == 0)
        printf("\"peak_before\": %lld, \"count\": %lld}\n", (long long)before, (long long)bytes_by_count(&t));
    optimizer_destroy(&t.optimizer);
    params_destroy(&t.gradient);
    backprop_destroy(&t.backprop);
    model_destroy(&t.model);
    data_destroy(&data);
    krylov_end();
    grid_destroy(&grid);
    spec_destroy(&spec);
    MPI_Finalize();
    return 0;
}
