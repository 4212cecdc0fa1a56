/* estimate: the run on paper: its sizes, its memory, its files. What there is to do: estimate_work.c. */
#include "app/estimate.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "net/backprop.h"
#include "net/layout.h"
#include "net/rop.h"
#include "train/gradient_flow.h"
#include "train/jt.h"
#include "train/optimizer.h"
#include "train/reduction.h"

#include <limits.h>
#include <math.h>

/* Bytes of metrics.h5 beside its series: the texts of the provenance, the descriptions. */
static const int64_t METRICS_TEXT = 24576;

/* Files are read again in pieces of this size when they are sealed. */
static const int64_t SEAL_PIECE = (int64_t)1 << 22;

int64_t estimate_times(int64_t steps, int64_t every)
{
    return steps / every + 1 + (steps % every != 0);
}

bool estimate_in_factors(const struct estimate *e)
{
    const bool spectrum = spec_applies(e->spec, "data.spectrum");
    return e->reduced && spectrum &&
           (spec_is(e->spec, "data.spectrum", "given") || spec_is(e->spec, "data.spectrum", "diagonal"));
}

double estimate_products(const struct probe_solve *solve)
{
    const struct krylov_need need =
        krylov_need(solve->m < solve->n ? solve->m : solve->n, solve->rank, solve->tolerance);
    return need.products + solve->bulk * (need.in_a_bulk - need.products);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* ---------------------------------------------------------------- sizes */

/* The rule of observe.c. */
static int64_t evaluate_every(const struct estimate *e)
{
    if (!spec_is(e->spec, "train.evaluate_every", "auto")) return spec_int(e->spec, "train.evaluate_every");
    return e->steps > 50 ? e->steps / 50 : 1;
}

/* One measurement: flops of spectra after the usual count for bidiagonalisation, 8/3 n³ for square matrices. */
static void measure_probe(struct estimate_probe *p, const struct probe *probe, const struct estimate *e)
{
    p->times = estimate_times(e->steps, probe->every);
    if (probe->kind->need) probe->kind->need(probe, e->model, &p->need);
    for (int i = 0; i < p->need.multiplies; i++) {
        const struct product *product = &p->need.multiply[i];
        p->flops += 2 * p->need.multiply_times[i] * (double)product->m * (double)product->n * (double)product->k;
    }
    for (int i = 0; i < p->need.count; i++) {
        const struct probe_solve *solve = &p->need.solve[i];
        const int64_t least = solve->m < solve->n ? solve->m : solve->n;
        const double small = (double)least, large = (double)(solve->m + solve->n - least);
        if (solve->rank == 0) {
            p->flops += 4 * small * small * (large - small / 3);
            continue;
        }
        const struct krylov_need need = krylov_need(least, solve->rank, solve->tolerance);
        const double products = estimate_products(solve);
        p->products += products;
        p->least_products += need.products;
        p->most_products += solve->bulk > 0 ? need.in_a_bulk : need.products;
        p->flops += 2 * products * (double)solve->elements;
    }
}

static void measure_probes(struct estimate *e)
{
    e->probe = NEW(struct estimate_probe, e->probes->count);
    for (int i = 0; i < e->probes->count; i++) measure_probe(&e->probe[i], &e->probes->probe[i], e);
}

/* ---------------------------------------------------------------- memory */

/* At some moment so much is there, of which so much only then. */
static void at_moment(struct estimate *e, const char *moment, int64_t there, int64_t temporary)
{
    if (there + temporary <= e->peak) return;
    e->peak = there + temporary;
    e->temporary = temporary;
    e->moment = moment;
}

static int64_t local_bytes(const struct estimate *e, int64_t m, int64_t n)
{
    return 8 * dmat_local_size(&e->grid, m, n);
}

/* The bases of the subspaces of a compressed run. */
static int64_t bases_bytes(const struct estimate *e)
{
    return e->reduced ? (e->model->depth + 1) * local_bytes(e, e->loaded.features, e->data.features) : 0;
}

/* While the weights get their first values; in a compressed run, while the subspaces are found. */
static int64_t start_bytes(const struct estimate *e)
{
    int64_t most = 0;
    const int64_t d = e->loaded.features;
    const bool orthogonal = spec_is(e->spec, "model.init.kind", "orthogonal");
    const bool file = spec_is(e->spec, "model.init.kind", "file");
    const bool balanced =
        spec_is(e->spec, "model.init.kind", "balanced") || spec_is(e->spec, "model.init.kind", "relaxed_balanced");
    if (e->reduced)
        return 5 * local_bytes(e, e->data.features, d) + /* wide matrices of few rows, on one process row */
               (orthogonal ? local_bytes(e, d, d) + factor_orthonormal_bytes(&e->grid, d, d) : 0);
    for (int l = 1; l <= e->model->depth; l++) {
        const int64_t m = e->model->width[l], n = e->model->width[l - 1];
        if (balanced) most = larger(most, local_bytes(e, n, m));
        if (orthogonal) most = larger(most, factor_orthonormal_bytes(&e->grid, m, n));
        if (file) most = larger(most, local_bytes(e, m, n) + dmat_slab_bytes(&e->grid, m, n));
    }
    return most;
}

/* The buffers grow to what the largest product wants, and stay. */
static int64_t panel_bytes(const struct estimate *e)
{
    struct product *list = NEW(struct product, 3 * e->model->depth);
    int64_t most[GRID_WORK_SLOTS] = {0}, sum = 0;
    const int count = backprop_products(e->model, e->chunk, e->data.identity, true, list);
    for (int i = 0; i < count; i++) {
        const struct gemm_need need = product_need(&e->grid, &list[i]);
        for (int slot = 0; slot < GRID_WORK_SLOTS; slot++) most[slot] = larger(most[slot], need.work[slot]);
    }
    for (int slot = 0; slot < GRID_WORK_SLOTS; slot++) sum += most[slot];
    memory_free(list);
    return e->grid.size > 1 ? 8 * sum : 0;
}

/* Entries of a singular vector on a rank, left and right ones together. */
static int64_t vector_length(const struct grid *grid, int64_t m, int64_t n)
{
    return (m + grid->size - 1) / grid->size + (n + grid->size - 1) / grid->size;
}

/* Arrays of the parameters' size that a probe keeps after so many measurements. */
static double kept_arrays(const struct probe_need *need, int64_t times)
{
    if (times < 1) return 0;
    return need->kept + fmax(0, fmin(need->more * (double)(times - 1), need->most - need->kept));
}

static int64_t kept_bytes(const struct estimate *e, const struct probe_need *need)
{
    int64_t bytes = 0;
    for (int i = 0; i < need->count; i++) {
        const struct probe_solve *s = &need->solve[i];
        bytes += 8 * vector_length(&e->grid, s->m, s->n) * ((int64_t)s->kept * s->rank + (s->kept > 0));
    }
    return bytes;
}

/* While a probe measures. Full spectra hold all their matrices at once. */
static int64_t solve_bytes(const struct estimate *e, const struct probe_need *need)
{
    int64_t *m = NEW(int64_t, 2 * need->count), *n = m + need->count, copies = 0, krylov = 0;
    int full = 0;
    for (int i = 0; i < need->count; i++) {
        const struct probe_solve *s = &need->solve[i];
        const int64_t least = s->m < s->n ? s->m : s->n, mine = vector_length(&e->grid, s->m, s->n);
        if (need->copies) copies += local_bytes(e, s->m, s->n);
        m[full] = s->m;
        n[full] = s->n;
        full += s->rank == 0;
        if (s->rank > 0)
            krylov = larger(krylov, krylov_bytes(least, s->rank, to_int(mine), 0) + 8 * mine * (int64_t)s->rank);
    }
    const int64_t spectra = factor_singular_values_bytes(&e->grid, full, m, n);
    memory_free(m);
    return copies + larger(spectra, krylov);
}

/* What products with a curvature matrix keep of the samples. */
static int64_t products_bytes(const struct estimate *e, const struct probe_need *need)
{
    const int64_t microbatch = spec_is(e->spec, "train.microbatch", "all") ? 0 : spec_int(e->spec, "train.microbatch");
    const int64_t samples = need->products == NEED_BATCH  ? e->batches.columns
                            : need->products == NEED_TEST ? e->data.test
                                                          : e->data.train;
    if (need->products == NEED_NO_PRODUCTS) return 0;
    return rop_bytes(e->model, backprop_columns(&e->grid, samples, microbatch));
}

/* Arrays of the parameters' size. */
static int64_t arrays_bytes(const struct estimate *e, double count)
{
    return (int64_t)(count * 8 * (double)params_size(e->model));
}

/* Series on the root: room is doubled when it is full, and the old one is there while it is copied. */
static int64_t series_bytes(int64_t rows, int64_t bytes)
{
    int64_t room = 64;
    while (room < rows) room *= 2;
    return room * bytes + (rows > 64 ? room / 2 * bytes : 0);
}

static void count_memory(struct estimate *e)
{
    const int64_t weights = 8 * params_size(e->model);
    const int arrays =
        2 + optimizer_arrays(e->spec) + gradient_flow_arrays(e->spec) + probes_need_previous(e->probes, e->steps, true);
    const bool whitens = spec_applies(e->spec, "data.whiten") && spec_bool(e->spec, "data.whiten");
    int64_t *memory = e->memory;
    memory[MEMORY_DATA] = data_set_bytes(&e->grid, &e->data, e->data.train, true) + bases_bytes(e);
    if (e->data.test > 0) memory[MEMORY_DATA] += data_set_bytes(&e->grid, &e->data, e->data.test, false);
    if (!estimate_in_factors(e)) {
        const int64_t loaded = e->reduced ? data_set_bytes(&e->grid, &e->loaded, e->loaded.train, true) : 0;
        at_moment(e, whitens ? "whitening the data" : "reading the data", loaded + memory[MEMORY_DATA],
                  data_bytes(&e->grid, e->spec, &e->loaded));
    }
    at_moment(e, e->reduced ? "finding the subspaces" : "starting the weights", memory[MEMORY_DATA] + weights,
              start_bytes(e));
    memory[MEMORY_DATA] += e->batches.bytes;
    at_moment(e, "compressing the data", memory[MEMORY_DATA] + weights, e->batches.extra);
    memory[MEMORY_WEIGHTS] = arrays * weights;
    memory[MEMORY_ACTIVATIONS] = backprop_bytes(e->model, e->chunk) + backprop_held_bytes(e->model, e->data.identity);
    memory[MEMORY_PANELS] = panel_bytes(e);
    memory[MEMORY_PROBES] = series_bytes(e->steps + 1, 48) + series_bytes(e->evaluations, 48);
    int64_t all = 0;
    for (int i = 0; i < e->probes->count; i++)
        memory[MEMORY_PROBES] += kept_bytes(e, &e->probe[i].need) +
                                 arrays_bytes(e, kept_arrays(&e->probe[i].need, e->probe[i].times)) +
                                 (e->probe[i].need.stays ? products_bytes(e, &e->probe[i].need) : 0) +
                                 series_bytes(e->probe[i].times, record_row_bytes(e->probes->probe[i].group));
    for (int i = 0; i < MEMORIES; i++) all += memory[i];
    at_moment(e, "a step", all, 0);
    for (int i = 0; i < e->probes->count; i++)
        at_moment(e, e->probes->probe[i].name, all,
                  solve_bytes(e, &e->probe[i].need) + arrays_bytes(e, e->probe[i].need.work) +
                      (e->probe[i].need.stays ? 0 : products_bytes(e, &e->probe[i].need)));
    at_moment(e, "writing", all, SEAL_PIECE);
    for (int l = 1; e->disk.snapshots + e->disk.checkpoints > 0 && l <= e->model->depth; l++)
        at_moment(e, "writing", all, dmat_slab_bytes(&e->grid, e->model->width[l], e->model->width[l - 1]));
}

/* ScaLAPACK and MPI count a rank's part in 32 bits. */
static void check_sizes(struct estimate *e, struct problems *problems)
{
    int64_t most = dmat_local_size(&e->grid, e->data.features, e->data.identity ? 0 : e->data.train);
    for (int l = 1; l <= e->model->depth; l++) {
        most = larger(most, dmat_local_size(&e->grid, e->model->width[l], e->chunk));
        most = larger(most, dmat_local_size(&e->grid, e->model->width[l], e->model->width[l - 1]));
    }
    if (most > INT_MAX)
        problems_add(
            problems, EXIT_INPUT,
            "one rank of %d would hold a matrix of %lld numbers, more than ScaLAPACK and MPI can count (2^31 − "
            "1): take more ranks, or bound the activations by train.microbatch",
            e->grid.size, (long long)most);
}

/* ---------------------------------------------------------------- files */

static int64_t vectors_bytes(const struct probe_need *need, int sets)
{
    int64_t bytes = 0;
    for (int i = 0; i < need->count; i++)
        bytes += 8 * need->solve[i].rank * (need->solve[i].m + need->solve[i].n) *
                 (need->solve[i].kept < sets ? need->solve[i].kept : sets);
    return bytes;
}

static void count_files(struct estimate *e)
{
    const struct spec *spec = e->spec;
    struct estimate_disk *d = &e->disk;
    ensure(e->model);
    const int arrays = 1 + optimizer_arrays(spec) + probes_need_previous(e->probes, e->steps, true);
    const int64_t matrices = e->model->depth * (spec_bool(spec, "model.bias") ? 2 : 1);
    d->metrics = METRICS_TEXT + 48 * (e->steps + 1) + 48 * e->evaluations;
    d->arrays = 16;
    if (spec_is(spec, "snapshot.every", "end")) d->snapshots = 1;
    if (spec_given(spec, "snapshot.every") && !spec_is(spec, "snapshot.every", "end") &&
        !spec_is(spec, "snapshot.every", "never"))
        d->snapshots = estimate_times(e->steps, spec_int(spec, "snapshot.every"));
    if (spec_bool(spec, "snapshot.weights")) d->snapshot += 8 * e->parameters, d->snapshot_arrays += matrices;
    d->checkpoint = 8 * arrays * e->parameters;
    d->checkpoint_arrays = arrays * matrices;
    if (e->reduced) {
        const int64_t bases = 8 * (e->model->depth + 1) * e->loaded.features * e->data.features;
        d->checkpoint += bases;
        d->checkpoint_arrays += e->model->depth + 1;
        d->snapshot += bases;
        d->snapshot_arrays += e->model->depth + 1;
        d->metrics += 40 * e->evaluations; /* its group */
    }
    for (int i = 0; i < e->probes->count; i++) {
        const struct estimate_probe *p = &e->probe[i];
        const int kept = p->need.count && p->need.solve[0].kept;
        if (spec_bool(spec, "snapshot.vectors")) d->snapshot += vectors_bytes(&p->need, 1);
        if (spec_bool(spec, "snapshot.vectors")) d->snapshot_arrays += kept ? 4 * p->need.count : 0;
        const int64_t before = e->steps > 0 ? estimate_times(e->steps - 1, e->probes->probe[i].every) : 0;
        d->checkpoint += vectors_bytes(&p->need, 2); /* written before a step is measured */
        d->checkpoint += (int64_t)(8 * kept_arrays(&p->need, before) * (double)e->parameters);
        d->checkpoint_arrays += 2 * kept * p->need.count;
        d->metrics += p->times * record_row_bytes(e->probes->probe[i].group);
        d->arrays += 12;
    }
    if (!spec_is(spec, "checkpoint.every", "never") && e->steps > 0)
        d->checkpoints = (e->steps - 1) / spec_int(spec, "checkpoint.every");
    if (e->steps > 0 && spec_bool(spec, "checkpoint.end")) d->checkpoints++;
    d->kept = d->checkpoints < spec_int(spec, "checkpoint.keep") ? d->checkpoints : spec_int(spec, "checkpoint.keep");
}

/* ---------------------------------------------------------------- life */

/* A grid without communicators of its own: for arithmetic, and to agree on problems. */
static bool draw_grid(struct estimate *e, MPI_Comm comm, int ranks, struct problems *problems)
{
    e->grid.comm = comm;
    e->grid.size = ranks;
    struct layout layout;
    const bool possible = layout_choose(e->spec, ranks, &layout, problems);
    e->grid.nprow = layout.nprow;
    e->grid.npcol = layout.npcol;
    e->grid.block = layout.block;
    return possible;
}

struct estimate *estimate_create(MPI_Comm comm, const struct spec *spec, int ranks, struct problems *problems)
{
    struct estimate *e = NEW(struct estimate, 1);
    e->spec = spec;
    e->steps = spec_int(spec, "train.steps");
    e->reduced = reduction_wanted(spec);
    const bool drawn = draw_grid(e, comm, ranks, problems);
    const bool measured = data_measure(comm, spec, &e->loaded, problems);
    e->data = e->loaded;
    if (measured && drawn)
        e->model = e->reduced ? reduction_outline(&e->grid, spec, &e->data, problems)
                              : model_outline(&e->grid, spec, e->data.features, e->data.outputs, problems);
    if (e->model) {
        e->batches = batches_need(spec, e->model, &e->data, problems);
        gradient_flow_check(spec, problems);
        jt_check(spec, e->model, problems);
        e->record = record_create(true);
        e->probes = probes_create(&(struct setting){.spec = spec, .model = e->model}, e->record, problems);
    }
    if (!problems_none(problems, comm)) {
        estimate_destroy(&e);
        return NULL;
    }
    const int64_t microbatch = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    e->chunk = backprop_columns(&e->grid, e->batches.columns, microbatch);
    e->parameters = model_parameters(e->model);
    e->evaluations = estimate_times(e->steps, evaluate_every(e));
    measure_probes(e);
    count_files(e);
    count_memory(e);
    check_sizes(e, problems);
    estimate_count(e);
    if (problems->count) estimate_destroy(&e);
    return e;
}

void estimate_destroy(struct estimate **estimate)
{
    struct estimate *e = *estimate;
    if (!e) return;
    for (int i = 0; e->probe && i < e->probes->count; i++) {
        memory_free(e->probe[i].need.solve);
        memory_free(e->probe[i].need.multiply);
        memory_free(e->probe[i].need.multiply_times);
    }
    memory_free(e->probe);
    probes_destroy(&e->probes);
    record_destroy(&e->record);
    model_destroy(&e->model);
    memory_free(e->kernel);
    memory_free(e);
    *estimate = NULL;
}

double estimate_seconds(const struct estimate *e, const struct estimate_rates *rates, enum timer_part part)
{
    double sum = 0;
    for (int i = 0; i < RATES; i++) sum += e->amount[part][i] * rates->seconds[i];
    for (int i = 0; i < e->kernels; i++) sum += e->kernel[i].calls[part] * e->kernel[i].seconds;
    return sum;
}
