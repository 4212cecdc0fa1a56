/* ranks: 1 2 4 6 */
/* Extreme eigenpairs of symmetric operators whose eigenpairs are known: separate, multiple, clustered, negative, zero;
 * cold, warm, through an archive; and Lanczos quadrature. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "scratch.h"
#include "unit.h"

#include <string.h>

/* R D R with the reflection R = I − 2 w wᵀ: eigenvectors are the columns of R. Entry i belongs to rank i mod size. */
struct known {
    int64_t n;
    double *values; /* [n] owned */
    double *w;      /* [nloc] local part, length 1; owned */
    int products;
};

static int size, rank;

static int64_t index_of(const struct linop *A, int il)
{
    (void)A;
    return rank + (int64_t)il * size;
}

static double dot(int n, const double *x, const double *y)
{
    double sum = 0;

    for (int i = 0; i < n; i++) sum += x[i] * y[i];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum;
}

static void apply(const struct linop *A, const double *x, double *y)
{
    struct known *known = A->context;
    const double before = dot(A->nloc, known->w, x);

    for (int i = 0; i < A->nloc; i++) y[i] = known->values[index_of(A, i)] * (x[i] - 2 * before * known->w[i]);
    const double after = dot(A->nloc, known->w, y);
    for (int i = 0; i < A->nloc; i++) y[i] -= 2 * after * known->w[i];
    known->products++;
}

static void destroy(struct linop *A)
{
    struct known *known = A->context;

    memory_free(known->values);
    memory_free(known->w);
    memory_free(known);
}

static struct linop *known_operator(int64_t n, double (*value)(int64_t i), uint64_t turn)
{
    struct known *known = NEW(struct known, 1);
    struct linop *A = NEW(struct linop, 1);
    const int nloc = (int)((n - rank + size - 1) / size);

    *known = (struct known){.n = n, .values = NEW(double, n), .w = NEW(double, nloc)};
    *A = (struct linop){.comm = MPI_COMM_WORLD,
                        .m = n,
                        .n = n,
                        .mloc = nloc,
                        .nloc = nloc,
                        .context = known,
                        .apply = apply,
                        .apply_adjoint = apply,
                        .row_index = index_of,
                        .col_index = index_of,
                        .destroy = destroy};
    for (int64_t i = 0; i < n; i++) known->values[i] = value(i);
    for (int i = 0; i < nloc; i++) known->w[i] = random_normal(2, turn, (uint64_t)index_of(A, i));
    const double length = sqrt(dot(nloc, known->w, known->w));
    for (int i = 0; i < nloc; i++) known->w[i] /= length;
    return A;
}

static int descending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The values at that end, residuals measured anew, and orthonormal vectors. */
static void check_pairs(const struct linop *A, const struct eigenpairs *E)
{
    const struct known *known = A->context;
    double *values = NEW(double, A->n), *y = NEW(double, A->nloc), scale = 0;

    memcpy(values, known->values, (size_t)A->n * sizeof *values);
    qsort(values, (size_t)A->n, sizeof *values, descending);
    for (int64_t i = 0; i < A->n; i++) scale = fmax(scale, fabs(values[i]));
    if (scale == 0) scale = 1;
    assert_int_equal(E->converged, E->rank);
    for (int i = 0; i < E->rank; i++) {
        const double *v = E->vectors + (int64_t)i * A->nloc, expected = values[E->smallest ? A->n - 1 - i : i];
        assert_close(E->lambda[i], expected, 1e-9 * scale);
        apply(A, v, y);
        for (int k = 0; k < A->nloc; k++) y[k] -= E->lambda[i] * v[k];
        const double residual = sqrt(dot(A->nloc, y, y));
        assert_true(residual <= 1e-9 * scale && E->residual[i] <= 1e-9);
        assert_true(E->residual[i] * scale >= residual - 1e-13 * scale); /* not smaller than it is */
        for (int j = 0; j <= i; j++) assert_close(dot(A->nloc, v, E->vectors + (int64_t)j * A->nloc), i == j, 1e-10);
    }
    memory_free(y);
    memory_free(values);
}

