/* ranks: 1 */
/* The section `sweep:` of an input: axes, members, values as text, and every kind of mistake with its exact message. */
#include "base/memory.h"
#include "base/spec.h"
#include "unit.h"

#include <string.h>

#define MATRIX "data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2}\n" /* line 1 */

static struct sweep_axes *read_valid(const char *text)
{
    struct problems problems = {0};
    struct sweep_axes *axes = spec_sweep(text, strlen(text), "in.yaml", &problems);

    problems_print(&problems);
    assert_int_equal(problems.count, 0);
    return axes;
}

/* All messages, one a line. */
static void assert_messages(const char *text, const char *expected)
{
    struct problems problems = {0};
    char *all = memory_text("%s", "");

    assert_null(spec_sweep(text, strlen(text), "in.yaml", &problems));
    for (int i = 0; i < problems.count; i++) {
        char *longer = memory_text("%s%s\n", all, problems.text[i]);
        memory_free(all);
        all = longer;
    }
    assert_string_equal(all, expected);
    assert_int_equal(problems.code, EXIT_INPUT);
    memory_free(all);
    problems_clear(&problems);
}

static void assert_axis(const struct sweep_axis *axis, int keys, int size, const char *const *expected)
{
    assert_int_equal(axis->keys, keys);
    assert_int_equal(axis->size, size);
    for (int k = 0; k < keys; k++) {
        assert_string_equal(axis->key[k], *expected++);
        for (int i = 0; i < size; i++) assert_string_equal(axis->value[k * size + i], *expected++);
    }
}

/* ---------------------------------------------------------------- what is right */

static void product_and_zip(void **state)
{
    struct sweep_axes *axes = read_valid(MATRIX "sweep:\n"
                                                "  model.width: [64, 128, 256]\n"
                                                "  zip: {run.seed: [1, 2], train.lr: [0.1, 5e-2]}\n"
                                                "  model.depth: [2, 4]\n");

    (void)state;
    assert_int_equal(axes->count, 3);
    assert_int_equal(axes->members, 12);
    assert_axis(&axes->axis[0], 1, 3, (const char *[]){"model.width", "64", "128", "256"});
    assert_axis(&axes->axis[1], 2, 2, (const char *[]){"run.seed", "1", "2", "train.lr", "0.1", "5e-2"});
    assert_axis(&axes->axis[2], 1, 2, (const char *[]){"model.depth", "2", "4"});
    /* the last axis runs fastest */
    for (int64_t i = 0; i < 12; i++) {
        assert_int_equal(sweep_index(axes, i, 0), i / 4);
        assert_int_equal(sweep_index(axes, i, 1), i / 2 % 2);
        assert_int_equal(sweep_index(axes, i, 2), i % 2);
    }
    sweep_axes_destroy(&axes);
    assert_null(axes);
    sweep_axes_destroy(&axes);
}

/* Lists, words, truth values and texts come back as YAML that means the same. */
static void values_of_every_kind(void **state)
{
    struct sweep_axes *axes = read_valid(MATRIX "probes: [{kind: spectrum}]\n"
                                                "sweep:\n"
                                                "  model.widths: [[784, 64, 10], [ 784,128 , 10 ], auto]\n"
                                                "  model.bias: [true, false]\n"
                                                "  probes[0].rank:\n"
                                                "    - full\n"
                                                "    - 5\n"
                                                "  train.lr: [-1e-3, +.5]\n"
                                                "  data.path: [\"a b\", 'say \"x\"', ../c, \"7\"]\n"
                                                "  data.file: [\"a\\tb\\\\c\", [\"x, y\", z]]\n");

    (void)state;
    assert_int_equal(axes->count, 6);
    assert_axis(&axes->axis[0], 1, 3, (const char *[]){"model.widths", "[784, 64, 10]", "[784, 128, 10]", "auto"});
    assert_axis(&axes->axis[1], 1, 2, (const char *[]){"model.bias", "true", "false"});
    assert_axis(&axes->axis[2], 1, 2, (const char *[]){"probes[0].rank", "full", "5"});
    assert_axis(&axes->axis[3], 1, 2, (const char *[]){"train.lr", "-1e-3", "+.5"});
    assert_axis(&axes->axis[4], 1, 4, (const char *[]){"data.path", "\"a b\"", "\"say \\\"x\\\"\"", "../c", "\"7\""});
    assert_axis(&axes->axis[5], 1, 2, (const char *[]){"data.file", "\"a\\x09b\\\\c\"", "[\"x, y\", z]"});
    sweep_axes_destroy(&axes);
}

