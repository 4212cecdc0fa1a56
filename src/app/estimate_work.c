/* estimate_work: what there is to do in a run, part by part, on the rank with the largest share. */
#include "app/estimate.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "net/backprop.h"
#include "net/mixture.h"
#include "train/gradient_flow.h"
#include "train/optimizer.h"

#include <math.h>
#include <string.h>

/* Bytes up to which Open MPI sums by recursive doubling. */
static const double SHORT_SUM = 10000;

/* ---------------------------------------------------------------- adding up */

static void add(struct estimate *e, enum timer_part part, enum estimate_rate rate, double amount)
{
    e->amount[part][rate] += amount;
}

static double flops_of(enum estimate_kind kind, int64_t m, int64_t n, int64_t k)
{
    const double a = (double)m, b = (double)n, small = a < b ? a : b, large = a < b ? b : a;
    switch (kind) {
    case KERNEL_PRODUCT:
        return 2 * a * b * (double)k;
    case KERNEL_SPECTRUM:
        return 4 * small * small * (large - small / 3);
    case KERNEL_KRYLOV: /* numbers read: the matrix, and half of the vectors of one side */
        return a * b + krylov_basis(to_int(small), to_int(k)) * (a + b) / 2;
    case KERNEL_QR:
        return 4 * small * small * (large - small / 3);
    case KERNEL_SVD:
        return 22 * small * small * large;
    }
    bug("no such kernel");
}

double estimate_size(const struct estimate_kernel *k)
{
    return flops_of(k->kind, k->m, k->n, k->k);
}

/* `calls` of a kernel in a part; equal ones are one. */
static void add_kernel(struct estimate *e, enum timer_part part, struct estimate_kernel new, double calls)
{
    if (new.m <= 0 || new.n <= 0 || calls <= 0) return;
    int i = 0;
    for (; i < e->kernels; i++) {
        const struct estimate_kernel *old = &e->kernel[i];
        if (old->kind == new.kind && old->ta == new.ta && old->tb == new.tb && old->m == new.m && old->n == new.n &&
            old->k == new.k)
            break;
    }
    if (i == e->kernels) {
        e->kernel = memory_grow(e->kernel, (size_t)e->kernels, (size_t)e->kernels + 1, sizeof *e->kernel);
        e->kernel[e->kernels++] = new;
        e->kernel[i].size = estimate_size(&new);
    }
    e->kernel[i].calls[part] += calls;
}

static double share(const struct estimate *e, int64_t m, int64_t n)
{
    return (double)dmat_local_size(&e->grid, m, n);
}

/* Messages of a reduction or a broadcast among so many processes. */
static double rounds(int procs)
{
    return ceil(log2((double)procs));
}

/* A broadcast of so many bytes, or a sum for one process: each but one receives them. */
static void add_tree(struct estimate *e, enum timer_part part, int procs, double bytes, double times)
{
    add(e, part, RATE_MESSAGE, times * rounds(procs));
    add(e, part, RATE_SENT, times * bytes * (procs - 1) / procs);
}

/* A sum for all: of a short one everything goes round in every message, of a longer one parts do. */
static void add_sum(struct estimate *e, enum timer_part part, int procs, double bytes, double times)
{
    const bool is_short = bytes <= SHORT_SUM;
    add(e, part, RATE_MESSAGE, times * rounds(procs) * (is_short ? 1 : 2));
    add(e, part, RATE_SENT, times * bytes * (is_short ? rounds(procs) : 2.0 * (procs - 1) / procs));
}

static void add_product(struct estimate *e, enum timer_part part, const struct product *p, double times)
{
    const struct gemm_need need = product_need(&e->grid, p);
    add_kernel(e, part,
               (struct estimate_kernel){
                   .kind = KERNEL_PRODUCT, .ta = p->ta, .tb = p->tb, .m = need.m, .n = need.n, .k = need.k},
               need.panels * times);
    add(e, part, RATE_MESSAGE, need.messages * times);
    add(e, part, RATE_SENT, need.received * times);
    add(e, part, RATE_STREAM, need.copied * times);
}

/* ---------------------------------------------------------------- passes through the network */

