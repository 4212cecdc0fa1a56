/* flow: how far training by gradient descent is from the gradient flow that starts at the same weights (Cohen et al.,
 * ICLR 2021, arXiv 2103.00065): θ' = −∇L(θ) − λθ with L the loss of the whole training set and λ the weight decay,
 * compared at equal times, the sums of the learning rates. Integrated by the classical Runge–Kutta method with steps of
 * at most min(1 / sharpness, max_step), the sharpness being the flow's own at the last measurement. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/flow.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/rop.h"
#include "probes/probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_flow;

static const char COHEN[] = "Cohen et al., ICLR 2021 (arXiv 2103.00065)";

struct state {
    struct model model;     /* the run's, but with the parameters of the flow; these are owned */
    struct params *rate;    /* work space of its right-hand side; owned */
    struct rop *rop;        /* owned; NULL for `plan` */
    struct linop *hessian;  /* of the flow; owned */
    struct eigenpairs *top; /* its largest; owned */
    struct backprop *backprop;
    const struct dataset *train; /* borrowed; they are those of the last measurement */
    double decay, most;          /* λ, and the longest step */
    double time;                 /* of the flow; NaN before it starts */
    int q_distance, q_loss, q_sharpness, q_steps;
};

static void declare(struct state *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "gradient flow from the same start, at the same time");
    record_group_text(g, "kind", "flow");
    s->q_distance = record_number(g, "flow_distance", NULL, NULL, "distance of the weights from those of the flow",
                                  "|theta - theta_flow| / |theta_flow|", COHEN);
    s->q_loss = record_number(g, "flow_loss", NULL, NULL, "training loss of the flow", NULL, COHEN);
    s->q_sharpness =
        record_number(g, "flow_sharpness", NULL, NULL, "largest eigenvalue of the loss's Hessian at the flow's weights",
                      "theta_1 with weight decay", COHEN);
    s->q_steps = record_quantity(g, &(struct quantity){.name = "flow_steps",
                                                       .units = "1",
                                                       .integer = true,
                                                       .long_name = "steps of Runge and Kutta since the last row"});
}

