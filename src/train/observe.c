/* observe: what a run writes and says: series, evaluations, snapshots, progress, the closing summary. */
#include "base/build.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "train/stop.h"

#include "trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static int scalar(struct record_group *group, const char *name, const char *long_name, const char *formula)
{
    return record_number(group, name, NULL, NULL, long_name, formula, NULL);
}

void observe_prepare(struct trainer *t)
{
    const char *formula = loss_formula(&t->loss_kind);
    t->train = record_group(t->record, "train", "step", "training");
    t->q_loss = scalar(t->train, "loss", "loss of the step's training data", formula);
    t->q_norm = scalar(t->train, "gradient_norm", "Frobenius norm of the gradient", "|dloss/dW|_F over all parameters");
    t->q_lr = scalar(t->train, "learning_rate", "learning rate of the update from this step", NULL);
    t->q_budget =
        scalar(t->train, "step_budget", "squares of all steps along the gradients so far", "sum eta^2 |dloss/dW|_F^2");
    t->evaluated = record_group(t->record, "train", "evaluated_step", "training");
    t->q_train_loss = scalar(t->evaluated, "train_loss", "loss of the whole training set", formula);
    t->q_train_accuracy = scalar(t->evaluated, "train_accuracy", "accuracy on the training set", NULL);
    t->q_test_loss = scalar(t->evaluated, "test_loss", "loss of the test set", formula);
    t->q_test_accuracy = scalar(t->evaluated, "test_accuracy", "accuracy on the test set", NULL);
    t->hides = t->data->train->M || t->data->train->sensing;
    if (t->hides)
        t->q_recovery = scalar(t->evaluated, "recovery_error", "error on what the loss does not show",
                               "1/(2KN) |(1 - M) o (f(X) - Y)|_F^2; all entries count with measurements");
    if (t->reduction) reduction_declare(t->reduction, t->record);
    if (!spec_is(t->spec, "train.evaluate_every", "auto"))
        t->evaluate_every = spec_int(t->spec, "train.evaluate_every");
    else
        t->evaluate_every = t->steps > 50 ? t->steps / 50 : 1;
    if (spec_is(t->spec, "snapshot.every", "end"))
        t->snapshot_every = -1;
    else if (!spec_is(t->spec, "snapshot.every", "never"))
        t->snapshot_every = spec_int(t->spec, "snapshot.every");
}

static void record_step(struct trainer *t)
{
    record_row(t->train, t->step, t->time);
    record_put_at(t->train, t->q_loss, 0, t->loss);
    record_put_at(t->train, t->q_norm, 0, t->norm);
    record_put_at(t->train, t->q_lr, 0, t->lr);
    record_put_at(t->train, t->q_budget, 0, t->budget);
}

/* Accuracy of the training set costs a forward pass; its loss is known already when the step has seen all samples. */
static void evaluate(struct trainer *t)
{
    const double since = timer_now();
    double train_loss = t->loss, train_accuracy = NAN, test_loss = NAN, test_accuracy = NAN;
    const struct dataset *train = t->data->train;
    if (loss_classifies(&t->loss_kind, train->classification, train->outputs) || !batches_full(t->batches))
        train_loss = backprop_evaluate(t->backprop, t->model, t->data->train, &train_accuracy);
    if (t->data->test) test_loss = backprop_evaluate(t->backprop, t->model, t->data->test, &test_accuracy);
    record_row(t->evaluated, t->step, t->time);
    record_put_at(t->evaluated, t->q_train_loss, 0, train_loss);
    record_put_at(t->evaluated, t->q_train_accuracy, 0, train_accuracy);
    record_put_at(t->evaluated, t->q_test_loss, 0, test_loss);
    record_put_at(t->evaluated, t->q_test_accuracy, 0, test_accuracy);
    if (t->hides)
        record_put_at(t->evaluated, t->q_recovery, 0, backprop_recovery(t->backprop, t->model, t->data->train));
    timer_add(TIMER_EVALUATE, since);
}

static void write_weights(const struct trainer *t, struct h5 *file)
{
    char name[32];
    if (t->reduction) {
        reduction_snapshot(t->reduction, t->model, file);
        return;
    }
    const struct params *p = t->model->params;
    for (int l = 1; l <= t->model->depth; l++) {
        snprintf(name, sizeof name, "W%d", l);
        h5_write_matrix(file, name, NULL, NULL, p->W[l - 1], &(struct h5_about){.units = "1", .long_name = "weights"});
        if (!p->b[l - 1]) continue;
        snprintf(name, sizeof name, "b%d", l);
        h5_write_matrix(file, name, NULL, NULL, p->b[l - 1], &(struct h5_about){.units = "1", .long_name = "bias"});
    }
}