/* Of a layer's outputs. */
static double rows_of(const struct estimate *e, int l)
{
    return grid_count(e->model->width[l], e->grid.block, 0, 0, e->grid.nprow);
}

/* Where a process has some of the outputs only: the largest of each sample, sums of exponentials and of targets; for
 * the accuracy the classes of outputs and of targets. */
static void add_loss_sums(struct estimate *e, enum timer_part part, int64_t columns, bool gradient, double times)
{
    const struct loss loss = loss_of(e->spec);
    const double mine = grid_count(columns, e->grid.block, 0, 0, e->grid.npcol);
    if (loss.kind == LOSS_CROSS_ENTROPY) {
        add_sum(e, part, e->grid.nprow, 8 * mine, times);
        add_sum(e, part, e->grid.nprow, 16 * mine, times);
    }
    if (!gradient && loss_classifies(&loss, e->data.classification, e->data.outputs))
        add_sum(e, part, e->grid.nprow, 12 * mine, 2 * times);
}

/* Element-wise work of the forward pass over `columns` columns. */
static void add_forward(struct estimate *e, enum timer_part part, int64_t columns, double times)
{
    for (int l = 1; l <= e->model->depth; l++) {
        const struct layer *layer = &e->model->layer[l - 1];
        const double size = times * share(e, e->model->width[l], columns);
        if (l == 1 && e->data.identity) add(e, part, RATE_STREAM, 16 * size);
        if (layer->bias) add(e, part, RATE_STREAM, 16 * size);
        if (layer->bias) add_tree(e, part, e->grid.npcol, 8 * rows_of(e, l), times);
        if (layer->activation != ACTIVATION_LINEAR) add(e, part, RATE_ACTIVATE, size);
        if (layer->skip >= 0) add(e, part, RATE_STREAM, (layer->scale != 1 ? 40 : 24) * size);
    }
}

static void add_backward(struct estimate *e, enum timer_part part, int64_t columns, double times)
{
    for (int l = 1; l <= e->model->depth; l++) {
        const struct layer *layer = &e->model->layer[l - 1];
        const double size = times * share(e, e->model->width[l], columns);
        const bool derivative = layer->activation != ACTIVATION_LINEAR || layer->scale != 1;
        if (derivative) add(e, part, RATE_STREAM, 24 * size);
        if (l == 1 && e->data.identity) add(e, part, RATE_STREAM, 16 * size);
        if (layer->bias) add(e, part, RATE_STREAM, 8 * size);
        if (layer->bias) add_tree(e, part, e->grid.npcol, 8 * rows_of(e, l), times);
        if (layer->skip > 0) add(e, part, RATE_STREAM, 24 * size);
    }
}

static void add_chunk(struct estimate *e, enum timer_part part, int64_t columns, bool gradient, double times)
{
    struct product *list = NEW(struct product, 3 * e->model->depth);
    const int count = backprop_products(e->model, columns, e->data.identity, gradient, list);
    for (int i = 0; i < count; i++) add_product(e, part, &list[i], times);
    memory_free(list);
    add_forward(e, part, columns, times);
    if (gradient) add_backward(e, part, columns, times);
    add(e, part, gradient ? RATE_LOSS : RATE_SCORE, times * share(e, e->data.outputs, columns));
    if (e->data.measurements > 0) /* all matrices of the measurements are read, with the gradient twice */
        add(e, part, RATE_STREAM,
            times * (gradient ? 16 : 8) * (double)e->data.measurements * share(e, e->data.outputs, columns));
    add_loss_sums(e, part, columns, gradient, times);
}

/* Small layers are gathered for all chunks, and their gradients summed once. Of a gathering counts who has least of the
 * layer and receives most: with few columns some have none. */
static void add_held(struct estimate *e, enum timer_part part, bool gradient, double times)
{
    const int procs = e->grid.npcol;
    for (int l = e->data.identity ? 2 : 1; l <= e->model->depth; l++) {
        const int64_t m = e->model->width[l], n = e->model->width[l - 1];
        const double bytes = 8 * (double)(m * n);
        if (!dmat_is_small(&e->grid, m, n)) continue;
        add(e, part, RATE_MESSAGE, times * (procs - 1));
        add(e, part, RATE_SENT, times * 8 * (double)(m * (n - grid_count(n, e->grid.block, procs - 1, 0, procs))));
        if (gradient) add_sum(e, part, procs, bytes, times);
        add(e, part, RATE_STREAM, times * bytes * (gradient ? 4 : 2));
    }
}

