#include "net/init.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/h5.h"
#include "dist/random.h"
#include "dist/reflect.h"
#include "net/mixture.h"

#include "init_private.h"

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

static struct reflections reflections_of(const struct spec *spec, int64_t n, uint64_t stream)
{
    return (struct reflections){.n = n,
                                .count = to_int(spec_int(spec, "model.init.reflections")),
                                .seed = (uint64_t)spec_int(spec, "run.seed"),
                                .stream = stream};
}

/* The first rows or columns of Q. */
static void fill_householder(struct dmat *W, const struct spec *spec, uint64_t stream)
{
    const bool wide = W->m < W->n;
    const struct reflections Q = reflections_of(spec, wide ? W->n : W->m, stream);
    struct dmat *T = wide ? dmat_create(W->grid, W->n, W->m) : W;
    dmat_identity(T, 1);
    reflect_apply(&Q, wide ? 'T' : 'N', T);
    if (!wide) return;
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

/* Uniform numbers of unit variance: random, or from the fixed sequence that starts at its seed + `number`. */
static void fill_uniform(struct dmat *W, const struct spec *spec, uint64_t stream, int number)
{
    if (!spec_is(spec, "model.init.sequence", "none")) {
        const uint64_t seed = (uint64_t)spec_int(spec, "model.init.sequence") + (uint64_t)number;
        random_fill_sequence(W, seed);
        return;
    }
    random_fill_uniform(W, (uint64_t)spec_int(spec, "run.seed"), stream);
    dmat_scale(W, sqrt(3));
}

/* model_create has checked that there are as many scales as layers, or one. */
double init_scale(const struct spec *spec, int l)
{
    return spec_real_at(spec, "model.init.scale", spec_count(spec, "model.init.scale") == 1 ? 0 : l - 1);
}

/* Whether layer l is the last one of the input's network, and starts in a way of its own. */
static bool is_own_head(const struct spec *spec, int l)
{
    if (!spec_applies(spec, "model.init.head") || spec_is(spec, "model.init.head", "same")) return false;
    if (!spec_is(spec, "model.widths", "auto")) return l == spec_count(spec, "model.widths") - 1;
    return l == spec_int(spec, "model.depth");
}

static void fill_head(struct dmat *W, const struct spec *spec, uint64_t seed, uint64_t stream)
{
    const bool uniform = spec_is(spec, "model.init.head", "uniform");
    if (uniform)
        random_fill_uniform(W, seed, stream);
    else
        random_fill_normal(W, seed, stream);
    dmat_scale(W, sqrt(uniform ? 3 : 1) / sqrt((double)W->n));
}

void init_layer(struct dmat *W, const struct spec *spec, int l, uint64_t stream)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    const bool own_head = is_own_head(spec, l);
    double scale = own_head ? spec_real(spec, "model.init.head_scale") : init_scale(spec, l);
    stream += (uint64_t)l;
    ensure(!init_is_balanced(spec)); /* that is a start of all layers together */
    if (own_head) {
        fill_head(W, spec, seed, stream);
    } else if (spec_is(spec, "model.init.kind", "orthogonal")) {
        fill_orthogonal(W, seed, stream);
    } else if (spec_is(spec, "model.init.kind", "householder")) {
        fill_householder(W, spec, stream);
    } else if (spec_is(spec, "model.init.kind", "identity")) {
        dmat_identity(W, 1);
    } else if (spec_is(spec, "model.init.kind", "clusters")) {
        mixture_start(W, spec, l);
    } else if (spec_is(spec, "model.init.kind", "gaussian")) {
        random_fill_normal(W, seed, stream);
        scale *= gain(spec, W);
    } else {
        fill_uniform(W, spec, stream, l - 1);
        scale *= gain(spec, W);
    }
    dmat_scale(W, scale);
}

void init_random(struct model *model, const struct spec *spec, uint64_t stream)
{
    if (init_is_balanced(spec)) {
        init_balanced(model, spec, stream);
        return;
    }
    for (int l = 1; l <= model->depth; l++) init_layer(model->params->W[l - 1], spec, l, stream);
}

void init_apply(const struct spec *spec, int l, int64_t m, int64_t n, char transposed, const struct dmat *in,
                struct dmat *out)
{
    const bool householder = spec_is(spec, "model.init.kind", "householder");
    if (m == n && (householder || spec_is(spec, "model.init.kind", "identity"))) {
        dmat_copy(out, in);
        if (householder) {
            const struct reflections Q = reflections_of(spec, n, RANDOM_WEIGHTS + (uint64_t)l);
            reflect_apply(&Q, transposed, out);
        }
        dmat_scale(out, init_scale(spec, l));
        return;
    }
    struct dmat *W = dmat_create(in->grid, m, n); /* there for this product only */
    init_layer(W, spec, l, RANDOM_WEIGHTS);
    dmat_gemm(transposed, 'N', 1, W, in, 0, out);
    dmat_destroy(&W);
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

static void fill_biases(struct model *model, const struct spec *spec)
{
    if (!spec_is(spec, "model.init.kind", "uniform")) return;
    const bool as_weights = spec_is(spec, "model.init.bias", "fan_in");
    if (!as_weights && !(spec_real(spec, "model.init.bias") > 0)) return;
    for (int l = 1; l <= model->depth; l++) {
        struct dmat *b = model->params->b[l - 1];
        if (!b) continue;
        fill_uniform(b, spec, RANDOM_WEIGHTS + 0x8000 + (uint64_t)l, 20 + l - 1);
        dmat_scale(b, as_weights ? init_scale(spec, l) / sqrt((double)model->width[l - 1])
                                 : spec_real(spec, "model.init.bias"));
    }
}

bool init_fill(struct model *model, const struct spec *spec, struct problems *problems)
{
    if (spec_is(spec, "model.init.kind", "clusters") && !mixture_starts(spec, model, problems)) {
        /* said */
    } else if (!spec_is(spec, "model.init.kind", "file")) {
        init_random(model, spec, RANDOM_WEIGHTS);
        fill_biases(model, spec);
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
