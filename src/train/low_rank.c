#include "train/low_rank.h"

#include "base/log.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"
#include "net/backprop.h"
#include "net/init.h"
#include "theory/confine.h"

#include <math.h>
#include <string.h>

/* A ← (I − V Vᵀ) A, twice for full accuracy. */
static void leave_out(const struct dmat *V, struct dmat *A)
{
    struct dmat *inside = dmat_create(A->grid, V->n, A->n);
    for (int time = 0; time < 2; time++) {
        dmat_gemm('T', 'N', 1, V, A, 0, inside);
        dmat_gemm('N', 'N', -1, V, inside, 1, A);
    }
    dmat_destroy(&inside);
}

/* Random orthonormal columns (d × r), orthogonal to those of `apart` unless that is NULL. */
static struct dmat *random_columns(const struct grid *grid, int64_t d, int64_t r, uint64_t seed,
                                   const struct dmat *apart)
{
    struct dmat *A = dmat_create(grid, d, r);
    random_fill_normal(A, seed, RANDOM_SUBSPACE);
    if (apart) leave_out(apart, A);
    factor_orthonormal(A);
    if (apart) leave_out(apart, A);
    return A;
}

/* to[:, first …] ← from. */
static void put_columns(const struct dmat *from, int64_t first, struct dmat *to)
{
    struct dmat *wide = dmat_create(to->grid, to->m, to->n);
    int64_t *columns = NEW(int64_t, to->n);
    for (int64_t j = 0; j < to->n; j++) columns[j] = j < first ? 0 : (j - first < from->n ? j - first : from->n - 1);
    dmat_take_columns(from, columns, wide);
    for (int jl = 0; jl < to->nloc; jl++)
        for (int il = 0; dmat_col(to, jl) >= first && il < to->mloc; il++)
            to->local[il + (int64_t)jl * to->lld] = wide->local[il + (int64_t)jl * wide->lld];
    memory_free(columns);
    dmat_destroy(&wide);
}

/* Of all orthonormal bases of V's columns the one that random numbers choose: singular vectors are known but for their
 * signs, and these would matter behind an activation. */
static void choose_basis(struct dmat *V, uint64_t seed)
{
    struct dmat *random = dmat_create(V->grid, V->m, V->n), *inside = dmat_create(V->grid, V->n, V->n);
    random_fill_normal(random, seed, RANDOM_SUBSPACE + 1);
    dmat_gemm('T', 'N', 1, V, random, 0, inside);
    dmat_gemm('N', 'N', 1, V, inside, 0, random);
    factor_orthonormal(random);
    dmat_copy(V, random);
    dmat_destroy(&inside);
    dmat_destroy(&random);
}

/* G_1 of the full network on the whole training set; the caller owns the parameters that it is part of. */
static struct params *first_gradient(struct model *full, const struct spec *spec, const struct dataset *train,
                                     const struct loss *loss)
{
    for (int l = 0; l < full->depth; l++) full->layer[l].trainable = l == 0; /* nothing else is wanted */
    const int64_t chunk = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    struct backprop *b = backprop_create(full, loss, train->samples, chunk);
    struct params *gradient = params_create(full);
    backprop_gradient(b, full, train, gradient);
    backprop_destroy(&b);
    return gradient;
}

static double scale_of(const struct dmat *W)
{
    return dmat_norm(W) / sqrt((double)(W->m < W->n ? W->m : W->n));
}

/* span[ R , W_1(0)ᵀ L ] with half as many singular vectors as it shall have dimensions; a direction that is there twice
 * is replaced by a random one. */
static struct dmat *gradient_columns(struct model *full, const struct spec *spec, const struct dataset *train,
                                     const struct loss *loss, int64_t r)
{
    const struct grid *grid = full->grid;
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    struct params *gradient = first_gradient(full, spec, train, loss);
    const struct dmat *G = gradient->W[0], *W = full->params->W[0];
    const int half = to_int((r + 1) / 2);
    struct dmat *left = dmat_create(grid, G->m, half), *right = dmat_create(grid, G->n, half);
    double *sigma = NEW(double, half + 1);
    confine_leading(G, half, 1e-10, seed, sigma, left, right);
    struct dmat *E = dmat_create(grid, W->m, W->n), *V = dmat_create(grid, W->n, r);
    dmat_copy(E, W);
    dmat_scale(E, 1 / scale_of(W));
    struct dmat *span = confine_span(E, left, right);
    put_columns(span, 0, V);
    if (span->n < r) {
        struct dmat *more = random_columns(grid, W->n, r - span->n, seed, span);
        put_columns(more, span->n, V);
        log_warn("the first gradient gives %lld directions, not %lld: the others are random", (long long)span->n,
                 (long long)r);
        dmat_destroy(&more);
    }
    choose_basis(V, seed);
    dmat_destroy(&span);
    dmat_destroy(&E);
    memory_free(sigma);
    dmat_destroy(&right);
    dmat_destroy(&left);
    params_destroy(&gradient);
    return V;
}