static const struct krylov_options options = {.tolerance = 1e-10, .max_products = 5000, .seed = 3, .stream = 1};

static double separate(int64_t i)
{
    return i < 8 ? 20 - (double)i : i % 7 == 3 ? -2 - 1 / (double)i : 3 / (double)i;
}
static double multiple(int64_t i)
{
    return i < 4 ? 5 : i < 12 ? 2 : i < 14 ? -1 : 0;
}
static double clustered(int64_t i)
{
    return i < 5 ? 1 + 1e-7 * (double)i : 0.5 * cos((double)i);
}
static double negative(int64_t i)
{
    return -1 - (double)i;
}
static double zero(int64_t i)
{
    (void)i;
    return 0;
}
static double one(int64_t i)
{
    (void)i;
    return 1;
}
static double signs(int64_t i)
{
    return i == 0 ? 1 : i == 1 ? -1 : 0;
}
static double falling(int64_t i)
{
    return i < 10 ? 10 - 0.7 * (double)i : 1.5 * sin((double)i);
}

static void solve_known(double (*value)(int64_t), int64_t n, int k, bool smallest)
{
    struct linop *A = known_operator(n, value, 1);
    struct eigenpairs *E = eigenpairs_create(A, k, smallest);

    krylov_eigen(A, &options, E);
    if (E->converged < k) print_error("n %d k %d smallest %d: %d converged\n", (int)n, k, smallest, E->converged);
    check_pairs(A, E);
    const int64_t cold = E->products;
    krylov_eigen(A, &options, E); /* warm: nothing has changed */
    check_pairs(A, E);
    assert_true(E->products <= cold + 3);
    eigenpairs_destroy(&E);
    assert_null(E);
    linop_destroy(&A);
}

static void known_spectra(void **state)
{
    (void)state;
    for (int end = 0; end < 2; end++) {
        solve_known(separate, 100, 5, end);
        solve_known(multiple, 60, 6, end);
        solve_known(multiple, 60, 12, end);
        solve_known(multiple, 24, 24, end);
        solve_known(clustered, 80, 5, end);
        solve_known(clustered, 80, 3, end);
        solve_known(negative, 40, 4, end);
        solve_known(zero, 30, 3, end);
        solve_known(one, 30, 4, end);
        solve_known(signs, 30, 2, end);
        solve_known(signs, 3, 3, end);
        solve_known(negative, 1, 1, end);
        solve_known(negative, 2, 1, end);
        solve_known(falling, 400, 10, end);
    }
}

/* Σ w f(node) = xᵀ f(A) x / xᵀx for f = 1, t, t², and nodes that are eigenvalues where the space ends. */
static void quadratures(void **state)
{
    struct linop *A = known_operator(60, multiple, 2);
    double nodes[12], weights[12], moment[3] = {0}, *x = NEW(double, A->nloc), *y = NEW(double, A->nloc);

    (void)state;
    for (int i = 0; i < A->nloc; i++) x[i] = random_normal(4, 4, (uint64_t)index_of(A, i));
    for (int steps = 2; steps <= 12; steps += 10) {
        const int count = krylov_quadrature(A, steps, x, nodes, weights);
        assert_int_equal(count, steps == 2 ? 2 : 4); /* four different eigenvalues */
        for (int q = 0; q < 3; q++) moment[q] = 0;
        for (int k = 0; k < count; k++)
            for (int q = 0; q < 3; q++) moment[q] += weights[k] * pow(nodes[k], q);
        apply(A, x, y);
        const double square = dot(A->nloc, x, x);
        assert_close(moment[0], 1, 1e-13);
        assert_close(moment[1], dot(A->nloc, x, y) / square, 1e-12);
        assert_close(moment[2], dot(A->nloc, y, y) / square, 1e-12);
    }
    static const double expected[] = {-1, 0, 2, 5};
    for (int k = 0; k < 4; k++) assert_close(nodes[k], expected[k], 1e-10);
    memory_free(x);
    memory_free(y);
    linop_destroy(&A);
}