static void check(const struct probe *probe, const struct setting *setting, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    char *key = memory_text("%s.kind", probe->key);
    bool even = true;
    for (int l = 0; l < setting->model->depth; l++)
        even = even && (!setting->model->layer[l].trainable || setting->model->layer[l].lr_multiplier == 1);
    if (!spec_is(spec, "train.optimizer", "gd") && !spec_is(spec, "train.optimizer", "sgd"))
        spec_problem(spec, problems, key, "the gradient flow is the limit of gd and sgd: take one of these");
    if (!even) spec_problem(spec, problems, key, "the gradient flow knows no model.lr_multiplier");
    memory_free(key);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    struct state *s = probe->state = NEW(struct state, 1);
    const struct spec *spec = setting->spec;
    char *key = memory_text("%s.max_step", probe->key);
    s->most = spec_real(spec, key);
    s->decay = spec_real(spec, "train.weight_decay");
    s->time = NAN;
    check(probe, setting, problems);
    declare(s, probe, record);
    memory_free(key);
    if (!setting->train || !setting->model->params) return;
    s->model = *setting->model;
    s->model.params = params_create(setting->model);
    s->rate = params_create(setting->model);
    s->rop = rop_create(setting->model, setting->loss, setting->train->Y->n,
                        spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch"));
    s->hessian = rop_operator(s->rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, s->decay);
    s->top = eigenpairs_create(s->hessian, 1, false);
}

static void destroy(struct probe *probe)
{
    struct state *s = probe->state;
    eigenpairs_destroy(&s->top);
    linop_destroy(&s->hessian);
    rop_destroy(&s->rop);
    params_destroy(&s->rate);
    params_destroy(&s->model.params);
    memory_free(s);
    probe->state = NULL;
}

/* Frozen layers have no gradient, and no decay. */
static void rate(void *context, const double *y, double *dy)
{
    struct state *s = context;
    const struct params *theta = s->model.params;
    if (y != theta->local) memcpy(theta->local, y, (size_t)theta->size * sizeof *y);
    backprop_gradient(s->backprop, &s->model, s->train, s->rate);
    for (int l = 0; l < s->model.depth; l++) {
        const double decay = s->model.layer[l].trainable ? s->decay : 0;
        for (int64_t i = theta->start[l]; i < theta->start[l + 1]; i++) dy[i] = -s->rate->local[i] - decay * y[i];
    }
}

/* By the sharpness where the flow stands. Returns the number of steps. */
static int64_t move_on(struct state *s, double time)
{
    struct params *theta = s->model.params;
    const double sharpness = s->top->lambda[0];
    const double longest = sharpness > 0 ? fmin(1 / sharpness, s->most) : s->most;
    const int64_t steps = (int64_t)ceil((time - s->time) / longest * (1 - 1e-9)); /* a sum of rates has rounding */
    if (steps <= 0) return 0;
    double *y = NEW(double, theta->size);
    memcpy(y, theta->local, (size_t)theta->size * sizeof *y);
    flow_rk4(theta->grid->comm, to_int(theta->size), y, time - s->time, steps, rate, s);
    memcpy(theta->local, y, (size_t)theta->size * sizeof *y);
    memory_free(y);
    return steps;
}

static double distance(const struct state *s, const struct params *theta)
{
    struct params *difference = s->rate;
    for (int64_t i = 0; i < theta->size; i++) difference->local[i] = theta->local[i] - s->model.params->local[i];
    return sqrt(params_dot(difference, difference) / params_dot(s->model.params, s->model.params));
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct state *s = probe->state;
    (void)record;
    s->backprop = moment->backprop;
    s->train = moment->train;
    if (isnan(s->time))
        memcpy(s->model.params->local, moment->model->params->local, (size_t)s->rate->size * sizeof(double));
    else
        record_put_int_at(probe->group, s->q_steps, 0, move_on(s, moment->time));
    s->time = moment->time;
    record_put_at(probe->group, s->q_distance, 0, distance(s, moment->model->params));
    record_put_at(probe->group, s->q_loss, 0, rop_set(s->rop, &s->model, moment->train));
    krylov_eigen(s->hessian,
                 &(struct krylov_options){
                     .tolerance = 1e-4, .max_products = 2000, .seed = probe->seed, .stream = RANDOM_KRYLOV + 0x4000},
                 s->top);
    record_put_at(probe->group, s->q_sharpness, 0, s->top->lambda[0]);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct state *s = probe->state;
    (void)model;
    archive_real(archive, "time", &s->time);
    params_archive(s->model.params, "flow", archive);
    eigenpairs_archive(&s->top, s->hessian, 1, false, "top", archive);
}

/* About two of its steps for each of the run's, four gradients each. */
static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    (void)model;
    need->kept = 3;  /* the flow, the eigenvector and what foretells it */
    need->work = 21; /* the rate, a Krylov basis; Runge and Kutta take fewer */
    need->products = NEED_TRAIN;
    need->stays = true;
    need->passes = 3 * (8 * to_int(probe->every < 100000 ? probe->every : 100000) + 30);
}

static void summary(const struct probe *probe, const struct record *record)
{
    log_say("  %s (last step): %.4g of the flow's length away from it; its loss %.6g, its sharpness %.4g", probe->name,
            record_last(record, probe->name, "flow_distance", 0), record_last(record, probe->name, "flow_loss", 0),
            record_last(record, probe->name, "flow_sharpness", 0));
}

const struct probe_kind probe_flow = {.name = "flow",
                                      .create = create,
                                      .measure = measure,
                                      .archive = archive,
                                      .need = need,
                                      .summary = summary,
                                      .destroy = destroy};
