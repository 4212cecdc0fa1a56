/* generated: independent samples from the generator, a function of (seed, global index). */
#include "base/memory.h"
#include "dist/random.h"
#include "net/dataset.h"

struct draw {
    uint64_t seed, stream;
    uint64_t first; /* sample of the stream that is column 0 */
    int64_t rows;
    int64_t clusters;  /* K; 0: the samples know no classes */
    double separation; /* factor of the class means */
    double offset;     /* factor of what all samples share */
    double noise;      /* factor of what each sample has of its own */
};

/* Numbers of a fixed sequence, by rows, in place of random ones. */
struct sequence {
    uint64_t offset, mean, noise; /* its seeds */
    int64_t columns;              /* N */
    struct draw draw;             /* the factors */
};

/* Unsigned: the index of an endless stream may come round. */
static double normal(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    return random_normal(draw->seed, draw->stream, (uint64_t)ig + (draw->first + (uint64_t)jg) * (uint64_t)draw->rows);
}

/* Noise, and the mean of the class, the same for training and test samples. */
static double clustered(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    const uint64_t mean = (uint64_t)ig + (uint64_t)(jg % draw->clusters) * (uint64_t)draw->rows;
    double x =
        draw->separation * random_normal(draw->seed, RANDOM_DATA + 10, mean) + draw->noise * normal(ig, jg, context);
    if (draw->offset > 0) x += draw->offset * random_normal(draw->seed, RANDOM_DATA + 11, (uint64_t)ig);
    return x;
}

static double in_sequence(int64_t ig, int64_t jg, const void *context)
{
    const struct sequence *s = context;
    const struct draw *draw = &s->draw;
    return draw->offset * random_sequence(s->offset, (uint64_t)ig) +
           draw->separation * random_sequence(s->mean, (uint64_t)(ig * draw->clusters + jg % draw->clusters)) +
           draw->noise * random_sequence(s->noise, (uint64_t)(ig * s->columns + jg));
}

static double in_turn(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    return jg % draw->clusters == ig;
}

static double one_hot(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    return random_below(draw->seed, draw->stream, draw->first + (uint64_t)jg, draw->rows) == ig;
}

static void draw_samples(struct dataset *set, uint64_t seed, uint64_t stream, uint64_t first)
{
    dmat_set(set->X, normal, &(struct draw){.seed = seed, .stream = stream, .first = first, .rows = set->features});
    dmat_set(set->Y, set->classification ? one_hot : normal,
             &(struct draw){.seed = seed, .stream = stream + 1, .first = first, .rows = set->outputs});
}

struct dataset *generated_gaussian(const struct grid *grid, const struct spec *spec, bool train)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed"), stream = RANDOM_DATA + (train ? 0 : 2);
    struct dataset *set = NEW(struct dataset, 1);
    set->features = spec_int(spec, "data.features");
    set->outputs = spec_int(spec, "data.outputs");
    set->samples = spec_int(spec, train ? "data.train" : "data.test");
    set->classification = !spec_is(spec, "data.targets", "values");
    set->X = dmat_create(grid, set->features, set->samples);
    set->Y = dmat_create(grid, set->outputs, set->samples);
    if (!spec_is(spec, "data.targets", "clusters")) {
        draw_samples(set, seed, stream, 0);
        return set;
    }
    const struct draw draw = {.seed = seed,
                              .stream = stream,
                              .rows = set->features,
                              .clusters = set->outputs,
                              .separation = spec_real(spec, "data.separation"),
                              .offset = spec_real(spec, "data.offset"),
                              .noise = spec_real(spec, "data.noise")};
    if (spec_is(spec, "data.sequence", "none"))
        dmat_set(set->X, clustered, &draw);
    else
        dmat_set(set->X, in_sequence,
                 &(struct sequence){.offset = (uint64_t)spec_int_at(spec, "data.sequence", 0),
                                    .mean = (uint64_t)spec_int_at(spec, "data.sequence", 1),
                                    .noise = (uint64_t)spec_int_at(spec, "data.sequence", 2) + !train,
                                    .columns = set->samples,
                                    .draw = draw});
    dmat_set(set->Y, in_turn, &draw);
    return set;
}

void generated_fresh(struct dataset *set, uint64_t seed, uint64_t first)
{
    draw_samples(set, seed, RANDOM_ONLINE, first);
}
