#include "train/trainer.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "train/low_rank.h"
#include "train/schedule.h"

#include "trainer_private.h"

#include <math.h>
#include <string.h>

/* Loss and gradient at the current parameters. One Allreduce a step: the loss, the squared norm and the wishes to stop
 * together. */
static void take_gradient(struct trainer *t)
{
    const double since = timer_now();
    double sums[2 + RESTART_WISHES] = {0};
    const struct dataset *batch = t->batch = batches_at(t->batches, t->step);
    sums[0] = backprop_gradient(t->backprop, t->model, batch, t->gradient);
    for (int64_t i = 0; i < t->gradient->size; i++) sums[1] += t->gradient->local[i] * t->gradient->local[i];
    restart_look(t, sums + 2);
    grid_sum(t->grid, sums, 2 + RESTART_WISHES);
    if (t->reduction) reduction_complete(t->reduction, &sums[0], &sums[1]);
    t->loss = sums[0];
    t->norm = sqrt(sums[1]);
    t->lr = t->jt ? jt_rate(t->jt, t->model, t->gradient) : schedule_rate(t->spec, t->step);
    restart_agree(t, sums + 2);
    timer_add(TIMER_GRADIENT, since);
    twins_gradient(t->twins, batch, t->step, t->loss);
}

static void update(struct trainer *t)
{
    const double since = timer_now(), lr = t->lr;
    t->has_previous = probes_need_previous(t->probes, t->step + 1, true);
    if (t->has_previous) {
        if (!t->previous) t->previous = params_create(t->model);
        memcpy(t->previous->local, t->model->params->local, (size_t)t->previous->size * sizeof(double));
    }
    if (t->project) project_apply(t->project, t->gradient);
    if (t->flow)
        gradient_flow_step(t->flow, t->model, t->gradient, t->batch, lr);
    else
        optimizer_step(t->optimizer, t->model, t->gradient, lr);
    probes_advance(t->probes, lr, t->loss);
    if (t->reduction) reduction_advance(t->reduction, lr);
    t->budget += lr * lr * t->norm * t->norm;
    t->time += lr;
    t->step++;
    timer_add(TIMER_UPDATE, since);
    probes_follow(t->probes, t->model, t->gradient, lr);
    twins_update(t->twins, lr);
}

/* Whether a signal came during the set-up. */
static void look_before_the_start(struct trainer *t)
{
    double wishes[RESTART_WISHES];
    restart_look(t, wishes);
    grid_sum(t->grid, wishes, RESTART_WISHES);
    restart_agree(t, wishes);
}

int trainer_run(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    const double tolerance = spec_real(t->spec, "train.tolerance");
    if (!restart_load(t, rundir, problems)) return problems->code;
    look_before_the_start(t);
    observe_status(t, rundir, true);
    for (;;) {
        restart_save(t, rundir);
        if (t->stop) break;
        take_gradient(t); /* loss and norm are the same bits on every rank: all take the same way */
        const bool diverged = !isfinite(t->loss) || !isfinite(t->norm);
        const bool last = diverged || t->step >= t->steps || t->loss < tolerance;
        if (diverged) /* fabs: no "-nan" */
            problems_add(problems, EXIT_DIVERGED,
                         "diverged: the loss is %g and the gradient norm %g at step %lld; try a smaller train.lr",
                         fabs(t->loss), fabs(t->norm), (long long)t->step);
        if (t->project && !diverged) project_look(t->project, t->model, t->gradient, t->step, t->time);
        observe_step(t, rundir, last, problems);
        if (last) {
            t->stop = false; /* it has come to its end by itself */
            break;
        }
        update(t);
    }
    return observe_end(t, rundir, problems);
}

