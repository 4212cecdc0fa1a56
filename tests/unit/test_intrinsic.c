/* ranks: 1 2 4 6 */
/* Reduced dynamics of linear networks against numbers of an independent computation (NumPy, layer by layer; shared
 * specification of intrinsic dynamics, section 6), and against closed solutions. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "grids.h"
#include "theory/intrinsic.h"
#include "unit.h"

#include <math.h>
#include <string.h>

enum { MOST = 8 }; /* the largest size of a matrix here */

/* ---------------------------------------------------------------- reference matrices, whole on every rank */

struct small {
    int m, n;
    double at[MOST * MOST]; /* column-major */
};

static struct small ref_unit(uint64_t seed, int m, int n)
{
    struct small A = {m, n, {0}};
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) A.at[i + j * m] = random_sequence(seed, (uint64_t)(i * n + j));
    return A;
}

static struct small times(char ta, char tb, const struct small *A, const struct small *B)
{
    struct small C = {ta == 'N' ? A->m : A->n, tb == 'N' ? B->n : B->m, {0}};
    factor_local_product(ta, tb, C.m, C.n, ta == 'N' ? A->n : A->m, A->at, B->at, C.at);
    return C;
}

/* H(v_0) H(v_1) H(v_2), v_p column p of ref_fill(seed, n, 3). */
static struct small ref_orth(uint64_t seed, int n)
{
    const struct small v = ref_unit(seed, n, 3);
    struct small Q = {n, n, {0}};
    for (int i = 0; i < n; i++) Q.at[i + i * n] = 1;
    for (int p = 0; p < 3; p++) {
        struct small H = {n, n, {0}};
        double square = 0;
        for (int i = 0; i < n; i++) square += v.at[i + p * n] * v.at[i + p * n];
        for (int i = 0; i < n; i++)
            for (int j = 0; j < n; j++) H.at[i + j * n] = (i == j) - 2 * v.at[i + p * n] * v.at[j + p * n] / square;
        Q = times('N', 'N', &Q, &H);
    }
    return Q;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

/* W_2 and W_1 with S_1 = λI. */
static void relaxed(uint64_t seed, double size, int n_out, int n_in, int h, double lambda, struct small W[2])
{
    const int p = least(least(n_out, n_in), h);
    const struct small left = ref_orth(seed, n_out), right = ref_orth(seed + 1, n_in), middle = ref_orth(seed + 2, h);
    struct small D[2] = {{h, n_in, {0}}, {n_out, h, {0}}};
    for (int i = 0; i < h; i++) {
        const double s = size * (p - i) / p, q = sqrt(lambda * lambda + 4 * s * s);
        if (i < p || lambda < 0) D[0].at[i + i * h] = i < p ? sqrt((q - lambda) / 2) : sqrt(-lambda);
        if (i < p || lambda > 0) D[1].at[i + i * n_out] = i < p ? sqrt((q + lambda) / 2) : sqrt(lambda);
    }
    D[1] = times('N', 'T', &D[1], &middle);
    W[1] = times('N', 'N', &left, &D[1]);
    D[0] = times('N', 'T', &D[0], &right);
    W[0] = times('N', 'N', &middle, &D[0]);
}

/* The product of a start whose layers have the singular values factor[k][i] between Q_k and Q_{k−1}. */
static struct small deep(uint64_t seed, int N, const int *d, int p, double (*factor)(int k, int i, const void *),
                         const void *context)
{
    struct small Z = ref_orth(seed + 10, d[0]);
    for (int k = 1; k <= N; k++) {
        const struct small left = ref_orth(seed + 10 + (uint64_t)k, d[k]),
                           right = ref_orth(seed + 9 + (uint64_t)k, d[k - 1]);
        struct small D = {d[k], d[k - 1], {0}};
        for (int i = 0; i < p; i++) D.at[i + i * d[k]] = factor(k, i, context);
        struct small W = times('N', 'N', &left, &D);
        W = times('N', 'T', &W, &right);
        Z = k == 1 ? W : times('N', 'N', &W, &Z);
    }
    return Z;
}

/* ---------------------------------------------------------------- losses */

struct problem {
    struct small C, D; /* ½ Σ D (Z − C)² */
};

static void gradient(void *context, const struct dmat *Z, struct dmat *G)
{
    const struct problem *p = context;
    for (int jl = 0; jl < Z->nloc; jl++)
        for (int il = 0; il < Z->mloc; il++) {
            const int64_t at = dmat_row(Z, il) + dmat_col(Z, jl) * p->C.m;
            G->local[il + jl * G->lld] = p->D.at[at] * (Z->local[il + jl * Z->lld] - p->C.at[at]);
        }
}

static struct problem weighted(uint64_t seed, int n_out, int n_in)
{
    struct problem p = {ref_unit(seed, n_out, n_in), ref_unit(seed + 1, n_out, n_in)};
    for (int i = 0; i < n_out * n_in; i++) p.D.at[i] = 1 + p.D.at[i] / (2 * sqrt(3));
    return p;
}

static struct problem plain(const struct small *C)
{
    struct problem p = {*C, *C};
    for (int i = 0; i < C->m * C->n; i++) p.D.at[i] = 1;
    return p;
}

static double entry(int64_t i, int64_t j, const void *context)
{
    const struct small *A = context;
    return A->at[i + j * A->m];
}

static struct dmat *on(const struct grid *grid, const struct small *A)
{
    struct dmat *B = dmat_create(grid, A->m, A->n);
    dmat_set(B, entry, A);
    return B;
}

/* Z after some time; ranks must be those expected of the thin form, 0: none. */
static struct dmat *flow(const struct grid *grid, const struct intrinsic_law *law, const struct small *start,
                         struct problem *p, double time, int steps, int rank)
{
    struct dmat *Z0 = on(grid, start), *Z = dmat_create(grid, start->m, start->n);
    struct intrinsic *x = intrinsic_create(law, Z0);
    assert_int_equal(intrinsic_rank(x), rank);
    intrinsic_advance(x, time, steps, gradient, p);
    dmat_copy(Z, intrinsic_matrix(x));
    intrinsic_destroy(&x);
    dmat_destroy(&Z0);
    return Z;
}

static void assert_norm(const struct grid *grid, const struct intrinsic_law *law, const struct small *start,
                        double time, int rank, double expected)
{
    struct problem p = weighted(21, start->m, start->n);
    struct dmat *Z = flow(grid, law, start, &p, time, 250, rank);
    assert_close(dmat_norm(Z), expected, 1e-8);
    dmat_destroy(&Z);
}

/* ---------------------------------------------------------------- the tests */

static void check_two_layers(struct grid *grid)
{
    static const struct {
        int n_out, n_in, h, rank;
        double lambda, time, norm;
    } cases[] = {{4, 3, 4, 0, 0.7, 0.8, 3.107248446}, {3, 5, 5, 0, -0.9, 0.8, 3.279578665},
                 {4, 4, 4, 0, 1.3, 0.8, 3.361055998}, {4, 4, 4, 0, -1.3, 0.8, 3.361055998},
                 {4, 4, 4, 0, 0, 0.8, 3.069178629},   {5, 4, 3, 0, 0.6, 0.5, 3.002118633}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct intrinsic_law law = {INTRINSIC_TWO_LAYERS, 2, cases[i].h, &cases[i].lambda};
        struct small W[2];
        relaxed(21, 0.9, cases[i].n_out, cases[i].n_in, cases[i].h, cases[i].lambda, W);
        W[0] = times('N', 'N', &W[1], &W[0]);
        assert_norm(grid, &law, &W[0], cases[i].time, cases[i].rank, cases[i].norm);
    }
}

static double equal_factor(int k, int i, const void *context)
{
    const int p = *(const int *)context;
    return 0.9 * (p - i) / p;
}

struct steps {
    int n;
    const double *e; /* e_k = λ_1 + … + λ_k, from e_0 on */
};

static double relaxed_factor(int k, int i, const void *context)
{
    const struct steps *s = context;
    double lowest = 0;
    for (int j = 0; j < s->n; j++) lowest = fmin(lowest, s->e[j]);
    return sqrt(-lowest + 0.2 + 0.9 * (3 - i) / 3 + s->e[k - 1]);
}

static void check_deep(struct grid *grid)
{
    static const int widths[] = {4, 3, 5, 3}, square[] = {3, 3, 3, 3, 3};
    const int p = 3;
    struct small Z = deep(21, 3, widths, p, equal_factor, &p);
    assert_norm(grid, &(struct intrinsic_law){.kind = INTRINSIC_DEEP, .depth = 3}, &Z, 0.7, 0, 3.117804118);
    const double three[] = {0, 0.3, 0.1}, four[] = {0, 0.3, -0.1, 0.1};
    const double by_three[] = {0.3, -0.2}, by_four[] = {0.3, -0.4, 0.2};
    Z = deep(21, 3, square, 3, relaxed_factor, &(struct steps){3, three});
    assert_norm(grid, &(struct intrinsic_law){INTRINSIC_DEEP, 3, 0, by_three}, &Z, 0.4, 0, 3.069644957);
    Z = deep(21, 4, square, 3, relaxed_factor, &(struct steps){4, four});
    assert_norm(grid, &(struct intrinsic_law){INTRINSIC_DEEP, 4, 0, by_four}, &Z, 0.4, 0, 3.275681508);
}

/* Layer by layer: W_k' = −(W_N … W_{k+1})ᵀ G (W_{k−1} … W_1)ᵀ, by the same method. */
struct layers {
    int N;
    struct small W[4], C;
};

static struct small chain(const struct layers *net, int from, int to)
{
    struct small P = net->W[from];
    for (int k = from + 1; k <= to; k++) P = times('N', 'N', &net->W[k], &P);
    return P;
}

static void layer_rates(const struct layers *net, struct small *rate)
{
    struct small G = chain(net, 0, net->N - 1);
    for (int i = 0; i < G.m * G.n; i++) G.at[i] = net->C.at[i] - G.at[i];
    for (int k = 0; k < net->N; k++) {
        rate[k] = G;
        if (k < net->N - 1) {
            const struct small above = chain(net, k + 1, net->N - 1);
            rate[k] = times('T', 'N', &above, &rate[k]);
        }
        if (k > 0) {
            const struct small below = chain(net, 0, k - 1);
            rate[k] = times('N', 'T', &rate[k], &below);
        }
    }
}

static void layer_step(struct layers *net, double h)
{
    static const double ahead[] = {0, 0.5, 0.5, 1}, weight[] = {1, 2, 2, 1};
    struct layers stage = *net, end = *net;
    struct small rate[4] = {{0}};
    for (int s = 0; s < 4; s++) {
        for (int k = 0; s > 0 && k < net->N; k++)
            for (int i = 0; i < MOST * MOST; i++) stage.W[k].at[i] = net->W[k].at[i] + ahead[s] * h * rate[k].at[i];
        layer_rates(&stage, rate);
        for (int k = 0; k < net->N; k++)
            for (int i = 0; i < MOST * MOST; i++) end.W[k].at[i] += h * weight[s] / 6 * rate[k].at[i];
    }
    *net = end;
}

/* A bottleneck: rank 2 in 7 × 6, by the factors, beside the layers themselves. */
static void check_thin(struct grid *grid)
{
    static const int widths[] = {6, 2, 5, 7};
    const int p = 2, N = 3;
    struct layers net = {.N = N, .C = ref_unit(21, 7, 6)};
    for (int k = 1; k <= N; k++) {
        const struct small left = ref_orth(31 + (uint64_t)k, widths[k]),
                           right = ref_orth(30 + (uint64_t)k, widths[k - 1]);
        struct small D = {widths[k], widths[k - 1], {0}};
        for (int i = 0; i < p; i++) D.at[i + i * widths[k]] = equal_factor(k, i, &p);
        D = times('N', 'N', &left, &D);
        net.W[k - 1] = times('N', 'T', &D, &right);
    }
    struct small start = chain(&net, 0, N - 1);
    struct problem plain_loss = plain(&net.C);
    struct dmat *Z =
        flow(grid, &(struct intrinsic_law){.kind = INTRINSIC_DEEP, .depth = N}, &start, &plain_loss, 0.5, 50, 2);
    for (int i = 0; i < 400; i++) layer_step(&net, 0.00125);
    const struct small end = chain(&net, 0, N - 1);
    struct dmat *expected = on(grid, &end);
    dmat_axpy(Z, -1, expected);
    assert_close(dmat_largest(Z), 0, 1e-6);
    dmat_destroy(&expected);
    dmat_destroy(&Z);
}

/* Two layers of rank 3 in 7 × 6 by the closed solution: λ = 0, factors; λ ≠ 0, the whole. */
static void check_against_closed(struct grid *grid)
{
    static const double lambdas[] = {0, 0.6, -0.8};
    const struct small sigma = ref_unit(14, 7, 6);
    for (int c = 0; c < 3; c++) {
        const double lambda = lambdas[c];
        const struct intrinsic_law law = {INTRINSIC_TWO_LAYERS, 2, 3, &lambda};
        struct small W[2];
        struct problem p = plain(&sigma);
        relaxed(11, 0.6, 7, 6, 3, lambda, W);
        double Q[13 * 3];
        for (int j = 0; j < 3; j++)
            for (int i = 0; i < 13; i++) Q[i + 13 * j] = i < 6 ? W[0].at[j + i * 3] : W[1].at[i - 6 + j * 7];
        intrinsic_matrix_solution(6, 7, 3, lambda, sigma.at, 0.6, Q);
        W[0] = times('N', 'N', &W[1], &W[0]);
        struct dmat *Z = flow(grid, &law, &W[0], &p, 0.6, 60, lambda == 0 ? 3 : 0);
        struct small expected = {7, 6, {0}};
        for (int j = 0; j < 6; j++)
            for (int i = 0; i < 7; i++)
                for (int k = 0; k < 3; k++) expected.at[i + j * 7] += Q[6 + i + 13 * k] * Q[j + 13 * k];
        struct dmat *E = on(grid, &expected);
        dmat_axpy(E, -1, Z);
        assert_close(dmat_largest(E), 0, 1e-6);
        dmat_destroy(&E);
        dmat_destroy(&Z);
    }
}

/* ReLU unit with frozen gates and a chain of three numbers are cases of the same laws. */
static void check_unit_and_chain(struct grid *grid)
{
    const struct small u = ref_unit(101, 3, 1), v = ref_unit(102, 2, 1), C = ref_unit(103, 3, 2);
    double lambda = 0;
    for (int i = 0; i < 3; i++) lambda += u.at[i] * u.at[i];
    for (int i = 0; i < 2; i++) lambda -= v.at[i] * v.at[i];
    assert_close(lambda, 2.284393381, 1e-9);
    struct small z = times('N', 'T', &u, &v);
    struct problem p = plain(&C);
    double whole[6];
    struct dmat *Z = flow(grid, &(struct intrinsic_law){INTRINSIC_TWO_LAYERS, 2, 1, &lambda}, &z, &p, 0.7, 200, 0);
    dmat_gather(Z, whole, -1);
    assert_close(dmat_norm(Z), 1.055448378, 1e-9);
    assert_close(whole[0], -0.4849799886, 1e-9);
    dmat_destroy(&Z);
    const double steps[] = {1.1 * 1.1 - 0.49, 0.36 - 1.1 * 1.1};
    p.C = (struct small){1, 1, {1.5}};
    z = (struct small){1, 1, {-0.7 * 1.1 * 0.6}};
    Z = flow(grid, &(struct intrinsic_law){INTRINSIC_DEEP, 3, 0, steps}, &z, &p, 0.7, 200, 0);
    dmat_gather(Z, whole, -1);
    assert_close(whole[0], -0.01902773168, 1e-9);
    dmat_destroy(&Z);
}

/* A mode of infinite depth; its factors have a sign of their own. */
static void check_infinite(struct grid *grid)
{
    const struct small z = {1, 1, {0.3}}, target = {1, 1, {1.2}};
    struct problem p = plain(&target);
    double whole[1];
    struct dmat *Z = flow(grid, &(struct intrinsic_law){.kind = INTRINSIC_INFINITE}, &z, &p, 2, 100, 0);
    dmat_gather(Z, whole, -1);
    assert_close(whole[0], 0.568117785015, 1e-9);
    dmat_destroy(&Z);
}

/* One grid, with blocks that spread these sizes over all ranks. */
static void on_one_grid(void (*test)(struct grid *grid))
{
    int size;
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    struct grid *grid = grid_create(MPI_COMM_WORLD, size % 2 == 0 ? 2 : 1, size % 2 == 0 ? size / 2 : size, 2);
    test(grid);
    grid_destroy(&grid);
}

static void test_two_layers(void **state)
{
    on_one_grid(check_two_layers);
}

static void test_deep(void **state)
{
    on_one_grid(check_deep);
}

static void test_thin(void **state)
{
    on_every_grid(check_thin);
}

static void test_against_closed(void **state)
{
    on_every_grid(check_against_closed);
}

static void test_unit_and_chain(void **state)
{
    on_one_grid(check_unit_and_chain);
}

static void test_infinite(void **state)
{
    on_one_grid(check_infinite);
}

/* ---------------------------------------------------------------- K and closed solutions, without a grid */

/* K of equal, nearly equal and vanishing singular values. */
static void test_metric(void **state)
{
    const double sigma[] = {1.5, 0.7, 0.7 * (1 - 1e-9), 0}, zero[] = {0, 0, 0};
    double K[16], left[4], right[4], by_sum[16];
    struct intrinsic_law law = {.kind = INTRINSIC_DEEP, .depth = 4};
    intrinsic_metric(&law, 4, 4, 4, sigma, K, left, right);
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++) {
            double sum = 0;
            for (int p = 1; p <= 4; p++) sum += pow(sigma[i], 2 - p / 2.0) * pow(sigma[j], (p - 1) / 2.0);
            assert_close(K[i + 4 * j], sum, 1e-14);
        }
    law.lambda = zero; /* what is not balanced has this limit */
    const double small[] = {1e-9, 0, 0};
    intrinsic_metric(&(struct intrinsic_law){INTRINSIC_DEEP, 4, 0, small}, 4, 4, 4, sigma, by_sum, left, right);
    for (int i = 0; i < 16; i++) assert_close(K[i], by_sum[i], 1e-7);
    const double last = K[3 + 4 * 1];
    assert_close(last, pow(0.7, 1.5), 1e-15);
    intrinsic_metric(&(struct intrinsic_law){.kind = INTRINSIC_INFINITE}, 4, 4, 4, sigma, K, left, right);
    assert_close(K[0], 2.25, 1e-15);
    assert_close(K[1 + 4 * 2], 0.49, 1e-9);
    assert_close(K[4], (2.25 - 0.49) / log(2.25 / 0.49), 1e-14);
    assert_true(K[12] == 0 && K[15] == 0 && left[0] == 0);
}

