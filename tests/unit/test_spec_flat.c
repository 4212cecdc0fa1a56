/* ranks: 1 */
/* What differs between two specs, and the reader of small flat maps. */
#include "base/memory.h"
#include "base/spec.h"
#include "unit.h"

#include <string.h>

#define DATA "data: {kind: gaussian, features: 3, outputs: 2, train: 8}\n" /* line 1 of a valid input */

/* ---------------------------------------------------------------- differences */

static struct spec *read_valid(const char *text, const char *name)
{
    struct problems problems = {0};
    struct spec *spec = spec_read(text, strlen(text), name, 0, NULL, &problems);

    problems_print(&problems);
    assert_non_null(spec);
    return spec;
}

/* The texts of the problems are these, one a line. */
static void assert_texts(struct problems *problems, const char *expected)
{
    char *all = memory_text("%s", "");

    for (int i = 0; i < problems->count; i++) {
        char *longer = memory_text("%s%s\n", all, problems->text[i]);
        memory_free(all);
        all = longer;
    }
    assert_string_equal(all, expected);
    assert_int_equal(problems->code, problems->count ? EXIT_INPUT : EXIT_DONE);
    memory_free(all);
    problems_clear(problems);
}

/* Goes on with the text `new` where `old` began; both are behind DATA unless they say data themselves. */
static void assert_differences(const char *old, const char *new, const char *physics, const char *control)
{
    struct problems fixed = {0}, free_to_change = {0};
    char *texts[2];

    texts[0] = memory_text("%s%s", strstr(old, "data:") ? "" : DATA, old);
    texts[1] = memory_text("%s%s", strstr(new, "data:") ? "" : DATA, new);
    struct spec *before = read_valid(texts[0], "old.yaml"), *after = read_valid(texts[1], "new.yaml");
    spec_differences(before, after, &fixed, &free_to_change);
    assert_texts(&fixed, physics);
    assert_texts(&free_to_change, control);
    spec_differences(before, after, &fixed, NULL);
    assert_texts(&fixed, physics);
    spec_differences(before, after, NULL, &free_to_change);
    assert_texts(&free_to_change, control);
    spec_destroy(&before);
    spec_destroy(&after);
    for (int i = 0; i < 2; i++) memory_free(texts[i]);
}

static void assert_no_differences(const char *old, const char *new)
{
    assert_differences(old, new, "", "");
}

static void values_count_not_texts(void **state)
{
    (void)state;
    assert_no_differences("", "");
    assert_no_differences("train: {lr: 0.1, steps: 1000}\n", "train:\n  steps: 1e3\n  lr: 1e-1 # the same\n");
    assert_no_differences("train: {lr: 0.1}\n", "");
    assert_no_differences("model: {bias: true, widths: [3, 4, 2]}\n", "model: {widths: [3, 4.0, 2], bias: TRUE}\n");
    assert_no_differences("train: {batch: full}\n", "train: {batch: \"full\"}\n");
    assert_no_differences("run: {name: \"a\"}\n", "run: {name: a}\n");
    assert_differences("train: {lr: 0.1}\n", "train: {lr: 0.10000000000000002}\n",
                       "new.yaml:2: train.lr: 0.10000000000000002, was 0.1\n", "");
}

static void physics_and_control(void **state)
{
    (void)state;
    assert_differences("train: {lr: 0.1, steps: 100}\n", "train: {lr: 0.2, steps: 500}\n",
                       "new.yaml:2: train.lr: 0.2, was 0.1\n", "train.steps: 500 was 100\n");
    assert_differences("run: {name: a, seed: 1}\nmodel: {bias: true}\n", "run: {name: \"\", seed: 2}\n",
                       "new.yaml:2: run.seed: 2, was 1\nnew.yaml:1: model.bias: false, was true\n"
                       "new.yaml:1: model.head_bias: was true, only in the old input\n",
                       "run.name: \"\" was a\n");
    assert_differences("train: {batch: 4}\nloss: {kind: mse}\n", "\ntrain:\n\n  batch: full\nloss: {reduction: sum}\n",
                       "new.yaml:6: loss.reduction: sum, was mean\nnew.yaml:5: train.batch: full, was 4\n", "");
    assert_differences("grid: {block: 2}\n", "grid: {block: 3, rows: 1}\n", "",
                       "grid.rows: 1 was auto\ngrid.block: 3 was 2\n");
}