int trainer_ended(const struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    if (!rundir->resumed || !rundir->state) return -1;
    if (strcmp(rundir->state, "diverged") == 0) {
        problems_add(problems, EXIT_DIVERGED, "%s has diverged at step %lld: nothing to go on with; --overwrite and %s",
                     rundir->path, (long long)rundir->state_step, "another train.lr start anew");
        return EXIT_DIVERGED;
    }
    if (strcmp(rundir->state, "done") != 0) return -1;
    if (rundir->state_step < t->steps && !rundir->reason) return -1; /* more steps are asked for */
    log_say("%s: finished already, at step %lld%s%s%s; nothing to do", rundir->path, (long long)rundir->state_step,
            rundir->reason ? " (" : "", rundir->reason ? rundir->reason : "", rundir->reason ? ")" : "");
    return EXIT_DONE;
}

static int64_t chunk(const struct spec *spec)
{
    return spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
}

/* Data and model: of the input, or small ones in their place. */
static bool make_network(struct trainer *t, struct problems *problems)
{
    if (reduction_wanted(t->spec)) {
        t->reduction = reduction_create(t->grid, t->spec, &t->data, &t->model, problems);
        return t->reduction != NULL;
    }
    t->data = data_create(t->grid, t->spec, problems);
    if (!t->data) return false;
    if (model_is_low_rank(t->spec))
        t->model = low_rank_create(t->grid, t->spec, t->data->train, &t->loss_kind, problems);
    else
        t->model = model_create(t->grid, t->spec, t->data->train->features, t->data->train->outputs, problems);
    return t->model != NULL;
}

static bool prepare(struct trainer *t, struct problems *problems)
{
    if (!make_network(t, problems)) return false;
    t->batches = batches_create(t->data->train, t->model, t->spec, problems);
    t->record = record_create(t->grid->rank == 0);
    observe_prepare(t);
    restart_prepare(t);
    gradient_flow_check(t->spec, problems);
    jt_check(t->spec, t->model, problems);
    if (jt_wanted(t->spec)) t->jt = jt_create(t->spec, t->data->train, problems);
    const struct setting setting = {t->spec, t->model, t->data->train, &t->loss_kind, t->data->test};
    t->probes = probes_create(&setting, t->record, problems);
    if (project_wanted(t->spec)) t->project = project_create(&setting, t->record, problems);
    if (!t->batches || !t->probes || (project_wanted(t->spec) && !t->project)) return false;
    t->optimizer = optimizer_create(t->model, t->spec);
    t->gradient = params_create(t->model);
    t->backprop = backprop_create(t->model, &t->loss_kind, batches_columns(t->batches), chunk(t->spec));
    if (gradient_flow_wanted(t->spec)) t->flow = gradient_flow_create(t->model, t->backprop, t->spec);
    t->twins = twins_create(&(struct twins_setting){&setting, t->probes, t->batches, t->backprop, t->gradient},
                            t->record, problems);
    return t->twins != NULL;
}

struct trainer *trainer_create(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    const double since = timer_now();
    struct trainer *t = NEW(struct trainer, 1);
    t->grid = grid;
    t->spec = spec;
    t->started = since;
    t->loss_kind = loss_of(spec);
    t->steps = spec_int(spec, "train.steps");
    if (!prepare(t, problems)) trainer_destroy(&t);
    timer_add(TIMER_SETUP, since);
    return t;
}

void trainer_destroy(struct trainer **trainer)
{
    struct trainer *t = *trainer;
    if (!t) return;
    twins_destroy(&t->twins);
    project_destroy(&t->project);
    gradient_flow_destroy(&t->flow);
    jt_destroy(&t->jt);
    backprop_destroy(&t->backprop);
    params_destroy(&t->previous);
    params_destroy(&t->gradient);
    optimizer_destroy(&t->optimizer);
    probes_destroy(&t->probes);
    record_destroy(&t->record);
    parts_clear(&t->parts);
    batches_destroy(&t->batches);
    reduction_destroy(&t->reduction);
    model_destroy(&t->model);
    data_destroy(&t->data);
    memory_free(t);
    *trainer = NULL;
}
