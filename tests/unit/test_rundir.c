/* ranks: 1 2 */
/* A run's directory: what is refused, what is moved aside, and the files in it. */
#include "base/memory.h"
#include "scratch.h"
#include "train/rundir.h"
#include "unit.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <string.h>
#include <sys/stat.h>

static const char input[] = "# input\ndata: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2}\r\n";

static int rank;
static struct grid *grid;
static struct spec *spec;

static void start(MPI_Comm comm)
{
    struct problems problems = {0};
    int size;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    scratch_create(comm);
    grid = grid_create(comm, size, 1, 64);
    spec = spec_read(input, strlen(input), "in.yaml", 0, NULL, &problems);
    problems_print(&problems);
    unsetenv("SLURM_JOB_ID");
}

static void finish(void)
{
    spec_destroy(&spec);
    grid_destroy(&grid);
    scratch_remove();
}

static struct rundir *try_create(const char *path, enum rundir_mode mode, struct problems *problems)
{
    MPI_Barrier(MPI_COMM_WORLD);
    return rundir_create(grid, path, mode, input, strlen(input), spec, problems);
}

static struct rundir *create(const char *path, enum rundir_mode mode)
{
    struct problems problems = {0};
    struct rundir *rundir = try_create(path, mode, &problems);
    problems_print(&problems);
    assert_non_null(rundir);
    assert_true(rundir_begin(rundir, &problems));
    return rundir;
}

static void refuse(const char *path, enum rundir_mode mode, int code, const char *message)
{
    struct problems problems = {0};
    assert_null(try_create(path, mode, &problems));
    assert_int_equal(problems.count, 1);
    assert_int_equal(problems.code, code);
    assert_string_equal(problems.text[0], message);
    problems_clear(&problems);
}

/* The whole file (memory_free). */
static char *contents(const char *path)
{
    char *text = NEW(char, 1 << 16);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t length = fread(text, 1, (1 << 16) - 1, file);
    assert_true(length < (1 << 16) - 1);
    fclose(file);
    return text;
}

static void assert_contents(const char *path, const char *expected)
{
    char *text = contents(path);
    assert_string_equal(text, expected);
    memory_free(text);
}

static void parents_are_made_and_inputs_kept(void **state)
{
    (void)state;
    struct rundir *rundir = create(scratch_file("a/b/run/"), RUNDIR_NEW);
    char *resolved = spec_resolved(spec), *file = rundir_file(rundir, "snapshots/step_%06d.h5", 12);
    assert_string_equal(rundir->path, scratch_file("a/b/run"));
    assert_string_equal(file, scratch_file("a/b/run/snapshots/step_000012.h5"));
    assert_contents(scratch_file("a/b/run/input.yaml"), input);
    assert_contents(scratch_file("a/b/run/resolved.yaml"), resolved);
    memory_free(resolved);
    memory_free(file);
    rundir_destroy(&rundir);
    assert_null(rundir);
}

static void an_empty_directory_is_taken(void **state)
{
    (void)state;
    if (rank == 0) assert_int_equal(mkdir(scratch_file("empty"), 0777), 0);
    struct rundir *rundir = create(scratch_file("empty"), RUNDIR_NEW);
    assert_contents(scratch_file("empty/input.yaml"), input);
    rundir_destroy(&rundir);
}

static void what_is_there_is_moved_aside(void **state)
{
    (void)state;
    char *message =
        memory_text("%s is not empty: choose another --out, --resume to go on with the run in it, or --overwrite to "
                    "move it aside",
                    scratch_file("again"));
    for (int n = 0; n < 3; n++) {
        struct rundir *rundir = create(scratch_file("again"), n > 0 ? RUNDIR_OVERWRITE : RUNDIR_NEW);
        if (rank == 0) {
            struct problems problems = {0};
            char *path = rundir_file(rundir, "number"), *text = memory_text("%d", n);
            assert_true(rundir_write(path, text, strlen(text), &problems));
            memory_free(path);
            memory_free(text);
        }
        rundir_destroy(&rundir);
        refuse(scratch_file("again"), RUNDIR_NEW, EXIT_INPUT, message);
    }
    assert_contents(scratch_file("again.old-1/number"), "0");
    assert_contents(scratch_file("again.old-2/number"), "1");
    assert_contents(scratch_file("again/number"), "2");
    memory_free(message);
}

static void what_cannot_be_a_directory(void **state)
{
    (void)state;
    struct problems problems = {0};
    if (rank == 0) assert_true(rundir_write(scratch_file("file"), "x", 1, &problems));
    char *message = memory_text("%s exists and is not a directory: choose another --out", scratch_file("file"));
    refuse(scratch_file("file"), RUNDIR_OVERWRITE, EXIT_INPUT, message);
    memory_free(message);
    message = memory_text("%s: cannot be created: Not a directory", scratch_file("file/below"));
    refuse(scratch_file("file/below"), RUNDIR_NEW, EXIT_ENVIRONMENT, message);
    memory_free(message);
}

static void a_file_that_cannot_be_written(void **state)
{
    (void)state;
    struct problems problems = {0};
    if (rank == 0) {
        assert_false(rundir_write(scratch_file("nowhere/x"), "x", 1, &problems));
        assert_int_equal(problems.code, EXIT_ENVIRONMENT);
        assert_non_null(strstr(problems.text[0], "nowhere/x: cannot write: No such file or directory"));
        problems_clear(&problems);
    }
}

static void assert_line(const char *text, const char *line)
{
    if (!strstr(text, line)) fail_msg("no %s in\n%s", line, text);
}