static struct dmat *subspace(struct model *full, const struct spec *spec, const struct dataset *train,
                             const struct loss *loss, int64_t r)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    const int64_t d = full->width[0];
    if (spec_is(spec, "model.subspace", "random")) return random_columns(full->grid, d, r, seed, NULL);
    struct dmat *V = gradient_columns(full, spec, train, loss, r);
    if (spec_is(spec, "model.subspace", "gradient")) return V;
    struct dmat *beside = random_columns(full->grid, d, r, seed, V);
    if (spec_is(spec, "model.subspace", "rotated")) {
        const double angle = spec_real(spec, "model.angle") * acos(-1) / 180;
        dmat_scale(beside, sin(angle));
        dmat_axpy(beside, cos(angle), V);
    }
    dmat_destroy(&V);
    return beside;
}

/* P V = W_{L−1} … W_1 V / ∏ε. */
static struct dmat *carried(const struct model *full, const struct dmat *V)
{
    struct dmat *A = dmat_create(full->grid, V->m, V->n);
    dmat_copy(A, V);
    for (int l = 1; l < full->depth; l++) {
        const struct dmat *W = full->params->W[l - 1];
        struct dmat *next = dmat_create(full->grid, W->m, A->n);
        dmat_gemm('N', 'N', 1 / scale_of(W), W, A, 0, next);
        dmat_destroy(&A);
        A = next;
    }
    return A;
}

static void fill(struct model *model, const struct model *full, const struct dmat *V, bool merged)
{
    struct dmat **W = model->params->W;
    struct dmat *outer = carried(full, V);
    const int last = model->depth - 1, L = full->depth;
    dmat_transpose(V, W[0]);
    for (int l = 1; l < last - 1; l++) dmat_identity(W[l], scale_of(full->params->W[merged ? l : l - 1]));
    dmat_copy(W[last - 1], outer);
    dmat_copy(W[last], full->params->W[L - 1]);
    if (merged) {
        dmat_scale(W[0], scale_of(full->params->W[0]));
        dmat_scale(W[last - 1], scale_of(full->params->W[L - 2]));
    }
    dmat_destroy(&outer);
}

static int64_t count_parameters(const struct model *model)
{
    int64_t count = 0;
    for (int l = 1; l <= model->depth; l++) count += model->width[l] * model->width[l - 1];
    return count;
}

struct model *low_rank_create(const struct grid *grid, const struct spec *spec, const struct dataset *train,
                              const struct loss *loss, struct problems *problems)
{
    struct model *model = model_outline(grid, spec, train->features, train->outputs, problems);
    struct model *full = NULL;
    if (spec_count(spec, "twins") > 0)
        spec_problem(spec, problems, "twins[0].kind", "twins stand beside a full network: model.parametrization: full");
    if (problems_none(problems, grid->comm))
        full = model_outline_full(grid, spec, train->features, train->outputs, problems);
    if (problems_none(problems, grid->comm)) {
        ensure(full);
        full->params = params_create(full);
        init_fill(full, spec, problems);
    }
    if (problems_none(problems, grid->comm)) {
        ensure(model);
        ensure(full);
        struct dmat *V = subspace(full, spec, train, loss, model->width[1]);
        model->params = params_create(model);
        fill(model, full, V, spec_is(spec, "model.factors", "merged"));
        dmat_destroy(&V);
        log_say("low-rank network of width %lld: %lld parameters in place of %lld", (long long)model->width[1],
                (long long)count_parameters(model), (long long)count_parameters(full));
    } else {
        model_destroy(&model);
    }
    model_destroy(&full);
    return model;
}
