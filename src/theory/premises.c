#include "theory/premises.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- what shapes and settings tell */

static bool has_equal_widths(const struct model *model, int layers)
{
    for (int l = 0; l < layers; l++)
        if (model->width[l] != model->width[l + 1]) return false;
    return true;
}

bool premises_square(const struct model *model)
{
    return has_equal_widths(model, model->depth);
}

bool premises_few_outputs(const struct model *model)
{
    return model->depth > 1 && has_equal_widths(model, model->depth - 1) &&
           2 * model->width[model->depth] < model->width[0];
}

static bool is_plain_squared_loss(const struct model *model, const struct spec *spec)
{
    return model->linear && spec_is(spec, "loss.kind", "mse") && spec_is(spec, "train.batch", "full") &&
           (spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "momentum"));
}

enum parsimony_case premises_case(const char *word, const struct model *model, const struct spec *spec)
{
    if (strcmp(word, "square") == 0) return PARSIMONY_SQUARE;
    if (strcmp(word, "outputs") == 0) return PARSIMONY_OUTPUTS;
    if (strcmp(word, "gradient") == 0 || !is_plain_squared_loss(model, spec)) return PARSIMONY_GRADIENT;
    return premises_square(model)        ? PARSIMONY_SQUARE
           : premises_few_outputs(model) ? PARSIMONY_OUTPUTS
                                         : PARSIMONY_GRADIENT;
}

int premises_rank(enum parsimony_case kind, const struct model *model, const struct spec *spec, const char *key)
{
    if (kind == PARSIMONY_OUTPUTS) return to_int(model->width[model->depth]);
    if (!spec_is(spec, key, "auto")) return to_int(spec_int(spec, key));
    return spec_applies(spec, "data.rank") ? to_int(spec_int(spec, "data.rank")) : 0;
}

void premises_check(enum parsimony_case kind, int rank, const struct model *model, const struct spec *spec,
                    const char *key, struct problems *problems)
{
    char path[128];
    snprintf(path, sizeof path, "%s.case", key);
    if (kind == PARSIMONY_SQUARE && !premises_square(model))
        spec_problem(spec, problems, path, "'square' needs layers of equal width, inputs and outputs too");
    if (kind == PARSIMONY_OUTPUTS && !premises_few_outputs(model))
        spec_problem(spec, problems, path,
                     "'outputs' needs inputs and hidden layers of equal width d, and less than d/2 outputs");
    snprintf(path, sizeof path, "%s.rank", key);
    if (rank < 1)
        spec_problem(spec, problems, path, "give the rank r of the target: it does not follow from the data");
    else if (2 * (int64_t)rank >= model->width[0])
        spec_problem(spec, problems, path, "is %d, but 2r must be smaller than the width, %lld", rank,
                     (long long)model->width[0]);
}

/* ---------------------------------------------------------------- what data and weights tell */

/* A ← M ∘ M ∘ A. */
static void mask(struct dmat *A, const struct dmat *M)
{
    const int64_t size = (int64_t)A->lld * A->nloc;
    for (int64_t i = 0; i < size; i++) A->local[i] *= M->local[i] * M->local[i];
}

struct dmat *premises_target(const struct dataset *train, const struct loss *loss)
{
    struct dmat *Y = dmat_create(train->Y->grid, train->Y->m, train->Y->n);
    dmat_copy(Y, train->Y);
    if (loss->kind == LOSS_MASKED_MSE && train->M) mask(Y, train->M);
    if (!train->X) return Y;
    struct dmat *target = dmat_create(Y->grid, Y->m, train->features);
    dmat_gemm('N', 'T', 1, Y, train->X, 0, target);
    dmat_destroy(&Y);
    return target;
}

bool premises_white(const struct dataset *train)
{
    return !train->X || (train->X->m <= train->X->n && dmat_orthogonality(train->X, 1) < 1e-10);
}

/* Each layer (in case B all but the last) is a multiple of an orthogonal matrix. */
static bool starts_orthogonal(const struct model *start, int layers)
{
    for (int l = 0; l < layers; l++) {
        const struct dmat *W = start->params->W[l];
        const double square = dmat_dot(W, W) / (double)(W->m < W->n ? W->m : W->n);
        if (!(dmat_orthogonality(W, square) < 1e-11 * square * sqrt((double)W->m))) return false;
    }
    return true;
}

bool premises_of_rank(const struct parsimony *law, const struct dmat *target)
{
    struct dmat *rest = dmat_create(target->grid, target->m, target->n);
    struct dmat *image = dmat_create(target->grid, target->m, law->q);
    dmat_gemm('N', 'N', 1, target, law->V[0], 0, image);
    dmat_copy(rest, target);
    dmat_gemm('N', 'T', -1, image, law->V[0], 1, rest);
    const bool small = dmat_norm(rest) <= 1e-11 * dmat_norm(target);
    dmat_destroy(&image);
    dmat_destroy(&rest);
    return small;
}

bool premises_hold(const struct parsimony *law, const struct model *start, const struct spec *spec,
                   const struct dataset *train, const struct dmat *target)
{
    return law->kind != PARSIMONY_GRADIENT && is_plain_squared_loss(start, spec) && premises_white(train) &&
           starts_orthogonal(start, law->blocks) && premises_of_rank(law, target);
}