/* A pass over `samples` columns, as many at a time as there is work space for. */
static void add_pass(struct estimate *e, enum timer_part part, int64_t samples, bool gradient, double times)
{
    const int64_t whole = samples / e->chunk, rest = samples % e->chunk;
    add_held(e, part, gradient, times);
    if (whole > 0) add_chunk(e, part, e->chunk, gradient, times * (double)whole);
    if (rest > 0) add_chunk(e, part, rest, gradient, times);
}

/* ---------------------------------------------------------------- parts of the run */

/* Columns are copied; between processes, packed, sent and unpacked. */
static void add_batch(struct estimate *e, double times)
{
    const double size =
        times * (share(e, e->data.features, e->batches.columns) + share(e, e->data.outputs, e->batches.columns));
    const double others = e->grid.npcol - 1, steps_an_epoch = floor((double)e->data.train / (double)e->batches.columns);
    if (spec_bool(e->spec, "train.online")) {
        add(e, TIMER_GRADIENT, RATE_NORMAL, size);
        return;
    }
    add(e, TIMER_GRADIENT, RATE_STREAM, 16 * size * (others > 0 ? 2 : 1));
    add(e, TIMER_GRADIENT, RATE_MESSAGE, 2 * times * others);
    add(e, TIMER_GRADIENT, RATE_SENT, 8 * size * others / (others + 1));
    add(e, TIMER_GRADIENT, RATE_NORMAL, times / steps_an_epoch * (double)e->data.train);
}

/* Stages of the gradient flow: a gradient each, and each is a sum of all rates before it. */
static void count_flow(struct estimate *e)
{
    const double stages = gradient_flow_gradients(e->spec), updates = (double)e->steps;
    if (stages == 0) return;
    add_pass(e, TIMER_UPDATE, e->batches.columns, true, stages * updates);
    add(e, TIMER_UPDATE, RATE_STREAM, (stages + 1) * (40 + 4 * stages) * (double)params_size(e->model) * updates);
}

static void count_steps(struct estimate *e)
{
    const double gradients = (double)e->steps + 1, updates = (double)e->steps, weights = (double)params_size(e->model);
    if (!spec_is(e->spec, "train.batch", "full")) add_batch(e, gradients);
    add_pass(e, TIMER_GRADIENT, e->batches.columns, true, gradients);
    add(e, TIMER_GRADIENT, RATE_SUM, weights * gradients);
    add(e, TIMER_GRADIENT, RATE_STEP, gradients);
    add_sum(e, TIMER_GRADIENT, e->grid.size, 5 * 8, gradients); /* loss, norm, wishes to stop */
    add(e, TIMER_UPDATE, RATE_UPDATE, weights * updates);
    count_flow(e);
    if (probes_need_previous(e->probes, e->steps, true)) add(e, TIMER_UPDATE, RATE_STREAM, 16 * weights * updates);
}

static void count_evaluations(struct estimate *e)
{
    const double times = (double)e->evaluations;
    const struct loss loss = loss_of(e->spec);
    if (loss_classifies(&loss, e->data.classification, e->data.outputs) || !spec_is(e->spec, "train.batch", "full"))
        add_pass(e, TIMER_EVALUATE, e->data.train, false, times);
    if (e->data.test > 0) add_pass(e, TIMER_EVALUATE, e->data.test, false, times);
    add_sum(e, TIMER_EVALUATE, e->grid.size, 2 * 8, 2 * times);
}

/* Full spectra: each matrix is gathered on a rank of its own and solved there, those of different ranks at the same
 * time; the rank with the most to do counts. */
