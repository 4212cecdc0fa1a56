/* plan: the command that says what a run would need. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/krylov.h"

#include "app/arguments.h"
#include "app/calibrate.h"
#include "app/commands.h"
#include "app/estimate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the command line asks for; the input is read. */
struct plan {
    MPI_Comm comm;
    const char *input;
    struct argument_list sets;
    int ranks;
    double latency, bandwidth, flops; /* given, in the place of measured ones: s, bytes/s, flop/s; 0: not */
    bool json;
};

/* ---------------------------------------------------------------- numbers for people */

/* "1.25 GiB"; several at a time. */
static const char *mebibytes(double bytes)
{
    static char text[4][32];
    static int next = 0;
    char *to = text[next++ % 4];
    if (bytes < 10240.0 * 1048576)
        snprintf(to, sizeof text[0], "%.1f MiB", bytes / 1048576);
    else
        snprintf(to, sizeof text[0], "%.1f GiB", bytes / 1073741824);
    return to;
}

/* "1.25 G": of flops, bytes in messages. */
static const char *scaled(double value)
{
    static char text[4][32];
    static int next = 0;
    static const char *const prefix[] = {"", "k", "M", "G", "T", "P", "E"};
    char *to = text[next++ % 4];
    int power = 0;
    for (; value >= 1000 && power < 6; power++) value /= 1000;
    snprintf(to, sizeof text[0], "%.3g %s", value, prefix[power]);
    return to;
}

/* ---------------------------------------------------------------- parts of the answer */

static void say_network(const struct plan *p, const struct estimate *e)
{
    log_say("plan of %s: %s, %d rank%s as %d × %d, block %d", p->input, spec_text(e->spec, "run.name"), e->grid.size,
            e->grid.size > 1 ? "s" : "", e->grid.nprow, e->grid.npcol, e->grid.block);
    log_say(
        "network: %lld inputs, %lld outputs, depth %d, %lld parameters; %lld training samples%s, %lld columns a step",
        (long long)e->data.features, (long long)e->data.outputs, e->model->depth, (long long)e->parameters,
        (long long)e->data.train, e->batches.compressed ? " (compressed)" : "", (long long)e->batches.columns);
}

static void say_memory(const struct estimate *e, const struct calibration *c)
{
    static const char *const names[MEMORIES] = {"data", "weights, gradient, optimizer", "activations",
                                                "panels of products", "probes and series"};
    const double peak = (double)(c->program + e->peak);
    log_say("memory of the rank with the largest share: %s at its peak (this machine has %s)", mebibytes(peak),
            mebibytes((double)c->node_memory));
    log_say("  %-30s %12s", "program and libraries", mebibytes((double)c->program));
    for (int i = 0; i < MEMORIES; i++) log_say("  %-30s %12s", names[i], mebibytes((double)e->memory[i]));
    log_say("  %-30s %12s   (the peak: %s)", "for a moment", mebibytes((double)e->temporary), e->moment);
}

static void say_step(const struct estimate *e)
{
    const struct estimate_step *s = &e->step;
    log_say("a step:");
    log_say("  %-30s %12sflop   (%sflop on one rank)", "products", scaled(s->flops), scaled(s->mine));
    log_say("  %-30s %12sB      read and written on one rank", "passes over memory", scaled(s->traffic));
    log_say("  %-30s %12s messages, %sB to one rank", "communication", scaled(s->messages), scaled(s->received));
}

static void say_probes(const struct estimate *e)
{
    if (e->probes->count) log_say("a measurement of each probe:");
    for (int i = 0; i < e->probes->count; i++) {
        const struct estimate_probe *p = &e->probe[i];
        char products[96] = "";
        if (p->products > 0)
            snprintf(products, sizeof products, ", an estimate of %.0f Krylov products (%.0f to %.0f)", p->products,
                     p->least_products, p->most_products);
        log_say("  %-30s %12sflop%s; %lld times", e->probes->probe[i].name, scaled(p->flops), products,
                (long long)p->times);
    }
}

static void say_disk(const struct estimate *e)
{
    const struct estimate_disk *d = &e->disk;
    const double snapshots = (double)d->snapshots * (double)d->snapshot;
    const double checkpoints = (double)d->kept * (double)d->checkpoint;
    log_say("on disk at the end: %s", mebibytes((double)d->metrics + snapshots + checkpoints));
    log_say("  %-30s %12s", "metrics", mebibytes((double)d->metrics));
    log_say("  %-30s %12s   (%lld of %s)", "snapshots", mebibytes(snapshots), (long long)d->snapshots,
            mebibytes((double)d->snapshot));
    log_say("  %-30s %12s   (%lld written, %lld of %s stay)", "checkpoints", mebibytes(checkpoints),
            (long long)d->checkpoints, (long long)d->kept, mebibytes((double)d->checkpoint));
}

static void say_time(const struct estimate *e, const struct calibration *c)
{
    double sum = 0;
    for (int part = 0; part < TIMER_PARTS; part++) sum += estimate_seconds(e, &c->rates, (enum timer_part)part);
    log_say("predicted time: %.4g s (the program itself starts in about half a second)", sum);
    for (int part = 0; part < TIMER_PARTS; part++)
        log_say("  %-30s %12.4g s", timer_name((enum timer_part)part),
                estimate_seconds(e, &c->rates, (enum timer_part)part));
}

