/* The members of a sweep: names, inputs, and where they stand. */
#include "app/sweep.h"

#include "app/directory.h"
#include "base/memory.h"
#include "train/rundir.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- names */

static const char *leaf_of(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

const char *sweep_label(const struct sweep_axes *axes, const char *key)
{
    const char *leaf = leaf_of(key);
    int same = 0;
    for (int a = 0; a < axes->count; a++)
        for (int k = 0; k < axes->axis[a].keys; k++) same += strcmp(leaf_of(axes->axis[a].key[k]), leaf) == 0;
    return same > 1 ? key : leaf;
}

char *sweep_plain(const char *value)
{
    char *map = memory_text("v: %s", value), *plain = spec_flat(map, strlen(map), "v");
    memory_free(map);
    return plain ? plain : memory_text("%s", value); /* a list */
}

/* Only what neither a shell nor a file system takes for more than a letter: brackets, quotes and blanks go, the rest
 * becomes a dash. */
static void write_safe(FILE *out, const char *text)
{
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if ((*c < 0x80 && isalnum(*c)) || strchr("._=+-", *c))
            fputc(*c, out);
        else if (!strchr("[]\"' ", *c))
            fputc('-', out);
    }
}

/* FNV-1a. */
static uint64_t hash_of(const char *text)
{
    uint64_t hash = 14695981039346656037u;
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

/* "width=64_depth=2"; exact: whole keys, and the values as they are (memory_free). */
static char *parameters_of(const struct sweep_axes *axes, int member, bool exact)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    ensure(out);
    for (int a = 0; a < axes->count; a++) {
        const struct sweep_axis *axis = &axes->axis[a];
        for (int k = 0; k < axis->keys; k++) {
            const char *value = axis->value[k * axis->size + sweep_index(axes, member, a)];
            if (ftell(out) > 0) fputc('_', out);
            if (exact) {
                fprintf(out, "%s=%s", axis->key[k], value);
                continue;
            }
            char *plain = sweep_plain(value);
            write_safe(out, sweep_label(axes, axis->key[k]));
            fputc('=', out);
            write_safe(out, plain);
            memory_free(plain);
        }
    }
    fclose(out);
    char *copy = memory_text("%s", text);
    free(text);
    return copy;
}

/* The beginning of a name that cannot stand alone, and a hash of what it stands for. */
static void replace_by_hash(const struct sweep_axes *axes, int member, char **name)
{
    enum { HEAD = 130 };
    char *exact = parameters_of(axes, member, true);
    char *hashed = memory_text("%.*s_%016llx", HEAD, *name, (unsigned long long)hash_of(exact));
    memory_free(exact);
    memory_free(*name);
    *name = hashed;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(**(char **const *)a, **(char **const *)b);
}

char **sweep_names(const struct sweep_axes *axes)
{
    enum { LONGEST = 150 };
    const int members = (int)axes->members;
    char **name = NEW(char *, members), ***sorted = NEW(char **, members);
    bool *again = NEW(bool, members);
    for (int i = 0; i < members; i++) {
        name[i] = parameters_of(axes, i, false);
        sorted[i] = &name[i];
    }
    qsort(sorted, (size_t)members, sizeof *sorted, compare_names);
    for (int i = 1; i < members; i++)
        if (strcmp(*sorted[i - 1], *sorted[i]) == 0) again[sorted[i - 1] - name] = again[sorted[i] - name] = true;
    for (int i = 0; i < members; i++)
        if (again[i] || strlen(name[i]) > LONGEST) replace_by_hash(axes, i, &name[i]);
    memory_free(again);
    memory_free(sorted);
    return name;
}

char *sweep_path(const struct sweep *sweep, int member, const char *file)
{
    return memory_text("%s/%s%s%s", sweep->dir, sweep->name[member], file[0] ? "/" : "", file);
}

/* ---------------------------------------------------------------- inputs */