static void add_spectra(struct estimate *e, const struct probe_need *need, double times)
{
    int slowest = 0;
    double most = 0;
    for (int solver = 0; solver < e->grid.size && solver < need->count; solver++) {
        double sum = 0;
        for (int i = solver; i < need->count; i += e->grid.size)
            if (need->solve[i].rank == 0) sum += flops_of(KERNEL_SPECTRUM, need->solve[i].m, need->solve[i].n, 0);
        if (sum > most) slowest = solver;
        if (sum > most) most = sum;
    }
    for (int i = 0; i < need->count; i++) {
        const struct probe_solve *s = &need->solve[i];
        if (s->rank > 0) continue;
        const double size = (double)(s->m * s->n), others = e->grid.size - 1;
        const bool gathers = factor_gathers(s->m, s->n);
        if (!gathers || i % e->grid.size == slowest)
            add_kernel(e, TIMER_PROBES, (struct estimate_kernel){.kind = KERNEL_SPECTRUM, .m = s->m, .n = s->n},
                       gathers ? times : times / e->grid.size);
        add(e, TIMER_PROBES, RATE_STREAM, times * 32 * size);
        add(e, TIMER_PROBES, RATE_MESSAGE, times * others);
        add(e, TIMER_PROBES, RATE_SENT, times * 8 * size * others / e->grid.size);
    }
}

/* A product gathers a vector down the column and adds up along the row; a step of the iteration makes one product with
 * the matrix and one with its transpose, and sums up twice over all ranks to orthogonalise each. */
static void add_krylov(struct estimate *e, enum timer_part part, const struct probe_solve *s, double times)
{
    const struct grid *grid = &e->grid;
    const double products = times * estimate_products(s);
    const int64_t rows = s->elements / s->n; /* of one matrix with as many elements as all factors */
    add_kernel(e, part,
               (struct estimate_kernel){.kind = KERNEL_KRYLOV,
                                        .m = grid_count(rows, grid->block, 0, 0, grid->nprow),
                                        .n = grid_count(s->n, grid->block, 0, 0, grid->npcol),
                                        .k = s->rank},
               products);
    add(e, part, RATE_MESSAGE,
        products * (s->factors * (rounds(grid->nprow) + rounds(grid->npcol)) + 3 * rounds(grid->size)));
    if (s->kept > 1) /* angles to the reference, alignment with the next layer: passes over the vectors */
        add(e, part, RATE_STREAM, times * 8 * 16 * s->rank * (double)(s->m + s->n) / grid->size);
}

static void count_probes(struct estimate *e)
{
    for (int i = 0; i < e->probes->count; i++) {
        const struct estimate_probe *p = &e->probe[i];
        const double times = (double)p->times;
        add_spectra(e, &p->need, times);
        if (p->need.passes > 0) add_pass(e, TIMER_PROBES, e->data.train, false, times * p->need.passes);
        for (int k = 0; k < p->need.multiplies; k++)
            add_product(e, TIMER_PROBES, &p->need.multiply[k], times * p->need.multiply_times[k]);
        for (int k = 0; k < p->need.count; k++) {
            const struct probe_solve *s = &p->need.solve[k];
            if (s->rank > 0) add_krylov(e, TIMER_PROBES, s, times);
            add(e, TIMER_PROBES, RATE_SUM, times * share(e, s->m, s->n));
            if (p->need.copies) add(e, TIMER_PROBES, RATE_STREAM, times * 40 * share(e, s->m, s->n));
        }
    }
}

/* ---------------------------------------------------------------- set-up */

/* A blocked factorisation with `part` of the work of making orthonormal columns, shared by all ranks. */
static void add_qr(struct estimate *e, int64_t m, int64_t n, double part)
{
    const int64_t tall = m < n ? n : m, narrow = m < n ? m : n;
    add_kernel(e, TIMER_SETUP, (struct estimate_kernel){.kind = KERNEL_QR, .m = tall, .n = narrow},
               part / e->grid.size);
    add(e, TIMER_SETUP, RATE_MESSAGE, part * 4 * (double)narrow * rounds(e->grid.nprow));
    add(e, TIMER_SETUP, RATE_SENT, part * 8 * share(e, tall, narrow) * rounds(e->grid.npcol));
}

/* A thin SVD: a wide matrix is first reduced to a square one. */
static void add_svd(struct estimate *e, int64_t m, int64_t n)
{
    const int64_t inner = n > m ? m : n;
    if (n > m) add_qr(e, n, m, 1);
    if (n > m) add_product(e, TIMER_SETUP, &(struct product){'N', 'N', m, n, m, false}, 1);
    add_kernel(e, TIMER_SETUP, (struct estimate_kernel){.kind = KERNEL_SVD, .m = m, .n = inner},
               factor_gathers(m, inner) ? 1 : 1.0 / e->grid.size);
}

