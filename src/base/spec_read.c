/* From YAML text to entries, along the shape of the table: an unknown key is reported and not descended into, so that
 * neither deep nesting nor aliases can make this long. */
#include "base/memory.h"
#include "spec_private.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct walk {
    struct spec *spec;
    int set; /* as in struct place */
    yaml_document_t document;
};

static void walk_node(struct walk *walk, const char *path, struct place place, const yaml_node_t *node);

static yaml_node_t *node_at(struct walk *walk, int index)
{
    return yaml_document_get_node(&walk->document, index);
}

static struct place place_of(const struct walk *walk, const yaml_node_t *node)
{
    return (struct place){walk->set, (int)node->start_mark.line + 1};
}

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static bool is_plain(const yaml_node_t *node)
{
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

/* Nothing was written behind the key. */
static bool is_null(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && is_plain(node) &&
           (words_have(SPEC_NULLS, text_of(node)) || !text_of(node)[0]);
}

static bool has_nul(const yaml_node_t *node)
{
    return node->type == YAML_SCALAR_NODE && strlen(text_of(node)) != node->data.scalar.length;
}

static const char *kind_of(const yaml_node_t *node)
{
    if (is_null(node)) return "nothing";
    return node->type == YAML_SCALAR_NODE ? "a single value" : node->type == YAML_SEQUENCE_NODE ? "a list" : "a map";
}

/* ---------------------------------------------------------------- entries */

void spec_entry_clear(struct entry *entry)
{
    for (int i = 0; i < entry->count; i++) memory_free(entry->text[i]);
    memory_free(entry->text);
    memory_free(entry->quoted);
    memory_free(entry->key);
    *entry = (struct entry){0};
}

static struct entry *add_entry(struct spec *spec, const char *key, struct place place)
{
    size_t count = (size_t)spec->nentries;

    spec->entries = memory_grow(spec->entries, count, count + 1, sizeof *spec->entries);
    struct entry *entry = &spec->entries[spec->nentries++];
    entry->key = memory_text("%s", key);
    entry->place = place;
    return entry;
}

/* Forgets a key and all that is under it. */
static void drop_entries(struct spec *spec, const char *key)
{
    size_t length = strlen(key);
    int kept = 0;

    for (int i = 0; i < spec->nentries; i++) {
        const char *other = spec->entries[i].key;
        if (strncmp(other, key, length) == 0 && (!other[length] || strchr(".[", other[length])))
            spec_entry_clear(&spec->entries[i]);
        else
            spec->entries[kept++] = spec->entries[i];
    }
    spec->nentries = kept;
}

static void add_text(struct entry *entry, const yaml_node_t *node)
{
    size_t count = (size_t)entry->count;

    entry->text = memory_grow(entry->text, count, count + 1, sizeof *entry->text);
    entry->quoted = memory_grow(entry->quoted, count, count + 1, sizeof *entry->quoted);
    entry->text[count] = memory_text("%s", text_of(node));
    entry->quoted[count] = !is_plain(node);
    entry->count++;
}

/* ---------------------------------------------------------------- the walk */

/* What is wrong with a node as a single value, or NULL. */
static const char *fault_of_scalar(const yaml_node_t *node)
{
    if (is_null(node)) return "has no value";
    if (node->type == YAML_MAPPING_NODE) return "expected a value, found a map";
    if (node->type == YAML_SEQUENCE_NODE) return "expected a value, found a list in a list";
    return has_nul(node) ? "holds a NUL character" : NULL;
}

static const char *read_value(struct walk *walk, const yaml_node_t *node, struct entry *entry)
{
    const char *fault = NULL;

    entry->list = node->type == YAML_SEQUENCE_NODE;
    if (!entry->list) {
        fault = fault_of_scalar(node);
        if (!fault) add_text(entry, node);
        return fault;
    }
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const char *wrong = fault_of_scalar(node_at(walk, *item));
        if (wrong)
            fault = wrong;
        else
            add_text(entry, node_at(walk, *item));
    }
    return fault;
}

static void walk_value(struct walk *walk, const char *path, struct place place, const yaml_node_t *node)
{
    struct entry *entry = add_entry(walk->spec, path, place);
    const char *fault = read_value(walk, node, entry);

    entry->broken = fault != NULL;
    if (fault) spec_find(walk->spec, place, path, "%s", fault);
}

static void find_unknown(struct walk *walk, const char *path, struct place place)
{
    char *meant = spec_suggest(path);
    char *section = memory_text("%.*s", (int)strcspn(path, ".["), path);

    if (meant)
        spec_find(walk->spec, place, path, "unknown key (did you mean %s?)", meant);
    else if (spec_shape(section) == SHAPE_UNKNOWN)
        spec_find(walk->spec, place, path, "unknown key (`eigentrain keys` lists those there are)");
    else
        spec_find(walk->spec, place, path, "unknown key (`eigentrain keys %s` lists those there are)", section);
    memory_free(section);
    memory_free(meant);
}

