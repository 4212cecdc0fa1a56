/* The section `sweep:` of an input: which parameters take which values in the members. The values stay text: each
 * member's are checked when it is read, as if they had been given by --set. */
#include "base/memory.h"
#include "spec_private.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

enum { MOST_MEMBERS = 10000, MOST_AXES = 8 /* as many as an array in HDF5 has dimensions here */ };

struct reader {
    struct spec spec; /* for what is found: only name and findings are used */
    yaml_document_t document;
    struct sweep_axes *axes;
};

static yaml_node_t *node_at(struct reader *reader, int index)
{
    return yaml_document_get_node(&reader->document, index);
}

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static struct place place_of(const yaml_node_t *node)
{
    return (struct place){0, (int)node->start_mark.line + 1};
}

static bool is_plain(const yaml_node_t *node)
{
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && is_plain(node) &&
           (words_have(SPEC_NULLS, text_of(node)) || !text_of(node)[0]);
}

static const char *kind_of(const yaml_node_t *node)
{
    if (is_null(node)) return "nothing";
    return node->type == YAML_SCALAR_NODE ? "a single value" : node->type == YAML_SEQUENCE_NODE ? "a list" : "a map";
}

/* ---------------------------------------------------------------- values back to YAML */

/* Without quotes only what means the same wherever it stands; a number, a truth value or a word always does. */
static bool is_safe(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", marks[] = "._+-/";
    bool any = false;

    for (const char *c = text; *c; c++) {
        if (!strchr(letters, *c) && !strchr(marks, *c)) return false;
        any = any || strchr(letters, *c);
    }
    return any;
}

