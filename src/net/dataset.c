#include "net/dataset.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/h5.h"
#include "dist/krylov.h"

#include <math.h>
#include <string.h>

/* Samples that travel together from the root to all ranks. */
enum { BATCH_OF_SAMPLES = 512 };

void dataset_destroy(struct dataset **dataset)
{
    if (!*dataset) return;
    dmat_destroy(&(*dataset)->X);
    dmat_destroy(&(*dataset)->Y);
    memory_free(*dataset);
    *dataset = NULL;
}

void data_destroy(struct data **data)
{
    if (!*data) return;
    dataset_destroy(&(*data)->train);
    dataset_destroy(&(*data)->test);
    memory_free(*data);
    *data = NULL;
}

/* Copies my part of columns [j0, j0 + count) out of a whole column-major block. */
static void place(struct dmat *A, int64_t j0, int64_t count, const double *block)
{
    const struct grid *grid = A->grid;
    const int first = grid_count(j0, A->nb, grid->mycol, 0, grid->npcol);
    const int end = grid_count(j0 + count, A->nb, grid->mycol, 0, grid->npcol);
    for (int jl = first; jl < end; jl++) {
        const double *from = block + (dmat_col(A, jl) - j0) * A->m;
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] = from[dmat_row(A, il)];
    }
}

/* The root reads, everybody takes its part. */
static bool stream(struct source *source, struct dataset *set, struct problems *problems)
{
    const struct grid *grid = set->X->grid;
    const int64_t length = set->features + set->outputs;
    double *block = NEW(double, length *BATCH_OF_SAMPLES);
    bool good = true;
    for (int64_t j0 = 0; good && j0 < set->samples; j0 += BATCH_OF_SAMPLES) {
        const int64_t count = j0 + BATCH_OF_SAMPLES < set->samples ? BATCH_OF_SAMPLES : set->samples - j0;
        ensure(grid->rank != 0 || source->next);
        if (grid->rank == 0) source->next(source, count, block, block + set->features * count, problems);
        good = problems_none(problems, grid->comm);
        if (!good) break;
        MPI_Bcast(block, to_int(length * count), MPI_DOUBLE, 0, grid->comm);
        place(set->X, j0, count, block);
        place(set->Y, j0, count, block + set->features * count);
    }
    memory_free(block);
    return good;
}

/* Number of samples to take: what the input asks for, if the source has it. */
static int64_t wanted(const struct spec *spec, const char *key, int64_t available, struct problems *problems)
{
    if (spec_is(spec, key, "all")) return available;
    const int64_t asked = spec_int(spec, key);
    if (asked > available)
        spec_problem(spec, problems, key, "asks for %lld samples, but the file has %lld", (long long)asked,
                     (long long)available);
    return asked;
}

static struct dataset *from_source(const struct grid *grid, const struct spec *spec, bool train,
                                   struct problems *problems)
{
    struct source source = {0};
    int64_t facts[4] = {0};
    if (grid->rank == 0 && source_open_idx(&source, spec, train, problems)) {
        facts[0] = source.features;
        facts[1] = source.outputs;
        facts[2] = wanted(spec, train ? "data.train" : "data.test", source.samples, problems);
        facts[3] = source.classification;
    }
    struct dataset *set = NULL;
    if (problems_none(problems, grid->comm)) {
        MPI_Bcast(facts, 4, MPI_INT64_T, 0, grid->comm);
        set = NEW(struct dataset, 1);
        *set = (struct dataset){
            .features = facts[0], .outputs = facts[1], .samples = facts[2], .classification = facts[3] != 0};
        set->X = dmat_create(grid, set->features, set->samples);
        set->Y = dmat_create(grid, set->outputs, set->samples);
        if (!stream(&source, set, problems)) dataset_destroy(&set);
    }
    if (source.close) source.close(&source);
    return set;
}