/* What spec_sweep returns can be given to spec_read, which passes over the section itself. */
static void values_are_sets(void **state)
{
    const char *text =
        MATRIX "sweep: {model.widths: [[5, 3, 4], [5, 4]], data.kind: [\"low_rank_matrix\"], train.lr: [1e-3]}\n";
    struct sweep_axes *axes = read_valid(text);
    struct problems problems = {0};
    char *sets[3];

    (void)state;
    for (int a = 0; a < 3; a++)
        sets[a] = memory_text("%s=%s", axes->axis[a].key[0], axes->axis[a].value[sweep_index(axes, 1, a)]);
    struct spec *spec = spec_read(text, strlen(text), "in.yaml", 3, (const char *const *)sets, &problems);
    problems_print(&problems);
    assert_non_null(spec);
    assert_int_equal(spec_count(spec, "model.widths"), 2);
    assert_int_equal(spec_int_at(spec, "model.widths", 1), 4);
    assert_close(spec_real(spec, "train.lr"), 1e-3, 0);
    spec_destroy(&spec);
    for (int a = 0; a < 3; a++) memory_free(sets[a]);
    sweep_axes_destroy(&axes);
}

static void aliases_and_one_value(void **state)
{
    struct sweep_axes *axes = read_valid("model: {depth: &w 2}\nsweep: {run.seed: &s [7, *w], zip: {data.rank: *s}}\n");

    (void)state;
    assert_int_equal(axes->count, 2);
    assert_axis(&axes->axis[0], 1, 2, (const char *[]){"run.seed", "7", "2"});
    assert_axis(&axes->axis[1], 1, 2, (const char *[]){"data.rank", "7", "2"});
    sweep_axes_destroy(&axes);
    axes = read_valid("sweep: {run.seed: [7]}\n");
    assert_int_equal(axes->members, 1);
    sweep_axes_destroy(&axes);
}

static void no_section(void **state)
{
    (void)state;
    assert_null(read_valid(MATRIX));
    assert_null(read_valid(""));
    assert_null(read_valid("[a, list]\n"));
    assert_null(read_valid("model: {sweep: 3}\n"));
}

/* ---------------------------------------------------------------- what is wrong */

static void wrong_sections(void **state)
{
    (void)state;
    assert_messages(MATRIX "sweep:\n", "in.yaml:2: sweep: expected a map of keys and lists, found nothing\n");
    assert_messages(MATRIX "sweep: {}\n", "in.yaml:2: sweep: expected a map of keys and lists, found nothing\n");
    assert_messages(MATRIX "sweep: [1]\n", "in.yaml:2: sweep: expected a map of keys and lists, found a list\n");
    assert_messages(MATRIX "sweep: 3\n", "in.yaml:2: sweep: expected a map of keys and lists, found a single value\n");
    assert_messages(MATRIX "sweep: {zip: {}}\n",
                    "in.yaml:2: sweep: zip: expected a map of keys and lists, found nothing\n");
    assert_messages(MATRIX "sweep: {zip: [run.seed]}\n",
                    "in.yaml:2: sweep: zip: expected a map of keys and lists, found a list\n");
    assert_messages("sweep: {run.seed: [1, 2\n",
                    "in.yaml:2: not YAML: did not find expected ',' or ']' (while parsing a "
                    "flow sequence that begins in line 1)\n");
}

