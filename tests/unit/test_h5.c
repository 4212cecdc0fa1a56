/* ranks: 1 2 4 6 */
/* HDF5 files: matrices come back bit for bit on another grid; a file that could not be written never gets its name. */
#include "base/memory.h"
#include "dist/h5.h"
#include "scratch.h"
#include "unit.h"

#include <hdf5.h>
#include <hdf5_hl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

static int rank, size;
static struct grid *tall, *wide; /* two ways to lay out the same ranks */

static void start(MPI_Comm comm)
{
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    scratch_create(comm);
    tall = grid_create(comm, size % 2 ? size : size / 2, size % 2 ? 1 : 2, 3);
    wide = grid_create(comm, 1, size, 4);
}

static void finish(void)
{
    grid_destroy(&tall);
    grid_destroy(&wide);
    scratch_remove();
}

/* Values with all their bits in use; one is −0. */
static double element(int64_t ig, int64_t jg, const void *context)
{
    (void)context;
    return ig == 0 && jg == 0 ? -0.0 : sin((double)(1 + 31 * ig + 1009 * jg));
}

static bool same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void assert_elements(const struct dmat *A)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            assert_true(
                same_bits(A->local[il + (int64_t)jl * A->lld], element(dmat_row(A, il), dmat_col(A, jl), NULL)));
}

static void assert_problem(struct problems *problems, int code, const char *part)
{
    assert_int_equal(problems->count, 1);
    assert_int_equal(problems->code, code);
    if (!strstr(problems->text[0], part)) fail_msg("\"%s\" does not say \"%s\"", problems->text[0], part);
    problems_clear(problems);
}

/* Commits, which must succeed, and leave no temporary file. */
static void commit(struct h5 **file, const char *name)
{
    struct problems problems = {0};
    bool ok = h5_commit(file, &problems);
    problems_print(&problems);
    assert_true(ok);
    assert_null(*file);
    assert_true(scratch_holds(name));
    char *partial = memory_text(".%s.partial", name);
    assert_false(scratch_holds(partial));
    memory_free(partial);
}

static struct h5 *create(const char *name)
{
    struct problems problems = {0};
    MPI_Barrier(MPI_COMM_WORLD); /* no rank still reads a file of this name */
    struct h5 *file = h5_create(MPI_COMM_WORLD, scratch_file("%s", name), "eigentrain test", &problems);
    problems_print(&problems);
    assert_non_null(file);
    return file;
}

static void matrix_comes_back(int64_t m, int64_t n)
{
    struct problems problems = {0};
    struct dmat *A = dmat_create(tall, m, n);
    dmat_set(A, element, NULL);
    struct h5 *file = create("matrix.h5");
    h5_write_matrix(file, "layer1/W", NULL, NULL, A, &(struct h5_about){.units = "1"});
    commit(&file, "matrix.h5");
    struct dmat *B = h5_read_matrix(wide, scratch_file("matrix.h5"), "layer1/W", &problems);
    problems_print(&problems);
    assert_non_null(B);
    assert_int_equal(B->m, m);
    assert_int_equal(B->n, n);
    assert_elements(B);
    dmat_destroy(&A);
    dmat_destroy(&B);
}

static void matrices_come_back(void **state)
{
    (void)state;
    matrix_comes_back(1, 1);
    matrix_comes_back(1, 9);
    matrix_comes_back(9, 1);
    matrix_comes_back(2, 40);
    matrix_comes_back(31, 17);
    matrix_comes_back(101, 103);
    matrix_comes_back(0, 3);
    matrix_comes_back(3, 0);
}

static void vectors_come_back(void **state)
{
    (void)state;
    enum { M = 23, COUNT = 3 };
    struct problems problems = {0};
    int64_t global[M];
    double vectors[M * COUNT];
    int mloc = 0;
    for (int64_t ig = M - 1; ig >= 0; ig--) /* in any order */
        if (ig % size == rank) global[mloc++] = ig;
    for (int c = 0; c < COUNT; c++)
        for (int il = 0; il < mloc; il++) vectors[il + c * mloc] = element(global[il], c, NULL);
    struct h5 *file = create("vectors.h5");
    h5_write_vectors(file, "hessian/vectors", NULL, NULL, M, COUNT, mloc, global, vectors, NULL);
    commit(&file, "vectors.h5");
    struct dmat *B = h5_read_matrix(wide, scratch_file("vectors.h5"), "hessian/vectors", &problems);
    assert_non_null(B);
    assert_int_equal(B->m, M);
    assert_int_equal(B->n, COUNT);
    assert_elements(B);
    dmat_destroy(&B);
}

