/* ranks: 1 2 4 6 */
/* The law of parsimony on networks that are trained here, by the definition of gradient descent and nothing else:
 * blocks, scalars and what is left over are those of the theorem. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "grids.h"
#include "theory/parsimony.h"
#include "unit.h"

#include <math.h>
#include <string.h>

enum { L = 3, R = 3 };
static const int64_t D = 30;

/* A deep linear network with the loss 1/(2s) ‖W_3 W_2 W_1 − Φ‖². */
struct net {
    const struct grid *grid;
    struct dmat *W[L], *W0[L], *V[L], *target;
    double scale; /* 1/s */
};

static struct dmat *orthonormal(const struct grid *grid, int64_t m, int64_t n, uint64_t stream)
{
    struct dmat *Q = dmat_create(grid, m, n);
    random_fill_normal(Q, 5, stream);
    if (m >= n)
        factor_orthonormal(Q);
    else
        factor_orthonormal_rows(Q);
    return Q;
}

static struct dmat *product(char ta, char tb, const struct dmat *A, const struct dmat *B)
{
    struct dmat *C = dmat_create(A->grid, ta == 'N' ? A->m : A->n, tb == 'N' ? B->n : B->m);
    dmat_gemm(ta, tb, 1, A, B, 0, C);
    return C;
}

static struct net net_create(const struct grid *grid, int64_t outputs, const double *epsilon)
{
    struct net net = {.grid = grid};
    for (int l = 0; l < L; l++) {
        const int64_t m = l == L - 1 ? outputs : D;
        net.W[l] = orthonormal(grid, m, D, 10 + (uint64_t)l);
        dmat_scale(net.W[l], epsilon[l]);
        net.W0[l] = dmat_create(grid, m, D);
        net.V[l] = dmat_create(grid, m, D);
        dmat_copy(net.W0[l], net.W[l]);
    }
    struct dmat *U = orthonormal(grid, outputs, R, 20), *V = orthonormal(grid, D, R, 21);
    for (int jl = 0; jl < U->nloc; jl++)
        for (int il = 0; il < U->mloc; il++) U->local[il + jl * U->lld] *= 9 - 2 * (double)dmat_col(U, jl);
    net.target = product('N', 'T', U, V);
    net.scale = 1 / (double)(outputs * D);
    dmat_destroy(&U);
    dmat_destroy(&V);
    return net;
}

static void net_clear(struct net *net)
{
    for (int l = 0; l < L; l++) {
        dmat_destroy(&net->W[l]);
        dmat_destroy(&net->W0[l]);
        dmat_destroy(&net->V[l]);
    }
    dmat_destroy(&net->target);
}

/* All gradients at the old weights. */
static void gradients(const struct net *net, struct dmat *G[L])
{
    struct dmat *W21 = product('N', 'N', net->W[1], net->W[0]), *W32 = product('N', 'N', net->W[2], net->W[1]);
    struct dmat *error = product('N', 'N', net->W[2], W21);
    dmat_axpy(error, -1, net->target);
    dmat_scale(error, net->scale);
    struct dmat *back = product('T', 'N', net->W[2], error);
    G[0] = product('T', 'N', W32, error);
    G[1] = product('N', 'T', back, net->W[0]);
    G[2] = product('N', 'T', error, W21);
    dmat_destroy(&back);
    dmat_destroy(&error);
    dmat_destroy(&W32);
    dmat_destroy(&W21);
}

static void net_step(struct net *net, double lr, double decay, double momentum)
{
    struct dmat *G[L];
    gradients(net, G);
    for (int l = 0; l < L; l++) {
        dmat_scale(net->V[l], momentum);
        dmat_axpy(net->V[l], 1, G[l]);
        dmat_scale(net->W[l], 1 - lr * decay);
        dmat_axpy(net->W[l], -lr, net->V[l]);
        dmat_destroy(&G[l]);
    }
}

static struct parsimony *subspaces(const struct net *net, enum parsimony_case kind)
{
    struct problems problems = {0};
    struct dmat *G[L] = {NULL};
    gradients(net, G);
    struct parsimony *p = parsimony_create(kind, (const struct dmat *const *)net->W, L,
                                           kind == PARSIMONY_GRADIENT ? G[0] : net->target, R, 1, &problems);
    for (int l = 0; l < L; l++) dmat_destroy(&G[l]);
    problems_print(&problems);
    assert_non_null(p);
    assert_int_equal(p->q, 2 * R);
    assert_true(p->singular[0] < 1.5 && p->singular[2 * R - 1] > 0.3);
    for (int l = 0; l <= p->blocks; l++) assert_close(dmat_orthogonality(p->V[l], 1), 0, 1e-12);
    return p;
}