static void files_may_move(void **state)
{
    (void)state;
    assert_differences("data: {kind: hdf5, file: a.h5}\n", "data: {kind: hdf5, file: b.h5}\n", "",
                       "data.file: b.h5 was a.h5\n");
    assert_differences("data: {kind: fashion_mnist}\n", "data: {kind: fashion_mnist, path: here}\n", "",
                       "data.path: here was /usr/share/datasets/fashion-mnist\n");
}

static void keys_that_apply_in_one_only(void **state)
{
    (void)state;
    assert_differences("train: {optimizer: momentum}\n", "train: {optimizer: rmsprop, beta2: 0.5}\n",
                       "new.yaml:2: train.optimizer: rmsprop, was momentum\n"
                       "new.yaml:2: train.momentum: was 0.9, only in the old input\n"
                       "new.yaml:2: train.beta2: 0.5, only in the new input\n"
                       "new.yaml:2: train.epsilon: 1e-08, only in the new input\n",
                       "");
    assert_differences("model: {init: {kind: file, file: w.h5}}\n", "model: {init: {kind: orthogonal}}\n",
                       "new.yaml:2: model.init.kind: orthogonal, was file\n"
                       "new.yaml:2: model.init.scale: [1], only in the new input\n"
                       "new.yaml:2: model.init.head: same, only in the new input\n",
                       "model.init.file: was w.h5, only in the old input\n");
}

static void lists(void **state)
{
    (void)state;
    assert_differences("model: {widths: [3, 4, 2]}\n", "model: {widths: [3, 4, 5, 2]}\n",
                       "new.yaml:2: model.widths: [3, 4, 5, 2], was [3, 4, 2]\n", "");
    assert_differences("model: {trainable: all}\n", "model: {trainable: [1, 2]}\n",
                       "new.yaml:2: model.trainable: [1, 2], was all\n", "");
    assert_differences("model: {init: {scale: [1, 2]}}\n", "model: {init: {scale: [1, 0.5]}}\n",
                       "new.yaml:2: model.init.scale: [1, 0.5], was [1, 2]\n", "");
}

static void lists_of_maps(void **state)
{
    const char *one = "probes: [{kind: spectrum}]\n";
    const char *two = "probes:\n  - {kind: spectrum}\n  - {kind: subspace, every: 10}\n";
    const char *other = "probes:\n  - {kind: spectrum}\n  - {kind: subspace, every: 20}\n";

    (void)state;
    assert_no_differences(two, two);
    assert_differences(two, other, "new.yaml:4: probes[1].every: 20, was 10\n", "");
    assert_differences(one, two, "new.yaml:4: probes[1]: only in the new input\n", "");
    assert_differences(two, one, "new.yaml:2: probes[1]: only in the old input\n", "");
    assert_differences(
        two, "", "new.yaml:1: probes[0]: only in the old input\nnew.yaml:1: probes[1]: only in the old input\n", "");
    assert_differences(one, "probes: [{kind: subspace}]\n",
                       "new.yaml:2: probes[0].kind: subspace, was spectrum\n"
                       "new.yaml:2: probes[0].rank: 5, was 10\n"
                       "new.yaml:2: probes[0].reference: 0, only in the new input\n",
                       "");
}

#define COSINE(steps, length) "train: {steps: " #steps ", schedule: {kind: cosine, length: " #length "}}\n"

