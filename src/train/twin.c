/* twin: the lockstep of the twins with the large network, what is recorded and written of them. */
#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"

#include "twin_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct twins {
    const struct grid *grid; /* borrowed */
    struct twin *twin;       /* [count], owned */
    int count;
};

/* ---------------------------------------------------------------- creation */

int twin_rank(const struct twin *twin, const struct spec *spec, struct problems *problems)
{
    char key[128];
    snprintf(key, sizeof key, "%s.rank", twin->key);
    if (!spec_is(spec, key, "auto")) return to_int(spec_int(spec, key));
    if (spec_applies(spec, "data.rank")) return to_int(spec_int(spec, "data.rank"));
    spec_problem(spec, problems, key, "give it: it does not follow from the data");
    return 1;
}

/* False with a problem if the group's name is taken or impossible. */
static bool name_is_free(const struct twins *twins, const struct twins_setting *setting, const struct twin *twin,
                         struct problems *problems)
{
    static const char *const reserved[] = {"train", "checks", "timing", "provenance"};
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    bool is_free = twin->name[0] && strspn(twin->name, allowed) == strlen(twin->name);
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        is_free = is_free && strcmp(twin->name, reserved[i]) != 0;
    for (int i = 0; i < setting->probes->count; i++)
        is_free = is_free && strcmp(twin->name, setting->probes->probe[i].name) != 0;
    for (int i = 0; i < twin->number; i++) is_free = is_free && strcmp(twin->name, twins->twin[i].name) != 0;
    char *key = memory_text("%s.name", twin->key);
    if (!is_free)
        spec_problem(setting->run->spec, problems, key,
                     "'%s' is taken or not allowed: give each twin a name of its own, of letters, digits, _ and -",
                     twin->name);
    memory_free(key);
    return is_free;
}

static int quantity(struct record_group *g, const char *name, const char *units, const char *long_name,
                    const char *formula)
{
    return record_quantity(
        g, &(struct quantity){.name = name, .units = units, .long_name = long_name, .formula = formula});
}

static void declare(struct twin *twin, const struct setting *run, struct record *record)
{
    const bool unseen = run->loss->kind == LOSS_MASKED_MSE || run->loss->kind == LOSS_SENSING;
    const char *about = twin->compressed  ? "compressed network of the law of parsimony, trained in lockstep"
                        : twin->intrinsic ? "reduced dynamics of the end-to-end matrix, in lockstep"
                                          : "small network, trained in lockstep";
    struct record_group *g = twin->group = record_group(record, twin->name, "step", about);
    record_group_text(g, "kind", "twin");
    twin->q_loss = quantity(g, "loss", "1", "loss of the step's training data", NULL);
    twin->q_recovery = unseen ? quantity(g, "recovery_error", "1", "error of what the loss does not see of the target",
                                         "1/(2KN) |(1 - M) o (F - Y)|_F^2; with measurements of all entries")
                              : -1;
    twin->q_reached = quantity(g, "its_to_tol", "steps", "first step with a loss below the twin's tolerance",
                               "NaN: not reached, or no tolerance");
    twin->q_network_reached = quantity(g, "network_its_to_tol", "steps", "the same of the large network",
                                       "NaN: not reached, or no tolerance");
    if (twin->compressed) compressed_declare(twin);
    if (twin->aligned) aligned_declare(twin);
    if (twin->intrinsic) intrinsic_twin_declare(twin);
}

/* The network is there: what its training needs. */
static void prepare(struct twin *twin, const struct twins_setting *setting)
{
    const struct spec *spec = setting->run->spec;
    const int64_t chunk = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    twin->backprop = backprop_create(twin->model, setting->run->loss, batches_columns(setting->batches), chunk);
    twin->gradient = params_create(twin->model);
    twin->optimizer = optimizer_create(twin->model, spec);
}

static void create(struct twins *twins, const struct twins_setting *setting, struct record *record,
                   struct problems *problems)
{
    const struct spec *spec = setting->run->spec;
    struct twin *twin = &twins->twin[twins->count];
    char key[128];
    *twin = (struct twin){.number = twins->count++, .reached = -1, .network_reached = -1};
    twin->clock[CLOCK_TWIN_TO] = twin->clock[CLOCK_NETWORK_TO] = NAN;
    twin->key = memory_text("twins[%d]", twin->number);
#define KEY(name) (snprintf(key, sizeof key, "%s." name, twin->key), key)
    const char *kind = spec_text(spec, KEY("kind"));
    twin->name = memory_text("%s", spec_is(spec, KEY("name"), "auto") ? kind : spec_text(spec, KEY("name")));
    twin->every = spec_int(spec, KEY("every"));
    twin->tolerance = spec_real(spec, spec_is(spec, KEY("tolerance"), "auto") ? "train.tolerance" : KEY("tolerance"));
#undef KEY
    const bool named = name_is_free(twins, setting, twin, problems);
    twin->model = strcmp(kind, "narrow") == 0      ? narrow_create(twin, setting->run, problems)
                  : strcmp(kind, "intrinsic") == 0 ? intrinsic_twin_create(twin, setting, problems)
                                                   : compressed_create(twin, setting, problems);
    if (!named || !twin->model) return;
    prepare(twin, setting);
    declare(twin, setting->run, record);
}

