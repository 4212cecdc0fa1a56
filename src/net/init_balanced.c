/* init_balanced: starts with S_k = W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ = λ_k I, for widths of any kind: W_k = Q_k Σ_k Q_{k−1}ᵀ
 * with random orthogonal Q_k (of order n_k, products of reflections) and Σ_k of singular values on its diagonal. Number
 * i of one layer and of the next are tied by σ_{k+1,i}² = σ_{k,i}² + λ_k wherever i < n_k, and are zero where a layer
 * has none. So along a chain of layers that all have one, the squares are known but for a constant; it is free if the
 * chain begins at the inputs and ends at the outputs, and fixed if it ends before. */
#include "base/memory.h"
#include "dist/random.h"
#include "dist/reflect.h"

#include "init_private.h"

#include <math.h>

struct balance {
    int depth;            /* L */
    const int64_t *width; /* [L + 1] borrowed */
    double *lambda;       /* [L] λ_k at k = 1 … L − 1; owned */
    double scale;
    double rounding; /* of sums of λ */
    int64_t least;   /* width */
};

bool init_is_balanced(const struct spec *spec)
{
    return spec_is(spec, "model.init.kind", "balanced") || spec_is(spec, "model.init.kind", "relaxed_balanced");
}

static struct balance balance_of(const struct spec *spec, int depth, const int64_t *width)
{
    const bool relaxed = spec_is(spec, "model.init.kind", "relaxed_balanced");
    struct balance b = {.depth = depth, .width = width, .scale = spec_real_at(spec, "model.init.scale", 0)};
    b.lambda = NEW(double, depth);
    b.least = width[0];
    for (int k = 1; k < depth; k++) {
        const int given = relaxed ? spec_count(spec, "model.init.lambda") : 0;
        if (given == 1 || k - 1 < given) b.lambda[k] = spec_real_at(spec, "model.init.lambda", given == 1 ? 0 : k - 1);
        b.rounding += 1e-14 * fabs(b.lambda[k]);
    }
    for (int k = 1; k <= depth; k++)
        if (width[k] < b.least) b.least = width[k];
    return b;
}

/* The length of the chain of layers k, k + 1, … with width[k] > i, within the hidden ones. */
static int chain(const struct balance *b, int64_t i, int k)
{
    int end = k;
    while (end < b->depth && i < b->width[end]) end++;
    return end - k;
}

/* The squares of number i along a chain of `length` hidden layers from k on: square[k] … square[k + length]. */
static void fill_chain(const struct balance *b, int64_t i, int k, int length, double *square)
{
    const bool begins = k == 1 && i < b->width[0], ends = k + length == b->depth && i < b->width[b->depth];
    const double own = b->scale * (double)(b->least - i) / (double)b->least;
    double sum = 0, lowest = 0;
    for (int j = k; j < k + length; j++) {
        sum += b->lambda[j];
        lowest = fmin(lowest, sum);
    }
    square[k] = !begins ? 0 : ends ? own * own - lowest : -sum;
    for (int j = k; j < k + length; j++) square[j + 1] = square[j] + b->lambda[j];
}

/* Whether number i is possible in all layers; square[l] of layers l = 1 … L, zero where a layer has none. If not, *bad
 * is the first layer whose square is not what it must be. */
static bool squares(const struct balance *b, int64_t i, double *square, int *bad)
{
    for (int l = 1; l <= b->depth; l++) square[l] = 0;
    if (b->depth == 1 && i < b->least) square[1] = pow(b->scale * (double)(b->least - i) / (double)b->least, 2);
    for (int k = 1; k < b->depth; k++) {
        const int length = chain(b, i, k);
        if (length > 0) fill_chain(b, i, k, length, square);
        for (int l = k; length > 0 && l <= k + length; l++) {
            const bool there = i < b->width[l] && i < b->width[l - 1];
            if (square[l] < -b->rounding || (!there && fabs(square[l]) > b->rounding)) {
                *bad = l;
                return false;
            }
            square[l] = there ? fmax(square[l], 0) : 0;
        }
        k += length;
    }
    return true;
}