static void length_of_a_schedule(void **state)
{
    (void)state;
    assert_no_differences(COSINE(100, steps), COSINE(100, 100));
    assert_differences(COSINE(100, steps), COSINE(500, steps),
                       "new.yaml:2: train.schedule.length: 500 (train.steps), was 100; to keep the schedule, give "
                       "train.schedule.length: 100\n",
                       "train.steps: 500 was 100\n");
    assert_differences(COSINE(100, steps), COSINE(500, 100), "", "train.steps: 500 was 100\n");
    assert_differences(COSINE(100, 50), COSINE(500, 50), "", "train.steps: 500 was 100\n");
    assert_differences(COSINE(500, 100), COSINE(100, steps), "", "train.steps: 100 was 500\n");
    assert_differences(COSINE(100, steps), COSINE(100, 80), "new.yaml:2: train.schedule.length: 80, was steps\n", "");
    assert_differences("train: {steps: 100}\n", "train: {steps: 500}\n", "", "train.steps: 500 was 100\n");
}

/* A problem with --set says so, as when it is read. */
static void differences_by_set(void **state)
{
    const char *set = "train.lr=0.5";
    struct problems problems = {0};
    struct spec *old = read_valid(DATA, "old.yaml");
    struct spec *new = spec_read(DATA, strlen(DATA), "new.yaml", 1, &set, &problems);

    (void)state;
    spec_differences(old, new, &problems, NULL);
    assert_texts(&problems, "--set train.lr=0.5: 0.5, was 0.1\n");
    spec_destroy(&old);
    spec_destroy(&new);
}

/* ---------------------------------------------------------------- flat maps */

/* The value of the key, or "no value". */
static void assert_flat(const char *text, const char *key, const char *expected)
{
    char *value = spec_flat(text, strlen(text), key);

    assert_string_equal(value ? value : "no value", expected);
    memory_free(value);
}

/* All keys, with a blank behind each. */
static void assert_keys(const char *text, const char *expected)
{
    int count = -1;
    char **key = spec_flat_keys(text, strlen(text), &count), *all = memory_text("%s", "");

    for (int i = 0; i < count; i++) {
        char *longer = memory_text("%s%s ", all, key[i]);
        memory_free(all);
        memory_free(key[i]);
        all = longer;
    }
    memory_free(key);
    assert_string_equal(all, expected);
    memory_free(all);
}

static const char json[] = "{\n"
                           "  \"state\": \"stopped\",\n  \"reason\": null,\n  \"step\": 12,\n  \"loss\": 1.5e-300,\n"
                           "  \"empty\": \"\",\n  \"word\": \"null\",\n  \"list\": [1, 2],\n"
                           "  \"final\": {\"train/loss\": 0.1, \"train/test_loss\": null, \"deep\": {\"er\": true}},\n"
                           "  \"none\": {},\n  \"host\": \"node 7\"\n}\n";

static void values_of_json(void **state)
{
    (void)state;
    assert_flat(json, "state", "stopped");
    assert_flat(json, "step", "12");
    assert_flat(json, "loss", "1.5e-300");
    assert_flat(json, "host", "node 7");
    assert_flat(json, "empty", "");
    assert_flat(json, "word", "null");
    assert_flat(json, "final.train/loss", "0.1");
    assert_flat(json, "final.deep.er", "true");
}

static void what_has_no_value(void **state)
{
    (void)state;
    assert_flat(json, "reason", "no value");
    assert_flat(json, "final.train/test_loss", "no value");
    assert_flat(json, "final", "no value");
    assert_flat(json, "none", "no value");
    assert_flat(json, "list", "no value");
    assert_flat(json, "stat", "no value");
    assert_flat(json, "state.of", "no value");
    assert_flat(json, "final.", "no value");
    assert_flat(json, "final.train", "no value");
    assert_flat(json, "", "no value");
    assert_flat("a: ~\nb:\nc: Null\n", "a", "no value");
    assert_flat("a: ~\nb:\nc: Null\n", "b", "no value");
    assert_flat("a: ~\nb:\nc: Null\n", "c", "no value");
}

static void texts_in_quotes(void **state)
{
    const char *text = "{\"a\": \"say \\\"no\\\" \\\\ to a\\tb\\nc \\u00e9 \\/ {x: 1}, y\", \"b c\": \"d: e #f\"}";

    (void)state;
    assert_flat(text, "a", "say \"no\" \\ to a\tb\nc \xc3\xa9 / {x: 1}, y");
    assert_flat(text, "b c", "d: e #f");
    assert_flat("{\"r\u00e9sum\u00e9\": \"\u00bd \u2192 \U0001f600\"}", "r\u00e9sum\u00e9", "\u00bd \u2192 \U0001f600");
}