/* Reports the first sample whose targets are not one class: a single 1, the rest 0. */
static void check_classes(const char *path, const char *y, const struct dmat *Y, struct problems *problems)
{
    double *sum = NEW(double, Y->n);
    for (int jl = 0; jl < Y->nloc; jl++)
        for (int il = 0; il < Y->mloc; il++) {
            const double value = Y->local[il + (int64_t)jl * Y->lld];
            sum[dmat_col(Y, jl)] += value == 0 || value == 1 ? value : NAN;
        }
    grid_sum(Y->grid, sum, to_int(Y->n));
    int64_t bad = 0;
    while (bad < Y->n && sum[bad] == 1) bad++;
    if (bad < Y->n)
        problems_add(
            problems, EXIT_INPUT,
            "%s: column %lld of %s (counted from 0) is not one-hot, a single 1 and the rest 0, as data.targets: "
            "classes wants it; data.targets: values takes all numbers",
            path, (long long)bad, y);
    memory_free(sum);
}

static struct dataset *from_hdf5(const struct grid *grid, const struct spec *spec, const char *x, const char *y,
                                 bool may_be_identity, struct problems *problems)
{
    const char *path = spec_text(spec, "data.file");
    struct dataset *set = NEW(struct dataset, 1);
    set->classification = spec_is(spec, "data.targets", "classes");
    set->Y = h5_read_matrix(grid, path, y, problems);
    const bool identity = set->Y && may_be_identity && !h5_has(grid->comm, path, x);
    if (set->Y && !identity) set->X = h5_read_matrix(grid, path, x, problems);
    if (set->Y && (identity || set->X)) {
        set->samples = set->Y->n;
        set->outputs = set->Y->m;
        set->features = identity ? set->Y->n : set->X->m;
        if (set->X && set->X->n != set->samples)
            problems_add(problems, EXIT_INPUT, "%s: %s has %lld columns (samples), but %s has %lld%s", path, x,
                         (long long)set->X->n, y, (long long)set->samples,
                         set->X->m == set->outputs ? " (one column a sample: are they to be transposed?)" : "");
        if (set->samples == 0 || set->outputs == 0 || set->features == 0)
            problems_add(problems, EXIT_INPUT, "%s: %s or %s is empty", path, x, y);
        else if (set->classification)
            check_classes(path, y, set->Y, problems);
    }
    if (!problems_none(problems, grid->comm)) dataset_destroy(&set);
    return set;
}

static bool wants_test(MPI_Comm comm, const struct spec *spec)
{
    if (spec_is(spec, "data.kind", "low_rank_matrix")) return false;
    if (spec_is(spec, "data.kind", "hdf5")) {
        const char *path = spec_text(spec, "data.file");
        const bool y = h5_has(comm, path, "Y_test"), x = h5_has(comm, path, "X_test");
        return x || y; /* one without the other is reported when they are read */
    }
    if (spec_is(spec, "data.kind", "idx") && spec_is(spec, "data.test_images", "none")) return false;
    return spec_is(spec, "data.test", "all") || spec_int(spec, "data.test") > 0;
}

/* `train_set`: the training set, for which the test set is wanted, or NULL for the training set itself. */
static struct dataset *load(const struct grid *grid, const struct spec *spec, const struct dataset *train_set,
                            struct problems *problems)
{
    const char *kind = spec_text(spec, "data.kind");
    const bool train = !train_set;
    if (strcmp(kind, "gaussian") == 0) return generated_gaussian(grid, spec, train);
    if (strcmp(kind, "low_rank_matrix") == 0) return generated_low_rank_matrix(grid, spec, problems);
    if (strcmp(kind, "hdf5") == 0)
        return from_hdf5(grid, spec, train ? "X" : "X_test", train ? "Y" : "Y_test", train || !train_set->X, problems);
    return from_source(grid, spec, train, problems);
}