struct twins *twins_create(const struct twins_setting *setting, struct record *record, struct problems *problems)
{
    struct twins *twins = NEW(struct twins, 1);
    const int count = spec_count(setting->run->spec, "twins");
    twins->grid = setting->run->model->grid;
    twins->twin = NEW(struct twin, count);
    for (int i = 0; i < count; i++) create(twins, setting, record, problems);
    if (!problems_none(problems, twins->grid->comm)) twins_destroy(&twins);
    return twins;
}

void twins_destroy(struct twins **twins)
{
    if (!*twins) return;
    for (int i = 0; i < (*twins)->count; i++) {
        struct twin *twin = &(*twins)->twin[i];
        compressed_destroy(&twin->compressed);
        aligned_destroy(&twin->aligned);
        intrinsic_twin_destroy(&twin->intrinsic);
        optimizer_destroy(&twin->optimizer);
        params_destroy(&twin->gradient);
        backprop_destroy(&twin->backprop);
        model_destroy(&twin->model);
        memory_free(twin->name);
        memory_free(twin->key);
    }
    memory_free((*twins)->twin);
    memory_free(*twins);
    *twins = NULL;
}

/* ---------------------------------------------------------------- lockstep */

/* What the large network has spent on gradients and updates. */
static double network_seconds(void)
{
    return timer_seconds(TIMER_GRADIENT) + timer_seconds(TIMER_UPDATE);
}

static void look_at_network(struct twin *twin, int64_t step, double loss)
{
    if (!twin->frozen) twin->clock[CLOCK_NETWORK] = network_seconds();
    if (twin->network_reached >= 0 || !(loss < twin->tolerance)) return;
    twin->network_reached = step;
    twin->clock[CLOCK_NETWORK_TO] = network_seconds();
}

static void take_gradient(struct twins *twins, struct twin *twin, const struct dataset *batch, int64_t step)
{
    const double since = timer_now();
    twin->batch = batch;
    twin->loss = backprop_gradient(twin->backprop, twin->model, batch, twin->gradient);
    grid_sum(twins->grid, &twin->loss, 1);
    twin->clock[CLOCK_TWIN] += timer_now() - since;
    twin->frozen = !isfinite(twin->loss) || twin->loss < twin->tolerance;
    if (!isfinite(twin->loss))
        log_warn("twin %s has diverged at step %lld; it is trained no further, the run goes on", twin->name,
                 (long long)step);
    if (!(twin->loss < twin->tolerance)) return;
    twin->reached = step;
    twin->clock[CLOCK_TWIN_TO] = twin->clock[CLOCK_TWIN];
}

void twins_gradient(struct twins *twins, const struct dataset *batch, int64_t step, double loss)
{
    for (int i = 0; i < twins->count; i++) {
        struct twin *twin = &twins->twin[i];
        look_at_network(twin, step, loss);
        if (!twin->frozen) take_gradient(twins, twin, batch, step);
    }
}

void twins_update(struct twins *twins, double lr)
{
    for (int i = 0; i < twins->count; i++) {
        struct twin *twin = &twins->twin[i];
        if (twin->frozen) continue;
        const double since = timer_now();
        if (twin->intrinsic)
            intrinsic_twin_advance(twin, lr);
        else
            optimizer_step(twin->optimizer, twin->model, twin->gradient, lr);
        twin->clock[CLOCK_TWIN] += timer_now() - since;
        twin->updates++;
        if (twin->compressed) compressed_advance(twin->compressed, lr);
    }
}

static double step_or_nan(int64_t step)
{
    return step < 0 ? NAN : (double)step;
}

void twins_measure(struct twins *twins, const struct moment *moment, bool evaluated, bool last)
{
    for (int i = 0; i < twins->count; i++) {
        struct twin *twin = &twins->twin[i];
        const bool due = last || moment->step % twin->every == 0;
        if (!due && !evaluated) continue;
        record_row(twin->group, moment->step, moment->time);
        record_put_at(twin->group, twin->q_loss, 0, twin->loss);
        if (twin->q_recovery >= 0)
            record_put_at(twin->group, twin->q_recovery, 0,
                          backprop_recovery(twin->backprop, twin->model, moment->train));
        record_put_at(twin->group, twin->q_reached, 0, step_or_nan(twin->reached));
        record_put_at(twin->group, twin->q_network_reached, 0, step_or_nan(twin->network_reached));
        if (due && twin->compressed && twin->updates == moment->step) compressed_measure(twin, moment);
        if (due && twin->aligned) aligned_measure(twin, moment);
        if (due && twin->intrinsic && twin->updates == moment->step) intrinsic_twin_measure(twin, moment);
    }
}

/* ---------------------------------------------------------------- files */

