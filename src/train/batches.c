#include "train/batches.h"

#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"
#include "net/mixture.h"

#include <math.h>

struct batches {
    const struct dataset *train; /* borrowed */
    struct dmat *identity;       /* the input to draw columns of, if it is the identity; owned, or NULL */
    struct dataset *compressed;  /* owned, or NULL */
    struct dataset *batch;       /* owned, or NULL with the full batch */
    double scale;                /* of fresh inputs: data.scale */
    struct mixture *mixture;     /* that fresh samples are of; owned, NULL: they are like data.kind: gaussian */
    bool online;                 /* a batch is of fresh samples, not of the training set's */
    bool sequential;             /* batches have the samples in their order, over and over */
    int64_t *permutation;        /* [N] of `epoch`, or the batch's columns; owned; NULL without use */
    int64_t epoch;               /* −1: none yet */
    uint64_t seed;
};

/* Whether the rule is for the full batch only. */
static bool takes_all(const struct spec *spec)
{
    return spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "gradient_flow");
}

/* Fresh samples are drawn as they are, a batch at a time. */
static void check_online(const struct spec *spec, struct problems *problems)
{
    if (spec_is(spec, "train.batch", "full") && !spec_is(spec, "train.optimizer", "sgd")) /* sgd says so itself */
        spec_problem(spec, problems, "train.online", "fresh samples come in batches: give their size, train.batch%s%s",
                     takes_all(spec) ? ", and another optimizer than " : "",
                     takes_all(spec) ? spec_text(spec, "train.optimizer") : "");
    if (mixture_is(spec)) return;
    if (!spec_is(spec, "data.kind", "gaussian")) {
        spec_problem(spec, problems, "train.online",
                     "data.kind: %s has no generator of fresh samples; it applies to data.kind: gaussian and the "
                     "mixtures",
                     spec_text(spec, "data.kind"));
        return;
    }
    if (spec_is(spec, "data.targets", "clusters"))
        spec_problem(spec, problems, "data.targets",
                     "fresh samples (train.online) know no clusters: take data.kind: gaussian_mixture");
    if (spec_bool(spec, "data.centre"))
        spec_problem(spec, problems, "data.centre", "fresh samples (train.online) are used as drawn, not centred");
    if (spec_bool(spec, "data.whiten"))
        spec_problem(spec, problems, "data.whiten", "fresh samples (train.online) are used as drawn, not whitened");
}

/* A measurement sees all columns of the output. */
static void check_sensing(const struct spec *spec, struct problems *problems)
{
    if (!spec_is(spec, "train.batch", "full"))
        spec_problem(spec, problems, "train.batch",
                     "data.kind: matrix_sensing has no samples to take a batch of: leave it to `full`");
    if (!spec_is(spec, "train.microbatch", "all"))
        spec_problem(spec, problems, "train.microbatch",
                     "data.kind: matrix_sensing measures the whole output at once: leave it to `all`");
}

static void check_order(const struct spec *spec, struct problems *problems)
{
    if (!spec_is(spec, "train.order", "sequential")) return;
    if (spec_is(spec, "train.batch", "full") || spec_bool(spec, "train.online"))
        spec_problem(spec, problems, "train.order", "sequential is an order of batches of the training set: %s",
                     spec_bool(spec, "train.online") ? "take train.online: false" : "give their size, train.batch");
}

static void check(int64_t samples, const struct spec *spec, struct problems *problems)
{
    const bool full = spec_is(spec, "train.batch", "full");
    if (!full && takes_all(spec))
        spec_problem(spec, problems, "train.batch", "%s takes the full batch; use train.optimizer: sgd",
                     spec_text(spec, "train.optimizer"));
    if (full && spec_is(spec, "train.optimizer", "sgd"))
        spec_problem(spec, problems, "train.batch",
                     "missing: sgd needs a batch size (the full batch is train.optimizer: gd)");
    if (spec_is(spec, "data.kind", "matrix_sensing")) check_sensing(spec, problems);
    check_order(spec, problems);
    if (spec_bool(spec, "train.online"))
        check_online(spec, problems);
    else if (!full && spec_int(spec, "train.batch") > samples)
        spec_problem(spec, problems, "train.batch", "is %lld, but there are only %lld training samples",
                     (long long)spec_int(spec, "train.batch"), (long long)samples);
}

static double unit_element(int64_t ig, int64_t jg, const void *context)
{
    return ig == jg;
}

/* Whether the data is compressed, for d features. */
static bool compresses(const struct spec *spec, bool linear, bool identity, int64_t features, int64_t samples)
{
    return spec_is(spec, "train.batch", "full") && linear && spec_is(spec, "loss.kind", "mse") &&
           spec_bool(spec, "train.compress") && !identity && samples > features;
}