/* Ten eigenvectors that turn a little from solve to solve, into others of the 400: E->products of the last of twelve.
 */
static int follow(bool track, int solves)
{
    struct eigenpairs *E = NULL;
    int64_t products = 0;

    for (int t = 0; t < solves; t++) {
        struct linop *A = known_operator(400, falling, 1);
        struct known *known = A->context;
        double *turn = NEW(double, A->nloc);
        for (int i = 0; i < A->nloc; i++) turn[i] = random_normal(2, 5, (uint64_t)index_of(A, i)) / 20;
        for (int i = 0; i < A->nloc; i++) known->w[i] += 0.02 * sin(0.2 * t) * turn[i];
        const double length = sqrt(dot(A->nloc, known->w, known->w));
        for (int i = 0; i < A->nloc; i++) known->w[i] /= length;
        if (!E) E = eigenpairs_create(A, 10, false);
        E->filled = E->filled && track;
        krylov_eigen(A, &options, E);
        check_pairs(A, E);
        products = E->products;
        memory_free(turn);
        linop_destroy(&A);
    }
    eigenpairs_destroy(&E);
    return (int)products;
}

static void tracked(void **state)
{
    const int cold = follow(false, 1), second = follow(true, 2), ninth = follow(true, 9);

    (void)state;
    assert_true(second < cold && ninth < second && 3 * ninth < 2 * cold);
}

/* What was saved starts the next solve exactly as what was kept. */
static void archived(void **state)
{
    struct problems problems = {0};
    struct linop *A = known_operator(100, separate, 1), *B = known_operator(100, separate, 3);
    struct eigenpairs *E = eigenpairs_create(A, 5, false), *F = NULL;

    (void)state;
    for (int t = 0; t < 4; t++) krylov_eigen(t % 2 ? A : B, &options, E); /* there is a past */
    krylov_eigen(A, &options, E);
    struct archive *archive = archive_save(MPI_COMM_WORLD, scratch_file("pairs.h5"), "test", &problems);
    eigenpairs_archive(&E, A, 5, false, "pairs", archive);
    assert_true(archive_end(&archive, &problems));
    archive = archive_load(MPI_COMM_WORLD, scratch_file("pairs.h5"), "test", &problems);
    eigenpairs_archive(&F, A, 5, false, "pairs", archive);
    assert_true(archive_end(&archive, &problems));
    assert_non_null(F);
    krylov_eigen(B, &options, E); /* other eigenvectors */
    krylov_eigen(B, &options, F);
    check_pairs(B, E);
    assert_int_equal(E->products, F->products);
    for (int i = 0; i < 5; i++) assert_true(E->lambda[i] == F->lambda[i] && E->residual[i] == F->residual[i]);
    assert_memory_equal(E->vectors, F->vectors, 5 * (size_t)A->nloc * sizeof(double));
    eigenpairs_destroy(&E);
    eigenpairs_destroy(&F);
    linop_destroy(&A);
    linop_destroy(&B);
}

/* Too few products: NaN, and counted out. */
static void unconverged(void **state)
{
    const struct krylov_options few = {.tolerance = 1e-10, .basis = 8, .max_products = 9, .seed = 3, .stream = 1};
    struct linop *A = known_operator(400, falling, 1);
    struct eigenpairs *E = eigenpairs_create(A, 6, false);

    (void)state;
    krylov_eigen(A, &few, E);
    assert_true(E->converged < 6);
    for (int i = E->converged; i < 6; i++) assert_true(isnan(E->lambda[i]) && isnan(E->residual[i]));
    eigenpairs_destroy(&E);
    linop_destroy(&A);
}

static const struct CMUnitTest eigen_tests[] = {
    cmocka_unit_test(known_spectra), cmocka_unit_test(quadratures), cmocka_unit_test(tracked),
    cmocka_unit_test(archived),      cmocka_unit_test(unconverged),
};

static void start(MPI_Comm comm)
{
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    krylov_start(comm);
    scratch_create(comm);
}

static void finish(void)
{
    scratch_remove();
    krylov_end();
}

UNIT_MAIN(eigen_tests, start, finish)