static void wrong_keys(void **state)
{
    (void)state;
    assert_messages(MATRIX "sweep:\n"
                           "  model.widht: [1, 2]\n"
                           "  lr: [1]\n"
                           "  pressure: [1]\n"
                           "  model: {width: [1]}\n"
                           "  probes: [1]\n"
                           "  probes.rank: [1]\n"
                           "  probes[].rank: [1]\n"
                           "  run.name: [a, b]\n"
                           "  run.seed: [1, 2]\n"
                           "  zip: {train.lr: [1], run.seed: [3]}\n"
                           "  [a]: [1]\n",
                    "in.yaml:3: sweep: model.widht: unknown key (did you mean model.width?)\n"
                    "in.yaml:4: sweep: lr: unknown key (did you mean train.lr?)\n"
                    "in.yaml:5: sweep: pressure: unknown key (`eigentrain keys` lists those there are)\n"
                    "in.yaml:6: sweep: model is a section: name one of its parameters, as in model.width: [64, 128]\n"
                    "in.yaml:7: sweep: probes is a section: name one of its parameters, as in model.width: [64, 128]\n"
                    "in.yaml:8: sweep: probes.rank: unknown key (did you mean probes[0].rank?)\n"
                    "in.yaml:9: sweep: probes[].rank: which one? the first has the number 0\n"
                    "in.yaml:10: sweep: run.name: a member's name is made from its parameters\n"
                    "in.yaml:12: sweep: run.seed: given twice\n"
                    "in.yaml:13: sweep: a key must be a word\n");
}

static void wrong_values(void **state)
{
    (void)state;
    assert_messages(MATRIX "sweep:\n"
                           "  model.width: 64\n"
                           "  model.depth:\n"
                           "  train.lr: []\n"
                           "  run.seed: [1, ~, {a: 2}]\n"
                           "  model.widths: [[1, [2]], \"a\\0b\"]\n"
                           "  train.steps: [5, 7, 6, 7]\n"
                           "  zip: {data.rank: [1, 2], data.rows: [3, 4, 5]}\n",
                    "in.yaml:3: sweep: model.width: expected a list of values, found a single value\n"
                    "in.yaml:4: sweep: model.depth: expected a list of values, found nothing\n"
                    "in.yaml:5: sweep: train.lr: the list is empty\n"
                    "in.yaml:6: sweep: run.seed: entry 2 has no value\n"
                    "in.yaml:6: sweep: run.seed: entry 3 is neither a value nor a list of values\n"
                    "in.yaml:7: sweep: model.widths: entry 1 is neither a value nor a list of values\n"
                    "in.yaml:7: sweep: model.widths: entry 2 holds a NUL character\n"
                    "in.yaml:8: sweep: train.steps: entry 4 is entry 2 again\n"
                    "in.yaml:9: sweep: zip: data.rows has 3 values, but data.rank has 2: lists that go together are of "
                    "one length\n");
    /* in a zip only all values together must differ */
    struct sweep_axes *axes = read_valid("sweep: {zip: {run.seed: [1, 1, 2], train.lr: [1, 2, 1]}}\n");
    assert_int_equal(axes->members, 3);
    sweep_axes_destroy(&axes);
    assert_messages("sweep: {zip: {run.seed: [1, 2, 1], train.lr: [1, 2, 1]}}\n",
                    "in.yaml:1: sweep: run.seed: entry 3 is entry 1 again\n");
}

static void too_many(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    static const char *const keys[] = {"run.seed", "model.width"};

    (void)state;
    assert_non_null(out);
    fputs("sweep:\n", out);
    for (int k = 0; k < 2; k++) {
        fprintf(out, "  %s: [1", keys[k]);
        for (int i = 2; i <= 101; i++) fprintf(out, ", %d", i);
        fputs("]\n", out);
    }
    fclose(out);
    assert_messages(text, "in.yaml:1: sweep: more than 10000 members: the product of the lists is too large\n");
    free(text);
    assert_messages("sweep: {run.seed: [1], model.width: [1], model.depth: [1], train.lr: [1], train.steps: [1],\n"
                    "  data.rank: [1], data.rows: [1], data.cols: [1], data.train: [1]}\n",
                    "in.yaml:1: sweep: 9 lists, where at most 8 can be: put those that go together into zip\n");
}

static const struct CMUnitTest spec_sweep_tests[] = {
    cmocka_unit_test(product_and_zip), cmocka_unit_test(values_of_every_kind),
    cmocka_unit_test(values_are_sets), cmocka_unit_test(aliases_and_one_value),
    cmocka_unit_test(no_section),      cmocka_unit_test(wrong_sections),
    cmocka_unit_test(wrong_keys),      cmocka_unit_test(wrong_values),
    cmocka_unit_test(too_many),
};

UNIT_MAIN(spec_sweep_tests, NULL, NULL)
