#include "net/model.h"

#include "base/memory.h"
#include "net/init.h"

#include <string.h>

int model_widths(const struct spec *spec, int64_t features, int64_t outputs, int64_t **width, struct problems *problems)
{
    const bool listed = !spec_is(spec, "model.widths", "auto");
    const bool width_given = !spec_is(spec, "model.width", "auto"), depth_given = !spec_is(spec, "model.depth", "auto");
    *width = NULL;
    if (listed && (width_given || depth_given))
        spec_problem(spec, problems, "model.widths", "give either the list of widths, or width and depth, not both");
    else if (listed && spec_count(spec, "model.widths") < 2)
        spec_problem(spec, problems, "model.widths", "needs at least the input and the output width");
    else if (!listed && !depth_given)
        spec_problem(spec, problems, "model.depth", "missing: give model.depth and model.width, or model.widths");
    else if (!listed && spec_int(spec, "model.depth") > 1 && !width_given)
        spec_problem(spec, problems, "model.width", "missing: the width of the hidden layers");
    else {
        const int depth = listed ? spec_count(spec, "model.widths") - 1 : (int)spec_int(spec, "model.depth");
        *width = NEW(int64_t, depth + 1);
        for (int l = 0; l <= depth; l++)
            (*width)[l] = listed       ? spec_int_at(spec, "model.widths", l)
                          : l == 0     ? features
                          : l == depth ? outputs
                                       : spec_int(spec, "model.width");
        if ((*width)[0] != features)
            spec_problem(spec, problems, "model.widths", "the first width is %lld, but the data has %lld features",
                         (long long)(*width)[0], (long long)features);
        if ((*width)[depth] != outputs)
            spec_problem(spec, problems, "model.widths", "the last width is %lld, but the data has %lld outputs",
                         (long long)(*width)[depth], (long long)outputs);
        return depth;
    }
    return 0;
}

/* x + B φ(A x) of layers (2,3), (4,5), … between a linear first and a linear last layer. */
static void make_pairs(struct model *model, const struct spec *spec, struct problems *problems)
{
    if (model->depth % 2)
        spec_problem(spec, problems, "model.residual",
                     "pairs need an even depth (first layer, pairs, last layer), not %d", model->depth);
    for (int l = 1; l <= model->depth; l++) {
        struct layer *layer = &model->layer[l - 1];
        const bool inner = l > 1 && l < model->depth, second = inner && l % 2 == 1;
        if (!inner || second) layer->activation = ACTIVATION_LINEAR;
        if (!second) continue;
        layer->skip = l - 2;
        if (model->width[l] != model->width[l - 2])
            spec_problem(spec, problems, "model.residual", "pairs need equal widths n_%d and n_%d, not %lld and %lld",
                         l - 2, l, (long long)model->width[l - 2], (long long)model->width[l]);
    }
}

static void make_scaled(struct model *model)
{
    for (int l = 1; l <= model->depth; l++)
        if (model->width[l] == model->width[l - 1]) {
            model->layer[l - 1].skip = l - 1;
            model->layer[l - 1].scale = 1.0 / model->depth;
        }
}

/* The number of values of a key that takes one value for all layers or one a layer. */
static int check_count(const struct spec *spec, const char *key, int depth, struct problems *problems)
{
    const int given = spec_count(spec, key);
    if (given != 1 && given != depth) spec_problem(spec, problems, key, "has %d values for %d layers", given, depth);
    return given;
}

static void set_trainable(struct model *model, const struct spec *spec, struct problems *problems)
{
    const bool all = spec_is(spec, "model.trainable", "all");
    for (int l = 0; l < model->depth; l++) model->layer[l].trainable = all;
    for (int i = 0; !all && i < spec_count(spec, "model.trainable"); i++) {
        const int64_t l = spec_int_at(spec, "model.trainable", i);
        if (l > model->depth)
            spec_problem(spec, problems, "model.trainable", "there is no layer %lld, the depth is %d", (long long)l,
                         model->depth);
        else
            model->layer[l - 1].trainable = true;
    }
    const int given = check_count(spec, "model.lr_multiplier", model->depth, problems);
    for (int l = 0; l < model->depth; l++)
        model->layer[l].lr_multiplier =
            given == 1 || l < given ? spec_real_at(spec, "model.lr_multiplier", given == 1 ? 0 : l) : 1;
}

static bool has_bias(const struct spec *spec, bool in_trunk)
{
    return spec_bool(spec, "model.bias") && (in_trunk || spec_bool(spec, "model.head_bias"));
}

