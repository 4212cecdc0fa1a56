/* reduction: what a compressed run says of the large network. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"

#include "reduction_private.h"

#include <math.h>
#include <stdio.h>

static const char reference[] = "arXiv 2306.01154 and 2311.05061, compressed network";
static const double SAME_VALUE = 1e-10; /* singular values that are counted as ρ */

/* ---------------------------------------------------------------- series */

static int quantity(struct record_group *g, const char *name, const char *long_name, const char *formula,
                    const char *first, const char *second)
{
    return record_number(g, name, first, second, long_name, formula, reference);
}

static int count(struct record_group *g, const char *name, const char *long_name, const char *dimension)
{
    return record_quantity(
        g,
        &(struct quantity){.name = name, .units = "1", .integer = true, .long_name = long_name, .dims = {dimension}});
}

void reduction_declare(struct reduction *r, struct record *record)
{
    struct record_group *g = r->group =
        record_group(record, "compressed", "step", "the large network, by the law of parsimony");
    record_group_text(g, "kind", "parametrization");
    record_group_text(g, "case", r->law->kind == PARSIMONY_SQUARE ? "square" : "outputs");
    record_dimension(g, "layer", r->large->depth, "layer, 1 is the first");
    record_dimension(g, "seam", r->large->depth > 1 ? r->large->depth - 1 : 1, "between layer l and l + 1");
    record_dimension(g, "index", r->law->q, "singular value, 1 is the largest");
    r->q_loss = quantity(g, "loss_comp", "loss of the small network", "loss - alpha^2 (d - q) prod_l rho_l^2 / (2s)",
                         NULL, NULL);
    r->q_gap =
        quantity(g, "comp_gap_sq", "squared distance of the end-to-end matrices of the large and the small network",
                 "(d - q) prod_l rho_l^2", NULL, NULL);
    r->q_rho = quantity(g, "rho", "scalar of the layer on the invariant complement; 0 where there is none",
                        "rho <- (1 - eta lambda) rho - (eta/s) rho_l prod_(k != l) rho_k^2", "layer", NULL);
    r->q_copies = count(g, "rho_multiplicity", "singular values of the layer within 1e-10 of rho", "layer");
    r->q_value = quantity(g, "block_singular_value", "singular values of the layer beside the d - q copies of rho",
                          "sigma_i(U_1^T W_l V_1)", "layer", "index");
    r->q_product = quantity(g, "product_singular_value",
                            "singular values of the end-to-end matrix beside the d - q copies of product_rho",
                            "sigma_i(W_L ... W_1)", "index", NULL);
    r->q_rest =
        quantity(g, "product_rho", "the other singular values of the end-to-end matrix", "prod_l rho_l", NULL, NULL);
    r->q_balance = quantity(g, "balancedness", "how unbalanced neighbouring layers are",
                            "|W_l W_l^T - W_(l+1)^T W_(l+1)|_F", "seam", NULL);
    r->q_order = count(g, "block_dim", "order q of the blocks", NULL);
}

/* ---------------------------------------------------------------- a row */

/* W_L … W_1 of the small network; the caller owns it. */
static struct dmat *product_of(const struct model *model)
{
    struct dmat *P = dmat_create(model->grid, model->width[1], model->width[0]);
    dmat_copy(P, model->params->W[0]);
    for (int l = 2; l <= model->depth; l++) {
        struct dmat *next = dmat_create(model->grid, model->width[l], P->n);
        dmat_gemm('N', 'N', 1, model->params->W[l - 1], P, 0, next);
        dmat_destroy(&P);
        P = next;
    }
    return P;
}

/* In the bases W_l W_lᵀ and W_{l+1}ᵀ W_{l+1} have blocks of order q, and scalars beside them. */
static double balancedness(const struct reduction *r, const struct model *model, int l)
{
    const struct dmat *W = model->params->W[l - 1], *next = model->params->W[l];
    struct dmat *D = dmat_create(model->grid, W->m, W->m);
    dmat_gemm('N', 'T', 1, W, W, 0, D);
    dmat_gemm('T', 'N', -1, next, next, 1, D);
    const double here = scalars_rho(r->scalars, l), there = scalars_rho(r->scalars, l + 1);
    const double apart = here * here - there * there, square = dmat_dot(D, D);
    dmat_destroy(&D);
    return sqrt(square + (double)scalars_order(r->scalars) * apart * apart);
}

