/* bench_train INPUT [KEY=VALUE]…: a training step of an input beside the same DGEMMs, of one chunk of samples, run by
 * every rank for itself at the same time, alternating; and the memory of the training beside its count. Prints one JSON
 * object. */
#include "dist/krylov.h"
#include "net/layout.h"

#include "bench.h"
#include "training.h"

enum { REPEATS = 5 };

static const double AT_LEAST = 0.5; /* seconds of one measurement: short steps are repeated */

void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
            const int *ldc);

/* The products of one chunk on one rank. */
struct local {
    struct product *list; /* [count], owned */
    int count, times;
    double *A, *B, *C; /* owned */
    double flops;
};

static void local_products(void *context)
{
    const struct local *w = context;
    const double one = 1, zero = 0;
    for (int i = 0; i < w->count * w->times; i++) {
        const struct product *p = &w->list[i % w->count];
        const int m = (int)p->m, n = (int)p->n, k = (int)p->k, lda = p->ta == 'N' ? m : k, ldb = p->tb == 'N' ? k : n;
        dgemm_(&p->ta, &p->tb, &m, &n, &k, &one, w->A, &lda, w->B, &ldb, &zero, w->C, &m);
    }
}

static double *numbers(int64_t count)
{
    double *x = NEW(double, count);
    for (int64_t i = 0; i < count; i++) x[i] = 1e-3 * (double)(i % 997);
    return x;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static struct local local_create(const struct model *model, int64_t columns)
{
    struct local w = {.list = NEW(struct product, 3 * model->depth), .times = 1};
    int64_t a = 1, b = 1, c = 1;
    w.count = backprop_products(model, columns, false, true, w.list);
    for (int i = 0; i < w.count; i++) {
        const struct product *p = &w.list[i];
        w.flops += 2.0 * (double)p->m * (double)p->n * (double)p->k;
        a = larger(a, p->m * p->k);
        b = larger(b, p->k * p->n);
        c = larger(c, p->m * p->n);
    }
    w.A = numbers(a);
    w.B = numbers(b);
    w.C = numbers(c);
    return w;
}

static void local_destroy(struct local *w)
{
    memory_free(w->list);
    memory_free(w->A);
    memory_free(w->B);
    memory_free(w->C);
}

static int64_t bytes_by_count(const struct training *t, int64_t columns)
{
    const struct grid *grid = t->model->grid;
    const struct dataset *train = t->data->train;
    const int64_t data =
        dmat_local_size(grid, train->features, train->samples) + dmat_local_size(grid, train->outputs, train->samples);
    return (2 * t->model->params->size + data) * (int64_t)sizeof(double) + backprop_bytes(t->model, columns);
}

/* Sets how often a measurement repeats it, so that it takes long enough. */
static void calibrate(MPI_Comm comm, void (*work)(void *), void *context, int *times)
{
    work(context);
    const double seconds = bench_time(comm, work, context);
    *times = seconds < AT_LEAST ? (int)(AT_LEAST / seconds) + 1 : 1;
}

static void measure(struct training_steps *s, int64_t columns, double before)
{
    const struct training *t = &s->training;
    const struct grid *grid = t->model->grid;
    double local[REPEATS], ours[REPEATS], share[REPEATS];
    calibrate(grid->comm, training_run, s, &s->times);
    const double peak = (double)memory_peak();
    struct local w = local_create(t->model, columns);
    const double flops = w.flops * (double)batches_columns(t->batches) / (double)columns;
    calibrate(grid->comm, local_products, &w, &w.times);
    for (int r = 0; r < REPEATS; r++) {
        local[r] = grid->size * w.flops * w.times / bench_time(grid->comm, local_products, &w);
        ours[r] = bench_time(grid->comm, training_run, s) / s->times;
        share[r] = flops / ours[r] / local[r]; /* pair by pair: the machine's own speed drifts */
    }
    const double seconds = bench_median(ours, REPEATS);
    if (grid->rank == 0)
        printf("{\"ranks\": %d, \"grid\": \"%d x %d\", \"columns\": %lld, \"flops\": %.10g, \"step_seconds\": %.6g, "
               "\"gflops\": %.5g, \"local_gflops\": %.5g, \"ratio\": %.4f, \"loss\": %.6g, \"peak\": %.0f, "
               "\"peak_before\": %.0f, \"count\": %lld}\n",
               grid->size, grid->nprow, grid->npcol, (long long)columns, flops, seconds, flops / seconds / 1e9,
               bench_median(local, REPEATS) / 1e9, bench_median(share, REPEATS), t->loss, peak, before,
               (long long)bytes_by_count(t, columns));
    local_destroy(&w);
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    struct problems problems = {0};
    struct spec *spec = training_input(argc, argv, 0, NULL, &problems);
    struct grid *grid = spec ? layout_create(MPI_COMM_WORLD, spec, &problems) : NULL;
    krylov_start(MPI_COMM_WORLD);
    struct training_steps s = {.times = 1};
    const double before = (double)memory_peak();
    if (!grid || !training_create(&s.training, grid, spec, &problems)) return training_refuse(&problems);
    measure(&s, backprop_columns(grid, batches_columns(s.training.batches), training_chunk(spec)), before);
    training_destroy(&s.training);
    krylov_end();
    grid_destroy(&grid);
    spec_destroy(&spec);
    MPI_Finalize();
    return 0;
}
