/* ranks: 1 */
/* Inputs that are right: values, defaults, --set, what resolved.yaml and the list of keys say. */
#include "base/memory.h"
#include "specs.h"

#include <float.h>

/* ---------------------------------------------------------------- what is right */

static void values_and_defaults(void **state)
{
    struct spec *spec = read_valid(MATRIX "train: {lr: 1e-3, steps: 1e3, tolerance: .5, weight_decay: 1.}\n"
                                          "run: {name: 007, seed: 007}\n"
                                          "model: {bias: TRUE, activation: \"tanh\"}\n"
                                          "loss:\n", /* an empty section is none */
                                   NULL);

    (void)state;
    assert_close(spec_real(spec, "train.lr"), 1e-3, 0);
    assert_int_equal(spec_int(spec, "train.steps"), 1000);
    assert_close(spec_real(spec, "train.tolerance"), 0.5, 0);
    assert_close(spec_real(spec, "train.weight_decay"), 1, 0);
    assert_string_equal(spec_text(spec, "run.name"), "007");
    assert_int_equal(spec_int(spec, "run.seed"), 7);
    assert_true(spec_bool(spec, "model.bias"));
    assert_true(spec_is(spec, "model.activation", "tanh"));
    assert_false(spec_is(spec, "model.activation", "relu"));

    assert_true(spec_given(spec, "train.lr"));
    assert_false(spec_given(spec, "train.batch"));
    assert_true(spec_is(spec, "train.batch", "full"));
    assert_true(spec_is(spec, "grid.rows", "auto"));
    assert_false(spec_is(spec, "snapshot.every", "end"));
    assert_true(spec_is(spec, "grid.block", "auto"));
    assert_true(spec_bool(spec, "train.compress"));
    assert_string_equal(spec_text(spec, "loss.kind"), "mse");
    assert_int_equal(spec_count(spec, "probes"), 0);
    spec_destroy(&spec);
    assert_null(spec);
}

static void lists(void **state)
{
    struct spec *spec = read_valid(MATRIX "model:\n"
                                          "  widths: [5, 1e1, 4]\n"
                                          "  trainable: 2\n"
                                          "  lr_multiplier:\n"
                                          "    - 0.5\n"
                                          "    - 2\n"
                                          "train: {schedule: {kind: step, milestones: [10, 20]}}\n",
                                   NULL);

    (void)state;
    assert_int_equal(spec_count(spec, "model.widths"), 3);
    assert_int_equal(spec_int_at(spec, "model.widths", 1), 10);
    assert_false(spec_is(spec, "model.widths", "auto"));
    assert_int_equal(spec_count(spec, "model.trainable"), 1);
    assert_int_equal(spec_int_at(spec, "model.trainable", 0), 2);
    assert_int_equal(spec_count(spec, "model.lr_multiplier"), 2);
    assert_close(spec_real_at(spec, "model.lr_multiplier", 0), 0.5, 0);
    assert_int_equal(spec_count(spec, "model.init.scale"), 1);
    assert_close(spec_real_at(spec, "model.init.scale", 0), 1, 0);
    assert_int_equal(spec_int_at(spec, "train.schedule.milestones", 1), 20);
    spec_destroy(&spec);

    spec = read_valid(MATRIX "model: {widths: [auto]}\n", NULL);
    assert_true(spec_is(spec, "model.widths", "auto"));
    assert_true(spec_is(spec, "model.trainable", "all"));
    assert_int_equal(spec_count(spec, "model.trainable"), 0);
    spec_destroy(&spec);
}

static void lists_of_maps_and_when(void **state)
{
    struct spec *spec = read_valid(MATRIX "probes:\n"
                                          "  - {kind: spectrum, of: product, rank: full}\n"
                                          "  - {kind: subspace, every: 3}\n",
                                   NULL);

    (void)state;
    assert_int_equal(spec_count(spec, "probes"), 2);
    assert_string_equal(spec_text(spec, "probes[0].of"), "product");
    assert_true(spec_is(spec, "probes[0].rank", "full"));
    assert_int_equal(spec_int(spec, "probes[0].every"), 10);
    assert_false(spec_applies(spec, "probes[0].reference"));
    assert_int_equal(spec_int(spec, "probes[1].rank"), 5);
    assert_int_equal(spec_int(spec, "probes[1].every"), 3);
    assert_true(spec_applies(spec, "probes[1].reference"));
    assert_false(spec_applies(spec, "data.whiten"));
    assert_false(spec_applies(spec, "data.whiten_floor"));
    assert_false(spec_applies(spec, "train.momentum"));
    spec_destroy(&spec);
}