static const char *messages_basis(const struct plan *p, const struct estimate *e, const struct calibration *c)
{
    if (p->latency > 0 && p->bandwidth > 0) return "both given";
    if (c->messages)
        return p->latency > 0     ? "the first given, the second measured between the ranks of this plan"
               : p->bandwidth > 0 ? "the first measured between the ranks of this plan, the second given"
                                  : "measured between the ranks of this plan";
    if (p->latency > 0) return "the first given, the second assumed, as in shared memory";
    if (p->bandwidth > 0) return "the first assumed, as in shared memory, the second given";
    return e->grid.size > 1 ? "assumed, as in shared memory: start plan by mpirun to measure" : "none";
}

/* What the prediction rests on. */
static void say_basis(const struct plan *p, const struct estimate *e, const struct calibration *c)
{
    const double *s = c->rates.seconds;
    log_say("%s: products of a step %sflop/s%s, passes over memory %sB/s on each of %d at the same time with %d "
            "BLAS thread%s",
            p->flops > 0 ? "given and measured here" : "measured here", scaled(c->flops),
            p->flops > 0 ? " (given)" : "", scaled(1 / s[RATE_STREAM]), c->busy, c->threads, c->threads > 1 ? "s" : "");
    log_say("  messages: %.3g us and %sB/s, %s", 1e6 * s[RATE_MESSAGE], scaled(1 / s[RATE_SENT]),
            messages_basis(p, e, c));
    log_say("  files: %.3g ms each, %sB/s, %s", 1e3 * s[RATE_FILE], scaled(1 / s[RATE_DISK]),
            c->disk ? "measured in TMPDIR: another file system may be slower" : "assumed");
    if (c->ranks > 1 && e->grid.size != c->ranks)
        log_say("  %d ranks are planned, %d have measured: as if each computed, and sent, as these do", e->grid.size,
                c->ranks);
    if (c->ranks == 1 && e->grid.size > c->busy)
        log_say("  %d ranks are planned on nodes with %d core%s like this one", e->grid.size, c->busy,
                c->busy > 1 ? "s" : "");
}

/* ---------------------------------------------------------------- other shapes of the grid */

static struct estimate_shape planned_shape(const struct estimate *e, const struct calibration *c)
{
    return estimate_shape(e, e->grid.nprow, e->grid.npcol, &c->rates, c->flops);
}

/* Where the network between the nodes is given: how well the ranks are used, and whether another grid would be better.
 */
static void say_efficiency(const struct estimate *e, const struct calibration *c)
{
    int count, at;
    struct estimate_shape *list = estimate_shapes(e, e->grid.size, &c->rates, c->flops, &count, &at);
    const struct estimate_shape now = planned_shape(e, c), *best = &list[at];
    log_say("predicted efficiency of a step: %.1f %% of %d ranks (%.4g s, one rank of the same rates %.4g s; products "
            "at one rate, whatever their shape)",
            100 * now.efficiency, e->grid.size, now.seconds, now.seconds * now.efficiency * e->grid.size);
    log_say("  best grid under this model: %d × %d, block %d: %.1f %% (%.4g s)", best->nprow, best->npcol, best->block,
            100 * best->efficiency, best->seconds);
    memory_free(list);
}

static void print_shape(const struct estimate_shape *s, bool first)
{
    printf("%s\n  {\"ranks\": %d, \"rows\": %d, \"cols\": %d, \"block\": %d, \"seconds\": %.9g, \"efficiency\": %.9g, "
           "\"flops\": %.9g, \"messages\": %.9g, \"received\": %.9g}",
           first ? "" : ",", s->nprow * s->npcol, s->nprow, s->npcol, s->block, s->seconds, s->efficiency, s->step.mine,
           s->step.messages, s->step.received);
}

/* For programs: a step on grids of all shapes of 1, 2, 4, … ranks, up to those that are planned. */
static void print_json(const struct estimate *e, const struct calibration *c)
{
    const struct estimate_shape now = planned_shape(e, c);
    const int64_t peak = c->program + e->peak;
    double sum = 0;
    for (int part = 0; part < TIMER_PARTS; part++) sum += estimate_seconds(e, &c->rates, (enum timer_part)part);
    printf("{\"run\": \"%s\", \"memory\": %lld, \"seconds\": %.9g, \"flops\": %.9g, \"latency\": %.9g, "
           "\"bandwidth\": %.9g,\n \"planned\":",
           spec_text(e->spec, "run.name"), (long long)peak, sum, c->flops, c->rates.seconds[RATE_MESSAGE],
           1 / c->rates.seconds[RATE_SENT]);
    print_shape(&now, true);
    printf(",\n \"shapes\": [");
    for (int64_t ranks = 1, done = 0; !done; ranks *= 2) {
        done = ranks >= e->grid.size;
        int count, best;
        struct estimate_shape *list =
            estimate_shapes(e, done ? e->grid.size : to_int(ranks), &c->rates, c->flops, &count, &best);
        for (int i = 0; i < count; i++) print_shape(&list[i], ranks == 1 && i == 0);
        memory_free(list);
    }
    printf("]}\n");
}

