#include "net/backprop.h"

#include "base/error.h"
#include "base/memory.h"

#include "sweep_private.h"

#include <math.h>

/* The activations of one chunk. On the way back E_l = ∂ℓ/∂a_l overwrites a_l, which is no longer needed then, and
 * D_l = scale·φ′(z_l)∘E_l overwrites φ′(z_l): no other work space is needed. */
struct backprop {
    const struct model *model; /* borrowed */
    struct loss loss;
    int64_t chunk;   /* columns */
    int depth;       /* L */
    struct dmat **a; /* [L + 1] a[l] is n_l × chunk, a[0] = NULL; owned */
    struct dmat **d; /* [L + 1] z_l, then φ′(z_l), then D_l; NULL where D_l = E_l; owned */
    double *bias;    /* [largest local height]; owned */
};

/* Views of the first columns of everything, for one chunk of data. */
struct pass {
    int depth;
    int64_t j0, j1;
    struct dmat **a, **d; /* [L + 1] owned views; a[0] is the input, NULL if it is the identity */
};

int64_t backprop_columns(const struct grid *grid, int64_t samples, int64_t chunk)
{
    const int64_t unit = (int64_t)grid->block * grid->npcol, columns = chunk == 0 || chunk > samples ? samples : chunk;
    return (columns + unit - 1) / unit * unit;
}

struct backprop *backprop_create(const struct model *model, const struct loss *loss, int64_t samples, int64_t chunk)
{
    struct backprop *b = NEW(struct backprop, 1);
    const struct grid *grid = model->grid;
    ensure(model->output_scale > 0);
    b->model = model;
    b->loss = *loss;
    b->depth = model->depth;
    b->chunk = backprop_columns(grid, samples, chunk);
    b->a = NEW(struct dmat *, b->depth + 1);
    b->d = NEW(struct dmat *, b->depth + 1);
    int height = 0;
    for (int l = 1; l <= b->depth; l++) {
        b->a[l] = dmat_create(grid, model->width[l], b->chunk);
        if (sweep_has_slope(&model->layer[l - 1])) b->d[l] = dmat_create(grid, model->width[l], b->chunk);
        if (b->a[l]->mloc > height) height = b->a[l]->mloc;
    }
    b->bias = NEW(double, height);
    return b;
}

void backprop_destroy(struct backprop **backprop)
{
    struct backprop *b = *backprop;
    if (!b) return;
    for (int l = 1; l <= b->depth; l++) {
        dmat_destroy(&b->a[l]);
        dmat_destroy(&b->d[l]);
    }
    memory_free(b->a);
    memory_free(b->d);
    memory_free(b->bias);
    memory_free(b);
    *backprop = NULL;
}

int64_t backprop_bytes(const struct model *model, int64_t columns)
{
    int64_t elements = 0;
    for (int l = 1; l <= model->depth; l++)
        elements +=
            dmat_local_size(model->grid, model->width[l], columns) * (sweep_has_slope(&model->layer[l - 1]) ? 2 : 1);
    return elements * (int64_t)sizeof(double);
}

/* Small layers: their weights are there for all chunks, and the parts of their gradient are summed once. */
static bool is_held(const struct model *model, int l, bool identity)
{
    return (l > 1 || !identity) && dmat_is_small(model->grid, model->width[l], model->width[l - 1]);
}

int64_t backprop_held_bytes(const struct model *model, bool identity)
{
    int64_t doubles = 0;
    for (int l = 1; l <= model->depth; l++) {
        const int64_t m = model->width[l], n = model->width[l - 1];
        if (is_held(model, l, identity)) doubles += dmat_held_size(m, n, false) + dmat_held_size(m, n, true);
    }
    return doubles * (int64_t)sizeof(double);
}

