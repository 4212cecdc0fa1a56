/* ranks: 1 */
/* Every kind of mistake in an input with its exact message. */
#include "base/memory.h"
#include "specs.h"

/* All messages, one a line. */
static void assert_messages_of(const char *text, size_t length, const char *const *sets, const char *expected)
{
    struct problems problems = {0};
    struct spec *spec = read_with(text, length, sets, &problems);
    char *all = memory_text("%s", "");

    for (int i = 0; i < problems.count; i++) {
        char *longer = memory_text("%s%s\n", all, problems.text[i]);
        memory_free(all);
        all = longer;
    }
    assert_string_equal(all, expected);
    assert_int_equal(problems.code, EXIT_INPUT);
    assert_null(spec);
    memory_free(all);
    problems_clear(&problems);
}

static void assert_messages(const char *text, const char *expected)
{
    assert_messages_of(text, strlen(text), NULL, expected);
}

/* The words of a choice, "a, b or c" (memory_free): new kinds are no reason to change a test. */
static char *allowed(const char *key)
{
    const struct parameter *row = parameter_table;
    char *text = memory_text("%s", "");

    while (strcmp(row->key, key) != 0) row++;
    for (const char *word = row->words; *word;) {
        const int length = (int)strcspn(word, "|");
        const char *mark = word == row->words ? "" : word[length] ? ", " : " or ";
        char *longer = memory_text("%s%s%.*s", text, mark, length, word);
        memory_free(text);
        text = longer;
        word += length + (word[length] == '|');
    }
    return text;
}

/* The messages of --set options over a valid file. */
static void assert_set_messages(const char *set, const char *expected)
{
    const char *sets[MOST_SETS] = {set};

    assert_messages_of(MATRIX, strlen(MATRIX), sets, expected);
}

static void all_problems_at_once_in_order(void **state)
{
    (void)state;
    char *rules = allowed("train.optimizer"), *kinds = allowed("data.kind");
    char *messages = memory_text("in.yaml:1: trian: unknown key (did you mean train?)\n"
                                 "in.yaml:3: train.optimizer: expected one of %s, found 'adma' (did you mean adam?)\n"
                                 "in.yaml:4: train.lr: expected a number, found '-1' (it must be above 0)\n"
                                 "in.yaml:6: data.kind: missing (one of %s)\n"
                                 "in.yaml:8: train: given twice (first in line 2)\n",
                                 rules, kinds);
    assert_messages("trian: {lr: 3}\n"
                    "train:\n"
                    "  optimizer: adma\n"
                    "  lr: -1\n"
                    "  momentum: 0.5\n"
                    "data:\n"
                    "  rank: 3\n"
                    "train: {}\n",
                    messages);
    memory_free(messages);
    memory_free(kinds);
    memory_free(rules);
}

static void unknown_keys(void **state)
{
    (void)state;
    assert_messages(MATRIX "tran: {}\n", "in.yaml:2: tran: unknown key (did you mean train?)\n");
    assert_messages(MATRIX "train: {epsilno: 1}\n",
                    "in.yaml:2: train.epsilno: unknown key (did you mean train.epsilon?)\n");
    assert_messages(MATRIX "lr: 1\n", "in.yaml:2: lr: unknown key (did you mean train.lr?)\n");
    assert_messages(MATRIX "model: {lr: 1}\n", "in.yaml:2: model.lr: unknown key (did you mean train.lr?)\n");
    assert_messages(MATRIX "model:\n  init:\n    scael: 1\n",
                    "in.yaml:4: model.init.scael: unknown key (did you mean model.init.scale?)\n");
    assert_messages(MATRIX "probes:\n- kind: spectrum\n- kind: spectrum\n  evry: 2\n",
                    "in.yaml:5: probes[1].evry: unknown key (did you mean probes[1].every?)\n");
    assert_messages(MATRIX "train: {zzzzzz: 1}\n",
                    "in.yaml:2: train.zzzzzz: unknown key (`eigentrain keys train` lists those there are)\n");
    assert_messages(MATRIX "zzzzzz: 1\n", "in.yaml:2: zzzzzz: unknown key (`eigentrain keys` lists those there are)\n");
    assert_messages(MATRIX "train.lr: 1\n",
                    "in.yaml:2: train.lr: unknown key (in the file, write sections as nested maps)\n");
    assert_messages(MATRIX "? [a]\n: 1\n", "in.yaml:2: a key must be a word\n");
}

