#include "dist/random.h"
#include "net/init.h"

#include "base/memory.h"

#include "twin_private.h"

#include <stdio.h>

static int64_t hidden_width(const struct twin *twin, const struct spec *spec, struct problems *problems)
{
    char *key = memory_text("%s.width", twin->key);
    const int64_t width = spec_is(spec, key, "auto") ? 2 * twin_rank(twin, spec, problems) : spec_int(spec, key);
    memory_free(key);
    return width;
}

static void check(const struct twin *twin, const struct model *model, const struct spec *spec,
                  struct problems *problems)
{
    char kind[128], width[128];
    snprintf(kind, sizeof kind, "%s.kind", twin->key);
    snprintf(width, sizeof width, "%s.width", twin->key);
    if (spec_is(spec, "model.init.kind", "file"))
        spec_problem(spec, problems, kind,
                     "a narrow network starts from random numbers, but model.init.kind is file: choose another start");
    for (int l = 1; l <= model->depth; l++) {
        const int skip = model->layer[l - 1].skip;
        if (skip < 0 || model->width[skip] == model->width[l]) continue;
        spec_problem(spec, problems, width, "is %lld: the residual connection around layer %d needs equal widths",
                     (long long)model->width[l], l);
        return;
    }
}

struct model *narrow_create(const struct twin *twin, const struct setting *run, struct problems *problems)
{
    const struct model *large = run->model;
    const int before = problems->count;
    const int64_t hidden = hidden_width(twin, run->spec, problems);
    int64_t *width = NEW(int64_t, large->depth + 1);
    for (int l = 0; l <= large->depth; l++) width[l] = l == 0 || l == large->depth ? large->width[l] : hidden;
    struct model *model = model_linear(large->grid, large->depth, width, large->output_scale);
    model->linear = large->linear;
    for (int l = 0; l < large->depth; l++) {
        model->layer[l] = large->layer[l];
        model->layer[l].n_in = width[l];
        model->layer[l].n_out = width[l + 1];
    }
    check(twin, model, run->spec, problems);
    memory_free(width);
    if (problems->count > before) {
        model_destroy(&model);
        return NULL;
    }
    model->params = params_create(model);
    init_random(model, run->spec, RANDOM_TWINS + ((uint64_t)twin->number << 16));
    return model;
}