/* Integers are read as doubles, and one dimension as a row. */
static void a_vector_is_a_row(void **state)
{
    (void)state;
    struct problems problems = {0};
    const int64_t n = 11, values[] = {0, -1, 2, 3, 4, 5, 6, 7, 8, 9, 1000000007};
    struct h5 *file = create("row.h5");
    h5_write_ints(file, "labels", 1, NULL, &n, values, NULL);
    commit(&file, "row.h5");
    struct dmat *B = h5_read_matrix(wide, scratch_file("row.h5"), "labels", &problems);
    assert_non_null(B);
    assert_int_equal(B->m, 1);
    assert_int_equal(B->n, n);
    for (int jl = 0; jl < B->nloc && B->mloc; jl++) assert_true(B->local[jl] == (double)values[dmat_col(B, jl)]);
    dmat_destroy(&B);
}

static void assert_text_attribute(hid_t object, const char *name, const char *value)
{
    char *text = NULL;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT), type = H5Tcopy(H5T_C_S1);
    assert_true(attribute >= 0);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    assert_true(H5Aread(attribute, type, &text) >= 0);
    assert_string_equal(text, value);
    H5free_memory(text);
    H5Tclose(type);
    H5Aclose(attribute);
}

/* A text of 1 MiB fits in an attribute, in files of many ranks too; rank 0's value is the one that is written. */
static void attributes_are_kept(void **state)
{
    (void)state;
    size_t length = (size_t)1 << 20;
    char *longest = NEW(char, length + 1);
    memset(longest, 'x', length);
    struct h5 *file = create("attributes.h5");
    h5_group(file, "a/b");
    h5_group(file, "a/b");
    h5_attribute_text(file, "a/b", "input", longest);
    h5_attribute_text(file, "a", "umlaut", "ρ ≤ ½");
    h5_attribute_text(file, "a", "empty", "");
    h5_attribute_text(file, "a", "host", rank == 0 ? "first" : "another host");
    h5_attribute_real(file, "a", "real", rank == 0 ? 0.1 : 7);
    h5_attribute_int(file, "a", "int", -(INT64_C(1) << 60));
    commit(&file, "attributes.h5");
    if (rank == 0) {
        double real;
        long long whole;
        hid_t id = H5Fopen(scratch_file("attributes.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
        hid_t a = H5Gopen2(id, "a", H5P_DEFAULT), b = H5Gopen2(id, "a/b", H5P_DEFAULT);
        assert_text_attribute(id, "format", "eigentrain test");
        assert_text_attribute(b, "input", longest);
        assert_text_attribute(a, "umlaut", "ρ ≤ ½");
        assert_text_attribute(a, "empty", "");
        assert_text_attribute(a, "host", "first");
        assert_true(H5LTget_attribute_double(id, "a", "real", &real) >= 0 && real == 0.1);
        assert_true(H5LTget_attribute_long_long(id, "a", "int", &whole) >= 0 && whole == -(1LL << 60));
        H5Gclose(a);
        H5Gclose(b);
        H5Fclose(id);
    }
    memory_free(longest);
}

static void assert_scale(hid_t file, const char *path, unsigned dim)
{
    hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
    assert_true(dataset >= 0);
    assert_int_equal(H5DSget_num_scales(dataset, dim), 1);
    H5Dclose(dataset);
}

/* Named, shared and anonymous dimensions, scalars and texts. */
static void small_arrays_have_scales(void **state)
{
    (void)state;
    const int64_t steps[] = {0, 10}, sizes[] = {2, 3};
    const double values[] = {1, 2, 3, 4, 5, 6};
    const char *const dims[] = {"step", "layer"}, *const half[] = {"step", NULL}, *const texts[] = {"", "ρ"};
    struct h5 *file = create("small.h5");
    h5_dimension(file, "g/step", 2, steps, &(struct h5_about){.units = "1"});
    h5_dimension(file, "g/layer", 3, NULL, NULL);
    h5_write_reals(file, "g/named", 2, dims, sizes, rank == 0 ? values : NULL, NULL);
    h5_write_reals(file, "g/half", 2, half, sizes, rank == 0 ? values : NULL, NULL);
    h5_write_reals(file, "g/scalar", 0, NULL, NULL, rank == 0 ? values : NULL, NULL);
    h5_write_texts(file, "g/texts", "step", 2, texts, NULL);
    commit(&file, "small.h5");
    assert_true(h5_has(MPI_COMM_WORLD, scratch_file("small.h5"), "g/named"));
    assert_false(h5_has(MPI_COMM_WORLD, scratch_file("small.h5"), "g"));
    assert_false(h5_has(MPI_COMM_WORLD, scratch_file("small.h5"), "h/named"));
    assert_false(h5_has(MPI_COMM_WORLD, scratch_file("absent.h5"), "g/named"));
    if (rank == 0) {
        double back[6], scalar;
        hid_t id = H5Fopen(scratch_file("small.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
        assert_scale(id, "g/named", 0);
        assert_scale(id, "g/named", 1);
        assert_scale(id, "g/half", 1);
        assert_scale(id, "g/texts", 0);
        assert_true(H5LTread_dataset_double(id, "g/named", back) >= 0);
        assert_memory_equal(back, values, sizeof back);
        assert_true(H5LTread_dataset_double(id, "g/scalar", &scalar) >= 0 && scalar == 1);
        H5Fclose(id);
    }
}

/* ---------------------------------------------------------------- what goes wrong */

static void a_folder_that_is_not_there(void **state)
{
    (void)state;
    struct problems problems = {0};
    assert_null(h5_create(MPI_COMM_WORLD, scratch_file("nowhere/a.h5"), "eigentrain test", &problems));
    assert_problem(&problems, EXIT_ENVIRONMENT, "nowhere/a.h5: cannot create the file");
}

/* A commit that must fail leaves what stood under the name before. */
static void assert_refused(struct h5 **file, const char *name, const char *part)
{
    struct problems problems = {0};
    bool before = scratch_holds(name);
    assert_false(h5_commit(file, &problems));
    assert_null(*file);
    assert_problem(&problems, EXIT_ENVIRONMENT, part);
    assert_int_equal(scratch_holds(name), before);
    char *partial = memory_text(".%s.partial", name);
    MPI_Barrier(MPI_COMM_WORLD);
    assert_false(scratch_holds(partial));
    memory_free(partial);
}

static void a_bad_name_fails_at_commit(void **state)
{
    (void)state;
    const int64_t n = 2;
    const double values[] = {1, 2};
    struct h5 *file = create("bad.h5");
    h5_write_reals(file, "x", 1, NULL, &n, values, NULL);
    h5_write_reals(file, "x", 1, NULL, &n, values, NULL);
    h5_write_reals(file, "y", 1, NULL, &n, values, NULL);
    assert_refused(&file, "bad.h5", "cannot create dataset x");
    file = create("bad.h5");
    h5_attribute_int(file, "not/there", "a", 1);
    assert_refused(&file, "bad.h5", "cannot open not/there");
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    (void)state;
    struct h5 *file = create("given-up.h5");
    h5_group(file, "a");
    h5_abandon(&file);
    assert_null(file);
    MPI_Barrier(MPI_COMM_WORLD);
    assert_false(scratch_holds("given-up.h5"));
    assert_false(scratch_holds(".given-up.h5.partial"));
}

/* A full disk, as a limit on the size of files. */
static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static void a_full_disk(void **state)
{
    (void)state;
    matrix_comes_back(5, 5); /* matrix.h5 must survive */
    struct dmat *A = dmat_create(tall, 500, 500);
    dmat_set(A, element, NULL);
    struct h5 *file = create("matrix.h5");
    limit_files(100000);
    h5_write_matrix(file, "W", NULL, NULL, A, NULL);
    h5_write_matrix(file, "V", NULL, NULL, A, NULL);
    assert_refused(&file, "matrix.h5", "cannot write");
    limit_files(RLIM_INFINITY);
    struct problems problems = {0};
    struct dmat *B = h5_read_matrix(wide, scratch_file("matrix.h5"), "layer1/W", &problems);
    assert_non_null(B);
    assert_elements(B);
    dmat_destroy(&A);
    dmat_destroy(&B);
}

/* Small arrays are buffered: the disk says no when they are closed, or later. */
static void a_full_disk_for_small_arrays(void **state)
{
    (void)state;
    const int64_t n = 100;
    double values[100] = {0};
    for (rlim_t bytes = 0; bytes < 8000; bytes += 500) {
        struct h5 *file = create("tight.h5");
        limit_files(bytes);
        for (int i = 0; i < 10; i++) {
            char *name = memory_text("group/x%d", i);
            h5_write_reals(file, name, 1, NULL, &n, values, NULL);
            memory_free(name);
        }
        assert_refused(&file, "tight.h5", "cannot");
        limit_files(RLIM_INFINITY);
    }
}

/* The disk that is full belongs to one host only. */
static void a_full_disk_of_one_rank(void **state)
{
    (void)state;
    struct dmat *A = dmat_create(tall, 500, 500);
    dmat_set(A, element, NULL);
    struct h5 *file = create("one.h5");
    if (rank == 0) limit_files(100000);
    h5_write_matrix(file, "W", NULL, NULL, A, NULL);
    assert_refused(&file, "one.h5", "cannot write");
    limit_files(RLIM_INFINITY);
    assert_false(scratch_holds("one.h5"));
    dmat_destroy(&A);
}

static void refuse_to_read(const char *path, const char *name, const char *part)
{
    struct problems problems = {0};
    assert_null(h5_read_matrix(wide, path, name, &problems));
    assert_problem(&problems, EXIT_INPUT, part);
}

static void bad_input_is_named(void **state)
{
    (void)state;
    const int64_t n = 2, cube[] = {1, 2, 3};
    const double values[] = {1, 2, 3, 4, 5, 6};
    const char *const texts[] = {"a", "b"};
    struct dmat *A = dmat_create(tall, 13, 7);
    dmat_set(A, element, NULL);
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            if (dmat_row(A, il) == 11 && dmat_col(A, jl) >= 5) A->local[il + (int64_t)jl * A->lld] = NAN;
    struct h5 *file = create("input.h5");
    h5_write_matrix(file, "targets", NULL, NULL, A, NULL);
    h5_write_reals(file, "group/cube", 3, NULL, cube, values, NULL);
    h5_dimension(file, "n", n, NULL, NULL);
    h5_write_texts(file, "words", "n", n, texts, NULL);
    commit(&file, "input.h5");
    dmat_destroy(&A);
    if (rank == 0) {
        FILE *text = fopen(scratch_file("text.h5"), "w");
        fputs("this is not HDF5\n", text);
        fclose(text);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    const char *input = scratch_file("input.h5");
    refuse_to_read(scratch_file("absent.h5"), "X", "absent.h5: no such file");
    refuse_to_read(scratch_file("text.h5"), "X", "text.h5: not an HDF5 file");
    refuse_to_read(scratch, "X", "not an HDF5 file");
    refuse_to_read(input, "target", "no dataset target (did you mean targets?); the file holds group/cube");
    refuse_to_read(input, "group", "no dataset group");
    refuse_to_read(input, "group/cube", "has 3 dimensions");
    refuse_to_read(input, "words", "does not hold numbers");
    refuse_to_read(input, "targets", "dataset targets holds nan or inf at row 11, column 5");
}

static void a_truncated_file_is_refused(void **state)
{
    (void)state;
    matrix_comes_back(50, 50);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) assert_int_equal(truncate(scratch_file("matrix.h5"), 9000), 0);
    MPI_Barrier(MPI_COMM_WORLD);
    refuse_to_read(scratch_file("matrix.h5"), "layer1/W", "cannot be opened");
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(matrices_come_back),
    cmocka_unit_test(vectors_come_back),
    cmocka_unit_test(a_vector_is_a_row),
    cmocka_unit_test(attributes_are_kept),
    cmocka_unit_test(small_arrays_have_scales),
    cmocka_unit_test(a_folder_that_is_not_there),
    cmocka_unit_test(a_bad_name_fails_at_commit),
    cmocka_unit_test(an_abandoned_file_leaves_nothing),
    cmocka_unit_test(a_full_disk),
    cmocka_unit_test(a_full_disk_for_small_arrays),
    cmocka_unit_test(a_full_disk_of_one_rank),
    cmocka_unit_test(bad_input_is_named),
    cmocka_unit_test(a_truncated_file_is_refused),
};

UNIT_MAIN(tests, start, finish)
