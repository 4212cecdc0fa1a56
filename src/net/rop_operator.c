/* rop_operator: curvature matrices and their blocks as linear operators. */
#include "base/error.h"
#include "base/memory.h"
#include "net/rop.h"

#include "rop_private.h"

#include <string.h>

/* The vectors of one part of the parameters. The elements of a unit are not contiguous in its layer: they go through a
 * copy of the layer with zeros elsewhere. */
struct side {
    struct rop_part part;
    int64_t n;     /* global elements */
    int nloc;      /* local elements */
    int il;        /* local row of the unit, −1 if it is not mine */
    double *layer; /* for a unit: its layer's elements; owned */
};

struct context {
    struct rop *rop; /* borrowed */
    enum rop_kind kind;
    struct side row, col;
    double ridge;
};

static int64_t weights_of(const struct model *model, int l)
{
    return dmat_local_size(model->grid, model->width[l], model->width[l - 1]);
}

static bool has_bias(const struct model *model, const struct rop_part *part, int l)
{
    return model->layer[l - 1].bias && !part->weights_only;
}

/* Global elements of one layer, or of a unit of it, that belong to a part. */
static int64_t layer_elements(const struct model *model, const struct rop_part *part, int l)
{
    return (part->unit >= 0 ? 1 : model->width[l]) * (model->width[l - 1] + has_bias(model, part, l));
}

static struct side side_create(const struct model *model, struct rop_part part)
{
    const struct grid *grid = model->grid;
    const int64_t *start = model->params->start;
    struct side side = {.part = part, .il = -1};
    ensure(part.layer >= 0 && part.layer <= model->depth && (part.layer > 0 || (part.unit < 0 && !part.weights_only)));
    for (int l = 1; l <= model->depth; l++)
        if (part.layer == 0 || part.layer == l) side.n += layer_elements(model, &part, l);
    if (part.layer == 0) {
        side.nloc = to_int(model->params->size);
    } else if (part.unit < 0) {
        side.nloc =
            to_int(part.weights_only ? weights_of(model, part.layer) : start[part.layer] - start[part.layer - 1]);
    } else {
        ensure(part.unit < model->width[part.layer]);
        side.layer = NEW(double, start[part.layer] - start[part.layer - 1]);
        if (grid_owner(part.unit, grid->block, grid->nprow) == grid->myrow) {
            side.il = grid_local(part.unit, grid->block, grid->nprow);
            side.nloc = model->params->W[part.layer - 1]->nloc;
            if (grid->mycol == 0 && has_bias(model, &part, part.layer)) side.nloc++;
        }
    }
    return side;
}

/* Where local element k of a unit stands in its layer: weights, then the bias on process column 0. */
static int64_t unit_element(const struct model *model, const struct side *side, int k)
{
    const struct dmat *W = model->params->W[side->part.layer - 1];
    return side->il + (k < W->nloc ? (int64_t)k * W->mloc : weights_of(model, side->part.layer));
}

/* Between the elements of a unit and its row of the layer. */
static void move_unit(const struct model *model, const struct side *side, double *x, bool in)
{
    for (int k = 0; k < side->nloc; k++) {
        double *element = &side->layer[unit_element(model, side, k)];
        *(in ? element : &x[k]) = *(in ? &x[k] : element);
    }
}

/* The matrices of a part that are laid over x; those of frozen layers are left out. */
static struct rop_vector vector_over(const struct model *model, const struct side *side, double *x)
{
    const struct rop_part *part = &side->part;
    struct rop_vector v = {NEW(struct dmat *, model->depth), NEW(struct dmat *, model->depth)};
    for (int l = 1; l <= model->depth; l++) {
        if (!model->layer[l - 1].trainable || (part->layer > 0 && part->layer != l)) continue;
        double *local = side->layer ? side->layer : part->layer ? x : x + model->params->start[l - 1];
        v.W[l - 1] = dmat_over(model->grid, model->width[l], model->width[l - 1], local);
        if (has_bias(model, part, l))
            v.b[l - 1] = dmat_over(model->grid, model->width[l], 1, local + weights_of(model, l));
    }
    return v;
}

static void vector_destroy(struct rop_vector *v, int depth)
{
    for (int l = 0; l < depth; l++) {
        dmat_destroy(&v->W[l]);
        dmat_destroy(&v->b[l]);
    }
    memory_free(v->W);
    memory_free(v->b);
}

/* Σ over all samples; the same on every rank. */
static double sum_of_shares(const struct rop *rop)
{
    const struct grid *grid = rop->model->grid;
    double sum = 0;
    for (int jl = 0; jl < rop->pass.F->nloc; jl++) sum += rop->share[jl];
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, grid->row_comm);
    return sum;
}