static void values_of_yaml(void **state)
{
    const char *text = "# a comment\nrun:\n  name: it is\n  seed: 1\nsteps: 5 # five\nlong: >-\n  a\n  b\n";

    (void)state;
    assert_flat(text, "run.name", "it is");
    assert_flat(text, "run.seed", "1");
    assert_flat(text, "steps", "5");
    assert_flat(text, "long", "a b");
    assert_keys(text, "run.name run.seed steps long ");
}

/* The axes of a sweep are named by dotted keys. */
static void names_with_dots(void **state)
{
    const char *text = "{\"model.width\": 64, \"model\": {\"init\": {\"scale\": 2}, \"init.kind\": \"uniform\"}}";

    (void)state;
    assert_flat(text, "model.width", "64");
    assert_flat(text, "model.init.scale", "2");
    assert_flat(text, "model.init.kind", "uniform");
    assert_keys(text, "model.width model.init.scale model.init.kind ");
}

static void keys_in_order(void **state)
{
    (void)state;
    assert_keys(json, "state reason step loss empty word final.train/loss final.train/test_loss final.deep.er host ");
    assert_keys("{}", "");
}

static void broken_texts(void **state)
{
    static const char *const texts[] = {"",
                                        "   \n",
                                        "# only a comment\n",
                                        "a",
                                        "[1, 2]",
                                        "{",
                                        "{\"a\": 1",
                                        "{\"a\": 1}}",
                                        "{\"a\": \"",
                                        "{\"a\": 1} x",
                                        "a: 1\n---\na: 2\n",
                                        "a: 1\n b: 2\n",
                                        "a: *b\n",
                                        "{\"a\": \"\xff\"}",
                                        "{\"a\": \"\\q\"}",
                                        "a: 1\n\tb: 2\n"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        assert_flat(texts[i], "a", "no value");
        assert_keys(texts[i], "");
    }
    assert_null(spec_flat("\0a: 1", 5, "a"));
    char *cut = spec_flat("{\"a\": 1} and more", 8, "a"); /* the length counts, not a final zero */
    assert_string_equal(cut, "1");
    memory_free(cut);
}

/* Every prefix of a text that was cut off is broken, until only white space is missing. */
static void cut_off_texts(void **state)
{
    (void)state;
    for (size_t length = 0; length < strlen(json) - 1; length++) {
        char *copy = memory_text("%.*s", (int)length, json);
        assert_flat(copy, "state", "no value");
        memory_free(copy);
    }
}

/* A map that holds itself has no end; both functions find one. */
static void endless_maps(void **state)
{
    (void)state;
    assert_flat("&m\na: 1\nb: *m\n", "b.b.b.b.a", "1");
    assert_keys("&m\na: 1\nb: *m\n", "a b.a b.b.a b.b.b.a b.b.b.b.a b.b.b.b.b.a b.b.b.b.b.b.a b.b.b.b.b.b.b.a ");
}

static const struct CMUnitTest spec_flat_tests[] = {
    cmocka_unit_test(values_count_not_texts),
    cmocka_unit_test(physics_and_control),
    cmocka_unit_test(files_may_move),
    cmocka_unit_test(keys_that_apply_in_one_only),
    cmocka_unit_test(lists),
    cmocka_unit_test(lists_of_maps),
    cmocka_unit_test(length_of_a_schedule),
    cmocka_unit_test(differences_by_set),
    cmocka_unit_test(values_of_json),
    cmocka_unit_test(what_has_no_value),
    cmocka_unit_test(texts_in_quotes),
    cmocka_unit_test(values_of_yaml),
    cmocka_unit_test(names_with_dots),
    cmocka_unit_test(keys_in_order),
    cmocka_unit_test(broken_texts),
    cmocka_unit_test(cut_off_texts),
    cmocka_unit_test(endless_maps),
};

UNIT_MAIN(spec_flat_tests, NULL, NULL)