int backprop_products(const struct model *model, int64_t columns, bool identity, bool gradient, struct product *list)
{
    const int lowest = sweep_lowest_trainable(model);
    int count = 0;
    for (int l = 1; l <= model->depth; l++) {
        const int64_t m = model->width[l], n = model->width[l - 1];
        const bool has_input = l > 1 || !identity, held = is_held(model, l, identity);
        if (has_input) list[count++] = (struct product){'N', 'N', m, columns, n, held};
        if (!gradient || l < lowest) continue;
        if (has_input && model->layer[l - 1].trainable) list[count++] = (struct product){'N', 'T', m, n, columns, held};
        if (l > lowest) list[count++] = (struct product){'T', 'N', n, columns, m, held};
    }
    return count;
}

struct gemm_need product_need(const struct grid *grid, const struct product *p)
{
    if (!p->held) return gemm_need(grid, p->ta, p->tb, p->m, p->n, p->k);
    struct gemm_need need = {.m = p->m, .n = p->n, .k = p->k, .panels = 1};
    int64_t *columns = p->tb == 'T' ? &need.k : &need.n; /* of the samples a rank has its own */
    *columns = grid_count(*columns, grid->block, 0, 0, grid->npcol);
    return need;
}

/* The first layer's output is W_1 itself, and its gradient is E_1: nothing is copied. */
static bool output_is_weights(const struct model *model, const struct pass *pass)
{
    return !pass->a[0] && pass->depth > 1 && !model->layer[0].bias && !sweep_has_slope(&model->layer[0]) &&
           model->layer[0].skip < 0;
}

/* Lets a_1 be the columns of `first`. */
static void put_first(struct pass *pass, const struct dmat *first)
{
    dmat_destroy(&pass->a[1]);
    pass->a[1] = dmat_columns(first, pass->j0, pass->j1);
}

static struct pass pass_begin(const struct backprop *b, const struct model *model, const struct dataset *dataset,
                              int64_t j0)
{
    struct pass pass = {.depth = b->depth, .j0 = j0};
    pass.j1 = j0 + b->chunk < dataset->Y->n ? j0 + b->chunk : dataset->Y->n;
    pass.a = NEW(struct dmat *, b->depth + 1);
    pass.d = NEW(struct dmat *, b->depth + 1);
    if (dataset->X) pass.a[0] = dmat_columns(dataset->X, j0, pass.j1);
    for (int l = 1; l <= b->depth; l++) {
        pass.a[l] = dmat_columns(b->a[l], 0, pass.j1 - j0);
        if (b->d[l]) pass.d[l] = dmat_columns(b->d[l], 0, pass.j1 - j0);
    }
    if (output_is_weights(model, &pass)) put_first(&pass, model->params->W[0]);
    return pass;
}

static void pass_end(struct pass *pass)
{
    for (int l = 0; l <= pass->depth; l++) {
        dmat_destroy(&pass->a[l]);
        dmat_destroy(&pass->d[l]);
    }
    memory_free(pass->a);
    memory_free(pass->d);
}

/* a_l, and φ′(z_l) in d_l, of every layer. */
static void forward_layers(const struct backprop *b, const struct model *model, struct pass *pass)
{
    for (int l = output_is_weights(model, pass) ? 2 : 1; l <= b->depth; l++) {
        const struct layer *layer = &model->layer[l - 1];
        struct dmat *a = pass->a[l], *z = pass->d[l] ? pass->d[l] : a;
        sweep_multiply(model->params->W[l - 1], pass->a[l - 1], pass->j0, false, z);
        if (layer->bias) sweep_add_bias(model->params->b[l - 1], z, b->bias);
        if (pass->d[l]) activation_apply(layer->activation, (int64_t)z->lld * z->nloc, z->local, a->local);
        if (layer->skip >= 0) sweep_add_skip(layer->scale, pass->a[layer->skip], pass->j0, a);
    }
}

/* The same, and f = α a_L in place of a_L. */
static struct dmat *forward(const struct backprop *b, const struct model *model, struct pass *pass)
{
    struct dmat *F = pass->a[b->depth];
    forward_layers(b, model, pass);
    if (model->output_scale != 1) dmat_scale(F, model->output_scale);
    return F;
}

