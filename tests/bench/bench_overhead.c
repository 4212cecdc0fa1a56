/* bench_overhead WIDTH: a training step on one rank (GELU, depth 4, width = batch) beside the same arithmetic by BLAS
 * and loops over plain arrays, alternating: 11 products, the activation with its slope by the program's own vector
 * function, loss, slopes, norm, update. Prints one JSON object. */
#include "dist/krylov.h"
#include "net/activation.h"
#include "net/layout.h"

#include "bench.h"
#include "training.h"

#include <string.h>

enum { DEPTH = 4, REPEATS = 15 };

static const double AT_LEAST = 0.1; /* seconds of one measurement */

void dgemm_(const char *transa, const char *transb, const int *m, const int *n, const int *k, const double *alpha,
            const double *a, const int *lda, const double *b, const int *ldb, const double *beta, double *c,
            const int *ldc);

/* n × n arrays: weights, their gradients, activations (a[0] is the input), slopes, targets. */
struct plain {
    int n, times;
    double *W[DEPTH + 1], *G[DEPTH + 1], *a[DEPTH + 1], *d[DEPTH + 1], *Y; /* owned, but a[0] and Y */
    double loss, norm;
};

static void multiply(char ta, char tb, int n, const double *A, const double *B, double *C)
{
    const double one = 1, zero = 0;
    dgemm_(&ta, &tb, &n, &n, &n, &one, A, &n, B, &n, &zero, C, &n);
}

static void plain_forward(struct plain *p)
{
    const int64_t size = (int64_t)p->n * p->n;
    for (int l = 1; l <= DEPTH; l++) {
        multiply('N', 'N', p->n, p->W[l], p->a[l - 1], l < DEPTH ? p->d[l] : p->a[l]);
        if (l < DEPTH) activation_apply(ACTIVATION_GELU, size, p->d[l], p->a[l]);
    }
}

/* As the program's mean: Σ e² / 2 over all numbers. */
static void plain_loss(struct plain *p)
{
    const int64_t size = (int64_t)p->n * p->n;
    const double scale = 1 / (double)size;
    double sum = 0, *F = p->a[DEPTH];
    for (int64_t i = 0; i < size; i++) {
        const double error = F[i] - p->Y[i];
        sum += error * error;
        F[i] = scale * error;
    }
    p->loss = 0.5 * scale * sum;
}

static void plain_backward(struct plain *p)
{
    const int64_t size = (int64_t)p->n * p->n;
    for (int l = DEPTH; l >= 1; l--) {
        double *D = l < DEPTH ? p->d[l] : p->a[l];
        for (int64_t i = 0; l < DEPTH && i < size; i++) D[i] *= p->a[l][i];
        multiply('N', 'T', p->n, D, p->a[l - 1], p->G[l]);
        if (l > 1) multiply('T', 'N', p->n, p->W[l], D, p->a[l - 1]);
    }
}

static void plain_step(void *context)
{
    struct plain *p = context;
    const int64_t size = (int64_t)p->n * p->n;
    for (int t = 0; t < p->times; t++) {
        plain_forward(p);
        plain_loss(p);
        plain_backward(p);
        p->norm = 0;
        for (int l = 1; l <= DEPTH; l++)
            for (int64_t i = 0; i < size; i++) p->norm += p->G[l][i] * p->G[l][i];
        for (int l = 1; l <= DEPTH; l++)
            for (int64_t i = 0; i < size; i++) p->W[l][i] -= 1e-6 * p->G[l][i];
    }
}

/* The same data and weights. */
static struct plain plain_create(const struct training *t, int n)
{
    struct plain p = {.n = n, .times = 1};
    const int64_t size = (int64_t)n * n;
    p.a[0] = t->data->train->X->local;
    p.Y = t->data->train->Y->local;
    for (int l = 1; l <= DEPTH; l++) {
        p.W[l] = NEW(double, size);
        p.G[l] = NEW(double, size);
        p.a[l] = NEW(double, size);
        p.d[l] = NEW(double, size);
        memcpy(p.W[l], t->model->params->W[l - 1]->local, (size_t)size * sizeof(double));
    }
    return p;
}

static void plain_destroy(struct plain *p)
{
    for (int l = 1; l <= DEPTH; l++) {
        memory_free(p->W[l]);
        memory_free(p->G[l]);
        memory_free(p->a[l]);
        memory_free(p->d[l]);
    }
}

/* The first steps of both give the same loss. */
static void measure(struct training_steps *s, int n)
{
    struct plain p = plain_create(&s->training, n);
    double plain[REPEATS], ours[REPEATS], share[REPEATS];
    training_run(s);
    plain_step(&p);
    const double loss = s->training.loss, apart = (p.loss - loss) / loss;
    ensure(apart < 1e-10 && apart > -1e-10);
    const double once = bench_time(MPI_COMM_SELF, plain_step, &p);
    p.times = s->times = once < AT_LEAST ? (int)(AT_LEAST / once) + 1 : 1;
    for (int r = 0; r < REPEATS; r++) {
        plain[r] = bench_time(MPI_COMM_SELF, plain_step, &p) / p.times;
        ours[r] = bench_time(MPI_COMM_SELF, training_run, s) / s->times;
        share[r] = ours[r] / plain[r]; /* pair by pair: the machine's own speed drifts */
    }
    printf("{\"width\": %d, \"step_seconds\": %.6g, \"plain_seconds\": %.6g, \"ratio\": %.4f}\n", n,
           bench_median(ours, REPEATS), bench_median(plain, REPEATS), bench_median(share, REPEATS));
    plain_destroy(&p);
}

static struct spec *describe(int n, struct problems *problems)
{
    char *text = memory_text("data: {kind: gaussian, features: %d, outputs: %d, train: %d}\n"
                             "model: {width: %d, depth: %d, activation: gelu}\n"
                             "loss: {kind: mse, reduction: mean}\n"
                             "train: {optimizer: gd, lr: 1e-6}\ngrid: {block: %d}\n",
                             n, n, n, n, DEPTH, n);
    struct spec *spec = spec_read(text, strlen(text), "bench", 0, NULL, problems);
    memory_free(text);
    return spec;
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    const int n = argc > 1 ? atoi(argv[1]) : 64;
    struct problems problems = {0};
    struct spec *spec = describe(n, &problems);
    struct grid *grid = spec ? layout_create(MPI_COMM_SELF, spec, &problems) : NULL;
    krylov_start(MPI_COMM_WORLD);
    struct training_steps s = {.times = 1};
    if (!grid || !training_create(&s.training, grid, spec, &problems)) return training_refuse(&problems);
    measure(&s, n);
    training_destroy(&s.training);
    krylov_end();
    grid_destroy(&grid);
    spec_destroy(&spec);
    MPI_Finalize();
    return 0;
}
