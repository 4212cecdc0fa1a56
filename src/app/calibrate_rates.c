/* calibrate_rates: what costs the same per unit whatever its shape: passes over memory, messages, files. */
#include "calibrate_private.h"

#include "base/memory.h"
#include "base/timer.h"
#include "dist/h5.h"
#include "dist/random.h"
#include "net/activation.h"
#include "train/schedule.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Assumed, in seconds: what a step costs beside its work; a pixel of a gzipped file; a message in shared memory, where
 * there are no ranks to measure it. */
static const double BOOKKEEPING = 5e-6, UNZIPPING = 1e-8, SHARED_MEMORY = 1e-6;

/* ---------------------------------------------------------------- passes */

static struct work *create_arrays(const struct calibrator *c, const struct estimate_kernel *none)
{
    const struct estimate *e = c->e;
    const int64_t size = calibrate_working_set(e) / 16 + 1;
    struct work *w = NEW(struct work, 1);
    w->A = calibrate_matrix(c->self, size, 1);
    w->B = calibrate_matrix(c->self, size, 1);
    for (int l = 0; l < e->model->depth; l++)
        if (e->model->layer[l].activation != ACTIVATION_LINEAR) w->activation = e->model->layer[l].activation;
    w->window = dmat_local_size(&e->grid, e->model->width[1], e->chunk);
    if (w->window > size || w->window < 1) w->window = size;
    w->units = (double)size;
    return w;
}

/* Counts elements; calibrate_passes turns them into bytes. */
static void run_stream(struct work *w)
{
    dmat_axpy(w->A, 1e-9, w->B);
}

static void run_sum(struct work *w)
{
    double sum = 0;
    for (int64_t i = 0; i < w->A->m; i++) sum += w->A->local[i] * w->A->local[i];
    w->sink = sum;
}

/* z is overwritten by the slope, which is a number of ordinary size again. */
static void run_activate(struct work *w)
{
    for (int64_t i = 0; i < w->A->m; i += w->window) {
        const int64_t n = w->A->m - i < w->window ? w->A->m - i : w->window;
        activation_apply(w->activation, n, w->A->local + i, w->B->local + i);
    }
}

/* A network of one layer with as many weights as the rank has. */
static struct work *create_optimizer(const struct calibrator *c, const struct estimate_kernel *none)
{
    struct work *w = NEW(struct work, 1);
    const int64_t most = (int64_t)1 << 22, size = params_size(c->e->model);
    w->width[0] = 1;
    w->width[1] = size < most ? size : most;
    w->layer =
        (struct layer){.n_in = 1, .n_out = w->width[1], .trainable = true, .lr_multiplier = 1, .skip = -1, .scale = 1};
    w->model = (struct model){.grid = c->self, .depth = 1, .width = w->width, .layer = &w->layer};
    w->model.params = params_create(&w->model);
    w->gradient = params_create(&w->model);
    w->optimizer = optimizer_create(&w->model, c->e->spec);
    for (int64_t i = 0; i < w->gradient->size; i++) w->gradient->local[i] = 1e-3 * (double)(i % 89 + 1);
    w->units = (double)(w->gradient->size > 0 ? w->gradient->size : 1);
    return w;
}

static void run_optimizer(struct work *w)
{
    optimizer_step(w->optimizer, &w->model, w->gradient, 1e-9);
}

static struct work *create_outputs(const struct calibrator *c, const struct estimate_kernel *none)
{
    struct work *w = NEW(struct work, 1);
    const int64_t rows = c->e->data.outputs < 4096 ? c->e->data.outputs : 4096, most = (int64_t)1 << 20;
    const int64_t cols = c->e->chunk * rows < most ? c->e->chunk : most / rows;
    w->A = calibrate_matrix(c->self, rows, cols);
    w->B = calibrate_matrix(c->self, rows, cols);
    w->loss = loss_of(c->e->spec);
    if (w->loss.kind != LOSS_CROSS_ENTROPY) w->loss.kind = LOSS_MSE; /* others are squared errors, too */
    w->units = (double)(rows * cols);
    return w;
}

static void run_loss(struct work *w)
{
    w->sink = loss_derivative(&w->loss, 1, w->A, w->B);
}

static void run_score(struct work *w)
{
    double correct;
    w->sink = loss_value(&w->loss, 1, w->A, w->B, &correct);
}

static struct work *create_random(const struct calibrator *c, const struct estimate_kernel *none)
{
    struct work *w = NEW(struct work, 1);
    w->A = dmat_create(c->self, 256, 64);
    w->units = 256 * 64;
    return w;
}

static void run_random(struct work *w)
{
    random_fill_normal(w->A, 1, 1);
}

/* So large that it always is fresh memory. */
static const int64_t FRESH = (int64_t)1 << 26;

static struct work *create_touch(const struct calibrator *c, const struct estimate_kernel *none)
{
    struct work *w = NEW(struct work, 1);
    w->units = (double)FRESH;
    return w;
}

static void run_touch(struct work *w)
{
    memory_free(NEW(char, FRESH));
}

static struct work *create_step(const struct calibrator *c, const struct estimate_kernel *none)
{
    struct work *w = NEW(struct work, 1);
    w->spec = c->e->spec;
    w->units = 1;
    return w;
}

static void run_step(struct work *w)
{
    w->sink = schedule_rate(w->spec, 1) + schedule_rate(w->spec, 2);
}

void calibrate_passes(struct calibrator *c)
{
    static const struct bench stream = {create_arrays, run_stream, true};
    static const struct {
        enum estimate_rate rate;
        struct bench bench;
    } benches[] = {
        {RATE_SUM, {create_arrays, run_sum, true}},
        {RATE_ACTIVATE, {create_arrays, run_activate, true}},
        {RATE_UPDATE, {create_optimizer, run_optimizer, true}},
        {RATE_LOSS, {create_outputs, run_loss, true}},
        {RATE_SCORE, {create_outputs, run_score, true}},
        {RATE_NORMAL, {create_random, run_random, true}},
        {RATE_TOUCH, {create_touch, run_touch, true}},
        {RATE_STEP, {create_step, run_step, true}},
    };
    double *seconds = c->c->rates.seconds;
    seconds[RATE_STREAM] = calibrate_clock(c, &stream, NULL) / 24;
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
        seconds[benches[i].rate] = calibrate_clock(c, &benches[i].bench, NULL);
    seconds[RATE_STEP] += BOOKKEEPING;
    seconds[RATE_PIXEL] = UNZIPPING;
    if (!c->c->messages) seconds[RATE_SENT] = 4 * seconds[RATE_STREAM]; /* copied twice on the way */
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

void calibrate_messages(struct calibrator *c)
{
    const int small = 16, large = 1 << 20;
    double *seconds = c->c->rates.seconds;
    c->c->messages = c->size > 1;
    seconds[RATE_MESSAGE] = SHARED_MEMORY;
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
    struct dmat *A = calibrate_matrix(grid, rows, cols);
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
void calibrate_files(struct calibrator *c)
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