static void write_scalar(FILE *out, const yaml_node_t *node)
{
    const char *text = text_of(node);

    if (is_plain(node) && is_safe(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\')
            fprintf(out, "\\%c", *c);
        else if ((unsigned char)*c < 0x20)
            fprintf(out, "\\x%02X", (unsigned)*c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

static const char *fault_of_scalar(const yaml_node_t *node)
{
    if (is_null(node)) return "has no value";
    if (node->type != YAML_SCALAR_NODE) return "is neither a value nor a list of values";
    return strlen(text_of(node)) != node->data.scalar.length ? "holds a NUL character" : NULL;
}

/* What is wrong with one entry of a swept list, or NULL; writes it as YAML in one line. */
static const char *write_value(struct reader *reader, FILE *out, const yaml_node_t *node)
{
    const char *fault = NULL;

    if (node->type != YAML_SEQUENCE_NODE) {
        fault = fault_of_scalar(node);
        if (!fault) write_scalar(out, node);
        return fault;
    }
    fputc('[', out);
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *element = node_at(reader, *item);
        const char *wrong = fault_of_scalar(element);
        if (item > node->data.sequence.items.start) fputs(", ", out);
        if (wrong)
            fault = wrong;
        else
            write_scalar(out, element);
    }
    fputc(']', out);
    return fault;
}

/* ---------------------------------------------------------------- keys */

static bool is_swept(const struct sweep_axes *axes, const char *key)
{
    for (int a = 0; a < axes->count; a++)
        for (int k = 0; k < axes->axis[a].keys; k++)
            if (strcmp(axes->axis[a].key[k], key) == 0) return true;
    return false;
}

static void find_unknown(struct reader *reader, struct place place, const char *key)
{
    char *meant = spec_suggest(key);

    if (meant)
        spec_find(&reader->spec, place, "sweep", "%s: unknown key (did you mean %s?)", key, meant);
    else
        spec_find(&reader->spec, place, "sweep", "%s: unknown key (`eigentrain keys` lists those there are)", key);
    memory_free(meant);
}

/* Whether the key is one parameter that can be swept. */
static bool check_key(struct reader *reader, struct place place, const char *key)
{
    struct spec *spec = &reader->spec;
    enum shape shape = spec_shape(key);
    int findings = spec->nfindings;

    if (shape == SHAPE_UNKNOWN)
        find_unknown(reader, place, key);
    else if (shape != SHAPE_VALUE)
        spec_find(spec, place, "sweep", "%s is a section: name one of its parameters, as in model.width: [64, 128]",
                  key);
    else if (strstr(key, "[]"))
        spec_find(spec, place, "sweep", "%s: which one? the first has the number 0", key);
    else if (strcmp(key, "run.name") == 0)
        spec_find(spec, place, "sweep", "%s: a member's name is made from its parameters", key);
    else if (is_swept(reader->axes, key))
        spec_find(spec, place, "sweep", "%s: given twice", key);
    return spec->nfindings == findings;
}

/* ---------------------------------------------------------------- axes */

/* Appends the list of a key to an axis; its first list sets the size. */
static void read_list(struct reader *reader, struct sweep_axis *axis, const char *key, const yaml_node_t *list)
{
    const int size = (int)(list->data.sequence.items.top - list->data.sequence.items.start);
    const size_t first = (size_t)axis->keys * (size_t)axis->size;

    axis->key = memory_grow(axis->key, (size_t)axis->keys, (size_t)axis->keys + 1, sizeof *axis->key);
    axis->key[axis->keys++] = memory_text("%s", key);
    axis->value = memory_grow(axis->value, first, first + (size_t)size, sizeof *axis->value);
    axis->size = size;
    for (int i = 0; i < size; i++) {
        const yaml_node_t *node = node_at(reader, list->data.sequence.items.start[i]);
        size_t length;
        char *text = NULL;
        FILE *out = open_memstream(&text, &length);
        ensure(out);
        const char *fault = write_value(reader, out, node);
        fclose(out);
        if (fault) spec_find(&reader->spec, place_of(node), "sweep", "%s: entry %d %s", key, i + 1, fault);
        axis->value[first + (size_t)i] = memory_text("%s", text);
        free(text);
    }
}

/* One pair "key: [values]". */
static void read_pair(struct reader *reader, struct sweep_axis *axis, const yaml_node_t *name, const yaml_node_t *node)
{
    struct spec *spec = &reader->spec;
    struct place place = place_of(name);
    const char *key = name->type == YAML_SCALAR_NODE ? text_of(name) : "";

    if (!key[0]) {
        spec_find(spec, place, "sweep", "a key must be a word");
        return;
    }
    if (!check_key(reader, place, key)) return;
    if (node->type != YAML_SEQUENCE_NODE) {
        spec_find(spec, place, "sweep", "%s: expected a list of values, found %s", key, kind_of(node));
        return;
    }
    const int64_t size = node->data.sequence.items.top - node->data.sequence.items.start;
    if (size == 0)
        spec_find(spec, place, "sweep", "%s: the list is empty", key);
    else if (size > MOST_MEMBERS)
        spec_find(spec, place, "sweep", "%s: %lld values, where a sweep may have %d members", key, (long long)size,
                  MOST_MEMBERS);
    else if (axis->keys > 0 && size != axis->size)
        spec_find(spec, place, "sweep",
                  "zip: %s has %lld values, but %s has %d: lists that go together are of one length", key,
                  (long long)size, axis->key[0], axis->size);
    else
        read_list(reader, axis, key, node);
}

/* Whether two places along an axis have the same values of all its keys. */
static bool is_same(const struct sweep_axis *axis, int i, int j)
{
    for (int k = 0; k < axis->keys; k++)
        if (strcmp(axis->value[k * axis->size + i], axis->value[k * axis->size + j]) != 0) return false;
    return true;
}

static void check_distinct(struct reader *reader, struct place place, const struct sweep_axis *axis)
{
    for (int j = 1; j < axis->size; j++)
        for (int i = 0; i < j; i++)
            if (is_same(axis, i, j)) {
                spec_find(&reader->spec, place, "sweep", "%s: entry %d is entry %d again", axis->key[0], j + 1, i + 1);
                return;
            }
}

static void read_axis(struct reader *reader, const yaml_node_t *name, const yaml_node_t *node)
{
    struct sweep_axes *axes = reader->axes;
    const size_t count = (size_t)axes->count;
    const int findings = reader->spec.nfindings;
    const bool zip = name->type == YAML_SCALAR_NODE && strcmp(text_of(name), "zip") == 0;

    axes->axis = memory_grow(axes->axis, count, count + 1, sizeof *axes->axis);
    struct sweep_axis *axis = &axes->axis[axes->count++];
    if (!zip)
        read_pair(reader, axis, name, node);
    else if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.start == node->data.mapping.pairs.top)
        spec_find(&reader->spec, place_of(name), "sweep", "zip: expected a map of keys and lists, found %s",
                  node->type == YAML_MAPPING_NODE ? "nothing" : kind_of(node));
    else
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++)
            read_pair(reader, axis, node_at(reader, pair->key), node_at(reader, pair->value));
    if (reader->spec.nfindings == findings) check_distinct(reader, place_of(name), axis);
}

/* The number of members; complains if there are too many. */
static void count_members(struct reader *reader, struct place place)
{
    struct sweep_axes *axes = reader->axes;

    if (axes->count > MOST_AXES)
        spec_find(&reader->spec, place, "sweep",
                  "%d lists, where at most %d can be: put those that go together into zip", axes->count, MOST_AXES);
    axes->members = 1;
    for (int a = 0; a < axes->count && axes->members <= MOST_MEMBERS; a++) axes->members *= axes->axis[a].size;
    if (axes->members > MOST_MEMBERS)
        spec_find(&reader->spec, place, "sweep", "more than %d members: the product of the lists is too large",
                  MOST_MEMBERS);
}

static void read_section(struct reader *reader, struct place place, const yaml_node_t *node)
{
    if (node->type != YAML_MAPPING_NODE || node->data.mapping.pairs.start == node->data.mapping.pairs.top) {
        spec_find(&reader->spec, place, "sweep", "expected a map of keys and lists, found %s",
                  node->type == YAML_MAPPING_NODE ? "nothing" : kind_of(node));
        return;
    }
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++)
        read_axis(reader, node_at(reader, pair->key), node_at(reader, pair->value));
    if (reader->spec.nfindings == 0) count_members(reader, place);
}