/* One that cannot be written is missed, not the end of the run. */
static void write_snapshot(struct trainer *t, const struct rundir *rundir)
{
    const double since = timer_now();
    struct problems own = {0}, *problems = &own;
    char *folder = rundir_file(rundir, "snapshots");
    char *path = rundir_file(rundir, "snapshots/step_%09lld.h5", (long long)t->step);
    if (t->grid->rank == 0) mkdir(folder, 0777); /* if that fails, h5_create says why */
    struct h5 *file = h5_create(t->grid->comm, path, "eigentrain snapshot", problems);
    if (file) {
        h5_attribute_int(file, "", "step", t->step);
        h5_attribute_real(file, "", "time", t->time);
        if (spec_bool(t->spec, "snapshot.weights")) write_weights(t, file);
        if (spec_bool(t->spec, "snapshot.vectors")) probes_snapshot(t->probes, file);
        if (spec_bool(t->spec, "snapshot.weights")) twins_snapshot(t->twins, file);
        rundir_provenance(rundir, file);
        h5_commit(&file, problems);
    }
    if (own.count) t->lost_snapshots++;
    if (own.count) log_warn("no snapshot of step %lld: %s; the run goes on", (long long)t->step, own.text[0]);
    problems_clear(&own);
    memory_free(path);
    memory_free(folder);
    timer_add(TIMER_OUTPUT, since);
}

static void measure(struct trainer *t, bool last)
{
    const double since = timer_now();
    const struct moment moment = {.step = t->step,
                                  .time = t->time,
                                  .lr = t->lr,
                                  .loss = t->loss,
                                  .model = t->model,
                                  .gradient = t->gradient,
                                  .train = t->data->train,
                                  .test = t->data->test,
                                  .batch = batches_full(t->batches) ? t->data->train : t->batch,
                                  .backprop = t->backprop,
                                  .velocity = optimizer_velocity(t->optimizer),
                                  .previous = t->has_previous ? t->previous : NULL};
    probes_measure(t->probes, &moment, last, t->record);
    const bool evaluated = last || t->step % t->evaluate_every == 0;
    twins_measure(t->twins, &moment, evaluated, last);
    if (t->reduction && evaluated) reduction_measure(t->reduction, t->model, t->step, t->time);
    timer_add(TIMER_PROBES, since);
}

double observe_seconds(const struct trainer *t)
{
    return t->spent_before + timer_now() - t->started;
}

/* Steps a second of this process; NaN before there are any. */
static double rate_of(const struct trainer *t)
{
    return t->step > t->first_step ? (double)(t->step - t->first_step) / (timer_now() - t->started) : NAN;
}

static void say_progress(const struct trainer *t, bool last)
{
    const double rate = rate_of(t);
    if (isfinite(rate))
        log_progress(last, "step %lld of %lld   loss %.6g   %.1f steps/s   %.0f s left", (long long)t->step,
                     (long long)t->steps, t->loss, rate, (double)(t->steps - t->step) / rate);
    else
        log_progress(last, "step %lld of %lld   loss %.6g", (long long)t->step, (long long)t->steps, t->loss);
}

static void write_status(struct trainer *t, const struct rundir *rundir, const char *state, const char *reason)
{
    const bool goes_on = strcmp(state, "running") == 0;
    t->status_written = timer_now();
    rundir_write_status(rundir, &(struct rundir_status){.state = state,
                                                        .reason = reason,
                                                        .step = t->step,
                                                        .steps = t->steps,
                                                        .checkpoint = t->saved,
                                                        .loss = t->loss,
                                                        .seconds = observe_seconds(t),
                                                        .seconds_left = (double)(t->steps - t->step) / rate_of(t),
                                                        .final = goes_on ? NULL : t->record});
}

void observe_status(struct trainer *t, const struct rundir *rundir, bool now)
{
    static const double often = 10; /* seconds */
    if (t->grid->rank == 0 && (now || timer_now() - t->status_written > often))
        write_status(t, rundir, "running", NULL);
}

void observe_step(struct trainer *t, const struct rundir *rundir, bool last, struct problems *problems)
{
    record_step(t);
    if (problems->count) return; /* diverged: nothing more can be measured */
    if (last || t->step % t->evaluate_every == 0) evaluate(t);
    measure(t, last);
    const bool snapshot = t->snapshot_every && (last || (t->snapshot_every > 0 && t->step % t->snapshot_every == 0));
    if (snapshot) write_snapshot(t, rundir);
    say_progress(t, last);
    observe_status(t, rundir, false);
}