static void check_test_files(const struct spec *spec, struct problems *problems)
{
    if (!spec_is(spec, "data.kind", "idx")) return;
    const bool images = !spec_is(spec, "data.test_images", "none"), labels = !spec_is(spec, "data.test_labels", "none");
    if (images && !labels)
        spec_problem(spec, problems, "data.test_labels", "missing; data.test_images needs it (a text)");
    if (labels && !images)
        spec_problem(spec, problems, "data.test_images", "missing; data.test_labels needs it (a text)");
}

static bool can_be_transformed(const struct spec *spec, bool identity, struct problems *problems)
{
    const bool centre = spec_applies(spec, "data.centre") && spec_bool(spec, "data.centre");
    const bool whiten = spec_applies(spec, "data.whiten") && spec_bool(spec, "data.whiten");
    if (!identity || !(centre || whiten)) return true;
    spec_problem(spec, problems, centre ? "data.centre" : "data.whiten",
                 "the input is the identity: there is nothing to centre or to whiten");
    return false;
}

static void transform(struct data *data, const struct spec *spec, struct problems *problems)
{
    if (!can_be_transformed(spec, !data->train->X, problems) || !spec_applies(spec, "data.whiten")) return;
    if (spec_bool(spec, "data.centre")) whiten_centre(data);
    if (spec_bool(spec, "data.whiten")) whiten_apply(data, spec_real(spec, "data.whiten_floor"));
}

/* Training and test samples must be alike. */
static void compare_sets(int64_t features, int64_t outputs, int64_t test_features, int64_t test_outputs,
                         struct problems *problems)
{
    if (features != test_features || outputs != test_outputs)
        problems_add(problems, EXIT_INPUT,
                     "training and test samples differ in size: %lld and %lld features, %lld and %lld outputs",
                     (long long)features, (long long)test_features, (long long)outputs, (long long)test_outputs);
}

struct data *data_create(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    struct data *data = NEW(struct data, 1);
    check_test_files(spec, problems);
    data->train = load(grid, spec, NULL, problems);
    if (problems_none(problems, grid->comm) && wants_test(grid->comm, spec)) {
        data->test = load(grid, spec, data->train, problems);
        if (data->test)
            compare_sets(data->train->features, data->train->outputs, data->test->features, data->test->outputs,
                         problems);
    }
    if (problems_none(problems, grid->comm)) transform(data, spec, problems);
    if (!problems_none(problems, grid->comm)) data_destroy(&data);
    return data;
}

struct dataset *dataset_compress(const struct dataset *full)
{
    if (!full->X || full->X->n <= full->X->m) return NULL;
    struct dataset *small = NEW(struct dataset, 1);
    *small = *full;
    small->X = dmat_create(full->X->grid, full->features, full->features);
    small->Y = dmat_create(full->X->grid, full->outputs, full->features);
    factor_compress(full->X, full->Y, small->X, small->Y);
    /* ½‖Y(I − QᵀQ)‖² by Pythagoras; what cancels there is below the rounding of the loss itself */
    const double rest = 0.5 * (dmat_dot(full->Y, full->Y) - dmat_dot(small->Y, small->Y));
    small->constant = full->constant + (rest > 0 ? rest : 0);
    return small;
}

/* ---------------------------------------------------------------- how much data there is */

/* One of the two sets of a file source, from its head. */
static void measure_source(const struct spec *spec, bool train, struct data_sizes *sizes, struct problems *problems)
{
    struct source source = {0};
    if (!source_open_idx(&source, spec, train, problems)) return;
    const int64_t samples = wanted(spec, train ? "data.train" : "data.test", source.samples, problems);
    if (train)
        *sizes = (struct data_sizes){source.features, source.outputs, samples, 0, source.classification, false};
    else
        compare_sets(sizes->features, sizes->outputs, source.features, source.outputs, problems);
    if (!train) sizes->test = samples;
    source.close(&source);
}