static void duplicate_keys(void **state)
{
    (void)state;
    assert_messages(MATRIX "train:\n  lr: 1\n  steps: 2\n  lr: 1\n",
                    "in.yaml:5: train.lr: given twice (first in line 3)\n");
}

static void ill_typed_values(void **state)
{
    (void)state;
    assert_messages(MATRIX "train: {steps: 1.5}\n", "in.yaml:2: train.steps: expected an integer, found '1.5'\n");
    assert_messages(MATRIX "train: {steps: 12x}\n", "in.yaml:2: train.steps: expected an integer, found '12x'\n");
    assert_messages(MATRIX "train: {steps: 0x10}\n", "in.yaml:2: train.steps: expected an integer, found '0x10'\n");
    assert_messages(MATRIX "train: {steps: \"5\"}\n",
                    "in.yaml:2: train.steps: expected an integer, found '5' in quotes\n");
    assert_messages(MATRIX "train: {lr: .nan}\n", "in.yaml:2: train.lr: expected a number, found '.nan'\n");
    assert_messages(MATRIX "train: {lr: inf}\n", "in.yaml:2: train.lr: expected a number, found 'inf'\n");
    assert_messages(MATRIX "train: {lr: 1e}\n", "in.yaml:2: train.lr: expected a number, found '1e'\n");
    assert_messages(MATRIX "train: {lr: .}\n", "in.yaml:2: train.lr: expected a number, found '.'\n");
    assert_messages(MATRIX "train: {batch: fll}\n",
                    "in.yaml:2: train.batch: expected an integer or full, found 'fll' (did you mean full?)\n");
    assert_messages(MATRIX "snapshot: {every: x}\n",
                    "in.yaml:2: snapshot.every: expected an integer, never or end, found 'x'\n");
    assert_messages(MATRIX "model: {bias: yes}\n",
                    "in.yaml:2: model.bias: expected true or false, found 'yes' (write true or false)\n");
    assert_messages(MATRIX "model: {bias: 1}\n", "in.yaml:2: model.bias: expected true or false, found '1'\n");
    assert_messages(MATRIX "model: {widths: [4, auto, 5]}\n",
                    "in.yaml:2: model.widths: entry 2: expected an integer or auto, found 'auto' (only on its own)\n");
    assert_messages(MATRIX "run: {name: \"a\\0b\"}\n", "in.yaml:2: run.name: holds a NUL character\n");
    assert_messages(MATRIX "run:\n  name:\n", "in.yaml:3: run.name: has no value\n");
    assert_messages(MATRIX "run: {name: ~}\n", "in.yaml:2: run.name: has no value\n");
}

static void numbers_out_of_range(void **state)
{
    (void)state;
    assert_messages(
        MATRIX "grid: {block: 5000}\n",
        "in.yaml:2: grid.block: expected an integer or auto, found '5000' (it must be between 1 and 4096)\n");
    assert_messages(MATRIX "grid: {rows: 0}\n",
                    "in.yaml:2: grid.rows: expected an integer or auto, found '0' (it must be at least 1)\n");
    assert_messages(MATRIX "train: {lr: 0}\n",
                    "in.yaml:2: train.lr: expected a number, found '0' (it must be above 0)\n");
    assert_messages(MATRIX "run: {seed: 9007199254740993}\n",
                    "in.yaml:2: run.seed: expected an integer, found '9007199254740993' "
                    "(it must be between 0 and 9007199254740992)\n");
    assert_messages(MATRIX "train: {steps: 9223372036854775808}\n",
                    "in.yaml:2: train.steps: expected an integer, found '9223372036854775808' "
                    "(too large for 64 bits)\n");
    assert_messages(MATRIX "train: {steps: 1e30}\n",
                    "in.yaml:2: train.steps: expected an integer, found '1e30' (too large; write out its digits)\n");
    assert_messages(MATRIX "train: {lr: 1e999}\n",
                    "in.yaml:2: train.lr: expected a number, found '1e999' (too large for double precision)\n");
    assert_messages(MATRIX "train: {tolerance: 1e-999}\n",
                    "in.yaml:2: train.tolerance: expected a number, found '1e-999' (too small for double precision)\n");
    assert_messages(MATRIX "model: {lr_multiplier: [1, -2]}\n",
                    "in.yaml:2: model.lr_multiplier: entry 2: expected a number, found '-2' (it must be at least 0)\n");
}