static void status_is_json(void **state)
{
    (void)state;
    struct rundir *rundir = create(scratch_file("status"), RUNDIR_NEW);
    if (rank == 0) {
        char *ranks = memory_text("  \"ranks\": %d\n}\n", grid->size);
        char *final = memory_text("  \"ranks\": %d,\n  \"final\": {\n    \"train/loss\": 0.25\n  }\n}\n", grid->size);
        struct rundir_status status = {.state = "running",
                                       .step = 7,
                                       .steps = INT64_C(5000000000),
                                       .checkpoint = 4,
                                       .loss = 0.1,
                                       .seconds = 2.5,
                                       .seconds_left = NAN};
        rundir_write_status(rundir, &status);
        char *text = contents(scratch_file("status/status.json"));
        assert_line(text,
                    "{\n  \"state\": \"running\",\n  \"reason\": null,\n  \"step\": 7,\n  \"steps\": 5000000000,\n");
        assert_line(text, "  \"loss\": 0.10000000000000001,\n");
        assert_line(text, "  \"seconds\": 2.500,\n  \"seconds_left\": null,\n  \"checkpoint\": 4,\n");
        assert_line(text, "  \"job_id\": null,\n");
        assert_line(text, ranks);
        memory_free(text);
        setenv("SLURM_JOB_ID", "42", 1);
        struct record *record = record_create(true);
        struct record_group *group = record_group(record, "train", "step", NULL);
        const int loss = record_quantity(group, &(struct quantity){.name = "loss", .units = "1", .long_name = "loss"});
        record_row(group, 3, 0.3);
        record_put_at(group, loss, 0, 0.25);
        rundir_write_status(rundir, &(struct rundir_status){.state = "failed",
                                                            .reason = "a \"quoted\"\n\\ reason: ρ",
                                                            .checkpoint = -1,
                                                            .loss = NAN,
                                                            .final = record});
        record_destroy(&record);
        unsetenv("SLURM_JOB_ID");
        text = contents(scratch_file("status/status.json"));
        assert_line(text, "  \"reason\": \"a \\\"quoted\\\"\\u000a\\\\ reason: ρ\",\n");
        assert_line(text, "  \"loss\": null,\n");
        assert_line(text, "  \"checkpoint\": null,\n");
        assert_line(text, "  \"job_id\": \"42\",\n");
        assert_line(text, final);
        assert_false(scratch_holds("status/.status.json.partial"));
        memory_free(text);
        memory_free(ranks);
        memory_free(final);
    }
    rundir_destroy(&rundir);
}

/* A run of another process, or of this one, is not disturbed. */
static void a_directory_in_use_is_refused(void **state)
{
    (void)state;
    struct rundir *rundir = create(scratch_file("used"), RUNDIR_NEW);
    char *host = rundir->host, *message;
    message = memory_text("%s is in use by process %ld on %s: wait until it has ended, or choose another --out",
                          scratch_file("used"), (long)getpid(), host);
    for (int mode = RUNDIR_OVERWRITE; mode <= RUNDIR_RESUME; mode++) {
        struct problems problems = {0};
        assert_null(try_create(scratch_file("used"), (enum rundir_mode)mode, &problems));
        assert_int_equal(problems.code, EXIT_ENVIRONMENT);
        if (rank == 0) assert_string_equal(problems.text[0], message);
        problems_clear(&problems);
    }
    memory_free(message);
    rundir_destroy(&rundir);
    rundir = create(scratch_file("used"), RUNDIR_RESUME);
    assert_true(rundir->resumed);
    assert_null(rundir->state);
    rundir_destroy(&rundir);
}

/* In a file of all ranks, and in one of the root alone. */
static void provenance_is_written(MPI_Comm comm, const struct rundir *rundir, const char *path)
{
    struct problems problems = {0};
    struct h5 *file = h5_create(comm, path, "eigentrain test", &problems);
    assert_non_null(file);
    rundir_provenance(rundir, file);
    bool ok = h5_commit(&file, &problems);
    problems_print(&problems);
    assert_true(ok);
    if (rank == 0) {
        char *text = NULL;
        long long ranks;
        hid_t id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
        assert_true(H5LTget_attribute_string(id, "provenance", "input", (char *)&text) >= 0);
        assert_string_equal(text, input);
        H5free_memory(text);
        assert_true(H5LTget_attribute_string(id, "provenance", "blas_kernel", (char *)&text) >= 0);
        H5free_memory(text);
        assert_true(H5LTget_attribute_long_long(id, "provenance", "ranks", &ranks) >= 0 && ranks == grid->size);
        H5Fclose(id);
    }
}

static void every_file_has_provenance(void **state)
{
    (void)state;
    struct rundir *rundir = create(scratch_file("provenance"), RUNDIR_NEW);
    provenance_is_written(MPI_COMM_WORLD, rundir, scratch_file("provenance/all.h5"));
    if (rank == 0) provenance_is_written(MPI_COMM_SELF, rundir, scratch_file("provenance/root.h5"));
    rundir_destroy(&rundir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(parents_are_made_and_inputs_kept), cmocka_unit_test(an_empty_directory_is_taken),
    cmocka_unit_test(what_is_there_is_moved_aside),     cmocka_unit_test(what_cannot_be_a_directory),
    cmocka_unit_test(a_file_that_cannot_be_written),    cmocka_unit_test(status_is_json),
    cmocka_unit_test(a_directory_in_use_is_refused),    cmocka_unit_test(every_file_has_provenance),
};

UNIT_MAIN(tests, start, finish)
