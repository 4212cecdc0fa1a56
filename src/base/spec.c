#include "base/spec.h"
#include "base/memory.h"
#include "spec_private.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- keys and the table */

/* The length of "[2]" or "[]", or 0. "[02]" is none: one element has one name. */
static size_t index_length(const char *text)
{
    size_t digits = strspn(text + 1, "0123456789");

    if (text[0] != '[' || text[1 + digits] != ']' || (digits > 1 && text[1] == '0')) return 0;
    return digits + 2;
}

const char *spec_match(const char *row_key, const char *path)
{
    while (*path) {
        if (*row_key == '[') {
            size_t length = index_length(path);
            if (length == 0) return NULL;
            path += length;
            row_key += 2;
        } else if (*row_key++ != *path++) {
            return NULL;
        }
    }
    return row_key;
}

enum shape spec_shape(const char *path)
{
    if (!path[0]) return SHAPE_MAP;
    for (const struct parameter *row = parameter_table; row->key; row++) {
        const char *rest = spec_match(row->key, path);
        if (!rest) continue;
        if (*rest == '\0') return SHAPE_VALUE;
        if (*rest == '.') return SHAPE_MAP;
        if (*rest == '[') return SHAPE_LIST;
    }
    return SHAPE_UNKNOWN;
}

struct entry *spec_entry(const struct spec *spec, const char *key)
{
    for (int i = 0; i < spec->nentries; i++)
        if (strcmp(spec->entries[i].key, key) == 0) return &spec->entries[i];
    return NULL;
}

struct value *spec_value(const struct spec *spec, const char *key)
{
    for (int i = 0; i < spec->nvalues; i++)
        if (strcmp(spec->values[i].key, key) == 0) return &spec->values[i];
    return NULL;
}

int spec_maps(const struct spec *spec, const char *section)
{
    size_t length = strlen(section);
    int count = 0;

    for (int i = 0; i < spec->nentries; i++) {
        const char *key = spec->entries[i].key;
        if (strncmp(key, section, length) == 0 && key[length] && key[length + index_length(key + length)] == '\0')
            count++;
    }
    return count;
}

/* ---------------------------------------------------------------- words and names */

bool words_have(const char *words, const char *word)
{
    size_t length = strlen(word);

    for (const char *start = words; start && length > 0; start = strchr(start, '|')) {
        start += *start == '|';
        if (strcspn(start, "|") == length && memcmp(start, word, length) == 0) return true;
    }
    return false;
}

char *words_join(const char *words, const char *last)
{
    char *joined = memory_text("%s", "");

    for (const char *start = words; start;) {
        int length = (int)strcspn(start, "|");
        const char *next = start[length] ? start + length + 1 : NULL;
        const char *mark = start == words ? "" : next ? ", " : last;
        char *longer = memory_text("%s%s%.*s", joined, mark, length, start);
        memory_free(joined);
        joined = longer;
        start = next;
    }
    return joined;
}

char *words_hint(const char *words, const char *word)
{
    enum { MOST = 32 };
    const char *names[MOST];
    char *copy = memory_text("%s", words), *rest = copy;
    int count = 0;

    for (char *name; count < MOST && (name = strsep(&rest, "|"));) names[count++] = name;
    const char *nearest = spec_nearest(word, names, count);
    char *hint = nearest ? memory_text(" (did you mean %s?)", nearest) : memory_text("%s", "");
    memory_free(copy);
    return hint;
}

enum { LONGEST_NAME = 63 };

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* Damerau–Levenshtein distance (optimal string alignment) without regard to case. */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][LONGEST_NAME + 1], *above2 = rows[0], *above = rows[1], *row = rows[2];
    int m = (int)strlen(a), n = (int)strlen(b);

    for (int j = 0; j <= n; j++) above[j] = j;
    for (int i = 1; i <= m; i++) {
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            row[j] = least(above[j - 1] + (x != y), 1 + least(above[j], row[j - 1]));
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]))
                row[j] = least(row[j], above2[j - 2] + 1);
        }
        int *free_row = above2;
        above2 = above;
        above = row;
        row = free_row;
    }
    return above[n];
}

