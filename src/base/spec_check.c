/* From entries to values: which row rules a key, whether what was written fits it, and what is missing. */
#include "base/memory.h"
#include "spec_private.h"

#include <ctype.h>
#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- one text to one item */

/* The text that is being judged, and what its problems need to say. */
struct judge {
    struct spec *spec;
    const struct parameter *row;
    const struct entry *entry;
    int index;
    char *expected; /* "an integer or auto", owned */
};

static char *expected_of(const struct parameter *row)
{
    static const char *const nouns[] = {[PARAMETER_INT] = "an integer",
                                        [PARAMETER_REAL] = "a number",
                                        [PARAMETER_BOOL] = "true or false",
                                        [PARAMETER_TEXT] = "a text"};

    if (!row->words) return memory_text("%s", nouns[row->type]);
    char *words = words_join(row->words, " or ");
    char *expected = row->type == PARAMETER_CHOICE
                         ? memory_text("%s%s", strchr(row->words, '|') ? "one of " : "", words)
                         : memory_text("%s%s%s", nouns[row->type], strchr(row->words, '|') ? ", " : " or ", words);
    memory_free(words);
    return expected;
}

/* The beginning of a text that may be long or have many lines. Cut between characters of UTF-8. */
static char *shown(const char *text)
{
    enum { MOST = 60 };
    size_t length = strcspn(text, "\r\n");

    if (length > MOST) length = MOST;
    while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) length--;
    return memory_text("%.*s%s", (int)length, text, text[length] ? "…" : "");
}

/* The given hint, or else what the row's words have to say about the text (memory_free). */
static char *hint_of(const char *words, const char *text, const char *hint)
{
    if (hint[0] || !words) return memory_text("%s", hint);
    return words_have(words, text) ? memory_text(" (only on its own)") : words_hint(words, text);
}

/* Reports that the text is not what the row wants; returns false. */
static bool misfit(const struct judge *judge, const char *hint)
{
    const char *text = judge->entry->text[judge->index];
    char *found = shown(text);
    char *remark = hint_of(judge->row->words, text, hint);
    char *which = judge->entry->list ? memory_text("entry %d: ", judge->index + 1) : memory_text("%s", "");

    spec_find(judge->spec, judge->entry->place, judge->entry->key, "%sexpected %s, found '%s'%s", which,
              judge->expected, found, remark);
    memory_free(which);
    memory_free(remark);
    memory_free(found);
    return false;
}

char *spec_bounds(const struct parameter *row)
{
    char low[SPEC_NUMBER_LENGTH], high[SPEC_NUMBER_LENGTH];
    bool numeric = row->type == PARAMETER_INT || row->type == PARAMETER_REAL;
    bool below = numeric && row->min > -DBL_MAX, above = numeric && row->max < DBL_MAX;

    spec_shortest(row->min, low);
    spec_shortest(row->max, high);
    if (below && above && !row->open_min) return memory_text("between %s and %s", low, high);
    return memory_text("%s%s%s%s%s", below ? (row->open_min ? "above " : "at least ") : "", below ? low : "",
                       below && above ? " and " : "", above ? "at most " : "", above ? high : "");
}

/* long double holds every int64_t exactly, so that a bound of 2^53 is sharp for integers. */
static bool check_bounds(const struct judge *judge, long double x)
{
    const struct parameter *row = judge->row;

    if (x <= row->max && (row->open_min ? x > row->min : x >= row->min)) return true;
    char *bounds = spec_bounds(row);
    char *hint = memory_text(" (it must be %s)", bounds);
    misfit(judge, hint);
    memory_free(hint);
    memory_free(bounds);
    return false;
}

/* The numbers of YAML in base ten: strtod alone would take "0x10", "nan" and " 1" as well. */
static bool is_number(const char *text)
{
    text += *text == '-' || *text == '+';
    size_t whole = strspn(text, "0123456789");
    text += whole;
    size_t fraction = *text == '.' ? strspn(text + 1, "0123456789") : 0;
    text += (*text == '.') + fraction;
    if (whole + fraction == 0) return false;
    if (tolower((unsigned char)*text) == 'e') {
        text++;
        text += *text == '-' || *text == '+';
        size_t digits = strspn(text, "0123456789");
        if (digits == 0) return false;
        text += digits;
    }
    return *text == '\0';
}

static bool judge_real(const struct judge *judge, struct item *item)
{
    const char *text = judge->entry->text[judge->index];

    if (!is_number(text)) return misfit(judge, "");
    item->real = strtod(text, NULL);
    if (isinf(item->real)) return misfit(judge, " (too large for double precision)");
    if (item->real == 0 && strcspn(text, "123456789") < strcspn(text, "eE"))
        return misfit(judge, " (too small for double precision)");
    return check_bounds(judge, item->real);
}

