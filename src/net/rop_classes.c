/* rop_classes: backward passes that begin with the columns of a square root of the outputs' curvature B = ∂²ℓ/∂f²:
 *     cross-entropy  √π_c (e_c − π)      logistic  √(ŷ_c (1 − ŷ_c)) e_c      mse  e_c      masked mse  M_c e_c
 *     exponential  √e^{−σ_c f_c} e_c */
#include "net/rop_classes.h"

#include "base/error.h"
#include "base/memory.h"

#include "rop_private.h"
#include "sweep_private.h"

#include <math.h>
#include <string.h>

/* Below this the square root is no longer worth anything. */
static const double SMALLEST_SHARE = 1e-300;

static inline double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

/* ---------------------------------------------------------------- the start at the outputs */

/* P ← the softmax of the columns of F. */
static void softmax(const struct dmat *F, struct dmat *P)
{
    double *largest = NEW(double, 2 * F->nloc), *total = largest + F->nloc;
    for (int j = 0; j < F->nloc; j++) {
        largest[j] = -INFINITY;
        for (int i = 0; i < F->mloc; i++) largest[j] = fmax(largest[j], column(F, j)[i]);
    }
    MPI_Allreduce(MPI_IN_PLACE, largest, F->nloc, MPI_DOUBLE, MPI_MAX, F->grid->col_comm);
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) total[j] += column(P, j)[i] = exp(column(F, j)[i] - largest[j]);
    MPI_Allreduce(MPI_IN_PLACE, total, F->nloc, MPI_DOUBLE, MPI_SUM, F->grid->col_comm);
    for (int j = 0; j < F->nloc; j++)
        for (int i = 0; i < F->mloc; i++) column(P, j)[i] /= total[j];
    memory_free(largest);
}

/* P ← e^{−σ f}. */
static void exponential(const struct dmat *F, const struct dmat *Y, struct dmat *P)
{
    for (int j = 0; j < P->nloc; j++)
        for (int i = 0; i < P->mloc; i++)
            column(P, j)[i] = exp(column(Y, j)[i] > 0 ? -column(F, j)[i] : column(F, j)[i]);
}

/* The weight of every output: π, ŷ (1 − ŷ), e^{−σ f}, M², or 1. The caller owns it. */
static struct dmat *output_weights(const struct rop *r)
{
    const struct dmat *F = r->pass.F;
    struct dmat *P = dmat_create(F->grid, F->m, F->n);
    if (r->loss.kind == LOSS_CROSS_ENTROPY) {
        softmax(F, P);
        return P;
    }
    if (r->loss.kind == LOSS_EXPONENTIAL) {
        struct dmat *Y = dmat_columns(r->set->Y, r->pass.j0, r->pass.j1);
        exponential(F, Y, P);
        dmat_destroy(&Y);
        return P;
    }
    dmat_fill(P, 1);
    struct dmat *M = r->set->M ? dmat_columns(r->set->M, r->pass.j0, r->pass.j1) : NULL;
    for (int j = 0; j < P->nloc; j++)
        for (int i = 0; i < P->mloc; i++) {
            const double small = exp(-fabs(column(F, j)[i]));
            if (r->loss.kind == LOSS_LOGISTIC) column(P, j)[i] = small / ((1 + small) * (1 + small));
            if (M) column(P, j)[i] = column(M, j)[i] * column(M, j)[i];
        }
    dmat_destroy(&M);
    return P;
}

/* E_L ← α times column c of the square root, for every sample. */
static void begin_output(struct rop *r, const struct dmat *P, int64_t c)
{
    struct dmat *E = r->pass.Ra[r->depth];
    const struct grid *grid = E->grid;
    const bool softened = r->loss.kind == LOSS_CROSS_ENTROPY;
    const int owner = grid_owner(c, P->mb, grid->nprow);
    for (int j = 0; grid->myrow == owner && j < P->nloc; j++)
        r->share[j] = column(P, j)[grid_local(c, P->mb, grid->nprow)];
    MPI_Bcast(r->share, P->nloc, MPI_DOUBLE, owner, grid->col_comm);
    for (int j = 0; j < E->nloc; j++) {
        const double root = r->share[j] < SMALLEST_SHARE ? 0 : r->model->output_scale * sqrt(r->share[j]);
        for (int i = 0; i < E->mloc; i++) {
            const double unit = dmat_row(E, i) == c;
            column(E, j)[i] = root * (softened ? unit - column(P, j)[i] : unit);
        }
    }
}

/* ---------------------------------------------------------------- the way back */

/* What a backward pass is for: both may be NULL. */
struct harvest {
    struct params *sum; /* ← Σ_j of the vectors of all columns j */
    double **input;     /* [L + 1] ‖a_{l−1,j}‖² of the local columns */
    double squares;     /* += this process column's part of Σ_j of their squared lengths */
};

static void take(struct rop *r, int l, const struct dmat *RD, struct harvest *harvest)
{
    const struct layer *layer = &r->model->layer[l - 1];
    struct params *sum = harvest->sum;
    if (!layer->trainable) return;
    rop_column_squares(RD, r->share);
    for (int j = 0; j < RD->nloc; j++) harvest->squares += r->share[j] * (harvest->input[l][j] + layer->bias);
    if (!sum) return;
    sweep_weight_product(RD, r->pass.a[l - 1], r->pass.j0, false, sum->W[l - 1]);
    if (layer->bias) sweep_add_row_sums(RD, sum->b[l - 1], r->work);
}