static void maps_lists_and_values_mixed_up(void **state)
{
    (void)state;
    assert_messages("data: 5\n", "in.yaml:1: data: expected a map of keys and values, found a single value\n");
    assert_messages(MATRIX "train: [1]\n", "in.yaml:2: train: expected a map of keys and values, found a list\n");
    assert_messages(MATRIX "train: {lr: {a: 1}}\n", "in.yaml:2: train.lr: expected a value, found a map\n");
    assert_messages(MATRIX "train: {lr: [1]}\n", "in.yaml:2: train.lr: expected a single value, found a list\n");
    assert_messages(MATRIX "model: {widths: []}\n", "in.yaml:2: model.widths: the list is empty\n");
    assert_messages(MATRIX "model: {widths: [1, [2]]}\n",
                    "in.yaml:2: model.widths: expected a value, found a list in a list\n");
    assert_messages(MATRIX "probes: {kind: spectrum}\n",
                    "in.yaml:2: probes: expected a list of maps, found a map (begin each map with \"- \")\n");
    assert_messages(MATRIX "probes: [5]\n",
                    "in.yaml:2: probes[0]: expected a map of keys and values, found a single value\n");
    assert_messages(MATRIX "model: {widths: &w [1, *w]}\n",
                    "in.yaml:2: model.widths: expected a value, found a list in a list\n");
}

static void missing_keys(void **state)
{
    (void)state;
    char *kinds = allowed("data.kind"), *probes = allowed("probes[].kind");
    char *kind = memory_text("in.yaml:1: data.kind: missing (one of %s)\n", kinds);
    char *probe = memory_text("in.yaml:4: probes[1].kind: missing (one of %s)\n", probes);
    assert_messages("run: {}\n", kind);
    assert_messages("run: {}\ndata:\n  kind: low_rank_matrix\n  rows: 2\n",
                    "in.yaml:2: data.cols: missing; data.kind: low_rank_matrix needs it (an integer)\n"
                    "in.yaml:2: data.rank: missing; data.kind: low_rank_matrix needs it (an integer)\n");
    assert_messages(MATRIX "probes:\n  - {kind: spectrum}\n  - {rank: 3}\n", probe);
    memory_free(probe);
    memory_free(kind);
    memory_free(probes);
    memory_free(kinds);
}

static void keys_that_do_not_apply(void **state)
{
    (void)state;
    assert_messages("data: {kind: gaussian, features: 2, outputs: 2, train: 2,\n  rank: 1}\n",
                    "in.yaml:2: data.rank: has no meaning with data.kind: gaussian; it applies to data.kind: "
                    "low_rank_matrix, matrix_completion or matrix_sensing\n");
    assert_messages(MATRIX "train: {beta2: 0.9}\n",
                    "in.yaml:2: train.beta2: has no meaning with train.optimizer: gd; it applies to train.optimizer: "
                    "adam or rmsprop\n");
    assert_messages("data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2, targets: values}\n",
                    "in.yaml:1: data.targets: has no meaning with data.kind: low_rank_matrix; it applies to data.kind: "
                    "fashion_mnist, idx, hdf5 or gaussian\n");
    /* A sibling that does not apply either: said once. */
    assert_messages("data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2, whiten: true, whiten_floor: 0.1}\n",
                    "in.yaml:1: data.whiten: has no meaning with data.kind: low_rank_matrix; it applies to data.kind: "
                    "fashion_mnist, cifar10, idx, hdf5 or gaussian\n");
    assert_messages("data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2, whiten_floor: 0.1}\n",
                    "in.yaml:1: data.whiten_floor: has no meaning with data.kind: low_rank_matrix; it applies to "
                    "data.whiten: true\n");
    /* A sibling that is wrong itself. */
    char *kinds = allowed("data.kind");
    char *message =
        memory_text("in.yaml:1: data.kind: expected one of %s, found 'gausian' (did you mean gaussian?)\n", kinds);
    assert_messages("data: {kind: gausian, rank: 3}\n", message);
    memory_free(message);
    memory_free(kinds);
}