/* out = N Σ_j (c_j − mean of c) γ_j with c_j = ⟨γ_j, v⟩, or without the mean. Chunks that are not kept are swept once
 * more for it. */
static void second_moment(struct rop *rop, bool centred, const struct rop_vector *v, const struct rop_vector *out)
{
    const double N = (double)rop->set->samples;
    double sum = 0;
    ensure(rop_defined(&rop->loss, rop->set, ROP_G));
    for (int64_t j0 = -1; centred && rop_next(rop, &j0);) {
        rop_fill(rop, j0);
        rop_shares(rop, v, rop->share);
        sum += sum_of_shares(rop);
    }
    for (int64_t j0 = -1; rop_next(rop, &j0);) {
        rop_fill(rop, j0);
        if (!centred || !rop->filled) rop_shares(rop, v, rop->share);
        for (int jl = 0; jl < rop->pass.F->nloc; jl++) rop->share[jl] = N * (rop->share[jl] - sum / N);
        rop_combine(rop, rop->share, out);
    }
}

static void clear_layer(const struct model *model, const struct side *side)
{
    const int64_t *start = model->params->start + side->part.layer;
    if (side->layer) memset(side->layer, 0, (size_t)(start[0] - start[-1]) * sizeof *side->layer);
}

/* to ← B from of one kind but the remainder, from the part `in` to the part `out`. */
static void multiply_by(enum rop_kind kind, const struct context *c, const struct side *in, const struct side *out,
                        const double *from, double *to)
{
    struct rop *rop = c->rop;
    const struct model *model = rop->model;
    clear_layer(model, in);
    clear_layer(model, out);
    if (in->layer) move_unit(model, in, (double *)from, true);
    memset(to, 0, (size_t)out->nloc * sizeof *to);
    struct rop_vector v = vector_over(model, in, (double *)from), product = vector_over(model, out, to);
    if (kind == ROP_G || kind == ROP_G_CENTRED)
        second_moment(rop, kind == ROP_G_CENTRED, &v, &product);
    else
        for (int64_t j0 = -1; rop_next(rop, &j0);) {
            rop_fill(rop, j0);
            rop_sweep(rop, kind == ROP_GGN, &v, &product);
        }
    if (out->layer) move_unit(model, out, to, false);
    vector_destroy(&product, model->depth);
    vector_destroy(&v, model->depth);
}

static void multiply(const struct context *c, const struct side *in, const struct side *out, const double *from,
                     double *to)
{
    if (c->kind != ROP_REMAINDER) {
        multiply_by(c->kind, c, in, out, from, to);
        return;
    }
    double *ggn = NEW(double, out->nloc);
    multiply_by(ROP_GGN, c, in, out, from, ggn);
    multiply_by(ROP_HESSIAN, c, in, out, from, to);
    for (int i = 0; i < out->nloc; i++) to[i] -= ggn[i];
    memory_free(ggn);
}

/* to += ridge·from where the parts of one layer overlap. */
static void add_to_layer(const struct model *model, const struct side *in, const struct side *out, double ridge,
                         const double *from, double *to)
{
    const bool apart = in->layer && out->layer && in->part.unit != out->part.unit;
    const struct side *fewer = in->layer ? in : out;
    for (int k = 0; !apart && k < fewer->nloc; k++) {
        const int64_t element = fewer->layer ? unit_element(model, fewer, k) : k;
        const int64_t i = in->layer ? k : element, o = out->layer ? k : element;
        if (i < in->nloc && o < out->nloc) to[o] += ridge * from[i];
    }
}

/* The same for all layers but frozen ones. */
static void add_ridge(const struct context *c, const struct side *in, const struct side *out, const double *from,
                      double *to)
{
    const struct model *model = c->rop->model;
    const int64_t *start = model->params->start;
    const int l = in->part.layer;
    if (c->ridge == 0 || c->kind != ROP_HESSIAN) return;
    for (int64_t k = 1; l == 0 && k <= model->depth; k++)
        for (int64_t i = start[k - 1]; model->layer[k - 1].trainable && i < start[k]; i++) to[i] += c->ridge * from[i];
    if (l > 0 && l == out->part.layer && model->layer[l - 1].trainable)
        add_to_layer(model, in, out, c->ridge, from, to);
}

static void apply(const struct linop *A, const double *x, double *y)
{
    const struct context *c = A->context;
    multiply(c, &c->col, &c->row, x, y);
    add_ridge(c, &c->col, &c->row, x, y);
}

static void apply_adjoint(const struct linop *A, const double *y, double *x)
{
    const struct context *c = A->context;
    multiply(c, &c->row, &c->col, y, x);
    add_ridge(c, &c->row, &c->col, y, x);
}