static void count_whitening(struct estimate *e)
{
    const int64_t d = e->loaded.features, N = e->loaded.train, k = d < N ? d : N;
    const struct product products[] = {
        {'N', 'N', d, N, k, false}, {'N', 'T', d, d, k, false}, {'N', 'N', d, e->loaded.test, d, false}};
    add_svd(e, d, N);
    for (int i = 0; i < (e->loaded.test > 0 ? 3 : 1); i++) add_product(e, TIMER_SETUP, &products[i], 1);
}

/* A target of low rank: singular triplets of a random matrix, the leading ones or all, or factors of random columns;
 * and its measurements. */
static void count_target(struct estimate *e)
{
    const struct data_sizes *d = &e->loaded;
    const int rank = to_int(spec_int(e->spec, "data.rank"));
    const struct probe_solve solve = {.m = d->outputs,
                                      .n = d->features,
                                      .elements = d->outputs * d->features,
                                      .factors = 1,
                                      .rank = rank,
                                      .tolerance = MATRIX_PROBLEM_TOLERANCE,
                                      .bulk = 1};
    const double local = share(e, d->outputs, d->features);
    const bool leading = spec_is(e->spec, "data.spectrum", "leading"),
               all = spec_is(e->spec, "data.spectrum", "spread");
    if (leading) add_krylov(e, TIMER_SETUP, &solve, 1);
    if (all) add_svd(e, d->outputs, d->features);
    if (spec_is(e->spec, "data.spectrum", "given")) {
        add_qr(e, d->outputs, rank, 1);
        add_qr(e, d->features, rank, 1);
    }
    if (!estimate_in_factors(e)) add(e, TIMER_SETUP, RATE_STREAM, 24 * rank * local);
    add(e, TIMER_SETUP, RATE_NORMAL, local * ((leading || all) + (double)d->measurements));
}

static void count_data(struct estimate *e)
{
    const struct data_sizes *d = &e->loaded;
    const struct spec *spec = e->spec;
    const double samples = (double)(d->train + d->test), length = (double)(d->features + d->outputs);
    const double local =
        (share(e, d->features, d->train) + share(e, d->outputs, d->train)) * samples / (double)d->train;
    const bool hdf5 = spec_is(spec, "data.kind", "hdf5"), classes = spec_is(spec, "data.kind", "orthogonal_classes");
    if (spec_applies(spec, "data.rank")) {
        count_target(e);
    } else if (spec_is(spec, "data.kind", "gaussian") || mixture_is(spec) || classes) {
        add(e, TIMER_SETUP, RATE_NORMAL, local);
        if (classes) add_qr(e, d->features, d->train, 1);
    } else { /* the root reads and hands on; HDF5 is read by all */
        add(e, TIMER_SETUP, hdf5 ? RATE_DISK : RATE_PIXEL, samples * (hdf5 ? 8 * length : (double)d->features));
        add(e, TIMER_SETUP, RATE_SENT, e->grid.size > 1 ? 8 * samples * length : 0);
        add(e, TIMER_SETUP, RATE_STREAM, 16 * local);
    }
    if (spec_applies(spec, "data.centre") && spec_bool(spec, "data.centre"))
        add(e, TIMER_SETUP, RATE_STREAM, 32 * local);
    if (spec_applies(spec, "data.whiten") && spec_bool(spec, "data.whiten")) count_whitening(e);
    if (e->batches.compressed) add_qr(e, d->train, d->features, 0.5 + (double)d->outputs / (double)d->features);
}

