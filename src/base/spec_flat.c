/* Small flat maps, in YAML or JSON: what the program wrote for itself and for others, status.json say. */
#include "base/memory.h"
#include "spec_private.h"

#include <string.h>
#include <yaml.h>

enum { DEEPEST = 8 }; /* maps in maps; an alias could make them endless */

static const char *text_of(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static bool is_null(const yaml_node_t *node)
{
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!text_of(node)[0] || words_have(SPEC_NULLS, text_of(node)));
}

/* Whether nothing but comments is left in the stream. */
static bool stream_ends(yaml_parser_t *parser)
{
    yaml_document_t second;

    if (!yaml_parser_load(parser, &second)) return false;
    bool ends = !yaml_document_get_root_node(&second);
    yaml_document_delete(&second);
    return ends;
}

/* Loads a text that is one map and nothing else; false leaves nothing to delete. */
static bool load(const char *text, size_t length, yaml_document_t *document)
{
    yaml_parser_t parser;

    if (!yaml_parser_initialize(&parser)) error_end(EXIT_ENVIRONMENT, "out of memory while reading YAML");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, length);
    bool loaded = yaml_parser_load(&parser, document);
    const yaml_node_t *root = loaded ? yaml_document_get_root_node(document) : NULL;
    bool map = root && root->type == YAML_MAPPING_NODE && stream_ends(&parser);
    if (loaded && !map) yaml_document_delete(document);
    yaml_parser_delete(&parser);
    return map;
}

/* ---------------------------------------------------------------- one value */

/* What is behind `name` in a dotted key: "" if that was all, NULL if the key goes another way. */
static const char *rest_of(const char *key, const char *name)
{
    size_t length = strlen(name);

    if (strncmp(key, name, length) != 0) return NULL;
    return !key[length] ? "" : key[length] == '.' ? key + length + 1 : NULL;
}

/* A name may have dots of its own ("model.width" in a sweep): every way through the maps is tried. */
static const yaml_node_t *find(yaml_document_t *document, const yaml_node_t *map, const char *key)
{
    const yaml_node_t *found = NULL;

    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top && !found; pair++) {
        const yaml_node_t *name = yaml_document_get_node(document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(document, pair->value);
        const char *rest = name->type == YAML_SCALAR_NODE ? rest_of(key, text_of(name)) : NULL;
        if (rest && !rest[0] && value->type == YAML_SCALAR_NODE) found = value;
        if (rest && rest[0] && value->type == YAML_MAPPING_NODE) found = find(document, value, rest);
    }
    return found;
}

char *spec_flat(const char *text, size_t length, const char *key)
{
    yaml_document_t document;

    if (!load(text, length, &document)) return NULL;
    const yaml_node_t *found = find(&document, yaml_document_get_root_node(&document), key);
    char *value = found && !is_null(found) ? memory_text("%s", text_of(found)) : NULL;
    yaml_document_delete(&document);
    return value;
}

/* ---------------------------------------------------------------- all keys */

struct keys {
    yaml_document_t document;
    char **key; /* [count], owned */
    int count;
};

static void collect(struct keys *keys, const yaml_node_t *map, const char *prefix, int depth)
{
    for (yaml_node_pair_t *pair = map->data.mapping.pairs.start; pair < map->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(&keys->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&keys->document, pair->value);
        if (name->type != YAML_SCALAR_NODE) continue;
        char *key = memory_text("%s%s%s", prefix, prefix[0] ? "." : "", text_of(name));
        if (value->type == YAML_SCALAR_NODE) {
            size_t count = (size_t)keys->count;
            keys->key = memory_grow(keys->key, count, count + 1, sizeof *keys->key);
            keys->key[keys->count++] = memory_text("%s", key);
        } else if (value->type == YAML_MAPPING_NODE && depth < DEEPEST) {
            collect(keys, value, key, depth + 1);
        }
        memory_free(key);
    }
}

char **spec_flat_keys(const char *text, size_t length, int *count)
{
    struct keys keys = {.count = 0};

    if (load(text, length, &keys.document)) {
        collect(&keys, yaml_document_get_root_node(&keys.document), "", 1);
        yaml_document_delete(&keys.document);
    }
    *count = keys.count;
    return keys.key;
}
