/* invariant_full: what the law of parsimony says of whole spectra: how many singular values equal ρ, how the singular
 * vectors turn (the paper's figure), and whether those that move span the predicted subspace. Costs a full SVD of every
 * layer. */
#include "invariant_private.h"

#include "base/memory.h"
#include "dist/factor.h"

#include <math.h>
#include <stdio.h>

static const double EQUAL = 1e-10, MOVED = 1e-6; /* distances of a singular value from ρ */

struct full {
    int layers, width, rank; /* d, r */
    struct dmat **left,
        **right; /* [layers] d × d, singular vectors (columns) at the first step after the start; owned */
    int q_value, q_count, q_left, q_right, q_moving; /* in the record */
};

static int quantity(struct record_group *g, const char *name, const char *units, const char *long_name,
                    const char *formula, bool values, bool integer)
{
    return record_quantity(g, &(struct quantity){.name = name,
                                                 .units = units,
                                                 .long_name = long_name,
                                                 .formula = formula,
                                                 .reference = "arXiv 2306.01154, figure 1",
                                                 .integer = integer,
                                                 .dims = {"layer", values ? "value" : NULL}});
}

struct full *full_create(struct record_group *group, int layers, int64_t width, int rank)
{
    struct full *f = NEW(struct full, 1);
    f->layers = layers;
    f->width = to_int(width);
    f->rank = rank;
    f->left = NEW(struct dmat *, layers);
    f->right = NEW(struct dmat *, layers);
    record_dimension(group, "value", width, "singular value, 1 is the largest");
    f->q_value = quantity(group, "singular_value", "1", "singular value", "sigma_i(W_l)", true, false);
    f->q_count = quantity(group, "multiplicity", "1", "singular values that equal rho",
                          "count of |sigma_i - rho| < 1e-10", false, true);
    f->q_left =
        quantity(group, "angle_left", "rad", "turn of the left singular vectors since the first step",
                 "arccos |<u_i, u_i(1)>|; between the r-th from either end: the largest principal angle", true, false);
    f->q_right =
        quantity(group, "angle_right", "rad", "turn of the right singular vectors since the first step",
                 "arccos |<v_i, v_i(1)>|; between the r-th from either end: the largest principal angle", true, false);
    f->q_moving =
        quantity(group, "angle_moving", "rad",
                 "angle between the predicted moving subspace and the right singular vectors that move",
                 "largest principal angle; NaN unless as many values as predicted differ from rho", false, false);
    return f;
}

void full_destroy(struct full **full)
{
    struct full *f = *full;
    if (!f) return;
    for (int l = 0; l < f->layers; l++) {
        dmat_destroy(&f->left[l]);
        dmat_destroy(&f->right[l]);
    }
    memory_free(f->left);
    memory_free(f->right);
    memory_free(f);
    *full = NULL;
}

void full_archive(struct full *f, const struct model *model, struct archive *archive)
{
    for (int l = 0; l < f->layers; l++) {
        const struct dmat *W = model->params->W[l];
        char name[32];
        snprintf(name, sizeof name, "reference_%d", l + 1);
        archive_enter(archive, name);
        const bool there = archive_flag(archive, "there", f->left[l] != NULL);
        if (!there) dmat_destroy(&f->left[l]);
        if (!there) dmat_destroy(&f->right[l]);
        if (there && !f->left[l]) f->left[l] = dmat_create(W->grid, W->m, W->m);
        if (there && !f->right[l]) f->right[l] = dmat_create(W->grid, W->n, W->n);
        if (there) archive_matrix(archive, "left", f->left[l]);
        if (there) archive_matrix(archive, "right", f->right[l]);
        archive_leave(archive);
    }
}

/* The columns of V that are listed. */
static struct dmat *columns_of(const struct dmat *V, const int64_t *column, int count)
{
    struct dmat *part = dmat_create(V->grid, V->m, count);
    dmat_take_columns(V, column, part);
    return part;
}

/* Largest principal angle between the spans of orthonormal columns A and B, from its sine: accurate near 0. */
static double largest_angle(const struct dmat *A, const struct dmat *B)
{
    struct dmat *overlap = dmat_create(A->grid, A->n, B->n), *rest = dmat_create(B->grid, B->m, B->n);
    const int count = to_int(B->m < B->n ? B->m : B->n);
    double *sine = NEW(double, count);
    dmat_gemm('T', 'N', 1, A, B, 0, overlap);
    dmat_copy(rest, B);
    dmat_gemm('N', 'N', -1, A, overlap, 1, rest);
    factor_singular_values(&(const struct dmat *){rest}, 1, sine, count);
    const double angle = asin(fmin(1, sine[0]));
    memory_free(sine);
    dmat_destroy(&rest);
    dmat_destroy(&overlap);
    return angle;
}