struct spec *sweep_spec(const struct sweep *sweep, int member, struct problems *problems)
{
    const struct sweep_axes *axes = sweep->axes;
    const int given = sweep->sets->count;
    int count = given + 1;
    for (int a = 0; a < axes->count; a++) count += axes->axis[a].keys;
    const char **sets = NEW(const char *, count);
    char **own = NEW(char *, count);
    for (count = 0; count < given; count++) sets[count] = sweep->sets->text[count];
    for (int a = 0; a < axes->count; a++) {
        const struct sweep_axis *axis = &axes->axis[a];
        const char *const *value = (const char *const *)axis->value + sweep_index(axes, member, a);
        for (int k = 0; k < axis->keys; k++, count++)
            sets[count] = own[count] = memory_text("%s=%s", axis->key[k], value[k * axis->size]);
    }
    if (sweep->name) sets[count] = own[count] = memory_text("run.name=%s", sweep->name[member]);
    count += sweep->name != NULL;
    struct spec *spec = spec_read(sweep->text, sweep->length, sweep->input, count, sets, problems);
    for (int i = 0; i < count; i++) memory_free(own[i]);
    memory_free(own);
    memory_free(sets);
    return spec;
}

/* Columns and rows of the first and last matrix, where the input tells them; images are taken for 28 × 28. */
static void guess_ends(const struct spec *spec, double *features, double *outputs)
{
    const bool images = spec_is(spec, "data.kind", "fashion_mnist") || spec_is(spec, "data.kind", "idx");
    const bool chosen = images && !spec_is(spec, "data.only", "all");
    *features = 784;
    *outputs = chosen ? spec_count(spec, "data.only") : images ? (double)spec_int(spec, "data.classes") : 10;
    if (spec_is(spec, "data.kind", "gaussian")) {
        *features = (double)spec_int(spec, "data.features");
        *outputs = (double)spec_int(spec, "data.outputs");
    } else if (spec_is(spec, "data.kind", "low_rank_matrix")) {
        *features = (double)spec_int(spec, "data.cols");
        *outputs = (double)spec_int(spec, "data.rows");
    }
}

static double count_weights(const struct spec *spec)
{
    double weights = 0, features, outputs;
    const int widths = spec_count(spec, "model.widths");
    for (int l = 1; l < widths; l++)
        weights += (double)spec_int_at(spec, "model.widths", l - 1) * (double)spec_int_at(spec, "model.widths", l);
    if (widths > 0) return weights;
    guess_ends(spec, &features, &outputs);
    const double width = spec_is(spec, "model.width", "auto") ? outputs : (double)spec_int(spec, "model.width");
    const double depth = spec_is(spec, "model.depth", "auto") ? 1 : (double)spec_int(spec, "model.depth");
    if (depth < 2) return features * outputs;
    return features * width + (depth - 2) * width * width + width * outputs;
}

static double count_samples(const struct spec *spec)
{
    if (!spec_is(spec, "train.batch", "full")) return (double)spec_int(spec, "train.batch");
    if (spec_applies(spec, "data.train") && !spec_is(spec, "data.train", "all"))
        return (double)spec_int(spec, "data.train");
    return 60000;
}

double sweep_cost(const struct spec *spec)
{
    return 6 * count_weights(spec) * count_samples(spec) * (double)spec_int(spec, "train.steps");
}

/* ---------------------------------------------------------------- status */

static const char *const state_names[SWEEP_STATES] = {
    [SWEEP_WAITING] = "waiting",   [SWEEP_RUNNING] = "running", [SWEEP_STOPPED] = "stopped", [SWEEP_DONE] = "done",
    [SWEEP_DIVERGED] = "diverged", [SWEEP_FAILED] = "failed",   [SWEEP_INVALID] = "invalid",
};

const char *sweep_state_name(enum sweep_state state)
{
    return state_names[state];
}

/* See rundir_read. */
static char *read_file(const struct sweep *sweep, int member, const char *name, size_t *length)
{
    char *path = sweep_path(sweep, member, ""), *text = rundir_read(path, name, length);
    memory_free(path);
    return text;
}

bool sweep_is_live(const struct sweep *sweep, int member)
{
    char *path = sweep_path(sweep, member, "");
    const bool live = directory_is_live(path);
    memory_free(path);
    return live;
}

static double real_of(const char *text, size_t length, const char *key)
{
    char *value = spec_flat(text, length, key);
    const double x = value ? strtod(value, NULL) : NAN;
    memory_free(value);
    return x;
}

static int64_t int_of(const char *text, size_t length, const char *key)
{
    char *value = spec_flat(text, length, key);
    const int64_t n = value ? strtoll(value, NULL, 10) : 0;
    memory_free(value);
    return n;
}