static bool judge_int(const struct judge *judge, struct item *item)
{
    const char *text = judge->entry->text[judge->index];
    const double exact = 9007199254740992.0; /* up to here every integer is a double */

    if (!is_number(text)) return misfit(judge, "");
    if (strpbrk(text, ".eE")) {
        double x = strtod(text, NULL);
        if (fabs(x) > exact) return misfit(judge, " (too large; write out its digits)");
        item->integer = (int64_t)x;
        if (x != (double)item->integer) return misfit(judge, "");
    } else {
        errno = 0;
        item->integer = strtoll(text, NULL, 10);
        if (errno == ERANGE) return misfit(judge, " (too large for 64 bits)");
    }
    return check_bounds(judge, item->integer);
}

static bool judge_bool(const struct judge *judge, struct item *item)
{
    char *text = judge->entry->text[judge->index];
    bool truth = words_have("true|True|TRUE", text);

    if (!truth && !words_have("false|False|FALSE", text))
        return misfit(judge, words_have(SPEC_OTHER_BOOLS, text) ? " (write true or false)" : "");
    memory_free(item->text);
    item->text = memory_text("%s", truth ? "true" : "false");
    return true;
}

static bool judge_item(const struct judge *judge, struct item *item)
{
    const struct parameter *row = judge->row;
    const char *text = judge->entry->text[judge->index];

    item->text = memory_text("%s", text);
    if (row->type == PARAMETER_TEXT) return true;
    if (row->type == PARAMETER_CHOICE) return words_have(row->words, text) || misfit(judge, "");
    if (judge->entry->quoted[judge->index]) return misfit(judge, " in quotes");
    if (row->type == PARAMETER_INT) return judge_int(judge, item);
    if (row->type == PARAMETER_REAL) return judge_real(judge, item);
    return judge_bool(judge, item);
}

/* ---------------------------------------------------------------- one entry to one value */

static bool is_word(const struct parameter *row, const struct entry *entry)
{
    return row->words && row->type != PARAMETER_CHOICE && entry->count == 1 && (row->list || !entry->list) &&
           words_have(row->words, entry->text[0]);
}

static bool convert_items(struct judge *judge, struct value *value)
{
    const struct entry *entry = judge->entry;
    bool good = true;

    value->items = NEW(struct item, entry->count);
    value->count = entry->count;
    for (judge->index = 0; judge->index < entry->count; judge->index++)
        good = judge_item(judge, &value->items[judge->index]) && good;
    return good;
}

/* Fills value from entry by row; reports what does not fit and returns false. */
static bool convert(struct spec *spec, const struct parameter *row, const struct entry *entry, struct value *value)
{
    if (entry->list && !row->list) {
        spec_find(spec, entry->place, entry->key, "expected a single value, found a list");
        return false;
    }
    if (entry->count == 0 && (!row->def || row->def[0])) {
        spec_find(spec, entry->place, entry->key, "the list is empty");
        return false;
    }
    value->word = is_word(row, entry);
    if (value->word) {
        value->items = NEW(struct item, 1);
        value->count = 1;
        value->items[0].text = memory_text("%s", entry->text[0]);
        return true;
    }
    struct judge judge = {.spec = spec, .row = row, .entry = entry, .expected = expected_of(row)};
    bool good = convert_items(&judge, value);
    memory_free(judge.expected);
    return good;
}

/* ---------------------------------------------------------------- which row rules */

enum verdict { VERDICT_NO, VERDICT_YES, VERDICT_OPEN /* the sibling itself is wrong */ };

/* The value of the sibling that `row->when` names, for the row's instance `key`. Siblings stand earlier in the table.
 */
static struct value *sibling_of(const struct spec *spec, const struct parameter *row, const char *key)
{
    const char *dot = strrchr(key, '.');
    char *path = memory_text("%.*s.%.*s", (int)(dot - key), key, (int)strcspn(row->when, "="), row->when);
    struct value *sibling = spec_value(spec, path);

    if (!sibling) bug("%s applies when %s, but no earlier row is %s", row->key, row->when, path);
    memory_free(path);
    return sibling;
}

static const char *when_words(const struct parameter *row)
{
    return strchr(row->when, '=') + 1;
}

static enum verdict row_applies(const struct spec *spec, const struct parameter *row, const char *key)
{
    if (!row->when) return VERDICT_YES;
    const struct value *sibling = sibling_of(spec, row, key);
    if (sibling->state == STATE_INVALID) return VERDICT_OPEN;
    if (sibling->state == STATE_INAPPLICABLE) return VERDICT_NO;
    return words_have(when_words(row), sibling->items[0].text) ? VERDICT_YES : VERDICT_NO;
}

/* Looks through all rows of the key; *ruling becomes the one that applies. */
static enum verdict find_ruling(const struct spec *spec, const char *key, const struct parameter **ruling)
{
    enum verdict verdict = VERDICT_NO;

    for (const struct parameter *row = *ruling; row->key && verdict == VERDICT_NO; row++) {
        if (strcmp(row->key, (*ruling)->key) != 0) continue;
        verdict = row_applies(spec, row, key);
        if (verdict == VERDICT_YES) *ruling = row;
    }
    return verdict;
}