/* The line of the same key earlier in the map, or 0. */
static int earlier_line(struct walk *walk, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
    const char *name = text_of(node_at(walk, pair->key));

    for (yaml_node_pair_t *other = map->data.mapping.pairs.start; other < pair; other++) {
        const yaml_node_t *key = node_at(walk, other->key);
        if (key->type == YAML_SCALAR_NODE && strcmp(text_of(key), name) == 0) return place_of(walk, key).line;
    }
    return 0;
}

static void walk_pair(struct walk *walk, const char *path, const yaml_node_t *map, const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = node_at(walk, pair->key);
    struct place place = place_of(walk, key);

    if (key->type != YAML_SCALAR_NODE || has_nul(key) || !text_of(key)[0]) {
        spec_find(walk->spec, place, path[0] ? path : NULL, "a key must be a word");
        return;
    }
    char *child = memory_text("%s%s%s", path, path[0] ? "." : "", text_of(key));
    bool sweep = strcmp(child, "sweep") == 0; /* that section is read by spec_sweep */
    int earlier = earlier_line(walk, map, pair);
    if (strpbrk(text_of(key), ".[]"))
        spec_find(walk->spec, place, child, "unknown key (in the file, write sections as nested maps)");
    else if (!sweep && spec_shape(child) == SHAPE_UNKNOWN)
        find_unknown(walk, child, place);
    else if (earlier)
        spec_find(walk->spec, place, child, "given twice (first in line %d)", earlier);
    else if (!sweep)
        walk_node(walk, child, place, node_at(walk, pair->value));
    memory_free(child);
}

/* An empty section (all its lines commented out, say) is as good as none. */
static void walk_map(struct walk *walk, const char *path, struct place place, const yaml_node_t *node)
{
    if (path[0]) add_entry(walk->spec, path, place)->broken = node->type != YAML_MAPPING_NODE && !is_null(node);
    if (node->type == YAML_MAPPING_NODE)
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top; pair++)
            walk_pair(walk, path, node, pair);
    else if (!is_null(node))
        spec_find(walk->spec, place, path[0] ? path : NULL, "expected a map of keys and values, found %s",
                  kind_of(node));
}

static void walk_list(struct walk *walk, const char *path, struct place place, const yaml_node_t *node)
{
    int index = 0;

    add_entry(walk->spec, path, place);
    if (is_null(node)) return;
    if (node->type != YAML_SEQUENCE_NODE) {
        spec_find(walk->spec, place, path, "expected a list of maps, found %s (begin each map with \"- \")",
                  kind_of(node));
        return;
    }
    for (yaml_node_item_t *item = node->data.sequence.items.start; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *element = node_at(walk, *item);
        char *child = memory_text("%s[%d]", path, index++);
        walk_map(walk, child, place_of(walk, element), element);
        memory_free(child);
    }
}

static void walk_node(struct walk *walk, const char *path, struct place place, const yaml_node_t *node)
{
    switch (spec_shape(path)) {
    case SHAPE_VALUE:
        walk_value(walk, path, place, node);
        break;
    case SHAPE_MAP:
        walk_map(walk, path, place, node);
        break;
    case SHAPE_LIST:
        walk_list(walk, path, place, node);
        break;
    case SHAPE_UNKNOWN:
        bug("walked to %s, which is not in the table", path);
    }
}

/* ---------------------------------------------------------------- libyaml */

static int line_of_offset(const char *text, size_t offset)
{
    int line = 1;

    for (size_t i = 0; i < offset; i++) line += text[i] == '\n';
    return line;
}

/* libyaml only says that it "found character that cannot start any token". */
static bool is_indented_by_tab(const char *text, size_t length, int line)
{
    size_t at = 0;

    for (; at < length && line > 1; at++) line -= text[at] == '\n';
    while (at < length && text[at] == ' ') at++;
    return at < length && text[at] == '\t';
}

static void find_syntax(struct walk *walk, const yaml_parser_t *parser, const char *text, size_t length)
{
    struct place place = {walk->set, (int)parser->problem_mark.line + 1};

    if (!walk->spec) bug("the default \"%s\" is not YAML: %s", text, parser->problem);
    if (parser->error == YAML_MEMORY_ERROR) error_end(EXIT_ENVIRONMENT, "out of memory while reading YAML");
    if (parser->error == YAML_READER_ERROR) {
        size_t offset = parser->problem_offset < length ? parser->problem_offset : length;
        place.line = line_of_offset(text, offset);
        spec_find(walk->spec, place, NULL, "not readable as UTF-8 text: %s", parser->problem);
    } else if (is_indented_by_tab(text, length, place.line)) {
        spec_find(walk->spec, place, NULL, "indented by a tab; YAML wants spaces");
    } else if (parser->context && parser->context_mark.line != parser->problem_mark.line) {
        spec_find(walk->spec, place, NULL, "not YAML: %s (%s that begins in line %d)", parser->problem, parser->context,
                  (int)parser->context_mark.line + 1);
    } else {
        spec_find(walk->spec, place, NULL, "not YAML: %s%s%s", parser->problem, parser->context ? " " : "",
                  parser->context ? parser->context : "");
    }
}