/* D_l from E_l (in a_l) and φ′(z_l) (in d_l); returns where it is. */
static struct dmat *through_activation(const struct layer *layer, struct dmat *E, struct dmat *d)
{
    if (!d) return E;
    activation_pull((int64_t)d->lld * d->nloc, layer->scale, d->local, E->local, d->local);
    return d;
}

/* E_{l−1} in place of a_{l−1}, from D_l. */
static void pull_back(const struct model *model, struct pass *pass, int l, const struct dmat *D)
{
    struct dmat *E = pass->a[l - 1];
    dmat_gemm('T', 'N', 1, model->params->W[l - 1], D, 0, E);
    for (int m = l; m <= pass->depth; m++)
        if (model->layer[m - 1].skip == l - 1) dmat_axpy(E, 1, pass->a[m]);
}

/* E_L stands in a_L. */
static void backward(const struct backprop *b, const struct model *model, struct pass *pass, struct params *gradient)
{
    const int lowest = sweep_lowest_trainable(model);
    const bool as_it_is = output_is_weights(model, pass);
    for (int l = b->depth; l >= lowest; l--) {
        const struct layer *layer = &model->layer[l - 1];
        struct dmat *D = through_activation(layer, pass->a[l], pass->d[l]);
        if (l == 1 && as_it_is) break;
        if (layer->trainable) {
            sweep_weight_product(D, pass->a[l - 1], pass->j0, pass->j0 > 0, gradient->W[l - 1]);
            if (layer->bias) sweep_add_row_sums(D, gradient->b[l - 1], b->bias);
        }
        if (l == lowest) break;
        if (l == 2 && as_it_is) put_first(pass, gradient->W[0]);
        pull_back(model, pass, l, D);
    }
}

/* Z_l once more: it has been overwritten, but what the layer got is still there. rate ← (or += with `add`) the sum of
 * this chunk. */
static void add_gate_rate(const struct backprop *b, const struct model *model, const struct pass *pass, int l,
                          const struct dmat *D, bool add, struct dmat *rate)
{
    const struct layer *layer = &model->layer[l - 1];
    struct dmat *E = pass->a[l], *Z = dmat_create(E->grid, E->m, E->n), *A = dmat_create(E->grid, E->m, E->n);
    sweep_multiply(model->params->W[l - 1], pass->a[l - 1], pass->j0, false, Z);
    if (layer->bias) sweep_add_bias(model->params->b[l - 1], Z, b->bias);
    activation_value(layer->activation, (int64_t)Z->lld * Z->nloc, Z->local, A->local);
    dmat_gemm('N', 'T', 1, E, A, add ? 1 : 0, rate);
    dmat_gemm('N', 'T', -1, D, Z, 1, rate);
    dmat_destroy(&A);
    dmat_destroy(&Z);
}

void backprop_gate_rates(struct backprop *b, const struct model *model, const struct dataset *dataset,
                         struct dmat *const *rate)
{
    int lowest = 1;
    while (lowest <= b->depth && !rate[lowest - 1]) lowest++;
    for (int64_t j0 = 0; lowest <= b->depth && j0 < dataset->Y->n; j0 += b->chunk) {
        struct pass pass = pass_begin(b, model, dataset, j0);
        struct dmat *F = forward(b, model, &pass);
        loss_derivative_on(&b->loss, dataset, j0, F);
        if (model->output_scale != 1) dmat_scale(F, model->output_scale);
        for (int l = b->depth; l >= lowest; l--) {
            struct dmat *D = through_activation(&model->layer[l - 1], pass.a[l], pass.d[l]);
            if (rate[l - 1]) add_gate_rate(b, model, &pass, l, D, j0 > 0, rate[l - 1]);
            if (l > lowest) pull_back(model, &pass, l, D);
        }
        pass_end(&pass);
    }
}

static void hold_weights(const struct model *model, bool identity)
{
    for (int l = 1; l <= model->depth; l++)
        if (is_held(model, l, identity)) dmat_hold(model->params->W[l - 1]);
}