static void test_exists(void **state)
{
    const double lambda = 0.6, none = 0;
    struct intrinsic_law law = {INTRINSIC_TWO_LAYERS, 2, 5, &lambda};
    assert_false(intrinsic_exists(&law, 6, 3));
    assert_true(intrinsic_exists(&law, 5, 3));
    assert_true(intrinsic_exists(&law, 6, 5));
    law.lambda = &none;
    assert_true(intrinsic_exists(&law, 6, 3));
    law = (struct intrinsic_law){INTRINSIC_DEEP, 2, 0, &lambda};
    assert_false(intrinsic_exists(&law, 3, 4));
}

static void test_modes(void **state)
{
    static const double lambdas[] = {0, 0.01, 0.5, -0.5, 4};
    static const double expected[] = {0.534601241530, 0.535439916376, 0.928557101919, 0.928557101919, 1.291551121874};
    for (int i = 0; i < 5; i++) assert_close(intrinsic_mode(1.3, 0.05, lambdas[i], 1.1), expected[i], 1e-11);
    assert_close(intrinsic_mode(-1.3, -0.05, 0.5, 1.1), -0.928557101919, 1e-11);
    assert_close(intrinsic_mode(1.3, 0.05, 4, 500), 1.3, 1e-13);
    assert_close(intrinsic_mode(1.3, 1.3, 4, 5), 1.3, 1e-13);
    assert_close(intrinsic_mode_infinite(1.2, 0.3, 2), 0.568117785015, 1e-11);
    assert_close(intrinsic_mode_infinite(1.2, 0.3, 0), 0.3, 0);
    assert_close(intrinsic_mode_infinite(1.2, 1.5, 300), 1.2, 1e-12);
}