/* Whether the stream ends here; a second document is reported. */
static bool stream_ends(struct walk *walk, yaml_parser_t *parser, const char *text, size_t length)
{
    yaml_document_t second;

    if (!yaml_parser_load(parser, &second)) {
        find_syntax(walk, parser, text, length);
        return false;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&second);
    if (root) spec_find(walk->spec, place_of(walk, root), NULL, "a second YAML document begins; there may be only one");
    yaml_document_delete(&second);
    return !root;
}

/* Loads the one document of a text into walk->document. False if there was no such thing, which is reported. */
static bool load(struct walk *walk, const char *text, size_t length)
{
    yaml_parser_t parser;

    if (!yaml_parser_initialize(&parser)) error_end(EXIT_ENVIRONMENT, "out of memory while reading YAML");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    bool loaded = yaml_parser_load(&parser, &walk->document);
    if (!loaded) {
        find_syntax(walk, &parser, text, length);
    } else if (yaml_document_get_root_node(&walk->document) && !stream_ends(walk, &parser, text, length)) {
        yaml_document_delete(&walk->document);
        loaded = false;
    }
    yaml_parser_delete(&parser);
    return loaded;
}

bool spec_load(struct spec *spec, const char *text, size_t length, struct yaml_document_s *document)
{
    struct walk walk = {.spec = spec};
    bool loaded = load(&walk, text, length);

    if (loaded) *document = walk.document;
    return loaded;
}

bool spec_read_file(struct spec *spec, const char *text, size_t length)
{
    struct walk walk = {.spec = spec};

    if (!load(&walk, text, length)) return false;
    const yaml_node_t *root = yaml_document_get_root_node(&walk.document);
    bool usable = root && root->type == YAML_MAPPING_NODE;
    if (root)
        walk_map(&walk, "", place_of(&walk, root), root);
    else
        spec_find(spec, (struct place){0, 1}, NULL, "the file is empty");
    yaml_document_delete(&walk.document);
    return usable;
}

void spec_read_default(const char *yaml, struct entry *entry)
{
    struct walk walk = {0};

    entry->list = !yaml[0]; /* "" stands for the empty list */
    if (entry->list) return;
    ensure(load(&walk, yaml, strlen(yaml)));
    const char *fault = read_value(&walk, yaml_document_get_root_node(&walk.document), entry);
    if (fault) bug("the default \"%s\" %s", yaml, fault);
    yaml_document_delete(&walk.document);
}

/* ---------------------------------------------------------------- --set */

/* "probes[2].rank" needs a probe 2, or begins it if it is the next one. */
static bool reach_element(struct walk *walk, const char *key)
{
    const char *bracket = strchr(key, '[');
    struct place place = {walk->set, 1};
    char *end;

    if (!bracket) return true;
    long index = strtol(bracket + 1, &end, 10);
    char *section = memory_text("%.*s", (int)(bracket - key), key);
    char *element = memory_text("%s[%ld]", section, index);
    int count = spec_maps(walk->spec, section);
    bool reached = end > bracket + 1 && index <= count;
    if (end == bracket + 1)
        spec_find(walk->spec, place, NULL, "which one? write %s[0]%s", section, end + 1);
    else if (!reached)
        spec_find(walk->spec, place, NULL, "there is no %s; %s has %d %s", element, section, count,
                  count == 1 ? "entry" : "entries");
    else if (index == count)
        add_entry(walk->spec, element, place);
    memory_free(section);
    memory_free(element);
    return reached;
}

static void set_value(struct walk *walk, const char *key, const char *value)
{
    struct place place = {walk->set, 1};

    drop_entries(walk->spec, key);
    bool loaded = load(walk, value, strlen(value));
    const yaml_node_t *root = loaded ? yaml_document_get_root_node(&walk->document) : NULL;
    if (root)
        walk_node(walk, key, place, root);
    else
        add_entry(walk->spec, key, place)->broken = true;
    if (loaded && !root) spec_find(walk->spec, place, key, "has no value");
    if (loaded) yaml_document_delete(&walk->document);
}

void spec_read_set(struct spec *spec, int index)
{
    struct walk walk = {.spec = spec, .set = index + 1};
    struct place place = {walk.set, 1};
    const char *text = spec->sets[index];
    const char *equals = strchr(text, '=');

    if (!equals || equals == text) {
        spec_find(spec, place, NULL, "expected KEY=VALUE");
        return;
    }
    char *key = memory_text("%.*s", (int)(equals - text), text);
    if (spec_shape(key) == SHAPE_UNKNOWN)
        find_unknown(&walk, key, place);
    else if (reach_element(&walk, key))
        set_value(&walk, key, equals + 1);
    memory_free(key);
}