static void set_layers(struct model *model, const struct spec *spec, struct problems *problems)
{
    const int64_t head = spec_int(spec, "model.linear_head");
    if (head > model->depth)
        spec_problem(spec, problems, "model.linear_head", "is %lld, but the depth is %d", (long long)head,
                     model->depth);
    if (head > 0 && spec_is(spec, "model.residual", "pairs"))
        spec_problem(spec, problems, "model.linear_head", "has no meaning with model.residual: pairs");
    for (int l = 1; l <= model->depth; l++)
        model->layer[l - 1] = (struct layer){.n_in = model->width[l - 1],
                                             .n_out = model->width[l],
                                             .activation = l <= model->depth - (head > 1 ? head : 1)
                                                               ? activation_of(spec_text(spec, "model.activation"))
                                                               : ACTIVATION_LINEAR,
                                             .bias = has_bias(spec, l <= model->depth - (head > 1 ? head : 1)),
                                             .skip = -1,
                                             .scale = 1};
    if (spec_is(spec, "model.residual", "pairs")) make_pairs(model, spec, problems);
    if (spec_is(spec, "model.residual", "scaled")) make_scaled(model);
    set_trainable(model, spec, problems);
    model->linear = true;
    for (int l = 0; l < model->depth; l++) {
        const struct layer *layer = &model->layer[l];
        model->linear = model->linear && layer->activation == ACTIVATION_LINEAR && !layer->bias;
    }
}

bool model_is_low_rank(const struct spec *spec)
{
    return spec_is(spec, "model.parametrization", "low_rank") && !spec_is(spec, "model.subspace", "none");
}

/* What a network must be to have a low-rank one in its place, with inner layers of width r. */
static void check_low_rank(const struct model *full, const struct spec *spec, int64_t r, struct problems *problems)
{
    const bool merged = spec_is(spec, "model.factors", "merged");
    if (full->depth < (merged ? 3 : 2))
        spec_problem(spec, problems, "model.factors", "%s needs a network of %d layers or more, not %d",
                     merged ? "merged" : "factored", merged ? 3 : 2, full->depth);
    if (!merged && (!spec_is(spec, "model.trainable", "all") || spec_count(spec, "model.lr_multiplier") != 1))
        spec_problem(spec, problems, "model.factors",
                     "factored has layers of its own: model.trainable: all, and one model.lr_multiplier");
    if (!spec_is(spec, "model.residual", "none") || spec_bool(spec, "model.bias"))
        spec_problem(spec, problems, "model.parametrization", "low_rank is for networks without skips and biases");
    const bool beside =
        spec_is(spec, "model.subspace", "rotated") || spec_is(spec, "model.subspace", "orthogonal_to_gradient");
    const int64_t room = beside ? full->width[0] / 2 : full->width[0];
    if (r > room || (r + 1) / 2 > full->width[1])
        spec_problem(spec, problems, "model.rank",
                     "%lld directions of the %lld inputs%s, and half as many of %lld units: too many", (long long)r,
                     (long long)full->width[0], beside ? ", and as many beside them" : "", (long long)full->width[1]);
}

/* The widths of the low-rank network in place of the full one's (train/low_rank.h). */
static void make_narrow(struct model *model, const struct spec *spec, struct problems *problems)
{
    const int L = model->depth, depth = spec_is(spec, "model.factors", "merged") ? L : L + 2, before = problems->count;
    const int64_t r = spec_is(spec, "model.rank", "auto") ? 2 * model->width[L] : spec_int(spec, "model.rank");
    check_low_rank(model, spec, r, problems);
    if (problems->count > before) return;
    int64_t *width = NEW(int64_t, depth + 1);
    for (int l = 1; l < depth - 1; l++) width[l] = r;
    width[0] = model->width[0];
    width[depth - 1] = model->width[L - 1];
    width[depth] = model->width[L];
    memory_free(model->width);
    model->width = width;
    model->depth = depth;
}

static struct model *outline(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                             bool narrow, struct problems *problems)
{
    const int before = problems->count;
    struct model *model = NEW(struct model, 1);
    model->grid = grid;
    model->output_scale = spec_real(spec, "model.output_scale");
    model->depth = model_widths(spec, features, outputs, &model->width, problems);
    if (model->depth > 0 && spec_applies(spec, "model.init.scale"))
        check_count(spec, "model.init.scale", model->depth, problems);
    if (model->depth > 0) init_balanced_check(spec, model->depth, model->width, problems);
    if (model->depth > 0 && narrow) make_narrow(model, spec, problems);
    model->layer = NEW(struct layer, model->depth);
    if (model->depth > 0) set_layers(model, spec, problems);
    if (problems->count > before) model_destroy(&model);
    return model;
}

struct model *model_outline(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                            struct problems *problems)
{
    return outline(grid, spec, features, outputs, model_is_low_rank(spec), problems);
}

