/* ranks: 1 2 4 6 */
/* Archives and seals: what one grid saves another restores, and a file that was changed in any way is found out. */
#include "base/memory.h"
#include "dist/archive.h"
#include "dist/random.h"
#include "scratch.h"
#include "unit.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const char format[] = "eigentrain test";

static void start(MPI_Comm comm)
{
    signal(SIGXFSZ, SIG_IGN);
    scratch_create(comm);
}

static int unit_size(void)
{
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    return size;
}

static int my_rank(void)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank;
}

/* Everything that an archive can hold. */
struct contents {
    int64_t count;
    double value;
    bool there;
    double reals[5];
    struct dmat *A, *large; /* small enough for rank 0 alone, and not */
    int64_t *row;           /* [mloc] of 3 vectors of length 17, dealt one by one */
    double *vectors;
    int mloc;
};

static void contents_create(struct contents *c, const struct grid *grid, bool filled)
{
    *c = (struct contents){.A = dmat_create(grid, 23, 11), .large = dmat_create(grid, 401, 377)};
    c->row = NEW(int64_t, 17);
    for (int64_t i = grid->rank; i < 17; i += grid->size) c->row[c->mloc++] = i;
    c->vectors = NEW(double, 3 * c->mloc);
    if (!filled) return;
    c->count = INT64_C(-9007199254740995);
    c->value = -0.1;
    c->there = true;
    for (int i = 0; i < 5; i++) c->reals[i] = i == 2 ? NAN : 1.0 / (i + 1);
    random_fill_normal(c->A, 1, 2);
    random_fill_normal(c->large, 1, 3);
    for (int il = 0; il < c->mloc; il++)
        for (int k = 0; k < 3; k++) c->vectors[il + k * c->mloc] = sin((double)(c->row[il] * 3 + k));
}

static void contents_clear(struct contents *c)
{
    dmat_destroy(&c->A);
    dmat_destroy(&c->large);
    memory_free(c->row);
    memory_free(c->vectors);
}

static void move(struct archive *archive, struct contents *c)
{
    archive_int(archive, "count", &c->count);
    archive_enter(archive, "outer");
    archive_real(archive, "value", &c->value);
    archive_enter(archive, "inner");
    c->there = archive_flag(archive, "there", c->there);
    archive_reals(archive, "reals", 5, c->reals);
    archive_matrix(archive, "A", c->A);
    archive_leave(archive);
    archive_matrix(archive, "large", c->large);
    archive_leave(archive);
    archive_vectors(archive, "vectors", 17, 3, c->mloc, c->row, c->vectors);
}

static bool same_bits(const double *a, const double *b, int64_t count)
{
    return memcmp(a, b, (size_t)count * sizeof *a) == 0;
}

static void assert_same(const struct contents *a, const struct contents *b)
{
    assert_true(a->count == b->count && a->there == b->there);
    assert_true(same_bits(&a->value, &b->value, 1) && same_bits(a->reals, b->reals, 5));
    assert_true(same_bits(a->A->local, b->A->local, (int64_t)a->A->mloc * a->A->nloc));
    assert_true(same_bits(a->large->local, b->large->local, (int64_t)a->large->mloc * a->large->nloc));
    assert_true(same_bits(a->vectors, b->vectors, 3 * a->mloc));
}

static bool save(MPI_Comm comm, const char *path, struct contents *c, struct problems *problems)
{
    struct archive *archive = archive_save(comm, path, format, problems);
    if (!archive) return false;
    assert_false(archive_loading(archive));
    move(archive, c);
    return archive_end(&archive, problems);
}

static bool load(MPI_Comm comm, const char *path, struct contents *c, struct problems *problems)
{
    struct archive *archive = archive_load(comm, path, format, problems);
    if (!archive) return false;
    assert_true(archive_loading(archive));
    move(archive, c);
    return archive_end(&archive, problems);
}

static void save_on(const char *path, int nprow, int npcol, int block)
{
    struct problems problems = {0};
    struct contents c;
    struct grid *grid = grid_create(MPI_COMM_WORLD, nprow, npcol, block);
    contents_create(&c, grid, true);
    const bool ok = save(grid->comm, path, &c, &problems);
    problems_print(&problems);
    assert_true(ok);
    contents_clear(&c);
    grid_destroy(&grid);
}

static void load_on(const char *path, MPI_Comm comm, int nprow, int npcol, int block)
{
    struct problems problems = {0};
    struct contents c, expected;
    struct grid *grid = grid_create(comm, nprow, npcol, block);
    contents_create(&c, grid, false);
    contents_create(&expected, grid, true);
    const bool ok = load(grid->comm, path, &c, &problems);
    problems_print(&problems);
    assert_true(ok);
    assert_same(&c, &expected);
    contents_clear(&c);
    contents_clear(&expected);
    grid_destroy(&grid);
}

static void any_grid_reads_what_another_wrote(void **state)
{
    (void)state;
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    save_on(scratch_file("a.h5"), 1, size, 3);
    load_on(scratch_file("a.h5"), MPI_COMM_WORLD, 1, size, 3);
    load_on(scratch_file("a.h5"), MPI_COMM_WORLD, size, 1, 64);
    if (size % 2 == 0) load_on(scratch_file("a.h5"), MPI_COMM_WORLD, 2, size / 2, 1);
    if (my_rank() == 0) load_on(scratch_file("a.h5"), MPI_COMM_SELF, 1, 1, 5);
}

