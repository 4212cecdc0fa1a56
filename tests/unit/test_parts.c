/* ranks: 1 */
/* The metrics of a run that goes on: few files, every row in them, and one that is lost costs one checkpoint at most.
 */
#include "base/memory.h"
#include "dist/archive.h"
#include "scratch.h"
#include "train/parts.h"
#include "unit.h"

#include <dirent.h>
#include <string.h>

static const char input[] = "data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2}\n";

static struct grid *grid;
static struct spec *spec;
static struct rundir *rundir;

static void start(MPI_Comm comm)
{
    struct problems problems = {0};
    scratch_create(comm);
    grid = grid_create(comm, 1, 1, 64);
    spec = spec_read(input, strlen(input), "in.yaml", 0, NULL, &problems);
    problems_print(&problems);
}

static void finish(void)
{
    spec_destroy(&spec);
    grid_destroy(&grid);
    scratch_remove();
}

/* A series at every step and one, of two numbers, at every third. */
struct series {
    struct record *record;
    struct record_group *often, *seldom;
};

static struct series series_create(void)
{
    struct series s = {.record = record_create(true)};
    s.often = record_group(s.record, "often", "step", NULL);
    s.seldom = record_group(s.record, "seldom", "step", NULL);
    record_quantity(s.often, &(struct quantity){.name = "x", .units = "1", .long_name = "x"});
    record_dimension(s.seldom, "index", 2, "index");
    record_quantity(
        s.seldom, &(struct quantity){.name = "n", .units = "1", .long_name = "n", .integer = true, .dims = {"index"}});
    return s;
}

static void add_row(const struct series *s, int64_t step)
{
    record_row(s->often, step, 0.5 * (double)step);
    record_put_at(s->often, 0, 0, (double)step / 3);
    if (step % 3) return;
    record_row(s->seldom, step, 0.5 * (double)step);
    record_put_int_at(s->seldom, 0, 1, step * step);
}

/* What a checkpoint of `step` remembers of the record, in a file of its own. */
static void remember(struct record *record, int64_t step, bool save)
{
    struct problems problems = {0};
    const char *path = scratch_file("rows-%lld.h5", (long long)step);
    struct archive *archive =
        save ? archive_save(grid->comm, path, "test", &problems) : archive_load(grid->comm, path, "test", &problems);
    assert_non_null(archive);
    record_archive(record, archive);
    assert_true(archive_end(&archive, &problems));
}

static bool checkpoint(struct parts *parts, const struct series *s, int64_t step, bool complete)
{
    struct problems problems = {0};
    assert_true(parts_write(parts, rundir, s->record, step, &problems));
    if (complete) remember(s->record, step, true);
    parts_settle(parts, rundir, complete);
    return complete;
}

static int count_files(void)
{
    char *path = rundir_file(rundir, "metrics");
    DIR *folder = opendir(path);
    int count = 0;
    for (const struct dirent *entry; folder && (entry = readdir(folder));) count += entry->d_name[0] != '.';
    if (folder) closedir(folder);
    memory_free(path);
    return count;
}

/* Reads as a restart from the checkpoint of `step` does; true if all rows are there and are right. */
static bool restores(struct parts *parts, int64_t step)
{
    struct problems problems = {0};
    struct series s = series_create();
    remember(s.record, step, false);
    parts_read(parts, rundir, s.record, step, &problems);
    const bool ok = problems.count == 0;
    if (ok) {
        assert_true(record_complete(s.record));
        assert_true(record_last(s.record, "often", "x", 0) == (double)(step - 1) / 3);
        assert_true(record_last(s.record, "seldom", "n", 1) == (double)(((step - 1) / 3 * 3) * ((step - 1) / 3 * 3)));
    }
    record_destroy(&s.record);
    problems_clear(&problems);
    return ok;
}

static void create(const char *name)
{
    struct problems problems = {0};
    rundir = rundir_create(grid, scratch_file("%s", name), RUNDIR_NEW, input, strlen(input), spec, &problems);
    problems_print(&problems);
    assert_non_null(rundir);
}

static void few_files_hold_every_row(void **state)
{
    (void)state;
    struct series s = series_create();
    struct parts parts = {0}, again = {0};
    create("many");
    for (int64_t step = 1; step <= 100; step++) {
        add_row(&s, step - 1);
        if (step % 9 == 4) checkpoint(&parts, &s, step, false); /* one that fails leaves nothing */
        checkpoint(&parts, &s, step, true);
        assert_true(count_files() <= 2 + 2 * 7); /* 2⁷ > 100; twice, with those that the checkpoint before needs */
    }
    assert_true(restores(&again, 100));
    assert_true(restores(&again, 99)); /* goes back a step: what is beyond is cut off */
    assert_int_equal(count_files(), 1);
    assert_true(restores(&again, 50));
    assert_false(restores(&again, 51));
    parts_remove(&again, rundir);
    assert_int_equal(count_files(), 0);
    parts_clear(&parts);
    record_destroy(&s.record);
    rundir_destroy(&rundir);
}

/* Whatever file is lost: if the newest checkpoint needs it, the one before does not. */
static void a_lost_file_costs_one_checkpoint(void **state)
{
    (void)state;
    for (int64_t last = 2; last <= 17; last++) {
        struct series s = series_create();
        struct parts parts = {0}, again = {0};
        char name[32];
        snprintf(name, sizeof name, "lost-%lld", (long long)last);
        create(name);
        for (int64_t step = 1; step <= last; step++) {
            add_row(&s, step - 1);
            checkpoint(&parts, &s, step, true);
        }
        char *path = rundir_file(rundir, "metrics/part-%04lld.h5", (long long)parts.part[parts.count - 1].number);
        assert_int_equal(unlink(path), 0);
        assert_false(restores(&again, last));
        assert_true(restores(&again, last - 1));
        assert_true(restores(&again, last - 1));
        memory_free(path);
        parts_clear(&parts);
        parts_clear(&again);
        record_destroy(&s.record);
        rundir_destroy(&rundir);
    }
}

/* A finished run has no parts; one that is prolonged reads metrics.h5, and has its first part at once. */
static void a_finished_run_is_prolonged(void **state)
{
    (void)state;
    struct series s = series_create();
    struct parts parts = {0};
    struct problems problems = {0};
    create("finished");
    for (int64_t step = 0; step < 10; step++) add_row(&s, step);
    remember(s.record, 10, true);
    add_row(&s, 10);
    char *path = rundir_file(rundir, "metrics.h5");
    struct h5 *file = h5_create(MPI_COMM_SELF, path, "eigentrain metrics", &problems);
    record_write(s.record, file);
    assert_true(h5_commit(&file, &problems));
    assert_true(restores(&parts, 10));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(count_files(), 1);
    assert_true(restores(&parts, 10));
    memory_free(path);
    parts_clear(&parts);
    record_destroy(&s.record);
    rundir_destroy(&rundir);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(few_files_hold_every_row),
    cmocka_unit_test(a_lost_file_costs_one_checkpoint),
    cmocka_unit_test(a_finished_run_is_prolonged),
};

UNIT_MAIN(tests, start, finish)