/* A narrow twin starts as the network does, with widths of its own. */
static void check_twins(const struct spec *spec, struct problems *problems)
{
    for (int i = 0; i < spec_count(spec, "twins"); i++) {
        char *key = memory_text("twins[%d].kind", i);
        if (spec_is(spec, key, "narrow"))
            spec_problem(spec, problems, key,
                         "a narrow twin needs a start of each layer alone: another model.init.kind");
        memory_free(key);
    }
}

void init_balanced_check(const struct spec *spec, int depth, const int64_t *width, struct problems *problems)
{
    const bool relaxed = spec_is(spec, "model.init.kind", "relaxed_balanced");
    const int given = relaxed ? spec_count(spec, "model.init.lambda") : 1, before = problems->count;
    if (!init_is_balanced(spec)) return;
    check_twins(spec, problems);
    if (spec_count(spec, "model.init.scale") != 1)
        spec_problem(spec, problems, "model.init.scale", "a balanced start has one scale for all layers");
    if (given != 1 && given != depth - 1)
        spec_problem(spec, problems, "model.init.lambda", "has %d values for %d hidden layers", given, depth - 1);
    if (problems->count > before) return;
    struct balance b = balance_of(spec, depth, width);
    double *square = NEW(double, depth + 1);
    int64_t most = 0;
    int bad;
    for (int k = 0; k <= depth; k++) most = width[k] > most ? width[k] : most;
    for (int64_t i = 0; i < most; i++) {
        if (squares(&b, i, square, &bad)) continue;
        spec_problem(
            spec, problems, "model.init.lambda",
            "no start of these widths has S_k = lambda_k I: singular value %lld of layer %d (%lld x %lld) would "
            "have the square %.6g. A lambda above 0 needs layers behind it that are at least as wide, one below "
            "0 layers before it",
            (long long)i + 1, bad, (long long)width[bad], (long long)width[bad - 1], square[bad]);
        break;
    }
    memory_free(square);
    memory_free(b.lambda);
}

static struct reflections factor(const struct spec *spec, int64_t n, uint64_t stream)
{
    return (struct reflections){.n = n,
                                .count = to_int(spec_int(spec, "model.init.reflections")),
                                .seed = (uint64_t)spec_int(spec, "run.seed"),
                                .stream = stream};
}

/* W ← Q_l diag(value) Q_{l−1}ᵀ. */
static void fill_layer(struct dmat *W, const struct spec *spec, int l, uint64_t stream, const double *value)
{
    const struct reflections left = factor(spec, W->m, stream + (uint64_t)l),
                             right = factor(spec, W->n, stream + (uint64_t)l - 1);
    struct dmat *T = dmat_create(W->grid, W->n, W->m);
    for (int jl = 0; jl < T->nloc; jl++)
        for (int il = 0; il < T->mloc; il++)
            if (dmat_row(T, il) == dmat_col(T, jl)) T->local[il + (int64_t)jl * T->lld] = value[dmat_row(T, il)];
    reflect_apply(&right, 'N', T);
    dmat_transpose(T, W);
    reflect_apply(&left, 'N', W);
    dmat_destroy(&T);
}

void init_balanced(struct model *model, const struct spec *spec, uint64_t stream)
{
    struct balance b = balance_of(spec, model->depth, model->width);
    double *square = NEW(double, model->depth + 1);
    int bad;
    for (int l = 1; l <= model->depth; l++) {
        struct dmat *W = model->params->W[l - 1];
        const int64_t count = W->m < W->n ? W->m : W->n;
        double *value = NEW(double, count);
        for (int64_t i = 0; i < count; i++) {
            ensure(squares(&b, i, square, &bad)); /* model_create has checked */
            value[i] = sqrt(square[l]);
        }
        fill_layer(W, spec, l, stream, value);
        memory_free(value);
    }
    memory_free(square);
    memory_free(b.lambda);
}
