/* laws: the command that counts what gradient flow conserves in a small network, and says whether its end-to-end
 * dynamics is intrinsic. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/dataset.h"
#include "net/init.h"
#include "net/layout.h"
#include "net/model.h"
#include "theory/intrinsic.h"
#include "theory/laws.h"

#include "app/arguments.h"
#include "app/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What is asked for, and the network in the form that the theory wants. */
struct question {
    MPI_Comm comm;
    const char *input;
    bool random;          /* at a random point instead of the start */
    bool table;           /* a line for each network of a sweep */
    int64_t generic;      /* of these lines: as many laws as the theory has */
    int64_t unknown;      /* theory has none */
    int *width;           /* [depth + 1] owned */
    bool *bias, *trained; /* [depth] owned */
    struct laws_net net;
    double *theta; /* owned */
};

/* ---------------------------------------------------------------- the network */

static void describe(struct question *q, const struct model *model, const struct spec *spec)
{
    bool all = true;
    q->width = NEW(int, model->depth + 1);
    q->bias = NEW(bool, model->depth);
    q->trained = NEW(bool, model->depth);
    for (int l = 0; l <= model->depth; l++) q->width[l] = to_int(model->width[l]);
    for (int l = 0; l < model->depth; l++) {
        q->bias[l] = model->layer[l].bias;
        q->trained[l] = model->layer[l].trainable;
        all = all && q->trained[l];
    }
    q->net = (struct laws_net){.depth = model->depth,
                               .width = q->width,
                               .bias = spec_bool(spec, "model.bias") ? q->bias : NULL,
                               .relu = spec_is(spec, "model.activation", "relu") && model->depth > 1,
                               .pairs = spec_is(spec, "model.residual", "pairs"),
                               .trained = all ? NULL : q->trained};
}

static bool check(const struct question *q, const struct spec *spec, struct problems *problems)
{
    const struct laws_net *net = &q->net;
    const int before = problems->count;
    const bool linear = spec_is(spec, "model.activation", "linear");
    if (!linear && !spec_is(spec, "model.activation", "relu"))
        spec_problem(spec, problems, "model.activation", "is %s: laws are known for linear and relu",
                     spec_text(spec, "model.activation"));
    if (linear && net->bias) spec_problem(spec, problems, "model.bias", "a linear network is counted without biases");
    if (net->pairs && linear)
        spec_problem(spec, problems, "model.residual", "pairs: skip connections are counted with activation: relu");
    if (spec_is(spec, "model.residual", "scaled"))
        spec_problem(spec, problems, "model.residual",
                     "scaled: only a network of residual pairs, or without, is counted");
    if (spec_int(spec, "model.linear_head") > 0 && !linear)
        spec_problem(spec, problems, "model.linear_head", "must be 0: paths pass an activation in every hidden layer");
    if (net->trained && !net->pairs)
        spec_problem(spec, problems, "model.trainable", "all layers must be trained, unless model.residual is pairs");
    if (problems->count == before && !laws_fit(net))
        spec_problem(spec, problems, "model.widths",
                     "%lld parameters and %lld paths are too many to count laws by dense matrices: at most 600 "
                     "parameters, 4000000 entries of the Jacobian, and 2000 entries of a linear network's product",
                     (long long)laws_parameters(net), (long long)laws_paths(net));
    return problems->count == before;
}

/* All parameters whole, in the order of the theory. */
static void take_start(struct question *q, const struct model *model)
{
    double *at = q->theta;
    for (int l = 0; l < model->depth; l++) {
        const struct dmat *W = model->params->W[l], *b = model->params->b[l];
        dmat_gather(W, at, -1);
        at += W->m * W->n;
        if (!b) continue;
        dmat_gather(b, at, -1);
        at += b->m;
    }
}

static void take_random(struct question *q, const struct spec *spec)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    for (int64_t i = 0; i < laws_parameters(&q->net); i++)
        q->theta[i] = random_normal(seed, RANDOM_WEIGHTS, (uint64_t)i);
}

/* ---------------------------------------------------------------- whether a linear start is relaxed balanced */