static void put_layer(const struct reduction *r, int l, const double *sigma, int values)
{
    const double rho = scalars_rho(r->scalars, l);
    int64_t copies = l <= r->law->blocks ? scalars_order(r->scalars) : 0;
    for (int i = 0; i < values; i++) {
        record_put_at(r->group, r->q_value, (int64_t)(l - 1) * r->law->q + i, sigma[i]);
        if (l <= r->law->blocks && fabs(sigma[i] - rho) <= SAME_VALUE) copies++;
    }
    record_put_at(r->group, r->q_rho, l - 1, rho);
    record_put_int_at(r->group, r->q_copies, l - 1, copies);
}

static int smaller(int64_t m, int64_t n)
{
    return to_int(m < n ? m : n);
}

void reduction_measure(const struct reduction *r, const struct model *model, int64_t step, double time)
{
    const int depth = model->depth, q = r->law->q;
    const struct dmat **matrix = NEW(const struct dmat *, depth + 1);
    double *sigma = NEW(double, (int64_t)(depth + 1) * q), rest = 1;
    struct dmat *P = product_of(model);
    for (int l = 0; l < depth; l++) matrix[l] = model->params->W[l];
    matrix[depth] = P;
    factor_singular_values(matrix, depth + 1, sigma, q);
    record_row(r->group, step, time);
    record_put_at(r->group, r->q_loss, 0, r->small_loss);
    record_put_at(r->group, r->q_gap, 0, scalars_gap(r->scalars));
    for (int l = 1; l <= depth; l++) {
        put_layer(r, l, sigma + (int64_t)(l - 1) * q, smaller(matrix[l - 1]->m, matrix[l - 1]->n));
        rest *= scalars_rho(r->scalars, l);
    }
    for (int i = 0; i < smaller(P->m, P->n); i++)
        record_put_at(r->group, r->q_product, i, sigma[(int64_t)depth * q + i]);
    record_put_at(r->group, r->q_rest, 0, rest);
    for (int l = 1; l < depth; l++) record_put_at(r->group, r->q_balance, l - 1, balancedness(r, model, l));
    record_put_int_at(r->group, r->q_order, 0, q);
    dmat_destroy(&P);
    memory_free(sigma);
    memory_free(matrix);
}

/* ---------------------------------------------------------------- files and words */

void reduction_snapshot(const struct reduction *r, const struct model *model, struct h5 *file)
{
    char path[64];
    h5_group(file, "compressed");
    for (int l = 0; l <= r->law->blocks; l++) {
        snprintf(path, sizeof path, "compressed/V%d", l + 1);
        h5_write_matrix(file, path, NULL, NULL, r->law->V[l],
                        &(struct h5_about){.units = "1", .long_name = "orthonormal basis of the moving subspace"});
    }
    for (int l = 1; l <= model->depth; l++) {
        snprintf(path, sizeof path, "compressed/block%d", l);
        h5_write_matrix(file, path, NULL, NULL, model->params->W[l - 1],
                        &(struct h5_about){.units = "1", .long_name = "block of the weights: V_(l+1)^T W_l V_l"});
        snprintf(path, sizeof path, "rho%d", l);
        h5_attribute_real(file, "compressed", path, scalars_rho(r->scalars, l));
    }
}

void reduction_check(const struct reduction *r, struct record *record)
{
    const double bound = 1e-12;
    record_check(record, "compressed: the bases are orthonormal", reference, r->orthogonality, bound,
                 r->orthogonality <= bound);
    record_check(record, "compressed: the bases hold the target", reference, r->missed, bound, r->missed <= bound);
}

void reduction_summary(const struct reduction *r)
{
    log_say("  compressed: width %lld by layers of order %d; loss of these %.6g, rho_1 %.12g",
            (long long)r->large->width[0], r->law->q, r->small_loss, scalars_rho(r->scalars, 1));
}