/* From E_L, which stands in R a_L. */
static void pull_back(struct rop *r, struct harvest *harvest)
{
    const struct rop_pass *pass = &r->pass;
    const int lowest = sweep_lowest_trainable(r->model);
    if (harvest->sum) memset(harvest->sum->local, 0, (size_t)harvest->sum->size * sizeof(double));
    for (int l = r->depth; l >= lowest; l--) {
        const struct dmat *E = pass->Ra[l], *slope = pass->slope[l];
        const struct dmat *D = slope ? pass->Rz[l] : E;
        if (slope) activation_pull((int64_t)E->lld * E->nloc, 1, slope->local, E->local, D->local);
        take(r, l, D, harvest);
        if (l == lowest) break;
        dmat_gemm('T', 'N', 1, r->model->params->W[l - 1], D, 0, pass->Ra[l - 1]);
        rop_add_skipped(r, l);
    }
}

static double **input_squares(const struct rop *r)
{
    double **input = NEW(double *, r->depth + 1);
    for (int l = 1; l <= r->depth; l++) {
        const struct dmat *a = r->pass.a[l - 1];
        input[l] = NEW(double, r->pass.F->nloc);
        if (a) rop_column_squares(a, input[l]);
        for (int j = 0; !a && j < r->pass.F->nloc; j++) input[l][j] = 1; /* of an identity */
    }
    return input;
}

static void free_inputs(double **input, int depth)
{
    for (int l = 1; l <= depth; l++) memory_free(input[l]);
    memory_free(input);
}

/* Over all samples and outputs c: pulls √q times column c of the output's weights back to the parameters. Adds `factor`
 * times the sum over samples to delta[nloc × C], if there is a work space for it (else NULL); returns the squares of
 * what each sample gives, this process column's part. */
static double pull_back_outputs(struct rop *r, struct params *work, double factor, double *delta)
{
    struct harvest harvest = {.sum = work};
    for (int64_t j0 = -1; rop_next(r, &j0);) {
        rop_fill(r, j0);
        struct dmat *P = output_weights(r);
        harvest.input = input_squares(r);
        for (int64_t c = 0; c < P->m; c++) {
            begin_output(r, P, c);
            pull_back(r, &harvest);
            for (int64_t i = 0; work && i < work->size; i++) delta[c * work->size + i] += factor * work->local[i];
        }
        free_inputs(harvest.input, r->depth);
        dmat_destroy(&P);
    }
    return harvest.squares;
}

double rop_trace_ggn(struct rop *r)
{
    if (r->loss.kind == LOSS_SENSING) return NAN;
    double squares = pull_back_outputs(r, NULL, 0, NULL);
    MPI_Allreduce(MPI_IN_PLACE, &squares, 1, MPI_DOUBLE, MPI_SUM, r->model->grid->row_comm);
    return squares * loss_scale_on(&r->loss, r->set);
}

/* ---------------------------------------------------------------- class by class */

/* The classes of all samples, on every rank; owned by the caller. */
static double *class_of_samples(const struct dmat *Y)
{
    double *class = NEW(double, Y->n);
    for (int j = 0; j < Y->nloc; j++)
        for (int i = 0; i < Y->mloc; i++) class[dmat_col(Y, j)] += column(Y, j)[i] * (double)dmat_row(Y, i);
    grid_sum(Y->grid, class, to_int(Y->n));
    return class;
}

/* These samples as a dataset of their own. */
static struct dataset *samples_of(const struct dataset *all, const int64_t *columns, int64_t count)
{
    const struct grid *grid = all->Y->grid;
    struct dataset *set = NEW(struct dataset, 1);
    *set = (struct dataset){.X = dmat_create(grid, all->features, count),
                            .Y = dmat_create(grid, all->outputs, count),
                            .features = all->features,
                            .outputs = all->outputs,
                            .samples = count,
                            .classification = true};
    dmat_take_columns(all->Y, columns, set->Y);
    if (all->X) dmat_take_columns(all->X, columns, set->X);
    for (int j = 0; !all->X && j < set->X->nloc; j++)
        for (int i = 0; i < set->X->mloc; i++)
            column(set->X, j)[i] = dmat_row(set->X, i) == columns[dmat_col(set->X, j)];
    return set;
}

struct class_sums *class_sums_create(struct rop *r, const struct model *model, const struct dataset *dataset)
{
    ensure(r->loss.kind == LOSS_CROSS_ENTROPY && dataset->classification && dataset->Y->n == dataset->samples);
    const int64_t C = dataset->outputs, N = dataset->samples;
    const double q = (double)N * loss_scale_on(&r->loss, dataset);
    struct params *work = params_create(model);
    struct class_sums *s = NEW(struct class_sums, 1);
    *s = (struct class_sums){.classes = to_int(C), .nloc = to_int(work->size)};
    s->share = NEW(double, C);
    s->delta = NEW(double, work->size *C *C);
    double *class = class_of_samples(dataset->Y);
    int64_t *columns = NEW(int64_t, N);
    for (int64_t c = 0; c < C; c++) {
        int64_t count = 0;
        for (int64_t j = 0; j < N; j++)
            if (class[j] == (double)c) columns[count++] = j;
        s->share[c] = (double)count / (double)N;
        if (count == 0) continue;
        struct dataset *set = samples_of(dataset, columns, count);
        rop_set(r, model, set);
        s->trace += pull_back_outputs(r, work, sqrt(q) / (double)count, s->delta + c * C * work->size);
        dataset_destroy(&set);
    }
    MPI_Allreduce(MPI_IN_PLACE, &s->trace, 1, MPI_DOUBLE, MPI_SUM, model->grid->row_comm);
    s->trace *= q / (double)N;
    memory_free(columns);
    memory_free(class);
    params_destroy(&work);
    return s;
}

void class_sums_destroy(struct class_sums **sums)
{
    struct class_sums *s = *sums;
    if (!s) return;
    memory_free(s->share);
    memory_free(s->delta);
    memory_free(s);
    *sums = NULL;
}
