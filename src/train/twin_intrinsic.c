/* The reduced dynamics of the end-to-end matrix Z beside the network: a twin whose model is one linear layer, Z, and
 * whose updates are steps of the ODE that Z alone obeys (theory/intrinsic). */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"

#include "twin_intrinsic.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char reference[] = "arXiv 2508.07370, intrinsic dynamics; formulas of 1802.06509, 2409.14623";

struct intrinsic_twin {
    struct intrinsic *state; /* owned */
    struct twin_start start; /* λ and defects */
    struct closed *closed;   /* owned; NULL if there is no closed solution */
    struct model view;       /* the twin's model, with parameters elsewhere: a view, owned */
    struct params *rate;     /* a view, owned */
    const struct twin *twin; /* borrowed, while it advances */
    bool first;              /* the next gradient is the twin's own */
    double speed;            /* of Z, in units of the learning rate */
    int substeps, modes;     /* steps of Runge and Kutta for each of the network; singular values that are recorded */
    bool flow, infinite;     /* the network follows the gradient flow; the dynamics is that of infinite depth */
    double lr;               /* the largest so far */
    double worst, worst_closed;
    int q_error, q_closed, q_lambda, q_defect, q_mode, q_mode_ode, q_nu, q_nu_closed; /* in the record; −1: not there */
};

/* ---------------------------------------------------------------- life */

static struct intrinsic_law law_of(const struct model *model, const struct twin_start *start, bool scaled)
{
    return (struct intrinsic_law){.kind = scaled              ? INTRINSIC_INFINITE
                                          : model->depth == 2 ? INTRINSIC_TWO_LAYERS
                                                              : INTRINSIC_DEEP,
                                  .depth = model->depth,
                                  .hidden = model->width[1],
                                  .lambda = start->lambda};
}

/* One layer, Z, without parameters. */
static struct model *single_layer(const struct model *large)
{
    const int64_t width[2] = {large->width[0], large->width[large->depth]};
    return model_linear(large->grid, 1, width, large->output_scale);
}

static void prepare(struct intrinsic_twin *x, const struct twin *twin, const struct setting *run, struct model *model)
{
    enum { MOST_MODES = 100 };
    const struct model *large = run->model;
    const struct layer *layer = &large->layer[0];
    const int64_t least = model->width[0] < model->width[1] ? model->width[0] : model->width[1];
    char *key = memory_text("%s.substeps", twin->key);
    const int rank = intrinsic_rank(x->state) ? intrinsic_rank(x->state) : to_int(least);
    model->params = params_create(model);
    dmat_copy(model->params->W[0], intrinsic_matrix(x->state));
    x->view = *model;
    x->view.params = params_view(model);
    x->rate = params_view(model);
    x->substeps = to_int(spec_int(run->spec, key));
    x->modes = rank < MOST_MODES ? rank : MOST_MODES;
    x->speed = layer->lr_multiplier * (x->infinite ? layer->scale : 1);
    x->flow = spec_is(run->spec, "train.optimizer", "gradient_flow");
    x->closed = closed_create(run, x->infinite ? 0 : x->start.lambda[0]);
    memory_free(key);
}

struct model *intrinsic_twin_create(struct twin *twin, const struct twins_setting *setting, struct problems *problems)
{
    const struct setting *run = setting->run;
    if (!twin_start_allows(twin, setting, problems)) return NULL;
    struct intrinsic_twin *x = twin->intrinsic = NEW(struct intrinsic_twin, 1);
    x->infinite = spec_is(run->spec, "model.residual", "scaled");
    twin_start_measure(run->model, x->infinite, &x->start);
    const struct intrinsic_law law = law_of(run->model, &x->start, x->infinite);
    if (!twin_start_fits(twin, &x->start, &law, run, problems)) return NULL;
    struct dmat *Z = twin_end_to_end(run->model);
    x->state = intrinsic_create(&law, Z);
    dmat_destroy(&Z);
    struct model *model = single_layer(run->model);
    prepare(x, twin, run, model);
    return model;
}

void intrinsic_twin_destroy(struct intrinsic_twin **intrinsic)
{
    struct intrinsic_twin *x = *intrinsic;
    if (!x) return;
    intrinsic_destroy(&x->state);
    twin_start_clear(&x->start);
    closed_destroy(&x->closed);
    params_destroy(&x->view.params);
    params_destroy(&x->rate);
    memory_free(x);
    *intrinsic = NULL;
}

void intrinsic_twin_archive(struct intrinsic_twin *x, struct archive *archive)
{
    intrinsic_archive(x->state, archive);
    archive_real(archive, "largest_lr", &x->lr);
    archive_real(archive, "worst", &x->worst);
    archive_real(archive, "worst_closed", &x->worst_closed);
}

/* ---------------------------------------------------------------- steps */

/* G ← ∇f(Z); the first one has been taken already, with the loss. */
static void gradient(void *context, const struct dmat *Z, struct dmat *G)
{
    struct intrinsic_twin *x = context;
    const struct params *taken = x->twin->gradient;
    if (x->first) {
        memcpy(G->local, taken->local, (size_t)taken->size * sizeof(double));
        x->first = false;
        return;
    }
    params_point(x->view.params, Z->local);
    params_point(x->rate, G->local);
    backprop_gradient(x->twin->backprop, &x->view, x->twin->batch, x->rate);
}