static void write_timing(struct h5 *file)
{
    static const char *const dims[1] = {"part"};
    const char *names[TIMER_PARTS];
    double seconds[TIMER_PARTS];
    int64_t size = TIMER_PARTS;
    for (int part = 0; part < TIMER_PARTS; part++) {
        names[part] = timer_name((enum timer_part)part);
        seconds[part] = timer_seconds((enum timer_part)part);
    }
    h5_group(file, "timing");
    h5_dimension(file, "timing/part", size, NULL, &(struct h5_about){.units = "1", .long_name = "number of the part"});
    h5_write_texts(file, "timing/name", "part", size, names, &(struct h5_about){.long_name = "part of the run"});
    h5_write_reals(file, "timing/seconds", 1, dims, &size, seconds,
                   &(struct h5_about){.units = "s", .long_name = "wall-clock time on rank 0"});
    h5_attribute_int(file, "timing", "peak_memory_bytes", memory_peak());
}

static void write_metrics(const struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    if (t->grid->rank == 0) {
        char *path = rundir_file(rundir, "metrics.h5");
        struct h5 *file = h5_create(MPI_COMM_SELF, path, "eigentrain metrics", problems);
        if (file) {
            record_write(t->record, file);
            write_timing(file);
            twins_write_timing(t->twins, file);
            rundir_provenance(rundir, file);
            h5_commit(&file, problems);
        }
        memory_free(path);
    }
}

static void say_end(const struct trainer *t, const struct rundir *rundir)
{
    log_say("done: %lld steps, loss %.6g", (long long)t->step, t->loss);
    const double train = record_last(t->record, "train", "train_accuracy", 0);
    const double test = record_last(t->record, "train", "test_accuracy", 0);
    if (isfinite(train)) log_say("  accuracy %.2f %% on the training set", 100 * train);
    if (isfinite(test)) log_say("  accuracy %.2f %% on the test set", 100 * test);
    if (t->probes->count) log_say("measured:");
    probes_summary(t->probes, t->record);
    twins_summary(t->twins);
    if (t->project) project_summary(t->project);
    if (t->reduction) reduction_summary(t->reduction);
    record_say_checks(t->record);
    log_say("time: %.1f s in all", timer_now() - t->started);
    for (int part = 0; part < TIMER_PARTS; part++)
        log_say("  %-10s %8.2f s", timer_name((enum timer_part)part), timer_seconds((enum timer_part)part));
    log_say("files: %s/metrics.h5%s", rundir->path, t->snapshot_every ? ", snapshots/" : "");
    log_say("figures: postprocess/plot.py %s", rundir->path);
}

/* What it means that no more steps are made, in status.json and to the user. */
static int conclude(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    if (t->lost_snapshots)
        problems_add(problems, EXIT_ENVIRONMENT, "%d snapshot%s could not be written (see the warnings)",
                     t->lost_snapshots, t->lost_snapshots > 1 ? "s" : "");
    const char *state = problems->code == EXIT_DONE ? "done" : problems->code == EXIT_DIVERGED ? "diverged" : "failed";
    const bool early = problems->count == 0 && t->step < t->steps;
    const char *reason = problems->count ? problems->text[0] : early ? "the loss is below train.tolerance" : NULL;
    if (t->grid->rank == 0) write_status(t, rundir, state, reason);
    if (problems->code == EXIT_DONE && t->grid->rank == 0) say_end(t, rundir);
    return problems->code;
}

/* Every rank knows that some rank has a reason to stop, which the root may not see itself. */
static int conclude_stop(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    const char *reason = stop_reason() ? stop_reason() : "a signal to another rank";
    if (t->saved < 0)
        problems_add(problems, EXIT_ENVIRONMENT, "stopped (%s), but no checkpoint could be written", reason);
    if (t->grid->rank == 0) write_status(t, rundir, t->saved < 0 ? "failed" : "stopped", reason);
    if (t->saved < 0) return EXIT_ENVIRONMENT;
    log_say("stopped at step %lld (%s); checkpoint of step %lld; go on with --resume", (long long)t->step, reason,
            (long long)t->saved);
    return EXIT_STOPPED;
}

int observe_end(struct trainer *t, const struct rundir *rundir, struct problems *problems)
{
    if (t->stop) return conclude_stop(t, rundir, problems);
    const double since = timer_now();
    struct problems own = {0};
    if (problems->count == 0) probes_check(t->probes, t->record);
    if (problems->count == 0) twins_check(t->twins, t->record);
    if (problems->count == 0 && t->reduction) reduction_check(t->reduction, t->record);
    write_metrics(t, rundir, &own);
    if (problems_join(&own, t->grid->comm, problems)) restart_end(t, rundir);
    timer_add(TIMER_OUTPUT, since);
    return conclude(t, rundir, problems);
}
