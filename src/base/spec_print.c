/* From values and rows to text for a person: resolved.yaml and `eigentrain keys`. */
#include "base/memory.h"
#include "spec_private.h"

#include <stdlib.h>
#include <string.h>

void spec_shortest(double x, char text[SPEC_NUMBER_LENGTH])
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, SPEC_NUMBER_LENGTH, "%.*g", digits, x);
        if (strtod(text, NULL) == x) return;
    }
}

/* ---------------------------------------------------------------- scalars as YAML */

/* A number for every YAML reader: to those of YAML 1.1, such as Python's, "1e-05" is a text and "1.0e-05" is not. */
static void write_real(FILE *out, double x)
{
    char text[SPEC_NUMBER_LENGTH];

    spec_shortest(x, text);
    int mantissa = (int)strcspn(text, "e");
    bool wants_point = text[mantissa] && !strchr(text, '.');
    fprintf(out, "%.*s%s%s", mantissa, text, wants_point ? ".0" : "", text + mantissa);
}

/* Whether every YAML reader takes the text for itself when it stands without quotes. */
static bool is_plain_text(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_/";

    if (!text[0] || !strchr(letters, text[0])) return false;
    for (const char *c = text; *c; c++)
        if (!strchr(letters, *c) && !strchr("0123456789.-", *c)) return false;
    return !words_have("true|True|TRUE|false|False|FALSE|" SPEC_OTHER_BOOLS "|" SPEC_NULLS, text);
}

/* Decodes one character of UTF-8 (libyaml has checked that it is) and steps over it. */
static unsigned decode(const unsigned char **text)
{
    const unsigned char *c = *text;
    int extra = *c >= 0xF0 ? 3 : *c >= 0xE0 ? 2 : *c >= 0xC0 ? 1 : 0;
    unsigned code = extra ? *c & (0x3Fu >> extra) : *c;

    for (int i = 1; i <= extra; i++) code = code << 6 | (c[i] & 0x3Fu);
    *text += extra + 1;
    return code;
}

/* Whether a character may stand unescaped in YAML and is not one of its line breaks. */
static bool is_printable(unsigned code)
{
    if (code < 0xA0) return code >= 0x20 && code < 0x7F;
    return code != 0x2028 && code != 0x2029 && code != 0xFEFF && code != 0xFFFE && code != 0xFFFF;
}

static void write_text(FILE *out, const char *text)
{
    if (is_plain_text(text)) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (const unsigned char *next = (const unsigned char *)text; *next;) {
        const unsigned char *start = next;
        unsigned code = decode(&next);
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (is_printable(code))
            fwrite(start, 1, (size_t)(next - start), out);
        else
            fprintf(out, "\\u%04X", code);
    }
    fputc('"', out);
}

static void write_item(FILE *out, const struct value *value, const struct item *item)
{
    if (value->row->type == PARAMETER_INT && !value->word)
        fprintf(out, "%lld", (long long)item->integer);
    else if (value->row->type == PARAMETER_REAL && !value->word)
        write_real(out, item->real);
    else
        write_text(out, item->text);
}

/* true and false of a BOOL and the words of a number must stay without quotes. */
static bool is_bare(const struct value *value)
{
    return value->row->type == PARAMETER_BOOL || value->word;
}

static void write_value(FILE *out, const struct value *value)
{
    bool list = value->row->list && !value->word;

    if (list) fputc('[', out);
    for (int i = 0; i < value->count; i++) {
        if (i > 0) fputs(", ", out);
        if (is_bare(value))
            fputs(value->items[i].text, out);
        else
            write_item(out, value, &value->items[i]);
    }
    fputs(list ? "]\n" : "\n", out);
}

/* ---------------------------------------------------------------- nesting */

/* Two spaces for each level; the first line in an element of a list has its dash there. */
static void write_indent(FILE *out, int depth, bool *dash)
{
    fprintf(out, "%*s%s", 2 * depth - (*dash ? 2 : 0), "", *dash ? "- " : "");
    *dash = false;
}

/* Length of the sections ("model.init.") that two keys have in common. */
static size_t common_sections(const char *a, const char *b)
{
    size_t common = 0;

    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == '.') common = i + 1;
    return common;
}