struct model *model_outline_full(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                                 struct problems *problems)
{
    return outline(grid, spec, features, outputs, false, problems);
}

struct model *model_linear(const struct grid *grid, int depth, const int64_t *width, double output_scale)
{
    struct model *model = NEW(struct model, 1);
    model->grid = grid;
    model->output_scale = output_scale;
    model->depth = depth;
    model->linear = true;
    model->width = NEW(int64_t, depth + 1);
    model->layer = NEW(struct layer, depth);
    memcpy(model->width, width, (size_t)(depth + 1) * sizeof *width);
    for (int l = 0; l < depth; l++)
        model->layer[l] = (struct layer){.n_in = width[l],
                                         .n_out = width[l + 1],
                                         .activation = ACTIVATION_LINEAR,
                                         .trainable = true,
                                         .lr_multiplier = 1,
                                         .skip = -1,
                                         .scale = 1};
    return model;
}

struct model *model_create(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                           struct problems *problems)
{
    struct model *model = model_outline(grid, spec, features, outputs, problems);
    if (problems_none(problems, grid->comm)) {
        ensure(model);
        model->params = params_create(model);
        init_fill(model, spec, problems);
    }
    if (!problems_none(problems, grid->comm)) model_destroy(&model);
    return model;
}

void model_destroy(struct model **model)
{
    if (!*model) return;
    params_destroy(&(*model)->params);
    memory_free((*model)->layer);
    memory_free((*model)->width);
    memory_free(*model);
    *model = NULL;
}

/* Local elements of a layer's weights and bias. */
static int64_t layer_size(const struct grid *grid, const struct layer *layer)
{
    return dmat_local_size(grid, layer->n_out, layer->n_in) +
           (layer->bias ? dmat_local_size(grid, layer->n_out, 1) : 0);
}

int64_t model_parameters(const struct model *model)
{
    int64_t sum = 0;
    for (int l = 1; l <= model->depth; l++) sum += model->width[l] * (model->width[l - 1] + model->layer[l - 1].bias);
    return sum;
}

int64_t params_size(const struct model *model)
{
    int64_t size = 0;
    for (int l = 0; l < model->depth; l++) size += layer_size(model->grid, &model->layer[l]);
    return size;
}

struct params *params_view(const struct model *model)
{
    const struct grid *grid = model->grid;
    struct params *p = NEW(struct params, 1);
    p->grid = grid;
    p->depth = model->depth;
    p->view = true;
    p->W = NEW(struct dmat *, p->depth);
    p->b = NEW(struct dmat *, p->depth);
    p->start = NEW(int64_t, p->depth + 1);
    for (int l = 0; l < p->depth; l++) {
        const struct layer *layer = &model->layer[l];
        p->start[l + 1] = p->start[l] + layer_size(grid, layer);
        p->W[l] = dmat_over(grid, layer->n_out, layer->n_in, NULL);
        if (layer->bias) p->b[l] = dmat_over(grid, layer->n_out, 1, NULL);
    }
    p->size = p->start[p->depth];
    return p;
}

void params_point(struct params *view, double *local)
{
    view->local = local;
    for (int l = 0; l < view->depth; l++) {
        struct dmat *W = view->W[l];
        W->local = local + view->start[l];
        if (view->b[l]) view->b[l]->local = W->local + (int64_t)W->mloc * W->nloc;
    }
}

struct params *params_create(const struct model *model)
{
    struct params *p = params_view(model);
    p->view = false;
    params_point(p, NEW(double, p->size));
    return p;
}

void params_destroy(struct params **params)
{
    struct params *p = *params;
    if (!p) return;
    for (int l = 0; l < p->depth; l++) {
        dmat_destroy(&p->W[l]);
        dmat_destroy(&p->b[l]);
    }
    memory_free(p->W);
    memory_free(p->b);
    memory_free(p->start);
    if (!p->view) memory_free(p->local);
    memory_free(p);
    *params = NULL;
}

void params_archive(struct params *params, const char *name, struct archive *archive)
{
    archive_enter(archive, name);
    for (int l = 0; l < params->depth; l++) {
        char matrix[16], bias[16];
        snprintf(matrix, sizeof matrix, "W%d", l + 1);
        snprintf(bias, sizeof bias, "b%d", l + 1);
        archive_matrix(archive, matrix, params->W[l]);
        if (params->b[l]) archive_matrix(archive, bias, params->b[l]);
    }
    archive_leave(archive);
}

double params_dot(const struct params *p, const struct params *q)
{
    double sum = 0;
    for (int64_t i = 0; i < p->size; i++) sum += p->local[i] * q->local[i];
    grid_sum(p->grid, &sum, 1);
    return sum;
}
