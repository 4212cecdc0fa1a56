#include "train/jt.h"

#include "base/memory.h"

#include <math.h>

struct jt {
    double radius; /* 0: not begun */
    double most;   /* rate */
};

/* Of the logistic loss. */
static const double SMOOTHNESS = 0.25, LIPSCHITZ = 1;

bool jt_wanted(const struct spec *spec)
{
    return spec_is(spec, "train.schedule.kind", "jt");
}

void jt_check(const struct spec *spec, const struct model *model, struct problems *problems)
{
    static const char key[] = "train.schedule.kind";
    bool plain = spec_real(spec, "train.weight_decay") == 0 && spec_is(spec, "train.project.kind", "none");
    bool even = model->linear && model->output_scale == 1;
    if (!jt_wanted(spec)) return;
    for (int l = 0; l < model->depth; l++) {
        const struct layer *layer = &model->layer[l];
        even = even && layer->trainable && layer->lr_multiplier == 1 && layer->skip < 0;
    }
    if (!even || model->width[model->depth] != 1)
        spec_problem(spec, problems, key,
                     "jt is for linear networks with one output, without biases and skips, all layers trained at the "
                     "same rate and no model.output_scale");
    if (!spec_is(spec, "loss.kind", "logistic") || spec_is(spec, "loss.reduction", "sum"))
        spec_problem(spec, problems, key, "jt is for the mean of the logistic loss: loss: {kind: logistic}");
    if (!spec_is(spec, "train.optimizer", "gd") || !plain)
        spec_problem(spec, problems, key, "jt is a rate of plain gradient descent: train.optimizer: gd, without %s",
                     "weight decay and train.project");
}

struct jt *jt_create(const struct spec *spec, const struct dataset *train, struct problems *problems)
{
    const double longest = train->X ? whiten_longest(train->X) : 1;
    if (longest > 1 + 1e-12) { /* rounding of a division by the largest */
        spec_problem(spec, problems, "train.schedule.kind",
                     "jt is for samples of length at most 1, but there is one of "
                     "length %.6g: scale the inputs",
                     longest);
        return NULL;
    }
    struct jt *jt = NEW(struct jt, 1);
    jt->most = spec_real(spec, "train.lr");
    return jt;
}

void jt_destroy(struct jt **jt)
{
    memory_free(*jt);
    *jt = NULL;
}

/* Of every layer |W|², ⟨W, G⟩ and |G|²: the length of W − ηG for any η. The caller owns it. */
static double *products(const struct params *p, const struct params *g)
{
    double *sums = NEW(double, 3 * p->depth);
    for (int l = 0; l < p->depth; l++)
        for (int64_t i = p->start[l]; i < p->start[l + 1]; i++) {
            sums[3 * l] += p->local[i] * p->local[i];
            sums[3 * l + 1] += p->local[i] * g->local[i];
            sums[3 * l + 2] += g->local[i] * g->local[i];
        }
    grid_sum(p->grid, sums, 3 * p->depth);
    return sums;
}

static double longest_layer(int depth, const double *sums, double rate)
{
    double most = 0;
    for (int l = 0; l < depth; l++) {
        const double *s = sums + (ptrdiff_t)3 * l;
        most = fmax(most, s[0] + rate * (rate * s[2] - 2 * s[1]));
    }
    return sqrt(most);
}

static double rate_of(const struct jt *jt, int depth)
{
    const double L = depth, beta = 2 * L * L * pow(jt->radius, 2 * L - 2) * (SMOOTHNESS + LIPSCHITZ);
    return fmin(1 / beta, jt->most);
}

double jt_rate(struct jt *jt, const struct model *model, const struct params *gradient)
{
    double *sums = products(model->params, gradient);
    if (jt->radius == 0) jt->radius = fmax(1, longest_layer(model->depth, sums, 0));
    while (longest_layer(model->depth, sums, rate_of(jt, model->depth)) > jt->radius) jt->radius *= 1.1;
    memory_free(sums);
    return rate_of(jt, model->depth);
}

void jt_archive(struct jt *jt, struct archive *archive)
{
    archive_real(archive, "jt_radius", &jt->radius);
}