/* Each layer's start is applied to the columns of a basis twice, back and forth; the basis is made orthonormal. */
static void count_subspaces(struct estimate *e)
{
    const int64_t d = e->loaded.features, q = e->data.features;
    const double applied = 2 * e->model->depth, local = share(e, d, q);
    const bool householder = spec_is(e->spec, "model.init.kind", "householder");
    const double reflections = householder ? applied * (double)spec_int(e->spec, "model.init.reflections") : 0;
    add(e, TIMER_SETUP, RATE_NORMAL, reflections * share(e, d, 1));
    add(e, TIMER_SETUP, RATE_STREAM, reflections * 48 * local);
    add(e, TIMER_SETUP, RATE_MESSAGE, reflections * 2 * rounds(e->grid.nprow));
    if (spec_is(e->spec, "model.init.kind", "orthogonal")) {
        add(e, TIMER_SETUP, RATE_NORMAL, applied * share(e, d, d));
        add_qr(e, d, d, applied);
        add_product(e, TIMER_SETUP, &(struct product){'N', 'N', d, q, d, false}, applied);
    }
    add_qr(e, d, q, 6);
    add(e, TIMER_SETUP, RATE_TOUCH, (double)e->peak);
}

static void count_start(struct estimate *e)
{
    for (int l = 1; l <= e->model->depth; l++) {
        const int64_t m = e->model->width[l], n = e->model->width[l - 1];
        const bool file = spec_is(e->spec, "model.init.kind", "file");
        add(e, TIMER_SETUP, file ? RATE_DISK : RATE_NORMAL, file ? 8 * (double)(m * n) : share(e, m, n));
        if (spec_is(e->spec, "model.init.kind", "orthogonal")) add_qr(e, m, n, 1);
    }
    add(e, TIMER_SETUP, RATE_TOUCH, (double)e->peak);
}

/* ---------------------------------------------------------------- files */

static void add_files(struct estimate *e, double files, double bytes, double arrays)
{
    add(e, TIMER_OUTPUT, RATE_FILE, files);
    add(e, TIMER_OUTPUT, RATE_DATASET, files * arrays);
    add(e, TIMER_OUTPUT, RATE_DISK, files * bytes);
}

/* A checkpoint closes a part of the metrics, too. */
static void count_output(struct estimate *e)
{
    const struct estimate_disk *d = &e->disk;
    add_files(e, (double)d->snapshots, (double)d->snapshot, (double)d->snapshot_arrays);
    add_files(e, (double)d->checkpoints, (double)d->checkpoint, (double)d->checkpoint_arrays);
    add_files(e, (double)d->checkpoints, 0, (double)d->arrays);
    add_files(e, 1, 2 * (double)d->metrics, (double)d->arrays);
}

/* Of the first step, from what was counted for all. */
static void count_one_step(struct estimate *e)
{
    const double *gradient = e->amount[TIMER_GRADIENT], *update = e->amount[TIMER_UPDATE];
    const double gradients = (double)e->steps + 1, updates = e->steps > 0 ? (double)e->steps : 1;
    const double update_bytes = 24 + 16 * optimizer_arrays(e->spec);
    struct product *list = NEW(struct product, 3 * e->model->depth);
    const int count = backprop_products(e->model, e->batches.columns, e->data.identity, true, list);
    for (int i = 0; i < count; i++) e->step.flops += flops_of(KERNEL_PRODUCT, list[i].m, list[i].n, list[i].k);
    memory_free(list);
    for (int i = 0; i < e->kernels; i++)
        e->step.mine += e->kernel[i].size * e->kernel[i].calls[TIMER_GRADIENT] / gradients;
    e->step.traffic =
        (gradient[RATE_STREAM] + 8 * gradient[RATE_SUM] + 24 * gradient[RATE_ACTIVATE] + 24 * gradient[RATE_LOSS]) /
            gradients +
        (update[RATE_STREAM] + update_bytes * update[RATE_UPDATE]) / updates;
    e->step.messages = gradient[RATE_MESSAGE] / gradients;
    e->step.received = gradient[RATE_SENT] / gradients;
    for (int i = 0; i < RATES; i++) e->step.amount[i] = gradient[i] / gradients + update[i] / updates;
}

void estimate_count_steps(struct estimate *e)
{
    count_steps(e);
    count_one_step(e);
}

void estimate_count(struct estimate *e)
{
    count_data(e);
    if (e->reduced)
        count_subspaces(e);
    else
        count_start(e);
    count_steps(e);
    count_evaluations(e);
    count_probes(e);
    count_output(e);
    count_one_step(e);
}