static void aliases_are_followed(void **state)
{
    struct spec *spec = read_valid(MATRIX "train: {lr: &rate 0.25, tolerance: *rate}\n", NULL);

    (void)state;
    assert_close(spec_real(spec, "train.tolerance"), 0.25, 0);
    spec_destroy(&spec);
}

static void sets_override_the_file(void **state)
{
    static const char text[] = MATRIX "train: {lr: x}\n"
                                      "model: {init: {kind: gaussian, gain: none, scale: 3}}\n"
                                      "probes: [{kind: spectrum}]\n";
    const char *sets[] = {"train.lr=0.5", "model.init.scale=[0.5, 2]", "probes[0].rank=5", NULL};
    struct spec *spec = read_valid(text, sets);

    (void)state;
    assert_close(spec_real(spec, "train.lr"), 0.5, 0);
    assert_close(spec_real_at(spec, "model.init.scale", 1), 2, 0);
    assert_string_equal(spec_text(spec, "model.init.gain"), "none");
    assert_int_equal(spec_int(spec, "probes[0].rank"), 5);
    assert_string_equal(spec_text(spec, "probes[0].kind"), "spectrum");
    spec_destroy(&spec);

    const char *maps[] = {"train={lr: 2}", "model.init={kind: orthogonal}", "probes[1]={kind: subspace}",
                          "probes[2].kind=spectrum"};
    spec = read_valid(text, maps);
    assert_close(spec_real(spec, "train.lr"), 2, 0);
    assert_close(spec_real_at(spec, "model.init.scale", 0), 1, 0);
    assert_false(spec_given(spec, "model.init.scale"));
    assert_int_equal(spec_count(spec, "probes"), 3);
    assert_string_equal(spec_text(spec, "probes[1].kind"), "subspace");
    assert_string_equal(spec_text(spec, "probes[2].kind"), "spectrum");
    spec_destroy(&spec);

    const char *again[] = {"train.lr=1", "train.lr=2", "probes=[]", "run.name=a=b"};
    spec = read_valid(text, again);
    assert_close(spec_real(spec, "train.lr"), 2, 0);
    assert_int_equal(spec_count(spec, "probes"), 0);
    assert_string_equal(spec_text(spec, "run.name"), "a=b");
    spec_destroy(&spec);
}

/* ---------------------------------------------------------------- resolved.yaml and keys */

/* Reads what spec_resolved writes; the text must stay the same. */
static struct spec *read_again(const struct spec *spec)
{
    char *text = spec_resolved(spec);
    struct spec *again = read_valid(text, NULL);
    char *text_again = spec_resolved(again);

    assert_string_equal(text, text_again);
    memory_free(text_again);
    memory_free(text);
    return again;
}

static void resolved_text(void **state)
{
    struct spec *spec = read_valid(MATRIX "model: {widths: [5, 4], init: {scale: [1e-7, 0.1]}}\n"
                                          "probes:\n  - {kind: subspace, name: \"a b\"}\n  - {kind: spectrum}\n",
                                   NULL);
    char *text = spec_resolved(spec);

    (void)state;
    assert_non_null(strstr(text, "run:\n  name: run\n  seed: 1\ngrid:\n  rows: auto\n"));
    assert_non_null(
        strstr(text, "data:\n  kind: low_rank_matrix\n  rows: 4\n  cols: 5\n  rank: 2\n  spectrum: leading\nmodel:\n"
                     "  widths: [5, 4]\n"));
    assert_non_null(strstr(text, "  init:\n    kind: orthogonal\n    scale: [1.0e-07, 0.1]\n    head: same\nloss:\n"));
    assert_non_null(strstr(text, "  schedule:\n    kind: constant\n  batch: full\n"));
    assert_non_null(strstr(text, "probes:\n  - kind: subspace\n    name: \"a b\"\n    every: 10\n"));
    assert_non_null(strstr(text, "\n  - kind: spectrum\n    name: auto\n"));
    assert_null(strstr(text, "momentum:"));
    memory_free(text);
    spec_destroy(&spec);
}

static void reals_survive_bit_for_bit(void **state)
{
    static const double awkward[] = {0.1,     1.0 / 3, 2.2250738585072011e-308, 4.9406564584124654e-324,
                                     DBL_MAX, 1e23,    123456789012345680.0,    0.30000000000000004,
                                     1e-5,    5e-324,  9007199254740993.0,      1 + DBL_EPSILON};

    (void)state;
    for (size_t i = 0; i < sizeof awkward / sizeof *awkward; i++) {
        char *text = memory_text(MATRIX "train: {lr: %.17g}\n", awkward[i]);
        struct spec *spec = read_valid(text, NULL), *again = read_again(spec);
        double first = spec_real(spec, "train.lr"), second = spec_real(again, "train.lr");
        assert_memory_equal(&first, &awkward[i], sizeof first);
        assert_memory_equal(&second, &awkward[i], sizeof second);
        spec_destroy(&again);
        spec_destroy(&spec);
        memory_free(text);
    }
}