/* ‖A Aᵀ − B Bᵀ‖ of orthonormal columns. */
static double distance(const struct dmat *A, const struct dmat *B)
{
    struct dmat *P = product('N', 'T', A, A);
    dmat_gemm('N', 'T', -1, B, B, 1, P);
    const double norm = dmat_norm(P);
    dmat_destroy(&P);
    return norm;
}

/* Trains and compares at every step; returns the last ρ of layer 1. */
static double follow(struct net *net, struct parsimony *p, int steps, double lr, double decay, double momentum)
{
    struct rho *rho = rho_create(p, net->scale);
    for (int t = 0; t <= steps; t++) {
        for (int l = 1; l <= p->blocks; l++) {
            const struct parsimony_rest rest = parsimony_rest(p, l, net->W[l - 1], net->W0[l - 1], rho->value[l - 1]);
            assert_close(rest.rho, rho->value[l - 1], 1e-12);
            assert_close(rest.residual, 0, 1e-12);
            assert_close(rest.off, 0, 1e-11);
        }
        if (p->kind == PARSIMONY_OUTPUTS) assert_close(parsimony_leak(p, net->W[L - 1]), 0, 1e-12);
        if (t == steps) break;
        net_step(net, lr, decay, momentum);
        rho_step(rho, lr, NULL, decay, momentum);
    }
    const double last = rho->value[0];
    rho_destroy(&rho);
    return last;
}

/* The published experiment, and the sequences that the specification derives: they depend on no draw. */
static void square_on(struct grid *grid)
{
    static const struct {
        int steps;
        double decay, momentum, rho;
    } runs[] = {{50, 0, 0, 0.950961122110}, {60, 1e-3, 0, NAN}, {50, 0, 0.9, 0.735958871806}};
    const double one[L] = {1, 1, 1}, unequal[L] = {0.5, 1.25, 0.8};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct net net = net_create(grid, D, i == 1 ? unequal : one);
        struct parsimony *p = subspaces(&net, PARSIMONY_SQUARE), *again = subspaces(&net, PARSIMONY_GRADIENT);
        assert_close(distance(p->V[0], again->V[0]), 0, 1e-10);
        for (int l = 0; i == 1 && l < L; l++) assert_close(p->epsilon[l], unequal[l], 1e-14);
        const double rho = follow(&net, p, runs[i].steps, 1, runs[i].decay, runs[i].momentum);
        if (!isnan(runs[i].rho)) assert_close(rho, runs[i].rho, 1e-10);
        parsimony_destroy(&again);
        parsimony_destroy(&p);
        net_clear(&net);
    }
}

static void square_networks(void **state)
{
    (void)state;
    on_every_grid(square_on);
}

static void outputs_on(struct grid *grid)
{
    const double epsilon[L] = {1, 0.7, 1.1};
    struct net net = net_create(grid, R, epsilon);
    struct parsimony *p = subspaces(&net, PARSIMONY_OUTPUTS);
    assert_int_equal(p->blocks, L - 1);
    const double rho = follow(&net, p, 40, 0.5, 1e-2, 0);
    assert_close(rho, pow(1 - 0.5 * 1e-2, 40), 1e-13);
    parsimony_destroy(&p);
    net_clear(&net);
}

static void few_outputs(void **state)
{
    (void)state;
    on_every_grid(outputs_on);
}

/* The blocks are trained by themselves: the compressed network is the block, started at ε I. */
static void blocks_on(struct grid *grid)
{
    const double epsilon[L] = {1, 1, 1};
    struct net net = net_create(grid, D, epsilon);
    struct parsimony *p = subspaces(&net, PARSIMONY_SQUARE);
    double block[4 * R * R];
    parsimony_block(p, 2, net.W[1], block);
    for (int i = 0; i < p->q; i++)
        for (int j = 0; j < p->q; j++) assert_close(block[i + j * p->q], i == j, 1e-12);
    parsimony_destroy(&p);
    net_clear(&net);
}

static void blocks_at_the_start(void **state)
{
    (void)state;
    on_every_grid(blocks_on);
}

static const struct CMUnitTest tests[] = {
    cmocka_unit_test(square_networks),
    cmocka_unit_test(few_outputs),
    cmocka_unit_test(blocks_at_the_start),
};

UNIT_MAIN(tests, krylov_start, krylov_end)
