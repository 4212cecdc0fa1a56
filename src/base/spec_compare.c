/* What differs between two specs: for a run that goes on with an input that was changed in between. */
#include "base/memory.h"
#include "spec_private.h"

#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- one key */

static bool is_same_item(const struct value *a, const struct item *x, const struct item *y)
{
    if (a->row->type == PARAMETER_INT && !a->word) return x->integer == y->integer;
    if (a->row->type == PARAMETER_REAL && !a->word) return x->real == y->real;
    return strcmp(x->text, y->text) == 0;
}

/* Values are compared, not texts: 1e-1 is 0.1. */
static bool is_same(const struct value *a, const struct value *b)
{
    if (a->row->type != b->row->type || a->word != b->word || a->count != b->count) return false;
    for (int i = 0; i < a->count; i++)
        if (!is_same_item(a, &a->items[i], &b->items[i])) return false;
    return true;
}

static void print_item(FILE *out, const struct value *value, const struct item *item)
{
    char number[SPEC_NUMBER_LENGTH];

    if (value->row->type == PARAMETER_INT && !value->word) {
        fprintf(out, "%lld", (long long)item->integer);
    } else if (value->row->type == PARAMETER_REAL && !value->word) {
        spec_shortest(item->real, number);
        fputs(number, out);
    } else {
        fputs(item->text[0] ? item->text : "\"\"", out);
    }
}

/* "0.1", "auto", "[1, 2]" (memory_free). */
static char *text_of(const struct value *value)
{
    bool list = value->row->list && !value->word;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    ensure(out);
    if (list) fputc('[', out);
    for (int i = 0; i < value->count; i++) {
        if (i > 0) fputs(", ", out);
        print_item(out, value, &value->items[i]);
    }
    if (list) fputc(']', out);
    fclose(out);
    return text;
}

/* ---------------------------------------------------------------- reports */

struct comparison {
    const struct spec *old, *new;
    struct problems *physics, *control; /* NULL: not wanted */
};

/* A difference in a physics key is the user's mistake and says where; one in a control key is a line of the log. */
static void report_physics(const struct comparison *c, const char *key, const char *what)
{
    if (c->physics) spec_problem(c->new, c->physics, key, "%s", what);
}

static void report_control(const struct comparison *c, const char *key, const char *what)
{
    if (c->control) problems_add(c->control, EXIT_INPUT, "%s: %s", key, what);
}

static bool is_set(const struct value *value)
{
    return value && value->state == STATE_SET;
}

/* One key of which at least one spec has a value. */
static void report(const struct comparison *c, const struct value *old, const struct value *new)
{
    bool in_old = is_set(old), in_new = is_set(new);
    bool control = (!in_old || old->row->control) && (!in_new || new->row->control);
    char *was = in_old ? text_of(old) : memory_text("%s", ""), *is = in_new ? text_of(new) : memory_text("%s", "");
    const char *format = !in_new   ? "%swas %s, only in the old input"
                         : !in_old ? "%s%s, only in the new input"
                         : control ? "%s was %s"
                                   : "%s, was %s";
    char *what = memory_text(format, is, was);

    (control ? report_control : report_physics)(c, (in_new ? new : old)->key, what);
    memory_free(what);
    memory_free(was);
    memory_free(is);
}

/* ---------------------------------------------------------------- the length of a schedule */

/* The number of steps that the key means, whatever way it was said. */
static int64_t schedule_length(const struct spec *spec)
{
    const char *key = "train.schedule.length";

    return spec_int(spec, spec_is(spec, key, "steps") ? "train.steps" : key);
}

/* `steps` follows train.steps, which may change: then the rate of every step would be another one. */
static void compare_schedules(const struct comparison *c, const struct value *old, const struct value *new)
{
    const long long was = schedule_length(c->old), is = schedule_length(c->new);

    if (was == is) return;
    if (!new->word) {
        report(c, old, new);
        return;
    }
    char *what = memory_text("%lld (train.steps), was %lld; to keep the schedule, give train.schedule.length: %lld", is,
                             was, was);
    report_physics(c, new->key, what);
    memory_free(what);
}

/* ---------------------------------------------------------------- lists of maps */

/* The element, "probes[2]", that a key is in, if `other` has no such element; else NULL (memory_free). */
static char *lone_element(const struct spec *other, const char *key)
{
    const char *bracket = strchr(key, '[');

    if (!bracket) return NULL;
    char *section = memory_text("%.*s", (int)(bracket - key), key);
    bool lone = strtol(bracket + 1, NULL, 10) >= spec_maps(other, section);
    memory_free(section);
    return lone ? memory_text("%.*s", (int)(strchr(bracket, ']') + 1 - key), key) : NULL;
}

/* Every element of `spec` that `other` lacks, in one line each: what is measured or trained beside is physics. */
static void report_lone_elements(const struct comparison *c, const struct spec *spec, const struct spec *other)
{
    char *last = memory_text("%s", "");

    for (int i = 0; i < spec->nvalues; i++) {
        char *element = lone_element(other, spec->values[i].key);
        if (!element) continue;
        if (strcmp(element, last) != 0)
            report_physics(c, element, spec == c->new ? "only in the new input" : "only in the old input");
        memory_free(last);
        last = element;
    }
    memory_free(last);
}

/* ---------------------------------------------------------------- all keys */

void spec_differences(const struct spec *old, const struct spec *new, struct problems *physics,
                      struct problems *control)
{
    const struct comparison c = {old, new, physics, control};

    for (int i = 0; i < new->nvalues; i++) {
        const struct value *b = &new->values[i], *a = spec_value(old, b->key);
        if (!a || (!is_set(a) && !is_set(b))) continue; /* no such element: below */
        const bool both = is_set(a) && is_set(b);
        if (both && strcmp(b->key, "train.schedule.length") == 0)
            compare_schedules(&c, a, b);
        else if (!both || !is_same(a, b))
            report(&c, a, b);
    }
    report_lone_elements(&c, old, new);
    report_lone_elements(&c, new, old);
}
