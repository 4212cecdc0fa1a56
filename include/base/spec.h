/* spec: the input file, read into one table of parameters (floor 0, libyaml).
 *
 * Every key that a user may write is one row of `parameter_table` (parameters.c). The row drives reading, defaults,
 * bounds, `eigentrain keys`, the resolved echo and the provenance. Values are looked up by key; asking for a key that
 * has no row is a bug. */
#ifndef EIGENTRAIN_BASE_SPEC_H
#define EIGENTRAIN_BASE_SPEC_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum parameter_type { PARAMETER_INT, PARAMETER_REAL, PARAMETER_BOOL, PARAMETER_TEXT, PARAMETER_CHOICE };

/* One row. Keys are dotted paths; a list of maps has "[]" in its path: "probes[].every". */
struct parameter {
    const char *key;
    enum parameter_type type;
    bool list;       /* a YAML list of `type`; a single value is read as a list of one */
    const char *def; /* default as YAML text; NULL: the key is required (where it applies); "" with list: empty */
    double min, max; /* bounds of INT and REAL, inclusive unless `open` */
    bool open_min;   /* the lower bound itself is not allowed */
    const char
        *words; /* CHOICE: the allowed words "a|b|c"; INT, REAL, lists: words allowed in place of a number, or NULL */
    const char *when; /* applies only if a sibling key has one of these values: "kind=idx|hdf5", or NULL. The sibling is
                         looked up in the same map and stands earlier in the table. Several rows may share a key
                         with different `when`. */
    const char *unit; /* "1", "steps", "samples", … */
    bool control;     /* may change at a resume (steps, output); all others are physics and fixed */
    const char *help; /* one sentence */
};

/* The table, ended by a row with key = NULL. */
extern const struct parameter parameter_table[];

struct spec;

/* Local. Reads `text` (the bytes of the input file called `name` in messages), then applies `sets`, each
 * "key=value", over it. All problems found (syntax, unknown, duplicate, ill-typed, out of range, missing, not
 * applicable) are appended as "file:line: key: what is wrong (did you mean …?)". Returns the spec, or NULL if there
 * was any problem. Deterministic: all ranks that read the same text get the same answer. */
struct spec *spec_read(const char *text, size_t length, const char *name, int nsets, const char *const *sets,
                       struct problems *problems);

/* Local. Frees the spec and sets *spec to NULL. */
void spec_destroy(struct spec **spec);

/* Local. Typed look-up of a key: "train.lr", "probes[2].every". A key without a row, of another type, or not
 * applicable to the value of its `when` sibling is a bug. spec_int and spec_real of a key that holds a word are bugs:
 * ask spec_is first. spec_text serves TEXT and CHOICE. */
int64_t spec_int(const struct spec *spec, const char *key);

/* Local. The same for REAL. */
double spec_real(const struct spec *spec, const char *key);

/* Local. The same for BOOL. */
bool spec_bool(const struct spec *spec, const char *key);

/* Local. The same for TEXT and CHOICE; owned by the spec. */
const char *spec_text(const struct spec *spec, const char *key);

/* Local. Whether a key has this word as its value ("grid.rows", "auto"). For a list: whether it is that single word. */
bool spec_is(const struct spec *spec, const char *key, const char *word);

/* Local. Whether the key applies at all, given the value of its sibling. */
bool spec_applies(const struct spec *spec, const char *key);

/* Local. Whether the user wrote the key (file or --set), rather than leaving it to its default. */
bool spec_given(const struct spec *spec, const char *key);

/* Local. Lists: number of elements, and one of them. spec_count("probes") counts the maps of a list section. A list
 * that is a word ("all") has no elements. */
int spec_count(const struct spec *spec, const char *key);

/* Local. Element `index` of a list of INT; out of range is a bug. */
int64_t spec_int_at(const struct spec *spec, const char *key, int index);

/* Local. The same for REAL. */
double spec_real_at(const struct spec *spec, const char *key, int index);

/* Local. Adds "file:line: key: …" to problems: for checks across keys that a row cannot express. The code is
 * EXIT_INPUT. */
void spec_problem(const struct spec *spec, struct problems *problems, const char *key, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Local. The complete, re-runnable YAML text with every applicable key and its value (memory_free). Reading it gives a
 * spec with the same values, bit for bit. */
char *spec_resolved(const struct spec *spec);

/* Local. Prints the table for a person: all keys, or those that equal or begin with `prefix` with type, default,
 * bounds, unit and meaning. Returns false (and prints the nearest names) if there is no such key. */
bool spec_keys(FILE *out, const char *prefix);

/* Local. What differs between two complete specs, for a resume: appends to `physics` (problems with EXIT_INPUT that say
 * key, old and new value; NULL: not wanted) and to `control` every key whose values differ or that applies in one only.
 * The texts of control read "train.steps: 500 was 100". run.name and keys that say where a file is are control. A
 * schedule length of `steps` counts as physics with another train.steps. */
void spec_differences(const struct spec *old, const struct spec *new, struct problems *physics,
                      struct problems *control);

/* ---- sweeps (spec_sweep.c) */

/* The section `sweep:` of an input: its axes. A zip is one axis with several keys. */
struct sweep_axis {
    char **key;   /* [keys] dotted paths of parameters, owned */
    int keys;     /* 1; more in a zip */
    char **value; /* [keys × size] YAML text of a value ("64", "[784, 64, 10]"); value[k·size + i]; owned */
    int size;
};
struct sweep_axes {
    struct sweep_axis *axis; /* [count], owned */
    int count;
    int64_t members; /* product of the sizes */
};

/* Local. The axes of the input, NULL if it has no section `sweep` or with problems (EXIT_INPUT, with file and line:
 * unknown keys with the nearest, no list, empty list, lists of unequal length in `zip`, a key twice, too many members).
 * The values themselves are checked when a member is read: one that is impossible is the member's problem. spec_read
 * passes over the section. */
struct sweep_axes *spec_sweep(const char *text, size_t length, const char *name, struct problems *problems);

/* Local. Frees them and sets *axes to NULL. */
void sweep_axes_destroy(struct sweep_axes **axes);

/* Local. Index along axis a of member i; the last axis runs fastest. */
int sweep_index(const struct sweep_axes *axes, int64_t member, int axis);

/* ---- small flat files (spec_flat.c) */

/* Local. The value of a key of a flat YAML or JSON map, status.json say; nested maps by dotted key
 * ("final.train/loss"). NULL if the text cannot be read or has no such key, or if it is null (memory_free). */
char *spec_flat(const char *text, size_t length, const char *key);

/* Local. All dotted keys of such a map in the order of the text: [*count] owned texts in an owned array. */
char **spec_flat_keys(const char *text, size_t length, int *count);

/* Local. Of the '|'-separated or table names the one nearest to `word` by edit distance, or NULL if none is near. */
const char *spec_nearest(const char *word, const char *const *names, int count);

#endif