void twins_archive(struct twins *twins, struct archive *archive)
{
    archive_enter(archive, "twins");
    for (int i = 0; i < twins->count; i++) {
        struct twin *twin = &twins->twin[i];
        archive_enter(archive, twin->name);
        archive_reals(archive, "timing", CLOCKS, twin->clock);
        archive_int(archive, "updates", &twin->updates);
        archive_int(archive, "reached", &twin->reached);
        archive_int(archive, "network_reached", &twin->network_reached);
        archive_real(archive, "loss", &twin->loss);
        twin->frozen = archive_flag(archive, "frozen", twin->frozen);
        params_archive(twin->model->params, "weights", archive);
        optimizer_archive(twin->optimizer, archive);
        if (twin->compressed) compressed_archive(twin->compressed, twin->model->params->W[0], archive);
        if (twin->intrinsic) intrinsic_twin_archive(twin->intrinsic, archive);
        archive_leave(archive);
    }
    archive_leave(archive);
}

void twins_snapshot(const struct twins *twins, struct h5 *file)
{
    for (int i = 0; i < twins->count; i++) {
        const struct twin *twin = &twins->twin[i];
        const struct params *p = twin->model->params;
        h5_group(file, twin->name);
        for (int l = 1; l <= p->depth; l++) {
            char path[256];
            snprintf(path, sizeof path, "%s/W%d", twin->name, l);
            h5_write_matrix(file, path, NULL, NULL, p->W[l - 1],
                            &(struct h5_about){.units = "1", .long_name = "weights of the twin"});
            snprintf(path, sizeof path, "%s/b%d", twin->name, l);
            if (p->b[l - 1])
                h5_write_matrix(file, path, NULL, NULL, p->b[l - 1],
                                &(struct h5_about){.units = "1", .long_name = "bias of the twin"});
        }
    }
}

static void write_seconds(const struct twins *twins, struct h5 *file, const char *path, enum clock clock,
                          const char *long_name)
{
    static const char *const dims[1] = {"twin"};
    const int64_t size = twins->count;
    double *seconds = NEW(double, size);
    for (int i = 0; i < twins->count; i++) seconds[i] = twins->twin[i].clock[clock];
    h5_write_reals(file, path, 1, dims, &size, seconds, &(struct h5_about){.units = "s", .long_name = long_name});
    memory_free(seconds);
}

void twins_write_timing(const struct twins *twins, struct h5 *file)
{
    static const char *const dims[1] = {"twin"};
    const int64_t size = twins->count;
    if (size == 0) return;
    const char **names = NEW(const char *, size);
    int64_t *steps = NEW(int64_t, size);
    for (int i = 0; i < size; i++) {
        names[i] = twins->twin[i].name;
        steps[i] = twins->twin[i].updates;
    }
    h5_dimension(file, "timing/twin", size, NULL, &(struct h5_about){.units = "1", .long_name = "number of the twin"});
    h5_write_texts(file, "timing/twin_name", "twin", size, names, &(struct h5_about){.long_name = "twin"});
    h5_write_ints(file, "timing/twin_steps", 1, dims, &size, steps,
                  &(struct h5_about){.units = "steps", .long_name = "updates of the twin"});
    write_seconds(twins, file, "timing/twin_seconds", CLOCK_TWIN,
                  "gradients and updates of the twin, wall-clock time on rank 0");
    write_seconds(twins, file, "timing/network_seconds", CLOCK_NETWORK,
                  "gradients and updates of the large network while the twin was trained");
    write_seconds(twins, file, "timing/twin_time_to_tol", CLOCK_TWIN_TO,
                  "the same until the loss of the twin was below its tolerance");
    write_seconds(twins, file, "timing/network_time_to_tol", CLOCK_NETWORK_TO,
                  "the same until the loss of the large network was below that tolerance");
    memory_free(steps);
    memory_free(names);
}

/* ---------------------------------------------------------------- the end */

void twins_check(const struct twins *twins, struct record *record)
{
    for (int i = 0; i < twins->count; i++) {
        if (twins->twin[i].compressed) compressed_check(&twins->twin[i], record);
        if (twins->twin[i].intrinsic) intrinsic_twin_check(&twins->twin[i], record);
    }
}

void twins_summary(const struct twins *twins)
{
    for (int i = 0; i < twins->count; i++) {
        const struct twin *twin = &twins->twin[i];
        char reached[96] = "";
        if (twin->reached >= 0)
            snprintf(reached, sizeof reached, ", below its tolerance at step %lld", (long long)twin->reached);
        log_say("  twin %s: width %lld, %lld steps, loss %.6g%s", twin->name, (long long)twin->model->width[1],
                (long long)twin->updates, twin->loss, reached);
        if (twin->updates > 0)
            log_say("    %.3g ms a step beside %.3g ms of the large network",
                    1e3 * twin->clock[CLOCK_TWIN] / (double)twin->updates,
                    1e3 * twin->clock[CLOCK_NETWORK] / (double)twin->updates);
        if (twin->intrinsic) intrinsic_twin_summary(twin);
    }
}