static void texts_that_are_not_yaml(void **state)
{
    static const char latin1[] = MATRIX "run: {name: caf\xE9}\n";

    (void)state;
    assert_messages("", "in.yaml:1: the file is empty\n");
    assert_messages("# nothing\n", "in.yaml:1: the file is empty\n");
    assert_messages("- 1\n", "in.yaml:1: expected a map of keys and values, found a list\n");
    assert_messages("hello\n", "in.yaml:1: expected a map of keys and values, found a single value\n");
    assert_messages(MATRIX "---\nrun: {}\n", "in.yaml:3: a second YAML document begins; there may be only one\n");
    assert_messages("a: [1, 2\nb: 3\n", "in.yaml:2: not YAML: did not find expected ',' or ']' (while parsing a flow "
                                        "sequence that begins in line 1)\n");
    assert_messages("run:\n\tname: x\n", "in.yaml:2: indented by a tab; YAML wants spaces\n");
    assert_messages("a: b: c\n", "in.yaml:1: not YAML: mapping values are not allowed in this context\n");
    assert_messages(latin1, "in.yaml:2: not readable as UTF-8 text: invalid trailing UTF-8 octet\n");
    assert_messages_of("run: {}\n\0", 9, NULL,
                       "in.yaml:2: not readable as UTF-8 text: control characters are not allowed\n");
}

static void long_texts_are_cut_between_characters(void **state)
{
    (void)state;
    assert_messages(MATRIX "train: {lr: \"ééééééééééééééééééééééééééééééxé\"}\n",
                    "in.yaml:2: train.lr: expected a number, found 'éééééééééééééééééééééééééééééé…' in quotes\n");
    assert_messages(MATRIX "train:\n  lr: |\n    one\n    two\n",
                    "in.yaml:3: train.lr: expected a number, found 'one…' in quotes\n");
}

static void wrong_sets(void **state)
{
    (void)state;
    assert_set_messages("trian.lr=1", "--set trian.lr=1: unknown key (did you mean train.lr?)\n");
    assert_set_messages("trian.shedule.kind=step",
                        "--set trian.shedule.kind=step: unknown key (did you mean train.schedule.kind?)\n");
    assert_set_messages("train.lr=x", "--set train.lr=x: expected a number, found 'x'\n");
    assert_set_messages("train.lr=", "--set train.lr=: has no value\n");
    assert_set_messages("train.lr", "--set train.lr: expected KEY=VALUE\n");
    assert_set_messages("=1", "--set =1: expected KEY=VALUE\n");
    assert_set_messages("train=5", "--set train=5: expected a map of keys and values, found a single value\n");
    assert_set_messages("model.init={knd: x}",
                        "--set model.init={knd: x}: model.init.knd: unknown key (did you mean model.init.kind?)\n");
    assert_set_messages("model.init={kind: file}",
                        "--set model.init={kind: file}: model.init.file: missing; model.init.kind: file needs it (a "
                        "text)\n");
    assert_set_messages("probes[1].rank=3", "--set probes[1].rank=3: there is no probes[1]; probes has 0 entries\n");
    char *probes = allowed("probes[].kind");
    char *kind = memory_text("--set probes[0].rank=3: probes[0].kind: missing (one of %s)\n", probes);
    assert_set_messages("probes[0].rank=3", kind);
    memory_free(kind);
    memory_free(probes);
    assert_set_messages("probes[].rank=3", "--set probes[].rank=3: which one? write probes[0].rank\n");
    assert_set_messages("probes.rank=3", "--set probes.rank=3: unknown key (did you mean probes[0].rank?)\n");
    assert_set_messages("probes[x].rank=3",
                        "--set probes[x].rank=3: unknown key (`eigentrain keys probes` lists those there are)\n");
    assert_set_messages("grid.rows=[", "--set grid.rows=[: not YAML: did not find expected node content while parsing "
                                       "a flow node\n");
}

