/* ranks: 1 2 4 6 */
/* What neurons with different gates exchange (backprop_gate_rates): its sum over the samples against what weights and
 * gradients say, W_{l+1}ᵀ G_{l+1} − G_l W_lᵀ − g_l b_lᵀ; for ReLU with no diagonal. */
#include "net/backprop.h"
#include "grids.h"
#include "products.h"

/* The same from the gradients. */
static struct dmat *by_gradient(const struct problem *p, const struct params *gradient, int l)
{
    const struct params *w = p->model->params;
    const int64_t n = p->model->width[l];
    struct dmat *M = dmat_create(p->model->grid, n, n);

    dmat_gemm('T', 'N', 1, w->W[l], gradient->W[l], 0, M);
    dmat_gemm('N', 'T', -1, gradient->W[l - 1], w->W[l - 1], 1, M);
    dmat_gemm('N', 'T', -1, gradient->b[l - 1], w->b[l - 1], 1, M);
    return M;
}

static double largest_on_diagonal(const struct dmat *A)
{
    double largest = 0;

    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            if (dmat_row(A, il) == dmat_col(A, jl)) largest = fmax(largest, fabs(A->local[il + (int64_t)jl * A->lld]));
    MPI_Allreduce(MPI_IN_PLACE, &largest, 1, MPI_DOUBLE, MPI_MAX, A->grid->comm);
    return largest;
}

static void check_rates(const struct grid *grid, const char *activation, const char *loss, int64_t chunk, bool both)
{
    struct problem p = curv_ref(grid, activation, loss);
    struct backprop *backprop = backprop_create(p.model, &p.loss, 24, chunk);
    struct params *gradient = params_create(p.model);
    struct dmat *rate[3] = {both ? dmat_create(grid, 5, 5) : NULL, dmat_create(grid, 4, 4), NULL};
    const bool kinked = strcmp(activation, "gelu") != 0;

    backprop_gradient(backprop, p.model, p.data, gradient);
    for (int twice = 0; twice < 2; twice++) backprop_gate_rates(backprop, p.model, p.data, rate);
    for (int k = both ? 0 : 1; k < 2; k++) {
        struct dmat *M = by_gradient(&p, gradient, k + 1);
        if (kinked) assert_close(largest_on_diagonal(rate[k]), 0, 1e-15);
        assert_true(largest_on_diagonal(rate[k]) > 1e-6 || kinked);
        assert_true(dmat_norm(M) > 1e-3);
        dmat_axpy(M, -1, rate[k]);
        /* rounding of the products that M is a difference of */
        assert_close(dmat_largest(M), 0, 1e-15 * dmat_norm(p.model->params->W[k + 1]) * dmat_norm(gradient->W[k + 1]));
        dmat_destroy(&M);
    }
    dmat_destroy(&rate[0]);
    dmat_destroy(&rate[1]);
    params_destroy(&gradient);
    backprop_destroy(&backprop);
    problem_destroy(&p);
}

static void rates_on(struct grid *grid)
{
    check_rates(grid, "relu", "cross_entropy", 0, true);
    check_rates(grid, "leaky_relu", "mse", 7, true);
    check_rates(grid, "gelu", "mse", 5, true);
    check_rates(grid, "relu", "mse", 10, false);
}

static void gate_rates(void **state)
{
    (void)state;
    on_every_grid(rates_on);
}

static const struct CMUnitTest balance[] = {cmocka_unit_test(gate_rates)};

UNIT_MAIN(balance, NULL, NULL)