static enum sweep_state state_of(const char *text, size_t length)
{
    enum sweep_state state = SWEEP_WAITING;
    char *value = spec_flat(text, length, "state");
    for (int i = 0; value && i < SWEEP_STATES; i++)
        if (strcmp(value, state_names[i]) == 0) state = (enum sweep_state)i;
    memory_free(value);
    return state;
}

static void read_finals(struct sweep_status *status, const char *text, size_t length)
{
    static const char prefix[] = "final.";
    int count = 0;
    char **keys = spec_flat_keys(text, length, &count);
    status->key = NEW(char *, count);
    status->final = NEW(double, count);
    for (int i = 0; i < count; i++) {
        if (strncmp(keys[i], prefix, sizeof prefix - 1) == 0 && strchr(keys[i], '/')) {
            status->final[status->finals] = real_of(text, length, keys[i]);
            status->key[status->finals++] = memory_text("%s", keys[i] + sizeof prefix - 1);
        }
        memory_free(keys[i]);
    }
    memory_free(keys);
}

/* A run that says that it is running, and at which no process is at work, was killed. */
static void doubt(const struct sweep *sweep, int member, struct sweep_status *status)
{
    if (status->state != SWEEP_RUNNING || sweep_is_live(sweep, member)) return;
    status->state = SWEEP_STOPPED;
    memory_free(status->reason);
    status->reason = memory_text("killed");
}

struct sweep_status sweep_status(const struct sweep *sweep, int member)
{
    const struct sweep_end *end = &sweep->end[member];
    struct sweep_status status = {.loss = NAN, .seconds = NAN};
    size_t length = 0;
    char *text = read_file(sweep, member, "status.json", &length);
    if (text) {
        status.state = state_of(text, length);
        status.reason = spec_flat(text, length, "reason");
        status.step = int_of(text, length, "step");
        status.steps = int_of(text, length, "steps");
        status.loss = real_of(text, length, "loss");
        status.seconds = real_of(text, length, "seconds");
        read_finals(&status, text, length);
        doubt(sweep, member, &status);
    }
    memory_free(text);
    if (end->known && end->state != status.state) {
        memory_free(status.reason);
        status.state = end->state;
        status.reason = end->reason ? memory_text("%s", end->reason) : NULL;
    }
    return status;
}

void sweep_status_clear(struct sweep_status *status)
{
    for (int i = 0; i < status->finals; i++) memory_free(status->key[i]);
    memory_free(status->key);
    memory_free(status->final);
    memory_free(status->reason);
    *status = (struct sweep_status){0};
}

/* ---------------------------------------------------------------- finished */

/* Whether the run in the directory is that of `spec`; *more: but for the number of steps. */
static bool is_same_run(const struct sweep *sweep, int member, const struct spec *spec, bool *more,
                        struct problems *problems)
{
    struct problems physics = {0}, control = {0};
    size_t length = 0;
    char *path = sweep_path(sweep, member, "resolved.yaml"), *text = read_file(sweep, member, "resolved.yaml", &length);
    struct spec *old = text ? spec_read(text, length, path, 0, NULL, &physics) : NULL;
    if (old) spec_differences(old, spec, &physics, &control);
    for (int i = 0; i < control.count; i++)
        if (strncmp(control.text[i], "train.steps:", 12) == 0) *more = true;
    const bool same = old && physics.count == 0;
    if (physics.count > 0)
        problems_add(problems, EXIT_INPUT, "%s/%s: holds another run (%s%s): choose another --out, or --overwrite",
                     sweep->dir, sweep->name[member], physics.text[0], physics.count > 1 ? ", …" : "");
    spec_destroy(&old);
    problems_clear(&physics);
    problems_clear(&control);
    memory_free(text);
    memory_free(path);
    return same;
}

bool sweep_finished(const struct sweep *sweep, int member, const struct spec *spec, struct problems *problems)
{
    bool more = false;
    const bool same = is_same_run(sweep, member, spec, &more, problems);
    const int64_t steps = spec_int(spec, "train.steps");
    struct sweep_status status = sweep_status(sweep, member);
    if (same && status.step > steps)
        problems_add(problems, EXIT_INPUT, "%s/%s: is at step %lld already, beyond train.steps: %lld", sweep->dir,
                     sweep->name[member], (long long)status.step, (long long)steps);
    const bool ended = status.state == SWEEP_DIVERGED || (status.state == SWEEP_DONE && !more);
    sweep_status_clear(&status);
    return same && ended;
}
