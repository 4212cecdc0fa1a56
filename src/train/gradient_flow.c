#include "train/gradient_flow.h"

#include "base/memory.h"
#include "dist/flow.h"

#include <math.h>
#include <string.h>

/* The integrator's vectors are looked at as parameters and as a gradient where they lie: nothing is copied. */
struct gradient_flow {
    struct model model;            /* the run's, with parameters elsewhere: a view, owned */
    struct params *rate;           /* a view, owned */
    struct flow *flow;             /* owned */
    struct backprop *backprop;     /* borrowed */
    const struct dataset *dataset; /* of the step; borrowed */
    const struct params *first;    /* the gradient where the step begins, until it is used; borrowed */
    double decay;
};

bool gradient_flow_wanted(const struct spec *spec)
{
    return spec_is(spec, "train.optimizer", "gradient_flow");
}

/* Twins that follow the rule of the large network do so step by step. */
void gradient_flow_check(const struct spec *spec, struct problems *problems)
{
    for (int i = 0; gradient_flow_wanted(spec) && i < spec_count(spec, "twins"); i++) {
        char *key = memory_text("twins[%d].kind", i);
        if (spec_is(spec, key, "compressed") || spec_is(spec, key, "narrow"))
            spec_problem(spec, problems, key, "%s is trained by gradient steps only: take train.optimizer: gd",
                         spec_text(spec, key));
        memory_free(key);
    }
}

static enum flow_method method_of(const struct spec *spec)
{
    return spec_is(spec, "train.integrator", "adaptive") ? FLOW_ADAPTIVE : FLOW_RK4;
}

/* From the gradient in dy. Frozen layers have none. */
static void turn_downhill(const struct gradient_flow *f, const double *y, double *dy)
{
    const struct params *p = f->rate;
    for (int l = 0; l < p->depth; l++) {
        const struct layer *layer = &f->model.layer[l];
        const double factor = layer->trainable ? -layer->lr_multiplier : 0;
        for (int64_t i = p->start[l]; i < p->start[l + 1]; i++) dy[i] = factor * (dy[i] + f->decay * y[i]);
    }
}

static void rate(void *context, const double *y, double *dy)
{
    struct gradient_flow *f = context;
    const size_t bytes = (size_t)f->rate->size * sizeof *dy;
    if (f->first) {
        memcpy(dy, f->first->local, bytes);
        f->first = NULL;
    } else {
        params_point(f->model.params, (double *)y); /* backprop reads them only */
        params_point(f->rate, dy);
        backprop_gradient(f->backprop, &f->model, f->dataset, f->rate);
    }
    turn_downhill(f, y, dy);
}

struct gradient_flow *gradient_flow_create(const struct model *model, struct backprop *backprop,
                                           const struct spec *spec)
{
    struct gradient_flow *f = NEW(struct gradient_flow, 1);
    const enum flow_method method = method_of(spec);
    f->model = *model;
    f->model.params = params_view(model);
    f->rate = params_view(model);
    f->backprop = backprop;
    f->decay = spec_real(spec, "train.weight_decay");
    f->flow = flow_create(model->grid->comm, to_int(f->rate->size), method,
                          method == FLOW_ADAPTIVE ? spec_real(spec, "train.integrator_tolerance") : 0, rate, f);
    return f;
}

void gradient_flow_destroy(struct gradient_flow **flow)
{
    struct gradient_flow *f = *flow;
    if (!f) return;
    flow_destroy(&f->flow);
    params_destroy(&f->rate);
    params_destroy(&f->model.params);
    memory_free(f);
    *flow = NULL;
}

void gradient_flow_step(struct gradient_flow *f, struct model *model, const struct params *gradient,
                        const struct dataset *dataset, double time)
{
    struct params *p = model->params;
    if (!(time > 0)) return; /* the end of a schedule */
    f->dataset = dataset;
    f->first = gradient;
    if (flow_advance(f->flow, p->local, time, 1)) return;
    for (int64_t i = 0; i < p->size; i++) p->local[i] = NAN;
}

int gradient_flow_arrays(const struct spec *spec)
{
    return gradient_flow_wanted(spec) ? flow_vectors(method_of(spec)) : 0;
}

int gradient_flow_gradients(const struct spec *spec)
{
    if (!gradient_flow_wanted(spec)) return 0;
    return method_of(spec) == FLOW_RK4 ? 3 : 6;
}