struct start {
    double *lambda; /* [depth] tr S_k/n_k; owned */
    double defect;  /* largest entry of S_k − λ_k I, over the largest of W W^T */
};

static struct start start_of(const struct question *q)
{
    const int L = q->net.depth, *n = q->width;
    struct start start = {.lambda = NEW(double, L)};
    double size = 0;
    const double *W = q->theta;
    for (int k = 1; k < L; k++) {
        const double *next = W + (int64_t)n[k] * n[k - 1];
        double *above = NEW(double, (int64_t)n[k] * n[k]), *below = NEW(double, (int64_t)n[k] * n[k]);
        factor_local_product('T', 'N', n[k], n[k], n[k + 1], next, next, above);
        factor_local_product('N', 'T', n[k], n[k], n[k - 1], W, W, below);
        for (int i = 0; i < n[k]; i++) start.lambda[k - 1] += (above[i + i * n[k]] - below[i + i * n[k]]) / n[k];
        for (int i = 0; i < n[k] * n[k]; i++) {
            const double mean = i % (n[k] + 1) == 0 ? start.lambda[k - 1] : 0;
            start.defect = fmax(start.defect, fabs(above[i] - below[i] - mean));
            size = fmax(size, fmax(fabs(above[i]), fabs(below[i])));
        }
        memory_free(below);
        memory_free(above);
        W = next;
    }
    for (int k = 0; k < L - 1; k++)
        if (fabs(start.lambda[k]) < 1e-12 * size) start.lambda[k] = 0;
    start.defect /= size > 0 ? size : 1;
    return start;
}

/* ---------------------------------------------------------------- the answer */

static const double CRITERION = 1e-10; /* above rounding, below what is not zero */

static void say_count(const char *name, int64_t value, const char *meaning)
{
    log_say("  %-18s %8lld   %s", name, (long long)value, meaning);
}

static void say_linear(const struct question *q, const struct laws_counts *c)
{
    const int L = q->net.depth, *n = q->width;
    struct start start = start_of(q);
    const struct intrinsic_law law = {
        .kind = L == 2 ? INTRINSIC_TWO_LAYERS : INTRINSIC_DEEP, .depth = L, .hidden = n[1], .lambda = start.lambda};
    const bool relaxed = L > 1 && start.defect < 1e-9, exists = relaxed && intrinsic_exists(&law, n[L], n[0]);
    if (relaxed && L == 2)
        log_say("the start is %s: S = lambda I with lambda = %.6g",
                start.lambda[0] == 0 ? "balanced" : "relaxed balanced", start.lambda[0]);
    else if (relaxed)
        log_say("the start is balanced or relaxed balanced: S_k = lambda_k I");
    else if (L > 1)
        log_say("this point is not (relaxed) balanced: S_k differs from lambda_k I by %.3g of its size", start.defect);
    if (c->both == c->parameters)
        log_say("intrinsic: yes. The product and the laws determine the parameters, so the product obeys an ODE of its "
                "own");
    else if (c->criterion > CRITERION)
        log_say("intrinsic: no metric property. A direction that changes neither product nor laws changes the metric "
                "M: M is "
                "no function of them here");
    else if (exists)
        log_say("intrinsic: yes. From this start the product obeys an ODE of its own (twins: [{kind: intrinsic}])");
    else
        log_say("intrinsic: open. The necessary criterion holds at this point, which does not prove it");
    memory_free(start.lambda);
}

static void say_verdict(const struct question *q, const struct laws_counts *c)
{
    const int64_t theory = laws_theory(&q->net);
    const int64_t open = c->parameters - c->phi;
    if (q->net.pairs && open == c->laws)
        log_say("complete: the gradients leave open just as many directions as there are known laws");
    else if (q->net.pairs)
        log_say("the gradients leave open %lld directions, and %d laws are known: there may be more", (long long)open,
                c->laws);
    else if (!q->net.relu)
        say_linear(q, c);
    else if (c->both == c->parameters)
        log_say("intrinsic: yes, until a gate changes. Paths and laws determine the parameters, so the path-lifting "
                "obeys an "
                "ODE of its own");
    else
        log_say("intrinsic: not shown. Paths and laws do not determine the parameters at this point");
    if (c->lie >= 0 && c->parameters - c->lie == c->laws)
        log_say("complete: there are no further laws for all losses (dim theta - dim Lie = rank J_h)");
    else if (c->lie >= 0)
        log_say("dim theta - dim Lie = %lld independent laws at this point", (long long)(c->parameters - c->lie));
    if (theory >= 0 && theory != c->laws)
        log_say("this point is special: a generic one has %lld laws", (long long)theory);
}