/* Global index of local element k of a part. */
static int64_t index_of(const struct model *model, const struct side *side, int k)
{
    const struct rop_part *part = &side->part;
    const int64_t *start = model->params->start;
    int l = part->layer ? part->layer : 1;
    int64_t before = 0, local = k;
    for (; part->layer == 0 && k >= start[l]; l++) before += layer_elements(model, part, l);
    if (part->layer == 0) local -= start[l - 1];
    const struct dmat *W = model->params->W[l - 1];
    if (part->unit >= 0) return local < W->nloc ? dmat_col(W, (int)local) : W->n;
    const int64_t weights = weights_of(model, l);
    if (local >= weights) return before + W->m * W->n + dmat_row(W, (int)(local - weights));
    return before + dmat_row(W, (int)(local % W->mloc)) * W->n + dmat_col(W, (int)(local / W->mloc));
}

static int64_t row_index(const struct linop *A, int il)
{
    const struct context *c = A->context;
    return index_of(c->rop->model, &c->row, il);
}

static int64_t col_index(const struct linop *A, int jl)
{
    const struct context *c = A->context;
    return index_of(c->rop->model, &c->col, jl);
}

static void destroy(struct linop *A)
{
    struct context *c = A->context;
    memory_free(c->row.layer);
    memory_free(c->col.layer);
    memory_free(c);
}

struct linop *rop_operator(struct rop *rop, enum rop_kind kind, struct rop_part row, struct rop_part col, double ridge)
{
    const struct model *model = rop->model;
    ensure((row.layer == 0) == (col.layer == 0));
    struct context *c = NEW(struct context, 1);
    *c = (struct context){rop, kind, side_create(model, row), side_create(model, col), ridge};
    struct linop *A = NEW(struct linop, 1);
    *A = (struct linop){.comm = model->grid->comm,
                        .m = c->row.n,
                        .n = c->col.n,
                        .mloc = c->row.nloc,
                        .nloc = c->col.nloc,
                        .context = c,
                        .apply = apply,
                        .apply_adjoint = apply_adjoint,
                        .row_index = row_index,
                        .col_index = col_index,
                        .destroy = destroy};
    return A;
}

void rop_take(const struct model *model, struct rop_part part, const struct params *params, double *x)
{
    const double *from = params->local + (part.layer ? params->start[part.layer - 1] : 0);
    struct side side = side_create(model, part);
    for (int k = 0; k < side.nloc; k++) x[k] = from[side.layer ? unit_element(model, &side, k) : k];
    memory_free(side.layer);
}

bool rop_defined(const struct loss *loss, const struct dataset *dataset, enum rop_kind kind)
{
    if (kind != ROP_G && kind != ROP_G_CENTRED) return true;
    return loss->kind != LOSS_SENSING && dataset->Y->n == dataset->samples;
}

void rop_gradient(struct rop *rop, struct params *gradient)
{
    const struct side all = {.part = ROP_ALL};
    struct rop_vector out = vector_over(rop->model, &all, gradient->local);
    memset(gradient->local, 0, (size_t)gradient->size * sizeof *gradient->local);
    for (int64_t j0 = -1; rop_next(rop, &j0);) {
        rop_fill(rop, j0);
        rop_combine(rop, NULL, &out);
    }
    vector_destroy(&out, rop->model->depth);
}

void rop_column_squares(const struct dmat *A, double *squares)
{
    for (int jl = 0; jl < A->nloc; jl++) {
        squares[jl] = 0;
        for (int il = 0; il < A->mloc; il++) {
            const double x = A->local[il + (int64_t)jl * A->lld];
            squares[jl] += x * x;
        }
    }
    if (A->grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, squares, A->nloc, MPI_DOUBLE, MPI_SUM, A->grid->col_comm);
}

double rop_trace_g(struct rop *rop)
{
    const struct model *model = rop->model;
    double *input = NEW(double, rop->whole.F->nloc), *error = NEW(double, rop->whole.F->nloc), sum = 0;
    ensure(rop_defined(&rop->loss, rop->set, ROP_G));
    for (int64_t j0 = -1; rop_next(rop, &j0);) {
        rop_fill(rop, j0);
        for (int l = 1; l <= model->depth; l++) {
            const struct layer *layer = &model->layer[l - 1];
            const struct dmat *a = rop->pass.a[l - 1], *D = rop->pass.D[l];
            if (!layer->trainable) continue;
            if (a) rop_column_squares(a, input);
            rop_column_squares(D, error);
            for (int jl = 0; jl < D->nloc; jl++) sum += error[jl] * ((a ? input[jl] : 1) + layer->bias);
        }
    }
    MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, model->grid->row_comm);
    memory_free(error);
    memory_free(input);
    return sum * (double)rop->set->samples;
}
