#include "net/mixture.h"

#include "base/memory.h"
#include "dist/random.h"

#include <math.h>

bool mixture_is(const struct spec *spec)
{
    return spec_is(spec, "data.kind", "gaussian_mixture") || spec_is(spec, "data.kind", "xor_mixture") ||
           spec_is(spec, "data.kind", "binary_mixture");
}

static int64_t clusters_of(const struct spec *spec)
{
    if (spec_is(spec, "data.kind", "gaussian_mixture")) return spec_int(spec, "data.classes");
    return spec_is(spec, "data.kind", "xor_mixture") ? 4 : 2;
}

static bool weighted(const struct spec *spec)
{
    return spec_applies(spec, "data.weights") && !spec_is(spec, "data.weights", "equal");
}

bool mixture_fits(const struct spec *spec, struct problems *problems)
{
    const int before = problems->count;
    const int64_t clusters = clusters_of(spec), features = spec_int(spec, "data.features");
    const int64_t axes = spec_is(spec, "data.kind", "gaussian_mixture") ? clusters : clusters / 2;
    if (features < axes)
        spec_problem(spec, problems, "data.features", "is %lld, too few for %lld orthonormal means",
                     (long long)features, (long long)axes);
    if (weighted(spec) && spec_count(spec, "data.weights") != clusters)
        spec_problem(spec, problems, "data.weights", "has %d values for %lld classes (data.classes)",
                     spec_count(spec, "data.weights"), (long long)clusters);
    if (weighted(spec) && spec_is(spec, "data.counts", "equal"))
        spec_problem(spec, problems, "data.counts",
                     "equal counts leave nothing to data.weights: give only one of them");
    if (spec_is(spec, "data.stream", "online") && spec_is(spec, "data.counts", "equal"))
        spec_problem(spec, problems, "data.counts",
                     "fresh samples (data.stream: online) are of random clusters: take data.counts: random");
    return problems->count == before;
}

struct mixture *mixture_of(const struct spec *spec)
{
    struct mixture *mixture = NEW(struct mixture, 1);
    mixture->features = spec_int(spec, "data.features");
    mixture->clusters = clusters_of(spec);
    mixture->classes = spec_is(spec, "data.kind", "gaussian_mixture");
    mixture->outputs = mixture->classes ? mixture->clusters : 1;
    mixture->equal = spec_is(spec, "data.counts", "equal");
    mixture->online = spec_is(spec, "data.stream", "online");
    mixture->lambda = spec_is(spec, "data.lambda", "infinite") ? INFINITY : spec_real(spec, "data.lambda");
    mixture->weight = NEW(double, mixture->clusters);
    mixture->cumulated = NEW(double, mixture->clusters);
    double sum = 0, part = 0;
    for (int b = 0; b < mixture->clusters; b++) {
        mixture->weight[b] = weighted(spec) ? spec_real_at(spec, "data.weights", b) : 1;
        sum += mixture->weight[b];
    }
    for (int64_t b = 0; b < mixture->clusters; b++) {
        part += mixture->weight[b];
        mixture->cumulated[b] = part / sum;
        mixture->weight[b] /= sum;
    }
    return mixture;
}

void mixture_destroy(struct mixture **mixture)
{
    if (!*mixture) return;
    memory_free((*mixture)->cumulated);
    memory_free((*mixture)->weight);
    memory_free(*mixture);
    *mixture = NULL;
}

struct cluster mixture_cluster(const struct mixture *mixture, int64_t b)
{
    if (mixture->classes) return (struct cluster){.axis = b, .sign = 1};
    return (struct cluster){
        .axis = b / 2, .sign = b % 2 == 0 ? 1 : -1, .positive = b < (mixture->clusters == 4 ? 2 : 1)};
}

/* The cluster of a sample of a stream: a uniform number among the cumulated weights. */
static int64_t random_cluster(const struct mixture *mixture, uint64_t seed, uint64_t stream, uint64_t sample)
{
    const double u = random_uniform(seed, stream, sample);
    int64_t b = 0;
    while (b < mixture->clusters - 1 && u >= mixture->cumulated[b]) b++;
    return b;
}

static inline double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

static double target(const struct mixture *mixture, int64_t b, int64_t row)
{
    return mixture->classes ? row == b : mixture_cluster(mixture, b).positive;
}

/* Inputs from `stream`, clusters from `stream` + 1. */
static void draw(const struct mixture *mixture, bool equal, struct dataset *set, uint64_t seed, uint64_t stream,
                 uint64_t first)
{
    struct dmat *X = set->X, *Y = set->Y;
    const double deviation = 1 / sqrt(mixture->lambda);
    for (int jl = 0; jl < X->nloc; jl++) {
        const uint64_t sample = first + (uint64_t)dmat_col(X, jl);
        const int64_t b =
            equal ? (int64_t)(sample % (uint64_t)mixture->clusters) : random_cluster(mixture, seed, stream + 1, sample);
        const struct cluster cluster = mixture_cluster(mixture, b);
        for (int il = 0; il < X->mloc; il++) {
            const int64_t ig = dmat_row(X, il);
            const double mean = ig == cluster.axis ? cluster.sign : 0;
            const uint64_t index = (uint64_t)ig + sample * (uint64_t)mixture->features;
            column(X, jl)[il] = deviation > 0 ? mean + deviation * random_normal(seed, stream, index) : mean;
        }
        for (int il = 0; il < Y->mloc; il++) column(Y, jl)[il] = target(mixture, b, dmat_row(Y, il));
    }
}

struct dataset *mixture_create(const struct grid *grid, const struct spec *spec, bool train, struct problems *problems)
{
    if (!mixture_fits(spec, problems)) return NULL;
    struct mixture *mixture = mixture_of(spec);
    struct dataset *set = NEW(struct dataset, 1);
    set->features = mixture->features;
    set->outputs = mixture->outputs;
    set->samples = spec_int(spec, train ? "data.train" : "data.test");
    set->classification = mixture->classes;
    set->X = dmat_create(grid, set->features, set->samples);
    set->Y = dmat_create(grid, set->outputs, set->samples);
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    if (train && mixture->online)
        mixture_fresh(mixture, set, seed, 0);
    else
        draw(mixture, mixture->equal, set, seed, RANDOM_DATA + (train ? 0 : 2), 0);
    mixture_destroy(&mixture);
    return set;
}

void mixture_fresh(const struct mixture *mixture, struct dataset *set, uint64_t seed, uint64_t first)
{
    draw(mixture, false, set, seed, RANDOM_ONLINE, first);
}

/* ---------------------------------------------------------------- a start */

bool mixture_starts(const struct spec *spec, const struct model *model, struct problems *problems)
{
    if (mixture_is(spec) && !spec_is(spec, "data.kind", "gaussian_mixture") && model->depth == 2) return true;
    spec_problem(spec, problems, "model.init.kind",
                 "'clusters' is a start of two layers on clusters (data.kind: xor_mixture or binary_mixture)");
    return false;
}

void mixture_start(struct dmat *W, const struct spec *spec, int l)
{
    struct mixture *mixture = mixture_of(spec);
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) {
            const int64_t unit = l == 1 ? dmat_row(W, il) : dmat_col(W, jl);
            const struct cluster cluster = mixture_cluster(mixture, unit % mixture->clusters);
            const double mean = dmat_col(W, jl) == cluster.axis ? cluster.sign : 0;
            column(W, jl)[il] = l == 1 ? mean : cluster.positive ? 1 : -1;
        }
    mixture_destroy(&mixture);
}