static int64_t length_of(const char *path)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    return (int64_t)about.st_size;
}

static void flip(const char *path, int64_t at)
{
    const int fd = open(path, O_RDWR);
    unsigned char byte;
    assert_true(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
    close(fd);
}

static void assert_refused(const char *path, const char *message)
{
    struct problems problems = {0};
    MPI_Barrier(MPI_COMM_WORLD);
    assert_null(archive_load(MPI_COMM_WORLD, path, format, &problems));
    assert_int_equal(problems.code, EXIT_ENVIRONMENT);
    assert_int_equal(problems.count, 1);
    if (!strstr(problems.text[0], message)) fail_msg("%s is not in: %s", message, problems.text[0]);
    problems_clear(&problems);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* At the head, in metadata, in data, in the seal. */
static void a_flipped_byte_is_found(void **state)
{
    (void)state;
    const char *path = scratch_file("flip.h5");
    save_on(path, 1, unit_size(), 3);
    const int64_t length = length_of(path),
                  at[] = {0,           9,           700,         length / 3, length / 2, length - 200,
                          length - 81, length - 70, length - 30, length - 2, length - 1};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (my_rank() == 0) flip(path, at[i]);
        assert_refused(path, "flip.h5 is ");
        if (my_rank() == 0) flip(path, at[i]);
    }
    load_on(path, MPI_COMM_WORLD, unit_size(), 1, 3);
}

static void a_file_that_was_cut_off_is_found(void **state)
{
    (void)state;
    const char *path = scratch_file("cut.h5");
    const double part[] = {0, 0.01, 0.5, 0.99};
    for (int i = 0; i < 4; i++) {
        save_on(path, unit_size(), 1, 3);
        const int64_t length = length_of(path);
        MPI_Barrier(MPI_COMM_WORLD);
        if (my_rank() == 0) assert_int_equal(truncate(path, (off_t)(part[i] * (double)length)), 0);
        assert_refused(path, "cut.h5 is cut off");
    }
    if (my_rank() == 0) unlink(path);
    assert_refused(path, "cut.h5: No such file or directory");
}

static void another_format_is_refused(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct h5 *file = h5_create(MPI_COMM_WORLD, scratch_file("other.h5"), "eigentrain metrics", &problems);
    assert_true(h5_commit(&file, &problems));
    assert_refused(scratch_file("other.h5"), "is an 'eigentrain metrics' file, not an 'eigentrain test' file");
}

static void another_shape_is_refused(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct grid *grid = grid_create(MPI_COMM_WORLD, 1, unit_size(), 4);
    struct dmat *A = dmat_create(grid, 3, 4), *B = dmat_create(grid, 4, 3);
    struct archive *archive = archive_save(grid->comm, scratch_file("shape.h5"), format, &problems);
    archive_matrix(archive, "A", A);
    assert_true(archive_end(&archive, &problems));
    archive = archive_load(grid->comm, scratch_file("shape.h5"), format, &problems);
    archive_matrix(archive, "A", B);
    archive_matrix(archive, "not there", A); /* after a failure nothing is tried */
    assert_false(archive_end(&archive, &problems));
    assert_non_null(strstr(problems.text[0], "dataset A is 3 × 4, not 4 × 3"));
    problems_clear(&problems);
    dmat_destroy(&A);
    dmat_destroy(&B);
    grid_destroy(&grid);
}

/* A limit on the size of files stands for a full disk: the file that is there stays, and nothing else is left. */
static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    struct problems problems = {0};
    struct contents c;
    struct rlimit limit, small;
    char *path = memory_text("%s", scratch_file("full.h5"));
    save_on(path, 1, unit_size(), 3);
    const int64_t length = length_of(path);
    struct grid *grid = grid_create(MPI_COMM_WORLD, 1, unit_size(), 3);
    contents_create(&c, grid, true);
    getrlimit(RLIMIT_FSIZE, &limit);
    const int64_t room[] = {100, 3000, length / 2, length - 200, length - 40};
    for (size_t i = 0; i < sizeof room / sizeof *room; i++) {
        small = limit;
        small.rlim_cur = (rlim_t)room[i];
        MPI_Barrier(MPI_COMM_WORLD);
        setrlimit(RLIMIT_FSIZE, &small);
        const bool ok = save(MPI_COMM_WORLD, path, &c, &problems);
        setrlimit(RLIMIT_FSIZE, &limit);
        assert_false(ok);
        assert_int_equal(problems.code, EXIT_ENVIRONMENT);
        problems_clear(&problems);
        MPI_Barrier(MPI_COMM_WORLD);
        assert_false(scratch_holds(".full.h5.partial"));
    }
    contents_clear(&c);
    grid_destroy(&grid);
    load_on(path, MPI_COMM_WORLD, unit_size(), 1, 64);
    memory_free(path);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(any_grid_reads_what_another_wrote), cmocka_unit_test(a_flipped_byte_is_found),
    cmocka_unit_test(a_file_that_was_cut_off_is_found),  cmocka_unit_test(another_format_is_refused),
    cmocka_unit_test(another_shape_is_refused),          cmocka_unit_test(a_full_disk_leaves_the_old_file),
};

UNIT_MAIN(tests, start, scratch_remove)