static void problems_of_file_and_sets_together(void **state)
{
    const char *sets[MOST_SETS] = {"train.steps=x", "foo=1"};
    static const char text[] = MATRIX "train: {lr: x}\n";

    (void)state;
    assert_messages_of(text, strlen(text), sets,
                       "in.yaml:2: train.lr: expected a number, found 'x'\n"
                       "--set train.steps=x: expected an integer, found 'x'\n"
                       "--set foo=1: unknown key (`eigentrain keys` lists those there are)\n");
}

static void problems_across_keys(void **state)
{
    const char *sets[MOST_SETS] = {"train.batch=8"};
    struct spec *spec = read_valid(MATRIX "model:\n  depth: 3\nprobes:\n  - {kind: spectrum}\n", sets);
    struct problems problems = {0};

    (void)state;
    spec_problem(spec, &problems, "model.depth", "is %d", 3);
    spec_problem(spec, &problems, "model.bias", "left out");
    spec_problem(spec, &problems, "probes[0].rank", "left out");
    spec_problem(spec, &problems, "train.batch", "too small");
    spec_problem(spec, &problems, "loss.kind", "left out");
    assert_int_equal(problems.code, EXIT_INPUT);
    assert_string_equal(problems.text[0], "in.yaml:3: model.depth: is 3");
    assert_string_equal(problems.text[1], "in.yaml:2: model.bias: left out");
    assert_string_equal(problems.text[2], "in.yaml:5: probes[0].rank: left out");
    assert_string_equal(problems.text[3], "--set train.batch=8: too small");
    assert_string_equal(problems.text[4], "in.yaml:1: loss.kind: left out");
    problems_clear(&problems);
    spec_destroy(&spec);
}

static void nearest_names(void **state)
{
    static const char *const names[] = {"gd", "sgd", "momentum", "adam", "rmsprop"};

    (void)state;
    assert_string_equal(spec_nearest("adma", names, 5), "adam");
    assert_string_equal(spec_nearest("Adam", names, 5), "adam");
    assert_string_equal(spec_nearest("momentun", names, 5), "momentum");
    assert_string_equal(spec_nearest("sgdd", names, 5), "sgd");
    assert_null(spec_nearest("lbfgs", names, 5));
    assert_null(spec_nearest("", names, 5));
    assert_null(spec_nearest("x", names, 5));
    assert_null(spec_nearest("a-name-that-is-much-longer-than-any-key-of-the-table-could-ever-become", names, 5));
}

static const struct CMUnitTest problem_tests[] = {
    cmocka_unit_test(all_problems_at_once_in_order),
    cmocka_unit_test(unknown_keys),
    cmocka_unit_test(duplicate_keys),
    cmocka_unit_test(ill_typed_values),
    cmocka_unit_test(numbers_out_of_range),
    cmocka_unit_test(maps_lists_and_values_mixed_up),
    cmocka_unit_test(missing_keys),
    cmocka_unit_test(keys_that_do_not_apply),
    cmocka_unit_test(texts_that_are_not_yaml),
    cmocka_unit_test(long_texts_are_cut_between_characters),
    cmocka_unit_test(wrong_sets),
    cmocka_unit_test(problems_of_file_and_sets_together),
    cmocka_unit_test(problems_across_keys),
    cmocka_unit_test(nearest_names),
};

UNIT_MAIN(problem_tests, NULL, NULL)
