#include "train/optimizer.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>
#include <string.h>

enum rule { RULE_PLAIN, RULE_MOMENTUM, RULE_NESTEROV, RULE_RMSPROP, RULE_ADAM };

static const struct {
    const char *name;
    enum rule rule;
    bool first, second; /* arrays that the rule keeps */
} rules[] = {{"gd", RULE_PLAIN, false, false},           {"sgd", RULE_PLAIN, false, false},
             {"momentum", RULE_MOMENTUM, true, false},   {"nesterov", RULE_NESTEROV, true, false},
             {"rmsprop", RULE_RMSPROP, false, true},     {"adam", RULE_ADAM, true, true},
             {"gradient_flow", RULE_PLAIN, false, false}};

struct optimizer {
    enum rule rule;
    double weight_decay, momentum, beta1, beta2, epsilon;
    int64_t steps;         /* updates made: for Adam's bias correction */
    struct params *first;  /* v of momentum and Nesterov, m of Adam; owned, or NULL */
    struct params *second; /* v of RMSprop and Adam; owned, or NULL */
};

static int rule_of(const struct spec *spec)
{
    const char *name = spec_text(spec, "train.optimizer");
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(name, rules[i].name) == 0) return (int)i;
    bug("no rule of the optimizer %s", name);
}

struct optimizer *optimizer_create(const struct model *model, const struct spec *spec)
{
    struct optimizer *o = NEW(struct optimizer, 1);
    const int i = rule_of(spec);
    o->rule = rules[i].rule;
    o->weight_decay = spec_real(spec, "train.weight_decay");
    if (o->rule == RULE_MOMENTUM || o->rule == RULE_NESTEROV) o->momentum = spec_real(spec, "train.momentum");
    if (o->rule == RULE_ADAM) o->beta1 = spec_real(spec, "train.beta1");
    if (rules[i].second) {
        o->beta2 = spec_real(spec, "train.beta2");
        o->epsilon = spec_real(spec, "train.epsilon");
    }
    if (rules[i].first) o->first = params_create(model);
    if (rules[i].second) o->second = params_create(model);
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
    const int i = rule_of(spec);
    return rules[i].first + rules[i].second;
}

/* One layer, n local elements. Each rule is one pass over memory. */
static void update(const struct optimizer *o, int64_t n, double *restrict w, const double *restrict g,
                   double *restrict first, double *restrict second, double lr)
{
    const double keep = 1 - lr * o->weight_decay, t = (double)o->steps;
    const double correct1 = 1 / (1 - pow(o->beta1, t)), correct2 = 1 / (1 - pow(o->beta2, t));
    ensure(o->rule == RULE_PLAIN || o->rule == RULE_RMSPROP || first);
    ensure((o->rule != RULE_RMSPROP && o->rule != RULE_ADAM) || second);
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
    case RULE_NESTEROV:
        for (int64_t i = 0; i < n; i++) {
            first[i] = o->momentum * first[i] + g[i];
            w[i] = keep * w[i] - lr * (g[i] + o->momentum * first[i]);
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
