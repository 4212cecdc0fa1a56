#include "net/dataset.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/h5.h"
#include "net/mixture.h"
#include "net/sensing.h"

#include <math.h>
#include <string.h>

/* Samples that travel together from the root to all ranks. */
enum { BATCH_OF_SAMPLES = 512 };

void dataset_destroy(struct dataset **dataset)
{
    if (!*dataset) return;
    dmat_destroy(&(*dataset)->X);
    dmat_destroy(&(*dataset)->Y);
    dmat_destroy(&(*dataset)->M);
    sensing_destroy(&(*dataset)->sensing);
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

static bool open_source(struct source *source, const struct spec *spec, bool train, struct problems *problems)
{
    return spec_is(spec, "data.kind", "cifar10") ? source_open_cifar(source, spec, train, problems)
                                                 : source_open_idx(source, spec, train, problems);
}

static struct dataset *from_source(const struct grid *grid, const struct spec *spec, bool train,
                                   struct problems *problems)
{
    struct source source = {0};
    int64_t facts[4] = {0};
    if (grid->rank == 0 && open_source(&source, spec, train, problems)) {
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

/* The lowest index (row + column · rows) of an entry of M that is neither 0 nor 1 (of weights: below 0, or no finite
 * number), or INT64_MAX; counts those that are not 0. */
static int64_t check_mask(const struct dmat *M, bool weights, int64_t *ones)
{
    int64_t bad = INT64_MAX, count = 0;
    for (int jl = 0; jl < M->nloc; jl++)
        for (int il = 0; il < M->mloc; il++) {
            const double value = M->local[il + (int64_t)jl * M->lld];
            const int64_t index = dmat_row(M, il) + dmat_col(M, jl) * M->m;
            const bool good = weights ? value >= 0 && isfinite(value) : value == 0 || value == 1;
            count += value != 0;
            if (!good && index < bad) bad = index;
        }
    MPI_Allreduce(MPI_IN_PLACE, &bad, 1, MPI_INT64_T, MPI_MIN, M->grid->comm);
    MPI_Allreduce(&count, ones, 1, MPI_INT64_T, MPI_SUM, M->grid->comm);
    return bad;
}

/* A mask must have the shape of the targets. */
static void compare_mask(const char *path, const char *m, int64_t rows, int64_t cols, int64_t outputs, int64_t samples,
                         struct problems *problems)
{
    if (rows != outputs || cols != samples)
        problems_add(problems, EXIT_INPUT, "%s: the mask %s is %lld × %lld, but the targets are %lld × %lld", path, m,
                     (long long)rows, (long long)cols, (long long)outputs, (long long)samples);
}

/* Weights w are kept as √w: the loss squares them. */
static void take_roots(struct dmat *M)
{
    for (int64_t i = 0; i < (int64_t)M->lld * M->nloc; i++) M->local[i] = sqrt(M->local[i]);
}

static void read_mask(const char *path, const char *m, bool weights, struct dataset *set, struct problems *problems)
{
    set->M = h5_read_matrix(set->Y->grid, path, m, problems);
    if (!set->M) return;
    compare_mask(path, m, set->M->m, set->M->n, set->outputs, set->samples, problems);
    const int64_t bad = check_mask(set->M, weights, &set->observed);
    if (bad < INT64_MAX)
        problems_add(problems, EXIT_INPUT,
                     "%s: dataset %s holds something other than %s at row %lld, column %lld (counted from 0)", path, m,
                     weights ? "weights of at least 0" : "0 and 1", (long long)(bad % set->M->m),
                     (long long)(bad / set->M->m));
    else if (set->observed == 0)
        problems_add(problems, EXIT_INPUT, "%s: the mask %s is zero everywhere: nothing is observed", path, m);
    else if (weights)
        take_roots(set->M);
}

/* `train`: the training set, for which the test set is wanted, or NULL for the training set itself. */
static struct dataset *from_hdf5(const struct grid *grid, const struct spec *spec, const struct dataset *train,
                                 struct problems *problems)
{
    const char *path = spec_text(spec, "data.file"), *x = train ? "X_test" : "X", *y = train ? "Y_test" : "Y",
               *m = train ? "M_test" : "M";
    struct dataset *set = NEW(struct dataset, 1);
    set->classification = spec_is(spec, "data.targets", "classes");
    set->Y = h5_read_matrix(grid, path, y, problems);
    const bool identity = set->Y && (!train || !train->X) && !h5_has(grid->comm, path, x);
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
        const bool masked = h5_has(grid->comm, path, m);
        if (masked) read_mask(path, m, spec_is(spec, "data.mask", "weights"), set, problems);
        if (masked && train && !train->M)
            problems_add(problems, EXIT_INPUT, "%s: there is a mask M_test of the test samples, but no M", path);
    }
    if (!problems_none(problems, grid->comm)) dataset_destroy(&set);
    return set;
}

static bool is_matrix_problem(const struct spec *spec)
{
    return spec_is(spec, "data.kind", "low_rank_matrix") || spec_is(spec, "data.kind", "matrix_completion") ||
           spec_is(spec, "data.kind", "matrix_sensing");
}

static bool wants_test(MPI_Comm comm, const struct spec *spec)
{
    if (is_matrix_problem(spec) || spec_is(spec, "data.kind", "orthogonal_classes")) return false;
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
    if (strcmp(kind, "gaussian") == 0) {
        const bool in_sequence = spec_is(spec, "data.targets", "clusters") && !spec_is(spec, "data.sequence", "none");
        if (in_sequence && spec_count(spec, "data.sequence") != 3) {
            spec_problem(spec, problems, "data.sequence", "three seeds: of the offset, the class means and the noise");
            return NULL;
        }
        return generated_gaussian(grid, spec, train);
    }
    if (mixture_is(spec)) return mixture_create(grid, spec, train, problems);
    if (is_matrix_problem(spec)) return matrix_problem_create(grid, spec, problems);
    if (strcmp(kind, "orthogonal_classes") == 0) return orthogonal_classes_create(grid, spec, problems);
    if (strcmp(kind, "hdf5") == 0) return from_hdf5(grid, spec, train_set, problems);
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
    const bool scale = spec_applies(spec, "data.normalise") && !spec_is(spec, "data.normalise", "none");
    if (!identity || !(centre || whiten || scale)) return true;
    spec_problem(spec, problems,
                 centre   ? "data.centre"
                 : whiten ? "data.whiten"
                          : "data.normalise",
                 "the input is the identity: there is nothing to centre%s",
                 scale ? ", to whiten or to normalise" : " or to whiten");
    return false;
}

/* Zeros stay. */
static void normalise(struct data *data)
{
    const double longest = whiten_longest(data->train->X);
    if (!(longest > 0)) return;
    dmat_scale(data->train->X, 1 / longest);
    if (data->test) dmat_scale(data->test->X, 1 / longest);
}

static void make_symmetric(struct dmat *X)
{
    const int64_t count = (int64_t)X->lld * X->nloc;
    for (int64_t i = 0; i < count; i++) X->local[i] = 2 * X->local[i] - 1;
}

static void transform(struct data *data, const struct spec *spec, struct problems *problems)
{
    if (!can_be_transformed(spec, !data->train->X, problems) || !spec_applies(spec, "data.whiten")) return;
    if (spec_is(spec, "data.normalise", "symmetric")) {
        make_symmetric(data->train->X);
        if (data->test) make_symmetric(data->test->X);
    }
    if (spec_bool(spec, "data.centre")) whiten_centre(data);
    if (spec_bool(spec, "data.whiten")) whiten_apply(data, spec_real(spec, "data.whiten_floor"));
    const double scale = spec_applies(spec, "data.scale") ? spec_real(spec, "data.scale") : 1;
    if (scale != 1) dmat_scale(data->train->X, scale);
    if (scale != 1 && data->test) dmat_scale(data->test->X, scale);
    if (spec_is(spec, "data.normalise", "longest")) normalise(data);
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

/* A loss sees what it is made for. */
static void check_loss(const struct spec *spec, bool masked, struct problems *problems)
{
    const char *loss = spec_text(spec, "loss.kind");
    const bool measured = spec_is(spec, "data.kind", "matrix_sensing");
    if (measured && strcmp(loss, "sensing") != 0)
        spec_problem(spec, problems, "loss.kind",
                     "is %s, but data.kind: matrix_sensing gives measurements of the target: take sensing", loss);
    else if (masked && strcmp(loss, "masked_mse") != 0)
        spec_problem(spec, problems, "loss.kind", "is %s, but the data has a mask: take masked_mse", loss);
    else if (!masked && strcmp(loss, "masked_mse") == 0)
        spec_problem(spec, problems, "loss.kind",
                     "masked_mse needs a mask: data.kind: matrix_completion, or a dataset M in the file of data.kind: "
                     "hdf5");
    else if (!measured && strcmp(loss, "sensing") == 0)
        spec_problem(spec, problems, "loss.kind", "sensing needs the measurements of data.kind: matrix_sensing");
}

struct data *data_create(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    struct data *data = NEW(struct data, 1);
    check_test_files(spec, problems);
    data->train = load(grid, spec, NULL, problems);
    if (data->train) check_loss(spec, data->train->M, problems);
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
    ensure(!full->M && !full->sensing);
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
    if (!open_source(&source, spec, train, problems)) return;
    const int64_t samples = wanted(spec, train ? "data.train" : "data.test", source.samples, problems);
    if (train)
        *sizes = (struct data_sizes){.features = source.features,
                                     .outputs = source.outputs,
                                     .train = samples,
                                     .classification = source.classification};
    else
        compare_sets(sizes->features, sizes->outputs, source.features, source.outputs, problems);
    if (!train) sizes->test = samples;
    source.close(&source);
}

static void measure_hdf5(MPI_Comm comm, const struct spec *spec, bool test, struct data_sizes *sizes,
                         struct problems *problems)
{
    const char *path = spec_text(spec, "data.file");
    int64_t X[2] = {0, 0}, Y[2] = {0, 0}, M[2] = {0, 0};
    sizes->identity = !h5_has(comm, path, "X");
    sizes->classification = spec_is(spec, "data.targets", "classes");
    if (!h5_shape(comm, path, "Y", Y, problems)) return;
    if (!sizes->identity && !h5_shape(comm, path, "X", X, problems)) return;
    sizes->outputs = Y[0];
    sizes->train = Y[1];
    sizes->features = sizes->identity ? Y[1] : X[0];
    sizes->masked = h5_has(comm, path, "M");
    if (sizes->masked && h5_shape(comm, path, "M", M, problems))
        compare_mask(path, "M", M[0], M[1], Y[0], Y[1], problems);
    if (!test || !h5_shape(comm, path, "Y_test", Y, problems)) return;
    if (!sizes->identity && !h5_shape(comm, path, "X_test", X, problems)) return;
    sizes->test = Y[1];
    compare_sets(sizes->features, sizes->outputs, sizes->identity ? Y[1] : X[0], Y[0], problems);
}

static void measure_mixture(const struct spec *spec, struct data_sizes *sizes, struct problems *problems)
{
    if (!mixture_fits(spec, problems)) return;
    struct mixture *mixture = mixture_of(spec);
    sizes->features = mixture->features;
    sizes->outputs = mixture->outputs;
    sizes->classification = mixture->classes;
    sizes->train = spec_int(spec, "data.train");
    sizes->test = spec_int(spec, "data.test");
    mixture_destroy(&mixture);
}

static void measure_generated(const struct spec *spec, struct data_sizes *sizes, struct problems *problems)
{
    if (is_matrix_problem(spec)) {
        sizes->features = sizes->train = spec_int(spec, "data.cols");
        sizes->outputs = spec_int(spec, "data.rows");
        sizes->identity = true;
        sizes->masked = spec_is(spec, "data.kind", "matrix_completion");
        if (spec_is(spec, "data.kind", "matrix_sensing")) sizes->measurements = spec_int(spec, "data.measurements");
        matrix_problem_fits(spec, problems);
        return;
    }
    const bool classes = spec_is(spec, "data.kind", "orthogonal_classes");
    sizes->features = spec_int(spec, "data.features");
    sizes->outputs = spec_int(spec, classes ? "data.classes" : "data.outputs");
    sizes->train = classes ? sizes->outputs * spec_int(spec, "data.per_class") : spec_int(spec, "data.train");
    sizes->test = classes ? 0 : spec_int(spec, "data.test");
    sizes->classification = classes || !spec_is(spec, "data.targets", "values");
    if (classes) orthogonal_classes_fit(spec, problems);
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
    if (strcmp(kind, "hdf5") == 0) {
        measure_hdf5(comm, spec, test, sizes, problems);
    } else if (is_matrix_problem(spec) || strcmp(kind, "orthogonal_classes") == 0 || strcmp(kind, "gaussian") == 0) {
        measure_generated(spec, sizes, problems);
    } else if (mixture_is(spec)) {
        measure_mixture(spec, sizes, problems);
    } else if (rank == 0) {
        measure_source(spec, true, sizes, problems);
        if (test && problems->count == 0) measure_source(spec, false, sizes, problems);
    }
    MPI_Bcast(sizes, sizeof *sizes, MPI_BYTE, 0, comm);
    if (problems->count == 0) check_loss(spec, sizes->masked, problems);
    if (problems->count == 0) can_be_transformed(spec, sizes->identity, problems);
    return problems_none(problems, comm);
}

int64_t data_set_bytes(const struct grid *grid, const struct data_sizes *sizes, int64_t samples, bool train)
{
    const int64_t X = sizes->identity ? 0 : dmat_local_size(grid, sizes->features, samples);
    const int64_t Y = dmat_local_size(grid, sizes->outputs, samples);
    const int64_t measured = train ? sensing_bytes(grid, sizes->outputs, samples, sizes->measurements) : 0;
    return 8 * (X + Y + (train && sizes->masked ? Y : 0)) + measured;
}

int64_t data_bytes(const struct grid *grid, const struct spec *spec, const struct data_sizes *sizes)
{
    const char *kind = spec_text(spec, "data.kind");
    const int64_t length = sizes->features + sizes->outputs;
    int64_t load = 0;
    if (strcmp(kind, "hdf5") == 0) {
        load = dmat_slab_bytes(grid, sizes->identity ? sizes->outputs : sizes->features, sizes->train);
    } else if (is_matrix_problem(spec)) {
        load = matrix_problem_bytes(grid, spec);
    } else if (strcmp(kind, "orthogonal_classes") == 0) {
        load = orthogonal_classes_bytes(grid, sizes);
    } else if (strcmp(kind, "gaussian") != 0 && !mixture_is(spec)) {
        load = 8 * length * BATCH_OF_SAMPLES;
    }
    const bool whitens = spec_applies(spec, "data.whiten") && spec_bool(spec, "data.whiten");
    const int64_t whiten = whitens ? whiten_bytes(grid, sizes->features, sizes->train, sizes->test) : 0;
    return load > whiten ? load : whiten;
}