static void measure_hdf5(MPI_Comm comm, const struct spec *spec, bool test, struct data_sizes *sizes,
                         struct problems *problems)
{
    const char *path = spec_text(spec, "data.file");
    int64_t X[2] = {0, 0}, Y[2] = {0, 0};
    sizes->identity = !h5_has(comm, path, "X");
    sizes->classification = spec_is(spec, "data.targets", "classes");
    if (!h5_shape(comm, path, "Y", Y, problems)) return;
    if (!sizes->identity && !h5_shape(comm, path, "X", X, problems)) return;
    sizes->outputs = Y[0];
    sizes->train = Y[1];
    sizes->features = sizes->identity ? Y[1] : X[0];
    if (!test || !h5_shape(comm, path, "Y_test", Y, problems)) return;
    if (!sizes->identity && !h5_shape(comm, path, "X_test", X, problems)) return;
    sizes->test = Y[1];
    compare_sets(sizes->features, sizes->outputs, sizes->identity ? Y[1] : X[0], Y[0], problems);
}

bool data_measure(MPI_Comm comm, const struct spec *spec, struct data_sizes *sizes, struct problems *problems)
{
    const char *kind = spec_text(spec, "data.kind");
    int rank;
    MPI_Comm_rank(comm, &rank);
    *sizes = (struct data_sizes){0};
    check_test_files(spec, problems);
    if (!problems_none(problems, comm)) return false;
    const bool test = wants_test(comm, spec);
    if (strcmp(kind, "low_rank_matrix") == 0) {
        const int64_t cols = spec_int(spec, "data.cols");
        generated_rank_fits(spec, problems);
        *sizes = (struct data_sizes){cols, spec_int(spec, "data.rows"), cols, 0, false, true};
    } else if (strcmp(kind, "gaussian") == 0) {
        *sizes = (struct data_sizes){spec_int(spec, "data.features"),
                                     spec_int(spec, "data.outputs"),
                                     spec_int(spec, "data.train"),
                                     test ? spec_int(spec, "data.test") : 0,
                                     spec_is(spec, "data.targets", "classes"),
                                     false};
    } else if (strcmp(kind, "hdf5") == 0) {
        measure_hdf5(comm, spec, test, sizes, problems);
    } else if (rank == 0) {
        measure_source(spec, true, sizes, problems);
        if (test && problems->count == 0) measure_source(spec, false, sizes, problems);
    }
    MPI_Bcast(sizes, sizeof *sizes, MPI_BYTE, 0, comm);
    if (problems->count == 0) can_be_transformed(spec, sizes->identity, problems);
    return problems_none(problems, comm);
}

int64_t data_bytes(const struct grid *grid, const struct spec *spec, const struct data_sizes *sizes)
{
    const char *kind = spec_text(spec, "data.kind");
    const int64_t length = sizes->features + sizes->outputs;
    int64_t load = 0;
    if (strcmp(kind, "hdf5") == 0) {
        load = dmat_slab_bytes(grid, sizes->identity ? sizes->outputs : sizes->features, sizes->train);
    } else if (strcmp(kind, "low_rank_matrix") == 0) {
        const int64_t m = sizes->outputs, n = sizes->features, least = m < n ? m : n;
        const int rank = to_int(spec_int(spec, "data.rank"));
        const int64_t mloc = (m + grid->size - 1) / grid->size, nloc = (n + grid->size - 1) / grid->size;
        load = 8 * (dmat_local_size(grid, m, n) + rank * (mloc + nloc)) + krylov_bytes(least, rank, mloc, nloc);
    } else if (strcmp(kind, "gaussian") != 0) {
        load = 8 * length * BATCH_OF_SAMPLES;
    }
    const bool whitens = spec_applies(spec, "data.whiten") && spec_bool(spec, "data.whiten");
    const int64_t whiten = whitens ? whiten_bytes(grid, sizes->features, sizes->train, sizes->test) : 0;
    return load > whiten ? load : whiten;
}