static void texts_survive(void **state)
{
    /* As YAML, and as the bytes that they stand for. */
    static const char *const texts[][2] = {
        {"true", "true"},
        {"'1e3'", "1e3"},
        {"'~'", "~"},
        {"'null'", "null"},
        {"''", ""},
        {"\" a: b # c \"", " a: b # c "},
        {"\"\\t\\n\\e\"", "\t\n\033"},
        {"'\"\\'", "\"\\"},
        {"\"\\u2028\\N\\uFEFF\"", "\u2028\xC2\x85\uFEFF"},
        {"größe-λ😀", "größe-λ😀"},
        {"/a/b.c-d_e", "/a/b.c-d_e"},
        {"\"[x, y]\"", "[x, y]"},
        {"'- x'", "- x"},
        {"no", "no"},
        {"\"\\x7f\\x9f\"", "\x7f\xC2\x9f"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char *text = memory_text(MATRIX "run:\n  name: %s\n", texts[i][0]);
        struct spec *spec = read_valid(text, NULL), *again = read_again(spec);
        assert_string_equal(spec_text(spec, "run.name"), texts[i][1]);
        assert_string_equal(spec_text(again, "run.name"), texts[i][1]);
        spec_destroy(&again);
        spec_destroy(&spec);
        memory_free(text);
    }
}

static void every_kind_resolves(void **state)
{
    static const char *const texts[] = {
        "data: {kind: fashion_mnist, whiten: true}\n",
        "data: {kind: idx, train_images: a, train_labels: b, train: 9223372036854775807}\n",
        "data: {kind: hdf5, file: x.h5}\nmodel: {init: {kind: file, file: y}, widths: 3}\n",
        "data: {kind: gaussian, features: 1, outputs: 2, train: 3}\ntrain: {optimizer: adam, batch: 3}\n",
        MATRIX "train: {schedule: {kind: cosine}}\nsnapshot: {every: end}\nprobes: [{kind: spectrum, rank: full}]\n",
    };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct spec *spec = read_valid(texts[i], NULL), *again = read_again(spec);
        spec_destroy(&again);
        spec_destroy(&spec);
    }
}

/* What spec_keys prints for a prefix (memory_free); *found is its answer. */
static char *printed_keys(const char *prefix, bool *found)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    assert_non_null(out);
    *found = spec_keys(out, prefix);
    fclose(out);
    return text;
}

static void keys_are_listed(void **state)
{
    bool found;
    char *text = printed_keys(NULL, &found);

    (void)state;
    assert_true(found);
    for (const struct parameter *row = parameter_table; row->key; row++) assert_non_null(strstr(text, row->key));
    memory_free(text);

    text = printed_keys("train.schedule", &found);
    assert_true(found);
    assert_non_null(strstr(text, "train.schedule.final"));
    assert_null(strstr(text, "train.lr"));
    memory_free(text);

    text = printed_keys("grid.block", &found);
    assert_true(found);
    assert_string_equal(text, "grid.block\n"
                              "    meaning   block size of the block-cyclic distribution\n"
                              "    type      integer\n"
                              "    default   auto\n"
                              "    bounds    between 1 and 4096\n"
                              "    or        auto\n"
                              "    unit      rows and columns\n"
                              "    applies   always\n"
                              "    resume    control: may change\n");
    memory_free(text);

    text = printed_keys("probes[0].reference", &found);
    assert_true(found);
    assert_non_null(strstr(text, "    applies   probes[].kind: subspace\n"));
    memory_free(text);

    text = printed_keys("train.lrr", &found);
    assert_false(found);
    assert_string_equal(text, "train.lrr: unknown key (did you mean train.lr?)\n");
    memory_free(text);
}

static const struct CMUnitTest spec_tests[] = {
    cmocka_unit_test(values_and_defaults),       cmocka_unit_test(lists),
    cmocka_unit_test(lists_of_maps_and_when),    cmocka_unit_test(aliases_are_followed),
    cmocka_unit_test(sets_override_the_file),    cmocka_unit_test(resolved_text),
    cmocka_unit_test(reals_survive_bit_for_bit), cmocka_unit_test(texts_survive),
    cmocka_unit_test(every_kind_resolves),       cmocka_unit_test(keys_are_listed),
};

UNIT_MAIN(spec_tests, NULL, NULL)
