/* spec_private: what the files of the room `spec` share. A text becomes entries (spec_read.c: what was written, where),
 * entries become values (spec_check.c: one for every key that could be asked for), values become text again
 * (spec_print.c). Matching of keys against the table is in spec.c. */
#ifndef EIGENTRAIN_BASE_SPEC_PRIVATE_H
#define EIGENTRAIN_BASE_SPEC_PRIVATE_H

#include "base/spec.h"

/* Where something was written. */
struct place {
    int set;  /* 0: in the file; i + 1: in sets[i] */
    int line; /* from 1 */
};

/* What the table says that a path leads to. */
enum shape { SHAPE_UNKNOWN, SHAPE_VALUE, SHAPE_MAP, SHAPE_LIST };

/* A key, a section or a list section as it was written; not yet checked against type and bounds. */
struct entry {
    char *key; /* "train.lr", "probes", "probes[2]"; owned */
    struct place place;
    bool broken;  /* reported as malformed: nothing more is said about it or what should be in it */
    bool list;    /* a YAML list rather than a single value */
    int count;    /* values: number of texts */
    char **text;  /* [count], owned */
    bool *quoted; /* [count], owned: "5" is a text, 5 a number */
};

/* One number, truth value or text. */
struct item {
    char *text; /* as written; true or false for BOOL; owned */
    int64_t integer;
    double real;
};

enum state { STATE_INVALID, STATE_INAPPLICABLE, STATE_SET };

/* What the program gets for a key. */
struct value {
    char *key;                   /* owned */
    const struct parameter *row; /* the row that rules; the first of its key if none does */
    enum state state;
    bool given;         /* written by the user */
    bool word;          /* a word in place of a number */
    int count;          /* 1, or the length of the list */
    struct item *items; /* [count], owned */
};

struct finding {
    struct place place;
    char *text; /* owned */
};

struct spec {
    char *name;  /* of the file, owned */
    char **sets; /* [nsets], owned */
    int nsets;
    struct entry *entries; /* [nentries], owned */
    int nentries;
    struct value *values; /* [nvalues], in the order of the table, owned */
    int nvalues;
    struct finding *findings; /* [nfindings], owned; only while reading */
    int nfindings;
};

/* ---- spec.c */

/* What is left of a row's key behind `path`, or NULL if it does not begin so; "[2]" in a path matches "[]". */
const char *spec_match(const char *row_key, const char *path);
enum shape spec_shape(const char *path);

struct entry *spec_entry(const struct spec *spec, const char *key);
struct value *spec_value(const struct spec *spec, const char *key);

/* Number of maps that were written in a list section. */
int spec_maps(const struct spec *spec, const char *section);

/* Where a key was written, or else the nearest section around it. */
struct place spec_place(const struct spec *spec, const char *key);

/* Records a problem; key may be NULL. */
void spec_find(struct spec *spec, struct place place, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The key that was probably meant by a path without a row, or NULL (memory_free). */
char *spec_suggest(const char *path);

/* ---- '|'-separated words, spec.c */

/* What other readers of YAML take for true and false, and we don't. */
#define SPEC_OTHER_BOOLS "yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF|y|Y|n|N"
#define SPEC_NULLS       "~|null|Null|NULL"

bool words_have(const char *words, const char *word);

/* "a, b or c", with `last` = " or " (memory_free). */
char *words_join(const char *words, const char *last);

/* The word nearest to `word` as " (did you mean …?)", or "" (memory_free). */
char *words_hint(const char *words, const char *word);

/* ---- spec_read.c */

/* False if the text is not YAML, so that looking for missing keys is of no use. */
bool spec_read_file(struct spec *spec, const char *text, size_t length);
void spec_read_set(struct spec *spec, int index);
void spec_read_default(const char *yaml, struct entry *entry);
void spec_entry_clear(struct entry *entry);

/* Loads the one YAML document of a file (libyaml's yaml_document_t; yaml_document_delete). False if there is no such
 * thing, which is recorded as a finding. */
struct yaml_document_s;
bool spec_load(struct spec *spec, const char *text, size_t length, struct yaml_document_s *document);

/* ---- spec_check.c */

/* Fills spec->values from spec->entries and the table. */
void spec_check(struct spec *spec);

/* "between 1 and 4096", "above 0"; "" without bounds (memory_free). */
char *spec_bounds(const struct parameter *row);

/* ---- spec_print.c */

enum { SPEC_NUMBER_LENGTH = 32 };

/* The shortest decimal that reads back as x. */
void spec_shortest(double x, char text[SPEC_NUMBER_LENGTH]);

#endif
