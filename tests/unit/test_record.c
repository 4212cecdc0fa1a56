/* ranks: 1 2 */
/* The record of a run: rows on the root only, missing values, and the file that comes of it. */
#include "dist/h5.h"
#include "probes/record.h"
#include "scratch.h"
#include "unit.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <math.h>
#include <string.h>

enum { ROWS = 200, LAYERS = 2, K = 3 };

static int rank;

static void start(MPI_Comm comm)
{
    MPI_Comm_rank(comm, &rank);
    scratch_create(comm);
}

/* `values` at rows that are divisible by 3, `count` everywhere; more rows than the record begins with. */
static struct record *fill(void)
{
    struct record *record = record_create(rank == 0);
    struct record_group *group = record_group(record, "spectrum", "step", "singular values");
    record_dimension(group, "layer", LAYERS, "layer");
    record_dimension(group, "index", K, "number of the singular value, the largest is 1");
    int values = record_quantity(group, &(struct quantity){.name = "sigma",
                                                           .units = "1",
                                                           .long_name = "singular values",
                                                           .formula = "W = U diag(sigma) V'",
                                                           .dims = {"layer", "index"}});
    int count = record_quantity(
        group,
        &(struct quantity){
            .name = "converged", .units = "1", .long_name = "converged triplets", .dims = {"layer"}, .integer = true});
    assert_int_equal(values, 0);
    assert_int_equal(count, 1);
    for (int row = 0; row < ROWS; row++) {
        double sigma[LAYERS * K];
        for (int i = 0; i < LAYERS * K; i++) sigma[i] = row + i / 8.0;
        record_row(group, 10 * row, 0.5 * row);
        if (row % 3 == 0) record_put(group, values, sigma);
        if (row % 3 == 1) record_put_at(group, values, 4, row);
        record_put_int_at(group, count, 1, row);
    }
    return record;
}

static void latest_values(void **state)
{
    (void)state;
    struct record *record = fill();
    if (rank == 0) {
        assert_true(record_last(record, "spectrum", "sigma", 4) == ROWS - 1);
        assert_true(isnan(record_last(record, "spectrum", "sigma", 3)));
        assert_true(record_last(record, "spectrum", "converged", 0) == 0);
        assert_true(record_last(record, "spectrum", "converged", 1) == ROWS - 1);
    }
    assert_true(isnan(record_last(record, "spectrum", "sigma", LAYERS * K)));
    assert_true(isnan(record_last(record, "spectrum", "absent", 0)));
    assert_true(isnan(record_last(record, "absent", "sigma", 0)));
    record_destroy(&record);
    assert_null(record);
}

static hid_t write_and_open(const struct record *record, const char *path)
{
    struct problems problems = {0};
    struct h5 *file = h5_create(MPI_COMM_SELF, path, "eigentrain metrics", &problems);
    assert_non_null(file);
    record_write(record, file);
    bool ok = h5_commit(&file, &problems);
    problems_print(&problems);
    assert_true(ok);
    return H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
}

static void assert_values(hid_t id)
{
    static double sigma[ROWS][LAYERS * K], time[ROWS];
    static int64_t step[ROWS], count[ROWS][LAYERS];
    assert_true(H5LTread_dataset_double(id, "spectrum/sigma", sigma[0]) >= 0);
    assert_true(H5LTread_dataset_double(id, "spectrum/time", time) >= 0);
    assert_true(H5LTread_dataset(id, "spectrum/step", H5T_NATIVE_INT64, step) >= 0);
    assert_true(H5LTread_dataset(id, "spectrum/converged", H5T_NATIVE_INT64, count) >= 0);
    for (int row = 0; row < ROWS; row++) {
        assert_int_equal(step[row], 10 * row);
        assert_true(time[row] == 0.5 * row);
        assert_int_equal(count[row][0], 0);
        assert_int_equal(count[row][1], row);
        for (int i = 0; i < LAYERS * K; i++) {
            bool put = row % 3 == 0 || (row % 3 == 1 && i == 4);
            double value = row % 3 == 0 ? row + i / 8.0 : row;
            assert_true(put ? sigma[row][i] == value : isnan(sigma[row][i]));
        }
    }
}

static void assert_text(hid_t id, const char *object, const char *name, const char *value)
{
    char *text = NULL;
    assert_true(H5LTget_attribute_string(id, object, name, (char *)&text) >= 0);
    assert_string_equal(text, value);
    H5free_memory(text);
}

static void a_record_becomes_a_file(void **state)
{
    (void)state;
    struct record *record = fill();
    record_group(record, "empty", "step", "a group without rows");
    record_check(record, "conservation", "Theorem 1", 1e-15, 1e-12, true);
    record_check(record, "alignment of ρ", NULL, 0.5, 0.1, false);
    if (rank == 0) {
        int64_t passed[2], layers[LAYERS];
        double bound[2];
        hid_t id = write_and_open(record, scratch_file("metrics.h5"));
        assert_values(id);
        assert_text(id, "spectrum", "long_name", "singular values");
        assert_text(id, "spectrum/sigma", "units", "1");
        assert_text(id, "spectrum/sigma", "formula", "W = U diag(sigma) V'");
        assert_false(H5Aexists_by_name(id, "spectrum/sigma", "reference", H5P_DEFAULT));
        assert_true(H5LTread_dataset(id, "spectrum/layer", H5T_NATIVE_INT64, layers) >= 0);
        assert_int_equal(layers[0], 1);
        assert_int_equal(layers[1], 2);
        assert_true(H5LTread_dataset(id, "checks/passed", H5T_NATIVE_INT64, passed) >= 0);
        assert_int_equal(passed[0], 1);
        assert_int_equal(passed[1], 0);
        assert_true(H5LTread_dataset_double(id, "checks/bound", bound) >= 0 && bound[1] == 0.1);
        assert_false(H5Lexists(id, "empty", H5P_DEFAULT));
        H5Fclose(id);
    }
    record_destroy(&record);
}

static void without_checks_there_is_no_group(void **state)
{
    (void)state;
    struct record *record = fill();
    if (rank == 0) {
        hid_t id = write_and_open(record, scratch_file("plain.h5"));
        assert_false(H5Lexists(id, "checks", H5P_DEFAULT));
        H5Fclose(id);
    }
    record_destroy(&record);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(latest_values),
    cmocka_unit_test(a_record_becomes_a_file),
    cmocka_unit_test(without_checks_there_is_no_group),
};

UNIT_MAIN(tests, start, scratch_remove)