/* Columns 0 … r − 1 and d − r … d − 1. */
static struct dmat *outer_columns(const struct full *f, const struct dmat *V)
{
    int64_t *column = NEW(int64_t, 2 * f->rank);
    for (int i = 0; i < f->rank; i++) {
        column[i] = i;
        column[f->rank + i] = f->width - f->rank + i;
    }
    struct dmat *outer = columns_of(V, column, 2 * f->rank);
    memory_free(column);
    return outer;
}

/* The angles of the paper's figure. The middle spaces turn as their complements do, which have only 2r dimensions. */
static void put_angles(const struct full *f, struct record_group *group, int quantity, int l, const struct dmat *V,
                       const struct dmat *reference)
{
    double *dot = NEW(double, f->width);
    for (int jl = 0; jl < V->nloc; jl++)
        for (int il = 0; il < V->mloc; il++)
            dot[dmat_col(V, jl)] += V->local[il + (int64_t)jl * V->lld] * reference->local[il + (int64_t)jl * V->lld];
    grid_sum(V->grid, dot, f->width);
    struct dmat *now = outer_columns(f, V), *then = outer_columns(f, reference);
    const double middle = largest_angle(then, now);
    for (int i = 0; i < f->width; i++) {
        const bool outer = i < f->rank || i >= f->width - f->rank;
        record_put_at(group, quantity, (int64_t)(l - 1) * f->width + i, outer ? acos(fmin(1, fabs(dot[i]))) : middle);
    }
    dmat_destroy(&then);
    dmat_destroy(&now);
    memory_free(dot);
}

/* At the start all singular values are equal: their vectors mean nothing. */
static void put_no_angles(const struct full *f, struct record_group *group, int l)
{
    for (int i = 0; i < f->width; i++) {
        record_put_at(group, f->q_left, (int64_t)(l - 1) * f->width + i, 0);
        record_put_at(group, f->q_right, (int64_t)(l - 1) * f->width + i, 0);
    }
}

static double moving_angle(const struct full *f, const double *sigma, double rho, const struct dmat *V,
                           const struct dmat *predicted)
{
    int64_t *moved = NEW(int64_t, f->width);
    int count = 0;
    double angle = NAN;
    for (int i = 0; i < f->width; i++)
        if (fabs(sigma[i] - rho) > MOVED) moved[count++] = i;
    if (count > 0 && count == predicted->n) {
        struct dmat *span = columns_of(V, moved, count);
        angle = largest_angle(predicted, span);
        dmat_destroy(&span);
    }
    memory_free(moved);
    return angle;
}

int full_measure(struct full *f, struct record_group *group, int l, const struct dmat *W, int64_t step, double rho,
                 const struct dmat *predicted)
{
    const int d = f->width;
    struct dmat *U = dmat_create(W->grid, d, d), *Vt = dmat_create(W->grid, d, d), *V = dmat_create(W->grid, d, d);
    double *sigma = NEW(double, d);
    int count = 0;
    factor_svd(W, U, sigma, Vt);
    dmat_transpose(Vt, V);
    for (int i = 0; i < d; i++) {
        record_put_at(group, f->q_value, (int64_t)(l - 1) * d + i, sigma[i]);
        count += fabs(sigma[i] - rho) < EQUAL;
    }
    record_put_int_at(group, f->q_count, l - 1, count);
    if (step > 0) record_put_at(group, f->q_moving, l - 1, moving_angle(f, sigma, rho, V, predicted));
    if (step > 0 && f->left[l - 1]) {
        put_angles(f, group, f->q_left, l, U, f->left[l - 1]);
        put_angles(f, group, f->q_right, l, V, f->right[l - 1]);
    } else {
        put_no_angles(f, group, l);
    }
    if (step > 0 && !f->left[l - 1]) {
        f->left[l - 1] = U;
        f->right[l - 1] = V;
        U = V = NULL;
    }
    dmat_destroy(&V);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
    memory_free(sigma);
    return count;
}