struct batches_need batches_need(const struct spec *spec, const struct model *model, const struct data_sizes *data,
                                 struct problems *problems)
{
    const struct grid *grid = model->grid;
    const int64_t d = data->features, K = data->outputs;
    struct batches_need need = {.columns = data->train};
    check(data->train, spec, problems);
    if (!spec_is(spec, "train.batch", "full")) {
        need.columns = spec_int(spec, "train.batch");
        need.bytes = 8 * (dmat_local_size(grid, d, need.columns) + dmat_local_size(grid, K, need.columns) +
                          (data->masked ? dmat_local_size(grid, K, need.columns) : 0) +
                          (spec_bool(spec, "train.online") ? 0 : data->train) +
                          (data->identity ? dmat_local_size(grid, d, data->train) : 0));
    } else if (compresses(spec, model->linear, data->identity, d, data->train)) {
        need.columns = d;
        need.compressed = true;
        need.bytes = 8 * (dmat_local_size(grid, d, d) + dmat_local_size(grid, K, d));
        need.extra = factor_compress_bytes(grid, d, data->train, K);
    }
    return need;
}

struct batches *batches_create(const struct dataset *train, const struct model *model, const struct spec *spec,
                               struct problems *problems)
{
    check(train->samples, spec, problems);
    if (!problems_none(problems, model->grid->comm)) return NULL;
    struct batches *b = NEW(struct batches, 1);
    b->train = train;
    b->epoch = -1;
    b->seed = (uint64_t)spec_int(spec, "run.seed");
    b->online = spec_bool(spec, "train.online");
    b->sequential = spec_is(spec, "train.order", "sequential");
    b->scale = b->online && spec_applies(spec, "data.scale") ? spec_real(spec, "data.scale") : 1;
    b->mixture = b->online && mixture_is(spec) ? mixture_of(spec) : NULL;
    if (!spec_is(spec, "train.batch", "full")) {
        b->batch = NEW(struct dataset, 1);
        *b->batch = *train;
        b->batch->samples = spec_int(spec, "train.batch");
        b->batch->X = dmat_create(model->grid, train->features, b->batch->samples);
        b->batch->Y = dmat_create(model->grid, train->outputs, b->batch->samples);
        if (train->M) b->batch->M = dmat_create(model->grid, train->outputs, b->batch->samples);
        ensure(!train->sensing);
        if (!b->online) b->permutation = NEW(int64_t, train->samples);
        if (!train->X) {
            b->identity = dmat_create(model->grid, train->features, train->samples);
            dmat_set(b->identity, unit_element, NULL);
        }
    } else if (compresses(spec, model->linear, !train->X, train->features, train->samples)) {
        b->compressed = dataset_compress(train);
        log_say("data: linear network with squared loss, %lld samples compressed to %lld columns",
                (long long)train->samples, (long long)train->features);
    }
    return b;
}

void batches_destroy(struct batches **batches)
{
    if (!*batches) return;
    dataset_destroy(&(*batches)->compressed);
    dataset_destroy(&(*batches)->batch);
    dmat_destroy(&(*batches)->identity);
    mixture_destroy(&(*batches)->mixture);
    memory_free((*batches)->permutation);
    memory_free(*batches);
    *batches = NULL;
}

/* The columns of the training set that the step sees. */
static const int64_t *columns_of(struct batches *b, int64_t step)
{
    const int64_t size = b->batch->samples, N = b->train->samples, per_epoch = N / size, epoch = step / per_epoch;
    if (b->sequential) {
        for (int64_t j = 0; j < size; j++) b->permutation[j] = (step * size + j) % N;
        return b->permutation;
    }
    if (epoch != b->epoch) random_permutation(N, b->permutation, b->seed, RANDOM_BATCHES, (uint64_t)epoch);
    b->epoch = epoch;
    return b->permutation + step % per_epoch * size;
}

static void take_batch(struct batches *b, int64_t step)
{
    const int64_t *columns = columns_of(b, step);
    dmat_take_columns(b->identity ? b->identity : b->train->X, columns, b->batch->X);
    dmat_take_columns(b->train->Y, columns, b->batch->Y);
    if (!b->train->M) return;
    dmat_take_columns(b->train->M, columns, b->batch->M);
    b->batch->observed = llround(dmat_dot(b->batch->M, b->batch->M));
}

static void take_fresh(struct batches *b, int64_t step)
{
    const uint64_t first = (uint64_t)step * (uint64_t)b->batch->samples;
    if (b->mixture)
        mixture_fresh(b->mixture, b->batch, b->seed, first);
    else
        generated_fresh(b->batch, b->seed, first);
    if (b->scale != 1) dmat_scale(b->batch->X, b->scale);
}

const struct dataset *batches_at(struct batches *b, int64_t step)
{
    if (!b->batch) return b->compressed ? b->compressed : b->train;
    if (b->online)
        take_fresh(b, step);
    else
        take_batch(b, step);
    return b->batch;
}

int64_t batches_columns(const struct batches *b)
{
    return b->batch ? b->batch->Y->n : b->compressed ? b->compressed->Y->n : b->train->Y->n;
}

bool batches_full(const struct batches *b)
{
    return !b->batch;
}