const char *spec_nearest(const char *word, const char *const *names, int count)
{
    const char *nearest = NULL;
    int best = LONGEST_NAME;

    if (strlen(word) > LONGEST_NAME) return NULL;
    for (int i = 0; i < count; i++) {
        if (strlen(names[i]) > LONGEST_NAME) continue;
        int longer = -least(-(int)strlen(word), -(int)strlen(names[i]));
        int distance = edit_distance(word, names[i]);
        bool near = distance < longer && distance <= (longer + 1) / 3;
        if (near && distance < best) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

/* The nearest of the names that may follow `prefix` (a known section), or NULL (memory_free). */
static char *nearest_child(const char *prefix, const char *child)
{
    char **names = NULL;
    int count = 0;

    for (const struct parameter *row = parameter_table; row->key; row++) {
        const char *rest = spec_match(row->key, prefix);
        if (!rest || (prefix[0] && *rest != '.')) continue;
        rest += prefix[0] != '\0';
        names = memory_grow(names, (size_t)count, (size_t)count + 1, sizeof *names);
        names[count++] = memory_text("%.*s", (int)strcspn(rest, ".["), rest);
    }
    const char *nearest = spec_nearest(child, (const char *const *)names, count);
    char *copy = nearest ? memory_text("%s", nearest) : NULL;
    for (int i = 0; i < count; i++) memory_free(names[i]);
    memory_free(names);
    return copy;
}

/* A key elsewhere whose last name is that of `path`, or NULL. */
static const char *same_leaf(const char *path)
{
    const char *dot = strrchr(path, '.'), *leaf = dot ? dot + 1 : path;

    for (const struct parameter *row = parameter_table; row->key; row++)
        if (strcmp(strrchr(row->key, '.') + 1, leaf) == 0) return row->key;
    return NULL;
}

/* Length of the longest known section at the head of the path, without its dot; 0: none. */
static size_t known_length(const char *path)
{
    size_t known = 0;

    for (const char *dot = strchr(path, '.'); dot; dot = strchr(dot + 1, '.')) {
        char *section = memory_text("%.*s", (int)(dot - path), path);
        if (spec_shape(section) != SHAPE_UNKNOWN) known = (size_t)(dot - path);
        memory_free(section);
    }
    return known;
}

/* The path with its first unknown name, `name` behind `section`, corrected, or NULL (memory_free). */
static char *corrected(const char *section, const char *name)
{
    const char *dot = section[0] ? "." : "";
    char *plain = memory_text("%.*s", (int)strcspn(name, ".["), name);
    char *nearest = nearest_child(section, plain), *path = NULL;

    if (spec_shape(section) == SHAPE_LIST) /* "probes.rank" */
        path = memory_text("%s[0].%s", section, name);
    else if (nearest)
        path = memory_text("%s%s%s%s", section, dot, nearest, name + strlen(plain));
    memory_free(nearest);
    memory_free(plain);
    return path;
}

char *spec_suggest(const char *path)
{
    size_t known = known_length(path);
    char *section = memory_text("%.*s", (int)known, path);
    char *meant = corrected(section, path + known + (known > 0));
    const char *same = same_leaf(path);

    memory_free(section);
    if (meant && strcmp(meant, path) == 0) { /* the names are right, an index is not */
        memory_free(meant);
        return NULL;
    }
    if (meant && spec_shape(meant) == SHAPE_UNKNOWN) {
        char *further = spec_suggest(meant); /* the next unknown name; the known part has grown */
        memory_free(meant);
        meant = further;
    }
    return meant || !same ? meant : memory_text("%s", same);
}

/* ---------------------------------------------------------------- problems */

struct place spec_place(const struct spec *spec, const char *key)
{
    struct place place = {0, 1};
    char *path = memory_text("%s", key);

    while (path[0]) {
        const struct entry *entry = spec_entry(spec, path);
        if (entry) {
            place = entry->place;
            break;
        }
        char *dot = strrchr(path, '.'), *bracket = strrchr(path, '[');
        *(dot > bracket ? dot : bracket ? bracket : path) = '\0';
    }
    memory_free(path);
    return place;
}

/* "file:3: key: what"; a --set that names the key already is not followed by it again. */
static char *located(const struct spec *spec, struct place place, const char *key, const char *what)
{
    if (place.set == 0)
        return memory_text("%s:%d: %s%s%s", spec->name, place.line, key ? key : "", key ? ": " : "", what);
    const char *set = spec->sets[place.set - 1];
    bool named = !key || (strncmp(set, key, strlen(key)) == 0 && set[strlen(key)] == '=');
    return memory_text("--set %s: %s%s%s", set, named ? "" : key, named ? "" : ": ", what);
}

static char *formatted(const char *format, va_list arguments)
{
    char *text;

    ensure(vasprintf(&text, format, arguments) >= 0);
    return text;
}

void spec_find(struct spec *spec, struct place place, const char *key, const char *format, ...)
{
    va_list arguments;
    size_t count = (size_t)spec->nfindings;

    va_start(arguments, format);
    char *what = formatted(format, arguments);
    va_end(arguments);
    spec->findings = memory_grow(spec->findings, count, count + 1, sizeof *spec->findings);
    spec->findings[spec->nfindings++] = (struct finding){place, located(spec, place, key, what)};
    memory_free(what);
}

void spec_problem(const struct spec *spec, struct problems *problems, const char *key, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    char *what = formatted(format, arguments);
    va_end(arguments);
    char *text = located(spec, spec_place(spec, key), key, what);
    problems_add(problems, EXIT_INPUT, "%s", text);
    memory_free(text);
    memory_free(what);
}

/* By place; what was found first comes first in the same line. */
static void sort_findings(struct spec *spec)
{
    for (int i = 1; i < spec->nfindings; i++) {
        struct finding moved = spec->findings[i];
        int j = i;
        for (; j > 0; j--) {
            struct place before = spec->findings[j - 1].place;
            if (before.set < moved.place.set || (before.set == moved.place.set && before.line <= moved.place.line))
                break;
            spec->findings[j] = spec->findings[j - 1];
        }
        spec->findings[j] = moved;
    }
}

/* ---------------------------------------------------------------- reading */

static struct spec *create(const char *name, int nsets, const char *const *sets)
{
    struct spec *spec = NEW(struct spec, 1);

    spec->name = memory_text("%s", name);
    spec->sets = NEW(char *, nsets);
    spec->nsets = nsets;
    for (int i = 0; i < nsets; i++) spec->sets[i] = memory_text("%s", sets[i]);
    return spec;
}

struct spec *spec_read(const char *text, size_t length, const char *name, int nsets, const char *const *sets,
                       struct problems *problems)
{
    struct spec *spec = create(name, nsets, sets);
    bool usable = spec_read_file(spec, text, length);

    for (int i = 0; i < nsets; i++) spec_read_set(spec, i);
    if (usable) spec_check(spec);
    sort_findings(spec);
    for (int i = 0; i < spec->nfindings; i++) problems_add(problems, EXIT_INPUT, "%s", spec->findings[i].text);
    if (spec->nfindings > 0) spec_destroy(&spec);
    return spec;
}

static void value_clear(struct value *value)
{
    for (int i = 0; i < value->count; i++) memory_free(value->items[i].text);
    memory_free(value->items);
    memory_free(value->key);
}

void spec_destroy(struct spec **spec)
{
    struct spec *s = *spec;

    if (!s) return;
    for (int i = 0; i < s->nvalues; i++) value_clear(&s->values[i]);
    for (int i = 0; i < s->nentries; i++) spec_entry_clear(&s->entries[i]);
    for (int i = 0; i < s->nfindings; i++) memory_free(s->findings[i].text);
    for (int i = 0; i < s->nsets; i++) memory_free(s->sets[i]);
    memory_free(s->values);
    memory_free(s->entries);
    memory_free(s->findings);
    memory_free(s->sets);
    memory_free(s->name);
    memory_free(s);
    *spec = NULL;
}

/* ---------------------------------------------------------------- look-up */

static const struct value *known(const struct spec *spec, const char *key)
{
    const struct value *value = spec_value(spec, key);

    if (!value) bug("there is no parameter %s", key);
    return value;
}

static const struct value *applicable(const struct spec *spec, const char *key)
{
    const struct value *value = known(spec, key);

    if (value->state != STATE_SET) bug("%s does not apply (%s)", key, value->row->when);
    return value;
}

static bool is_text(const struct parameter *row)
{
    return row->type == PARAMETER_TEXT || row->type == PARAMETER_CHOICE;
}

/* Element `index` of a key after all checks; list = false: of a key that is no list. */
static const struct item *item_of(const struct spec *spec, const char *key, bool list, int index)
{
    const struct value *value = applicable(spec, key);

    if (value->row->list != list) bug("%s is %s list", key, list ? "no" : "a");
    if (value->word && !is_text(value->row)) bug("%s holds the word %s", key, value->items[0].text);
    if (index < 0 || index >= value->count) bug("%s has no element %d", key, index);
    return &value->items[index];
}

static void need_type(const struct spec *spec, const char *key, bool right)
{
    if (!right) bug("%s was asked for as another type than it has (%s)", key, known(spec, key)->row->help);
}

static bool has_type(const struct spec *spec, const char *key, enum parameter_type type)
{
    return known(spec, key)->row->type == type;
}

int64_t spec_int_at(const struct spec *spec, const char *key, int index)
{
    need_type(spec, key, has_type(spec, key, PARAMETER_INT));
    return item_of(spec, key, true, index)->integer;
}

double spec_real_at(const struct spec *spec, const char *key, int index)
{
    need_type(spec, key, has_type(spec, key, PARAMETER_REAL));
    return item_of(spec, key, true, index)->real;
}

int64_t spec_int(const struct spec *spec, const char *key)
{
    need_type(spec, key, has_type(spec, key, PARAMETER_INT));
    return item_of(spec, key, false, 0)->integer;
}

double spec_real(const struct spec *spec, const char *key)
{
    need_type(spec, key, has_type(spec, key, PARAMETER_REAL));
    return item_of(spec, key, false, 0)->real;
}

bool spec_bool(const struct spec *spec, const char *key)
{
    need_type(spec, key, has_type(spec, key, PARAMETER_BOOL));
    return strcmp(item_of(spec, key, false, 0)->text, "true") == 0;
}

const char *spec_text(const struct spec *spec, const char *key)
{
    need_type(spec, key, is_text(known(spec, key)->row));
    return item_of(spec, key, false, 0)->text;
}

/* Whether any row of this key allows the word: asking for another one is a slip of the caller. */
static bool may_be(const char *key, const char *word)
{
    for (const struct parameter *row = parameter_table; row->key; row++) {
        const char *rest = spec_match(row->key, key);
        if (rest && !*rest && (row->type == PARAMETER_TEXT || (row->words && words_have(row->words, word))))
            return true;
    }
    return false;
}

bool spec_is(const struct spec *spec, const char *key, const char *word)
{
    const struct value *value = applicable(spec, key);

    if (!may_be(key, word)) bug("%s can never be %s", key, word);
    return value->count == 1 && (value->word || is_text(value->row)) && strcmp(value->items[0].text, word) == 0;
}

bool spec_applies(const struct spec *spec, const char *key)
{
    return known(spec, key)->state == STATE_SET;
}

bool spec_given(const struct spec *spec, const char *key)
{
    return known(spec, key)->given;
}

int spec_count(const struct spec *spec, const char *key)
{
    if (spec_shape(key) == SHAPE_LIST) return spec_maps(spec, key);
    const struct value *value = applicable(spec, key);
    if (!value->row->list) bug("%s is no list", key);
    return value->word ? 0 : value->count;
}
