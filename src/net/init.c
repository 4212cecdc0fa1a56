#include "net/init.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/h5.h"
#include "dist/random.h"

#include <math.h>

static void fill_orthogonal(struct dmat *W, uint64_t seed, uint64_t stream)
{
    if (W->m >= W->n) {
        random_fill_normal(W, seed, stream);
        factor_orthonormal(W);
        return;
    }
    struct dmat *T = dmat_create(W->grid, W->n, W->m);
    random_fill_normal(T, seed, stream);
    factor_orthonormal(T);
    dmat_transpose(T, W);
    dmat_destroy(&T);
}

static double gain(const struct spec *spec, const struct dmat *W)
{
    const double m = (double)W->m, n = (double)W->n;
    if (spec_is(spec, "model.init.gain", "none")) return 1;
    if (spec_is(spec, "model.init.gain", "fan_in")) return 1 / sqrt(n);
    return sqrt(m < n ? m : n) / sqrt(m * n);
}

/* model_create has checked that there are as many scales as layers, or one. */
void init_random(struct model *model, const struct spec *spec, uint64_t stream)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    const int scales = spec_count(spec, "model.init.scale");
    for (int l = 1; l <= model->depth; l++) {
        struct dmat *W = model->params->W[l - 1];
        const double scale = spec_real_at(spec, "model.init.scale", scales == 1 ? 0 : l - 1);
        if (spec_is(spec, "model.init.kind", "orthogonal")) {
            fill_orthogonal(W, seed, stream + (uint64_t)l);
            dmat_scale(W, scale);
        } else if (spec_is(spec, "model.init.kind", "gaussian")) {
            random_fill_normal(W, seed, stream + (uint64_t)l);
            dmat_scale(W, scale * gain(spec, W));
        } else {
            random_fill_uniform(W, seed, stream + (uint64_t)l);
            dmat_scale(W, scale * sqrt(3) * gain(spec, W));
        }
    }
}

/* False if there is no such matrix: the further layers would say the same. */
static bool read_matrix(struct dmat *to, const char *path, const char *letter, int l, struct problems *problems)
{
    char *name = memory_text("%s%d", letter, l);
    struct dmat *from = h5_read_matrix(to->grid, path, name, problems);
    if (from && (from->m != to->m || from->n != to->n))
        problems_add(problems, EXIT_INPUT, "%s: %s is %lld × %lld, but the network needs %lld × %lld", path, name,
                     (long long)from->m, (long long)from->n, (long long)to->m, (long long)to->n);
    else if (from)
        dmat_copy(to, from);
    const bool found = from != NULL;
    dmat_destroy(&from);
    memory_free(name);
    return found;
}

bool init_fill(struct model *model, const struct spec *spec, struct problems *problems)
{
    if (!spec_is(spec, "model.init.kind", "file")) {
        init_random(model, spec, RANDOM_WEIGHTS);
    } else {
        const char *path = spec_text(spec, "model.init.file");
        const struct params *p = model->params;
        bool found = true;
        for (int l = 1; found && l <= model->depth; l++)
            found = read_matrix(p->W[l - 1], path, "W", l, problems) &&
                    (!p->b[l - 1] || read_matrix(p->b[l - 1], path, "b", l, problems));
    }
    return problems_none(problems, model->grid->comm);
}