static int64_t zeros_of(const struct question *q)
{
    int64_t zeros = 0;
    for (int64_t i = 0; i < laws_parameters(&q->net); i++) zeros += q->theta[i] == 0;
    return zeros;
}

/* A count that is not there is a dash. */
static void put_count(char *line, size_t size, int64_t count)
{
    const size_t length = strlen(line);
    if (count >= 0)
        snprintf(line + length, size - length, " %8lld", (long long)count);
    else
        snprintf(line + length, size - length, " %8s", "-");
}

static const char TABLE_HEAD[] = "network                    theta     path     laws  stacked   theory      lie";

static void answer_in_a_line(struct question *q, const char *widths)
{
    const struct laws_counts c = laws_count(&q->net, q->theta);
    const int64_t theory = laws_theory(&q->net);
    char line[256];
    snprintf(line, sizeof line, "%-6s %-16s", q->net.relu ? "relu" : "linear", widths);
    put_count(line, sizeof line, c.parameters);
    put_count(line, sizeof line, c.phi);
    put_count(line, sizeof line, c.laws);
    put_count(line, sizeof line, c.both);
    put_count(line, sizeof line, theory);
    put_count(line, sizeof line, c.lie);
    log_say("%s", line);
    q->generic += theory == c.laws && (c.lie < 0 || c.parameters - c.lie == c.laws);
    q->unknown += theory < 0;
}

static void answer(struct question *q)
{
    char widths[256] = "";
    for (int l = 0; l <= q->net.depth; l++)
        snprintf(widths + strlen(widths), sizeof widths - strlen(widths), "%s%d", l ? "-" : "", q->width[l]);
    if (q->table) {
        answer_in_a_line(q, widths);
        return;
    }
    const struct laws_counts c = laws_count(&q->net, q->theta);
    const int64_t theory = laws_theory(&q->net), zeros = zeros_of(q);
    log_say("laws of %s: %s network %s%s%s at %s", q->input, q->net.relu ? "relu" : "linear", widths,
            q->net.bias ? " with biases" : "", q->net.pairs ? " with skip connections" : "",
            q->random ? "a random point" : "the input's start");
    say_count("parameters", c.parameters, "dim theta");
    say_count("path_rank", c.phi, q->net.pairs ? "of gradients at random inputs" : "rank J_phi: what the loss sees");
    say_count("law_count", c.laws, "rank J_h: independent laws that are known");
    say_count("stacked_rank", c.both, "of both together");
    if (theory >= 0) say_count("theory_count", theory, "laws of a generic point");
    if (c.lie >= 0) say_count("lie_dimension", c.lie, "of the Lie algebra of the fields grad phi_i");
    if (!isnan(c.criterion))
        log_say("  %-18s %8.1e   max |dM v| over ker dphi and ker dh", "kernel_criterion", c.criterion);
    if (zeros > 0)
        log_say("%lld of %lld parameters are 0 here: ranks are not those of a generic point (--point random)",
                (long long)zeros, (long long)laws_parameters(&q->net));
    say_verdict(q, &c);
}

/* ---------------------------------------------------------------- the command */

static void ask(struct question *q, const struct spec *spec, struct problems *problems)
{
    struct data_sizes sizes;
    if (!data_measure(q->comm, spec, &sizes, problems)) return;
    if (model_is_low_rank(spec)) {
        spec_problem(spec, problems, "model.parametrization", "laws are counted of a full network");
        return;
    }
    struct grid *grid = layout_create(q->comm, spec, problems);
    if (!grid) return;
    struct model *outline = model_outline(grid, spec, sizes.features, sizes.outputs, problems), *model = NULL;
    if (outline) describe(q, outline, spec);
    if (outline && check(q, spec, problems)) {
        q->theta = NEW(double, laws_parameters(&q->net));
        if (q->random)
            take_random(q, spec);
        else if ((model = model_create(grid, spec, sizes.features, sizes.outputs, problems)))
            take_start(q, model);
        if (q->random || model) answer(q);
    }
    model_destroy(&model);
    model_destroy(&outline);
    grid_destroy(&grid);
}