void intrinsic_twin_advance(struct twin *twin, double lr)
{
    struct intrinsic_twin *x = twin->intrinsic;
    struct params *params = twin->model->params;
    if (!(lr > 0)) return; /* the end of a schedule */
    x->twin = twin;
    x->first = true;
    x->lr = fmax(x->lr, lr);
    intrinsic_advance(x->state, lr * x->speed, x->substeps, gradient, x);
    memcpy(params->local, intrinsic_matrix(x->state)->local, (size_t)params->size * sizeof(double));
}

/* ---------------------------------------------------------------- comparison */

static int quantity(struct record_group *g, const char *name, const char *long_name, const char *formula,
                    const char *dim)
{
    return record_number(g, name, dim, NULL, long_name, formula, reference);
}

void intrinsic_twin_declare(struct twin *twin)
{
    struct intrinsic_twin *x = twin->intrinsic;
    struct record_group *g = twin->group;
    record_group_text(g, "dynamics", x->infinite ? "infinite depth" : x->start.interfaces == 1 ? "two layers" : "deep");
    record_dimension(g, "interface", x->start.interfaces, "between layers k and k + 1");
    record_dimension(g, "mode", x->modes, "singular value of Z, 1 is the largest");
    x->q_error = quantity(g, "intrinsic_error", "network's end-to-end matrix beside that of the reduced dynamics",
                          "max |Z_network - Z_ode|", NULL);
    x->q_lambda =
        quantity(g, "lambda", "lambda_k of the start", "tr S_k / d_k; with residual layers times L^2", "interface");
    x->q_defect = quantity(g, "relaxed_defect", "how far the start is from relaxed balanced",
                           "|S_k - lambda_k I|_F; with residual layers times L^2", "interface");
    x->q_mode =
        quantity(g, "mode_strength", "singular values of the network's end-to-end matrix", "sigma_i(Z)", "mode");
    x->q_mode_ode = quantity(g, "mode_strength_ode", "the same of the reduced dynamics", "sigma_i(Z_ode)", "mode");
    x->q_closed = x->q_nu = x->q_nu_closed = -1;
    if (!x->closed) return;
    x->q_closed = quantity(g, "closed_form_error", "network beside the closed solution, Q = [W_1^T; W_2]",
                           "max |Q Q^T - Q Q^T of the solution|", NULL);
    if (!closed_is_neuron(x->closed)) return;
    x->q_nu = quantity(g, "nu", "w.beta/a of the neuron a w.x", "w.beta / a; NaN: a = 0", NULL);
    x->q_nu_closed = quantity(g, "nu_closed", "its closed form", "nu' = |beta|^2 - delta nu - nu^2", NULL);
}

/* A NaN must not hide: it stays the worst. */
static double worse(double worst, double value)
{
    return value <= worst ? worst : value;
}

static void measure_modes(const struct twin *twin, const struct dmat *Z)
{
    const struct intrinsic_twin *x = twin->intrinsic;
    const int least = to_int(Z->m < Z->n ? Z->m : Z->n);
    const struct dmat *both[2] = {Z, twin->model->params->W[0]};
    double *sigma = NEW(double, 2 * least);
    factor_singular_values(both, 2, sigma, least);
    record_put(twin->group, x->q_mode, sigma);
    record_put(twin->group, x->q_mode_ode, sigma + least);
    memory_free(sigma);
}

static void measure_closed(const struct twin *twin, const struct moment *moment)
{
    struct intrinsic_twin *x = twin->intrinsic;
    double nu, expected;
    const double error = closed_error(x->closed, moment->model, moment->time);
    record_put_at(twin->group, x->q_closed, 0, error);
    x->worst_closed = worse(x->worst_closed, error);
    if (x->q_nu < 0) return;
    closed_neuron(x->closed, moment->model, moment->time, &nu, &expected);
    record_put_at(twin->group, x->q_nu, 0, nu);
    record_put_at(twin->group, x->q_nu_closed, 0, expected);
}

void intrinsic_twin_measure(struct twin *twin, const struct moment *moment)
{
    struct intrinsic_twin *x = twin->intrinsic;
    struct dmat *Z = twin_end_to_end(moment->model);
    record_put(twin->group, x->q_lambda, x->start.lambda);
    record_put(twin->group, x->q_defect, x->start.defect);
    measure_modes(twin, Z);
    dmat_axpy(Z, -1, twin->model->params->W[0]);
    const double error = dmat_largest(Z);
    record_put_at(twin->group, x->q_error, 0, error);
    x->worst = worse(x->worst, error);
    dmat_destroy(&Z);
    if (x->closed) measure_closed(twin, moment);
}

/* ---------------------------------------------------------------- the end */

/* Both sides are of fourth order in the step; of descent and of finite depth no bound is known beforehand. */
void intrinsic_twin_check(const struct twin *twin, struct record *record)
{
    const struct intrinsic_twin *x = twin->intrinsic;
    const double step = x->lr * x->speed, bound = fmax(1e-9, 1e3 * pow(step, 4));
    if (!x->flow || x->infinite) return;
    char *name = memory_text("%s: the network follows the reduced dynamics", twin->name);
    record_check(record, name, reference, x->worst, bound, x->worst <= bound);
    memory_free(name);
    if (!x->closed) return;
    name = memory_text("%s: the network follows the closed solution", twin->name);
    record_check(record, name, reference, x->worst_closed, bound, x->worst_closed <= bound);
    memory_free(name);
}

void intrinsic_twin_summary(const struct twin *twin)
{
    const struct intrinsic_twin *x = twin->intrinsic;
    log_say("    reduced dynamics%s: largest difference from the network %.3g",
            intrinsic_rank(x->state) ? " by factors" : "", x->worst);
    if (x->closed) log_say("    closed solution: largest difference from the network %.3g", x->worst_closed);
}
