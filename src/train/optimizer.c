#include "train/optimizer.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum rule { RULE_PLAIN, RULE_MOMENTUM, RULE_RMSPROP, RULE_ADAM };

struct optimizer {
    enum rule rule;
    double weight_decay, momentum, beta1, beta2, epsilon;
    int64_t steps;         /* updates made: for Adam's bias correction */
    struct params *first;  /* v of momentum, m of Adam; owned, or NULL */
    struct params *second; /* v of RMSprop and Adam; owned, or NULL */
};

struct optimizer *optimizer_create(const struct model *model, const struct spec *spec)
{
    struct optimizer *o = NEW(struct optimizer, 1);
    const char *name = spec_text(spec, "train.optimizer");
    o->weight_decay = spec_real(spec, "train.weight_decay");
    if (strcmp(name, "momentum") == 0) {
        o->rule = RULE_MOMENTUM;
        o->momentum = spec_real(spec, "train.momentum");
    } else if (strcmp(name, "rmsprop") == 0 || strcmp(name, "adam") == 0) {
        o->rule = strcmp(name, "adam") == 0 ? RULE_ADAM : RULE_RMSPROP;
        if (o->rule == RULE_ADAM) o->beta1 = spec_real(spec, "train.beta1");
        o->beta2 = spec_real(spec, "train.beta2");
        o->epsilon = spec_real(spec, "train.epsilon");
    }
    if (o->rule == RULE_MOMENTUM || o->rule == RULE_ADAM) o->first = params_create(model);
    if (o->rule == RULE_RMSPROP || o->rule == RULE_ADAM) o->second = params_create(model);
    return o;
}

void optimizer_destroy(struct optimizer **optimizer)
{
    if (!*optimizer) return;
    params_destroy(&(*optimizer)->first);
    params_destroy(&(*optimizer)->second);
    memory_free(*optimizer);
    *optimizer = NULL;
}

void optimizer_archive(struct optimizer *optimizer, struct archive *archive)
{
    archive_enter(archive, "optimizer");
    archive_int(archive, "steps", &optimizer->steps);
    if (optimizer->first) params_archive(optimizer->first, "first", archive);
    if (optimizer->second) params_archive(optimizer->second, "second", archive);
    archive_leave(archive);
}

const struct params *optimizer_velocity(const struct optimizer *optimizer)
{
    return optimizer->rule == RULE_MOMENTUM ? optimizer->first : NULL;
}

int optimizer_arrays(const struct spec *spec)
{
    const char *name = spec_text(spec, "train.optimizer");
    return strcmp(name, "adam") == 0 ? 2 : strcmp(name, "momentum") == 0 || strcmp(name, "rmsprop") == 0;
}

/* One layer, n local elements. Each rule is one pass over memory. */
static void update(const struct optimizer *o, int64_t n, double *restrict w, const double *restrict g,
                   double *restrict first, double *restrict second, double lr)
{
    const double keep = 1 - lr * o->weight_decay, t = (double)o->steps;
    const double correct1 = 1 / (1 - pow(o->beta1, t)), correct2 = 1 / (1 - pow(o->beta2, t));
    ensure(o->rule == RULE_PLAIN || o->rule == RULE_RMSPROP || first);
    ensure(o->rule == RULE_PLAIN || o->rule == RULE_MOMENTUM || second);
    switch (o->rule) {
    case RULE_PLAIN:
        for (int64_t i = 0; i < n; i++) w[i] = keep * w[i] - lr * g[i];
        break;
    case RULE_MOMENTUM:
        for (int64_t i = 0; i < n; i++) {
            first[i] = o->momentum * first[i] + g[i];
            w[i] = keep * w[i] - lr * first[i];
        }
        break;
    case RULE_RMSPROP:
        for (int64_t i = 0; i < n; i++) {
            second[i] = o->beta2 * second[i] + (1 - o->beta2) * g[i] * g[i];
            w[i] = keep * w[i] - lr * g[i] / (sqrt(second[i]) + o->epsilon);
        }
        break;
    case RULE_ADAM:
        for (int64_t i = 0; i < n; i++) {
            first[i] = o->beta1 * first[i] + (1 - o->beta1) * g[i];
            second[i] = o->beta2 * second[i] + (1 - o->beta2) * g[i] * g[i];
            w[i] = keep * w[i] - lr * (correct1 * first[i]) / (sqrt(correct2 * second[i]) + o->epsilon);
        }
        break;
    }
}

void optimizer_step(struct optimizer *o, struct model *model, const struct params *gradient, double lr)
{
    struct params *p = model->params;
    o->steps++;
    for (int l = 0; l < model->depth; l++) {
        const int64_t at = p->start[l];
        if (!model->layer[l].trainable) continue;
        update(o, p->start[l + 1] - at, p->local + at, gradient->local + at, o->first ? o->first->local + at : NULL,
               o->second ? o->second->local + at : NULL, lr * model->layer[l].lr_multiplier);
    }
}