static bool is_random(const char *point, struct problems *problems)
{
    if (!point || strcmp(point, "start") == 0) return false;
    if (strcmp(point, "random") != 0)
        problems_add(problems, EXIT_INPUT, "--point: expected start or random, found '%s'", point);
    return true;
}

static void forget(struct question *q)
{
    memory_free(q->width);
    memory_free(q->bias);
    memory_free(q->trained);
    memory_free(q->theta);
    q->width = NULL;
    q->bias = q->trained = NULL;
    q->theta = NULL;
}

static void ask_of(struct question *q, const char *text, size_t length, int count, char **set,
                   struct problems *problems)
{
    struct spec *spec = spec_read(text, length, q->input, count, (const char *const *)set, problems);
    if (spec) ask(q, spec, problems);
    spec_destroy(&spec);
    forget(q);
}

/* Every member's values are set behind those of the command line. */
static void ask_all(struct question *q, const char *text, size_t length, const struct argument_list *sets,
                    const struct sweep_axes *axes, struct problems *problems)
{
    int keys = sets->count;
    for (int a = 0; a < axes->count; a++) keys += axes->axis[a].keys;
    char **set = NEW(char *, keys);
    q->table = true;
    log_say("%s", TABLE_HEAD);
    for (int64_t i = 0; i < axes->members && problems->count == 0; i++) {
        int count = 0;
        for (; count < sets->count; count++) set[count] = (char *)sets->text[count];
        for (int a = 0; a < axes->count; a++)
            for (int k = 0; k < axes->axis[a].keys; k++) {
                const struct sweep_axis *axis = &axes->axis[a];
                const char *value = axis->value[k * axis->size + sweep_index(axes, i, a)];
                set[count++] = memory_text("%s=%s", axis->key[k], value);
            }
        ask_of(q, text, length, keys, set, problems);
        for (int s = sets->count; s < keys; s++) memory_free(set[s]);
    }
    if (problems->count == 0)
        log_say("of %lld networks %lld have just the laws that theory knows, and of %lld theory has no count (deep "
                "linear ones)",
                (long long)axes->members, (long long)q->generic, (long long)q->unknown);
    memory_free(set);
}

static void ask_input(struct question *q, const char *text, size_t length, const struct argument_list *sets,
                      struct problems *problems)
{
    struct sweep_axes *axes = spec_sweep(text, length, q->input, problems);
    krylov_start(q->comm);
    if (axes)
        ask_all(q, text, length, sets, axes, problems);
    else if (problems->count == 0)
        ask_of(q, text, length, sets->count, (char **)sets->text, problems);
    krylov_end();
    sweep_axes_destroy(&axes);
}

int command_laws(int argc, char **argv)
{
    struct question q = {.comm = MPI_COMM_WORLD};
    struct problems problems = {0};
    struct argument_list sets = {0}, rest = {0};
    const char *point = NULL;
    const struct argument_option options[] = {
        {.name = "--point", .text = &point}, {.name = "--set", .list = &sets}, {0}};
    int rank;
    long length = 0;
    MPI_Comm_rank(q.comm, &rank);
    arguments_parse(argc, argv, options, &rest, &problems);
    q.random = is_random(point, &problems);
    q.input = arguments_input(&rest, "laws", &problems);
    log_start(rank == 0, false);
    char *text = problems.count ? NULL : arguments_read(q.comm, q.input, &length, &problems);
    if (text) ask_input(&q, text, (size_t)length, &sets, &problems);
    memory_free(text);
    arguments_free(&sets);
    arguments_free(&rest);
    const int code = problems.code;
    if (rank == 0) problems_print(&problems);
    problems_clear(&problems);
    return code;
}