static void test_neuron(void **state)
{
    static const double deltas[] = {-4, -2, -1, 0, 1, 2, 4};
    static const double expected[] = {3.475323745, 1.689498392, 1.129153409, 0.761594156,
                                      0.530329757, 0.385818596, 0.233222935};
    for (int i = 0; i < 7; i++) assert_close(intrinsic_neuron(1, deltas[i], 0, 1), expected[i], 1e-9);
    const double nu = intrinsic_neuron(1, 1, 3, 0.2), on = intrinsic_neuron(1, 1, 3, 0.2 + 1e-6);
    assert_close((on - nu) / 1e-6, 1 - nu - nu * nu, 1e-5); /* beyond the range of tanh */
}

/* Loss and norms at t = 1.7. */
static void test_matrix_solution(void **state)
{
    static const struct {
        int n_out, n_in, h;
        double lambda, loss, first, second;
    } cases[] = {{3, 3, 3, 0, 0.5903899440, 4.921280747, 4.921280747},
                 {3, 3, 3, -2, 1.276294285e-4, 9.830498490, 3.830498490},
                 {3, 3, 3, 2, 1.276294285e-4, 3.830498490, 9.830498490},
                 {5, 3, 5, 1, 9.468067455e-4, 5.645274154, 10.645274154},
                 {4, 6, 6, -1.2, 1.487472637e-3, 14.11085092, 6.910850919},
                 {3, 5, 3, 0, 0.3248606944, 6.111195341, 6.111195341}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int n_out = cases[c].n_out, n_in = cases[c].n_in, h = cases[c].h, n = n_in + n_out;
        struct small W[2], sigma = ref_unit(14, n_out, n_in);
        double Q[10 * 6], first = 0, second = 0, loss = 0;
        relaxed(11, 0.6, n_out, n_in, h, cases[c].lambda, W);
        for (int j = 0; j < h; j++)
            for (int i = 0; i < n; i++) Q[i + n * j] = i < n_in ? W[0].at[j + i * h] : W[1].at[i - n_in + j * n_out];
        intrinsic_matrix_solution(n_in, n_out, h, cases[c].lambda, sigma.at, 1.7, Q);
        for (int j = 0; j < h; j++)
            for (int i = 0; i < n; i++) *(i < n_in ? &first : &second) += Q[i + n * j] * Q[i + n * j];
        for (int i = 0; i < n_out; i++)
            for (int j = 0; j < n_in; j++) {
                double error = -sigma.at[i + j * n_out];
                for (int k = 0; k < h; k++) error += Q[n_in + i + n * k] * Q[j + n * k];
                loss += error * error / 2;
            }
        assert_close(loss, cases[c].loss, 1e-10);
        assert_close(first, cases[c].first, 1e-8);
        assert_close(second, cases[c].second, 1e-8);
    }
}

static const struct CMUnitTest intrinsic[] = {
    cmocka_unit_test(test_metric),
    cmocka_unit_test(test_exists),
    cmocka_unit_test(test_modes),
    cmocka_unit_test(test_neuron),
    cmocka_unit_test(test_matrix_solution),
    cmocka_unit_test(test_two_layers),
    cmocka_unit_test(test_deep),
    cmocka_unit_test(test_thin),
    cmocka_unit_test(test_against_closed),
    cmocka_unit_test(test_unit_and_chain),
    cmocka_unit_test(test_infinite),
};

UNIT_MAIN(intrinsic, krylov_start, krylov_end)