/* ---------------------------------------------------------------- the contract */

/* The pair "sweep: …" at the top of the document, or NULL. */
static const yaml_node_pair_t *find_section(struct reader *reader)
{
    const yaml_node_t *root = yaml_document_get_root_node(&reader->document);

    if (!root || root->type != YAML_MAPPING_NODE) return NULL;
    for (yaml_node_pair_t *pair = root->data.mapping.pairs.start; pair < root->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = node_at(reader, pair->key);
        if (key->type == YAML_SCALAR_NODE && strcmp(text_of(key), "sweep") == 0) return pair;
    }
    return NULL;
}

struct sweep_axes *spec_sweep(const char *text, size_t length, const char *name, struct problems *problems)
{
    struct reader reader = {.spec = {.name = memory_text("%s", name)}};

    if (spec_load(&reader.spec, text, length, &reader.document)) {
        const yaml_node_pair_t *section = find_section(&reader);
        if (section) {
            reader.axes = NEW(struct sweep_axes, 1);
            read_section(&reader, place_of(node_at(&reader, section->key)), node_at(&reader, section->value));
        }
        yaml_document_delete(&reader.document);
    }
    for (int i = 0; i < reader.spec.nfindings; i++) {
        problems_add(problems, EXIT_INPUT, "%s", reader.spec.findings[i].text);
        memory_free(reader.spec.findings[i].text);
    }
    if (reader.spec.nfindings > 0) sweep_axes_destroy(&reader.axes);
    memory_free(reader.spec.findings);
    memory_free(reader.spec.name);
    return reader.axes;
}

void sweep_axes_destroy(struct sweep_axes **axes)
{
    struct sweep_axes *x = *axes;

    if (!x) return;
    for (int a = 0; a < x->count; a++) {
        struct sweep_axis *axis = &x->axis[a];
        for (int k = 0; k < axis->keys; k++) memory_free(axis->key[k]);
        for (int i = 0; i < axis->keys * axis->size; i++) memory_free(axis->value[i]);
        memory_free(axis->key);
        memory_free(axis->value);
    }
    memory_free(x->axis);
    memory_free(x);
    *axes = NULL;
}

int sweep_index(const struct sweep_axes *axes, int64_t member, int axis)
{
    ensure(member >= 0 && member < axes->members && axis >= 0 && axis < axes->count);
    for (int a = axes->count - 1; a > axis; a--) member /= axes->axis[a].size;
    return (int)(member % axes->axis[axis].size);
}