/* Writes the headers of the sections that begin between `previous` and `key`, and the key itself. */
static void write_key(FILE *out, const char *previous, const char *key)
{
    const char *name = key + common_sections(previous, key);
    bool dash = false;
    int depth = 0;

    for (const char *c = key; c < name; c++) depth += *c == '.' || *c == '[';
    for (const char *dot; (dot = strchr(name, '.')); name = dot + 1, depth++) {
        int length = (int)strcspn(name, ".[");
        bool element = name[length] == '[';
        if (!element || strtol(name + length + 1, NULL, 10) == 0) {
            write_indent(out, depth, &dash);
            fprintf(out, "%.*s:\n", length, name);
        }
        depth += element;
        dash = element;
    }
    write_indent(out, depth, &dash);
    fprintf(out, "%s: ", name);
}

char *spec_resolved(const struct spec *spec)
{
    char *text = NULL;
    size_t length = 0;
    const char *previous = "";
    FILE *out = open_memstream(&text, &length);

    ensure(out);
    for (int i = 0; i < spec->nvalues; i++) {
        const struct value *value = &spec->values[i];
        if (value->state != STATE_SET) continue;
        write_key(out, previous, value->key);
        write_value(out, value);
        previous = value->key;
    }
    fclose(out);
    return text;
}

/* ---------------------------------------------------------------- eigentrain keys */

static const char *type_name(const struct parameter *row)
{
    static const char *const single[] = {"integer", "real", "true|false", "text", "word"};
    static const char *const several[] = {"integers", "reals", "true|false list", "texts", "words"};

    return row->list ? several[row->type] : single[row->type];
}

static const char *default_name(const struct parameter *row)
{
    return !row->def ? "required" : row->def[0] ? row->def : "none";
}

/* The sibling's full key and words, "data.kind: idx or hdf5" (memory_free). */
static char *when_text(const struct parameter *row)
{
    const char *equals = strchr(row->when, '=');
    char *words = words_join(equals + 1, " or ");
    char *text = memory_text("%.*s.%.*s: %s", (int)(strrchr(row->key, '.') - row->key), row->key,
                             (int)(equals - row->when), row->when, words);

    memory_free(words);
    return text;
}

static void print_line(FILE *out, const struct parameter *row, int width)
{
    fprintf(out, "%-*s  %-10s  %-10s  %s", width, row->key, type_name(row), default_name(row), row->help);
    if (row->when) {
        char *when = when_text(row);
        fprintf(out, " (with %s)", when);
        memory_free(when);
    }
    fputc('\n', out);
}

static void print_field(FILE *out, const char *name, const char *text)
{
    if (text && text[0]) fprintf(out, "    %-10s%s\n", name, text);
}

static void print_long(FILE *out, const struct parameter *row)
{
    char *bounds = spec_bounds(row);
    char *words = row->words ? words_join(row->words, ", ") : NULL;
    char *when = row->when ? when_text(row) : NULL;

    fprintf(out, "%s\n", row->key);
    print_field(out, "meaning", row->help);
    print_field(out, "type", type_name(row));
    print_field(out, "default", default_name(row));
    print_field(out, "bounds", bounds);
    print_field(out, row->type == PARAMETER_CHOICE ? "words" : "or", words);
    print_field(out, "unit", row->unit);
    print_field(out, "applies", when ? when : "always");
    print_field(out, "resume", row->control ? "control: may change" : "physics: fixed");
    memory_free(when);
    memory_free(words);
    memory_free(bounds);
}

/* Lists all rows whose key begins with the path. */
static void print_rows(FILE *out, const char *path, enum shape shape)
{
    int width = 0;

    for (const struct parameter *row = parameter_table; row->key; row++)
        if ((int)strlen(row->key) > width) width = (int)strlen(row->key);
    if (shape != SHAPE_VALUE) fprintf(out, "%-*s  %-10s  %-10s  %s\n", width, "key", "type", "default", "meaning");
    for (const struct parameter *row = parameter_table; row->key; row++) {
        const char *rest = spec_match(row->key, path);
        bool under = !path[0] || (rest && (shape == SHAPE_VALUE ? !*rest : *rest == '.' || *rest == '['));
        if (under && shape == SHAPE_VALUE) print_long(out, row);
        if (under && shape != SHAPE_VALUE) print_line(out, row, width);
    }
}

bool spec_keys(FILE *out, const char *prefix)
{
    const char *path = prefix ? prefix : "";
    enum shape shape = spec_shape(path);

    if (shape == SHAPE_UNKNOWN) {
        char *meant = spec_suggest(path);
        fprintf(out, "%s: unknown key%s%s%s\n", path, meant ? " (did you mean " : "", meant ? meant : "",
                meant ? "?)" : "");
        memory_free(meant);
        return false;
    }
    print_rows(out, path, shape);
    return true;
}