static void release_weights(const struct model *model)
{
    for (int l = 1; l <= model->depth; l++) dmat_release(model->params->W[l - 1]);
}

static void collect_gradient(const struct model *model, bool identity, struct params *gradient)
{
    for (int l = sweep_lowest_trainable(model); l <= model->depth; l++)
        if (model->layer[l - 1].trainable && is_held(model, l, identity)) dmat_collect(gradient->W[l - 1]);
}

static void sum_gradient(const struct model *model, struct params *gradient)
{
    for (int l = 1; l <= model->depth; l++) dmat_release(gradient->W[l - 1]);
}

/* The part of the loss that no weight can change. */
static double constant_part(const struct backprop *b, const struct dataset *dataset)
{
    return b->model->grid->rank == 0 ? loss_scale_on(&b->loss, dataset) * dataset->constant : 0;
}

double backprop_gradient(struct backprop *b, const struct model *model, const struct dataset *dataset,
                         struct params *gradient)
{
    double loss = constant_part(b, dataset);
    for (int l = 0; l < b->depth; l++) {
        if (!model->layer[l].trainable) dmat_fill(gradient->W[l], 0);
        if (gradient->b[l]) dmat_fill(gradient->b[l], 0);
    }
    hold_weights(model, !dataset->X);
    collect_gradient(model, !dataset->X, gradient);
    for (int64_t j0 = 0; j0 < dataset->Y->n; j0 += b->chunk) {
        struct pass pass = pass_begin(b, model, dataset, j0);
        struct dmat *F = forward(b, model, &pass);
        loss += loss_derivative_on(&b->loss, dataset, j0, F);
        if (model->output_scale != 1) dmat_scale(F, model->output_scale); /* ∂ℓ/∂a_L = α ∂ℓ/∂f */
        backward(b, model, &pass, gradient);
        pass_end(&pass);
    }
    sum_gradient(model, gradient);
    release_weights(model);
    return loss;
}

double backprop_evaluate(struct backprop *b, const struct model *model, const struct dataset *dataset, double *accuracy)
{
    double sums[2] = {constant_part(b, dataset), 0};
    hold_weights(model, !dataset->X);
    for (int64_t j0 = 0; j0 < dataset->Y->n; j0 += b->chunk) {
        struct pass pass = pass_begin(b, model, dataset, j0);
        double correct;
        sums[0] += loss_value_on(&b->loss, dataset, j0, forward(b, model, &pass), &correct);
        sums[1] += correct;
        pass_end(&pass);
    }
    release_weights(model);
    grid_sum(model->grid, sums, 2);
    const bool classifies = loss_classifies(&b->loss, dataset->classification, dataset->outputs);
    *accuracy = classifies ? sums[1] / (double)dataset->samples : NAN;
    return sums[0];
}

double backprop_recovery(struct backprop *b, const struct model *model, const struct dataset *dataset)
{
    double sum = 0;
    if (!dataset->M && !dataset->sensing) return NAN;
    for (int64_t j0 = 0; j0 < dataset->Y->n; j0 += b->chunk) {
        struct pass pass = pass_begin(b, model, dataset, j0);
        sum += loss_unseen_on(dataset, j0, forward(b, model, &pass));
        pass_end(&pass);
    }
    grid_sum(model->grid, &sum, 1);
    return sum / (2 * (double)dataset->outputs * (double)dataset->samples);
}

void backprop_features(struct backprop *b, const struct model *model, const struct dataset *dataset, bool again,
                       void (*visit)(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first),
                       void *context)
{
    for (int64_t j0 = 0; j0 < dataset->Y->n; j0 += b->chunk) {
        struct pass pass = pass_begin(b, model, dataset, j0);
        struct dmat *Y = dmat_columns(dataset->Y, j0, pass.j1);
        if (!again || b->chunk < dataset->Y->n) forward_layers(b, model, &pass);
        for (int l = 0; l <= b->depth; l++) visit(context, l, pass.a[l], Y, j0);
        dmat_destroy(&Y);
        pass_end(&pass);
    }
}