/* All the sibling's values with which some row of this key applies, '|'-separated (memory_free). */
static char *all_when_words(const struct parameter *first)
{
    char *all = memory_text("%s", when_words(first));

    for (const struct parameter *row = first + 1; row->key; row++) {
        if (strcmp(row->key, first->key) != 0) continue;
        char *longer = memory_text("%s|%s", all, when_words(row));
        memory_free(all);
        all = longer;
    }
    return all;
}

/* A key was written where it has no meaning. Nothing is said if the same was said of its sibling. */
static void find_meaningless(struct spec *spec, const struct parameter *row, const struct entry *entry)
{
    const struct value *sibling = sibling_of(spec, row, entry->key), *cause = sibling;

    while (cause->state == STATE_INAPPLICABLE && !cause->given) cause = sibling_of(spec, cause->row, cause->key);
    if (cause->state != STATE_SET) return;
    char *all = all_when_words(row), *words = words_join(all, " or ");
    spec_find(spec, entry->place, entry->key, "has no meaning with %s: %s; it applies to %s: %s", cause->key,
              cause->items[0].text, sibling->key, words);
    memory_free(words);
    memory_free(all);
}

/* ---------------------------------------------------------------- what was not written */

static bool is_in_broken_section(const struct spec *spec, const char *key)
{
    for (int i = 0; i < spec->nentries; i++) {
        const struct entry *entry = &spec->entries[i];
        size_t length = strlen(entry->key);
        if (entry->broken && strncmp(key, entry->key, length) == 0 && strchr(".[", key[length])) return true;
    }
    return false;
}

static void find_missing(struct spec *spec, const struct parameter *row, const char *key)
{
    if (is_in_broken_section(spec, key)) return;
    char *expected = expected_of(row);
    if (row->when) {
        const struct value *sibling = sibling_of(spec, row, key);
        spec_find(spec, spec_place(spec, key), key, "missing; %s: %s needs it (%s)", sibling->key,
                  sibling->items[0].text, expected);
    } else {
        spec_find(spec, spec_place(spec, key), key, "missing (%s)", expected);
    }
    memory_free(expected);
}

static void take_default(struct spec *spec, const struct parameter *row, struct value *value)
{
    struct entry entry = {0};

    spec_read_default(row->def, &entry);
    if (!convert(spec, row, &entry, value)) bug("the default of %s does not fit its row", row->key);
    spec_entry_clear(&entry);
}

/* ---------------------------------------------------------------- all values */

static void settle(struct spec *spec, const struct parameter *first, const char *key)
{
    const struct parameter *row = first;
    const struct entry *entry = spec_entry(spec, key);
    enum verdict verdict = find_ruling(spec, key, &row);
    struct value value = {.key = memory_text("%s", key), .row = row, .state = STATE_INVALID, .given = entry != NULL};

    if (verdict == VERDICT_NO) {
        value.state = STATE_INAPPLICABLE;
        if (entry) find_meaningless(spec, row, entry);
    } else if (verdict == VERDICT_YES && entry) {
        if (!entry->broken && convert(spec, row, entry, &value)) value.state = STATE_SET;
    } else if (verdict == VERDICT_YES && row->def) {
        take_default(spec, row, &value);
        value.state = STATE_SET;
    } else if (verdict == VERDICT_YES) {
        find_missing(spec, row, key);
    }
    spec->values = memory_grow(spec->values, (size_t)spec->nvalues, (size_t)spec->nvalues + 1, sizeof value);
    spec->values[spec->nvalues++] = value;
}

static bool is_first_of_key(const struct parameter *row)
{
    for (const struct parameter *other = parameter_table; other < row; other++)
        if (strcmp(other->key, row->key) == 0) return false;
    return true;
}

/* Settles the rows of one list section, map by map; returns the row behind them. */
static const struct parameter *settle_list(struct spec *spec, const struct parameter *first)
{
    const char *bracket = strchr(first->key, '[');
    size_t length = (size_t)(bracket - first->key) + 2;
    char *section = memory_text("%.*s", (int)length - 2, first->key);
    const struct parameter *row = first;
    int count = spec_maps(spec, section);

    for (int i = 0; i < count; i++) {
        for (row = first; row->key && strncmp(row->key, first->key, length) == 0; row++) {
            char *key = memory_text("%s[%d]%s", section, i, row->key + length);
            if (is_first_of_key(row)) settle(spec, row, key);
            memory_free(key);
        }
    }
    while (row->key && strncmp(row->key, first->key, length) == 0) row++;
    memory_free(section);
    return row;
}

void spec_check(struct spec *spec)
{
    for (const struct parameter *row = parameter_table; row->key;) {
        if (strchr(row->key, '[')) {
            row = settle_list(spec, row);
        } else {
            if (is_first_of_key(row)) settle(spec, row, row->key);
            row++;
        }
    }
}