/* ---------------------------------------------------------------- the command */

/* A positive number behind an option; 0 if there is none. */
static double positive(const char *name, const char *what, const char *text, struct problems *problems)
{
    if (!text) return 0;
    char *end;
    const double value = strtod(text, &end);
    if (*end || end == text || !(value > 0) || !isfinite(value))
        problems_add(problems, EXIT_INPUT, "%s: expected %s, a number above 0, found '%s'", name, what, text);
    return value;
}

static int number_of_ranks(const char *text, int size, struct problems *problems)
{
    if (!text) return size;
    char *end;
    const long ranks = strtol(text, &end, 10);
    if (*end || end == text || ranks < 1 || ranks > 10000000)
        problems_add(problems, EXIT_INPUT, "--ranks: expected a number of ranks, found '%s'", text);
    return (int)ranks;
}

/* Whether the command line gives the key a value. */
static bool is_set(const struct argument_list *sets, const char *key)
{
    for (int i = 0; i < sets->count; i++)
        if (strncmp(sets->text[i], key, strlen(key)) == 0 && sets->text[i][strlen(key)] == '=') return true;
    return false;
}

/* Of a sweep, one member is planned: all that is swept must be given. */
static void check_sweep(const struct plan *p, const char *text, size_t length, struct problems *problems)
{
    struct sweep_axes *axes = spec_sweep(text, length, p->input, problems);
    char *missing = memory_text("%s", "");
    for (int a = 0; axes && a < axes->count; a++)
        for (int k = 0; k < axes->axis[a].keys; k++) {
            const struct sweep_axis *axis = &axes->axis[a];
            if (is_set(&p->sets, axis->key[k])) continue;
            char *more = memory_text("%s --set %s=%s", missing, axis->key[k], axis->value[k * axis->size]);
            memory_free(missing);
            missing = more;
        }
    if (axes && *missing)
        problems_add(problems, EXIT_INPUT, "%s is a sweep of %lld members: plan one of them, for example with%s",
                     p->input, (long long)axes->members, missing);
    memory_free(missing);
    sweep_axes_destroy(&axes);
}

static void plan(const struct plan *p, const struct spec *spec, struct problems *problems)
{
    struct calibration calibration;
    struct estimate *e = estimate_create(p->comm, spec, p->ranks, problems);
    if (!e) return;
    say_network(p, e);
    calibrate(p->comm, e, &calibration);
    calibrate_replace(e, &calibration, p->latency, p->bandwidth, p->flops);
    int rank;
    MPI_Comm_rank(p->comm, &rank);
    if (p->json && rank == 0) print_json(e, &calibration);
    say_memory(e, &calibration);
    say_step(e);
    say_probes(e);
    say_disk(e);
    if (spec_count(spec, "twins") > 0) log_say("not counted: %d twins", spec_count(spec, "twins"));
    say_time(e, &calibration);
    if (p->latency > 0 || p->bandwidth > 0) say_efficiency(e, &calibration);
    say_basis(p, e, &calibration);
    estimate_destroy(&e);
}

int command_plan(int argc, char **argv)
{
    struct plan p = {.comm = MPI_COMM_WORLD};
    struct problems problems = {0};
    struct argument_list rest = {0};
    const char *ranks = NULL, *latency = NULL, *bandwidth = NULL, *flops = NULL;
    const struct argument_option options[] = {{.name = "--ranks", .text = &ranks},
                                              {.name = "--latency", .text = &latency},
                                              {.name = "--bandwidth", .text = &bandwidth},
                                              {.name = "--flops", .text = &flops},
                                              {.name = "--json", .flag = &p.json},
                                              {.name = "--set", .list = &p.sets},
                                              {0}};
    int rank, size;
    long length = 0;
    MPI_Comm_rank(p.comm, &rank);
    MPI_Comm_size(p.comm, &size);
    arguments_parse(argc, argv, options, &rest, &problems);
    p.ranks = number_of_ranks(ranks, size, &problems);
    p.latency = positive("--latency", "seconds of a message", latency, &problems);
    p.bandwidth = positive("--bandwidth", "bytes per second to one rank", bandwidth, &problems);
    p.flops = positive("--flops", "flop per second of one rank", flops, &problems);
    p.input = arguments_input(&rest, "plan", &problems);
    log_start(rank == 0, p.json);
    char *text = problems.count ? NULL : arguments_read(p.comm, p.input, &length, &problems);
    struct spec *spec = NULL;
    if (text) check_sweep(&p, text, (size_t)length, &problems);
    if (text && problems.count == 0)
        spec = spec_read(text, (size_t)length, p.input, p.sets.count, p.sets.text, &problems);
    if (spec) {
        krylov_start(p.comm);
        plan(&p, spec, &problems);
        krylov_end();
    }
    spec_destroy(&spec);
    memory_free(text);
    arguments_free(&p.sets);
    arguments_free(&rest);
    const int code = problems.code;
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    return code;
}
