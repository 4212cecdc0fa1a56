/* reduction: the premises, the subspaces, the small network and its data. */
#include "base/log.h"
#include "base/memory.h"
#include "net/init.h"
#include "net/loss.h"
#include "theory/premises.h"

#include "reduction_private.h"

#include <math.h>

bool reduction_wanted(const struct spec *spec)
{
    return spec_is(spec, "model.parametrization", "compressed");
}

/* ---------------------------------------------------------------- the premises */

/* A key that has none of the words that the theorem needs: one problem. */
static void needs(const struct spec *spec, const char *key, const char *first, const char *second, const char *third,
                  struct problems *problems)
{
    const char *const words[] = {first, second, third};
    for (int i = 0; i < 3; i++)
        if (words[i] && spec_is(spec, key, words[i])) return;
    spec_problem(spec, problems, key, "is not possible with model.parametrization: compressed, which needs %s%s%s%s%s",
                 first, second ? " or " : "", second ? second : "", third ? " or " : "", third ? third : "");
}

static void check_settings(const struct spec *spec, struct problems *problems)
{
    needs(spec, "model.activation", "linear", NULL, NULL, problems);
    needs(spec, "model.residual", "none", NULL, NULL, problems);
    needs(spec, "model.init.kind", "orthogonal", "householder", "identity", problems);
    needs(spec, "loss.kind", "mse", NULL, NULL, problems);
    needs(spec, "train.optimizer", "gd", "momentum", NULL, problems);
    needs(spec, "train.batch", "full", NULL, NULL, problems);
    if (spec_bool(spec, "model.bias"))
        spec_problem(spec, problems, "model.bias", "a network with biases cannot be compressed: leave them out");
    if (spec_count(spec, "probes") > 0)
        spec_problem(spec, problems, "probes[0].kind",
                     "probes look at whole weight matrices, which a compressed run does not have: leave them out; the "
                     "group `compressed` of metrics.h5 has what the theorem says of the large network");
    if (spec_count(spec, "twins") > 0)
        spec_problem(
            spec, problems, "twins[0].kind",
            "twins are compared with a large network, which a compressed run does not have: leave them out, or "
            "take model.parametrization: full");
}

/* The case of the law; GRADIENT with a problem if there is none. */
static enum parsimony_case case_of(const struct model *large, const struct spec *spec, struct problems *problems)
{
    const enum parsimony_case kind = premises_case("auto", large, spec);
    if (kind == PARSIMONY_GRADIENT)
        spec_problem(
            spec, problems, "model.parametrization",
            "compressed needs inputs, hidden layers and outputs of equal width; with less than half as many "
            "outputs it is enough that inputs and hidden layers are; here n_0, n_1 and n_%d are %lld, %lld and "
            "%lld",
            large->depth, (long long)large->width[0], (long long)large->width[1],
            (long long)large->width[large->depth]);
    if (kind == PARSIMONY_OUTPUTS && !spec_is(spec, "model.rank", "auto"))
        spec_problem(spec, problems, "model.rank", "has no meaning with few outputs, whose number takes its place");
    return kind;
}

/* Of data that is there. */
static void check_data(const struct data *full, const struct spec *spec, struct problems *problems)
{
    if (full->test)
        spec_problem(spec, problems, "model.parametrization",
                     "a compressed run has no test set: leave the held-out samples out");
    if (!premises_white(full->train))
        spec_problem(spec, problems, "model.parametrization",
                     "compressed needs whitened inputs, X Xᵀ = I: data.whiten: true, or a target matrix alone");
}

/* ---------------------------------------------------------------- the subspaces */

static void apply_start(const struct parsimony_start *start, int l, char transposed, const struct dmat *in,
                        struct dmat *out)
{
    init_apply(start->context, l, start->width[l], start->width[l - 1], transposed, in, out);
}

/* The start of the large network; epsilon is the caller's [L]. */
static struct parsimony_start start_of(const struct model *large, const struct spec *spec, double *epsilon)
{
    for (int l = 1; l <= large->depth; l++) epsilon[l - 1] = init_scale(spec, l);
    return (struct parsimony_start){large->depth, large->width, epsilon, apply_start, spec};
}

/* Of a target that is there. */
static struct parsimony *law_of_matrix(enum parsimony_case kind, const struct parsimony_start *start,
                                       const struct dmat *target, int rank, const struct spec *spec,
                                       struct problems *problems)
{
    struct dmat *left = dmat_create(target->grid, target->m, rank), *right = dmat_create(target->grid, target->n, rank);
    struct parsimony *law = NULL;
    if (parsimony_leading(target, rank, (uint64_t)spec_int(spec, "run.seed"), left, right, problems))
        law = parsimony_of(kind, start, left, right);
    if (law && !premises_of_rank(law, target))
        spec_problem(spec, problems, "model.rank", "is %d, but the rank of the target is larger", rank);
    dmat_destroy(&left);
    dmat_destroy(&right);
    return law;
}

static double worst_basis(const struct parsimony *law)
{
    double worst = 0;
    for (int l = 0; l <= law->blocks; l++) worst = fmax(worst, dmat_orthogonality(law->V[l], 1));
    return worst;
}

/* ---------------------------------------------------------------- the small network and its data */

/* C ← op(A) B; the caller owns it. */
static struct dmat *product(char ta, const struct dmat *A, const struct dmat *B)
{
    struct dmat *C = dmat_create(A->grid, ta == 'N' ? A->m : A->n, B->n);
    dmat_gemm(ta, 'N', 1, A, B, 0, C);
    return C;
}

/* Uᵀ A with U_{L,1}, or A itself with few outputs; A is used up. */
static struct dmat *seen_from_left(const struct parsimony *law, struct dmat *A)
{
    if (law->kind == PARSIMONY_OUTPUTS) return A;
    struct dmat *seen = product('T', law->V[law->blocks], A);
    dmat_destroy(&A);
    return seen;
}

/* Φ V_{1,1} = U diag(s) Vᵀ V_{1,1}. */
static struct dmat *image_of_factors(const struct parsimony *law, const struct factors *f)
{
    struct dmat *overlap = product('T', f->V, law->V[0]);
    for (int jl = 0; jl < overlap->nloc; jl++)
        for (int il = 0; il < overlap->mloc; il++)
            overlap->local[il + (int64_t)jl * overlap->lld] *= f->s[dmat_row(overlap, il)];
    struct dmat *image = product('N', f->U, overlap);
    dmat_destroy(&overlap);
    return image;
}

/* Identity input and the target as it is seen in the bases; what a mean of the loss divides by stays. */
static struct data *small_data(const struct reduction *r, struct dmat *image, int64_t samples, double whole)
{
    struct data *data = NEW(struct data, 1);
    struct dataset *set = data->train = NEW(struct dataset, 1);
    set->Y = seen_from_left(r->law, image);
    set->features = r->law->q;
    set->outputs = r->large->width[r->large->depth];
    set->samples = samples;
    const double held = dmat_dot(set->Y, set->Y);
    if (samples > r->large->width[0] && whole > held) set->constant = (whole - held) / 2;
    return data;
}

/* Without parameters. `blocks` layers have matrices of order q. */
static struct model *small_outline(const struct model *large, int blocks, int64_t q)
{
    int64_t *width = NEW(int64_t, large->depth + 1);
    for (int l = 0; l <= large->depth; l++) width[l] = l <= blocks ? q : large->width[l];
    struct model *model = model_linear(large->grid, large->depth, width, large->output_scale);
    memory_free(width);
    for (int l = 0; l < large->depth; l++) {
        model->layer[l].trainable = large->layer[l].trainable;
        model->layer[l].lr_multiplier = large->layer[l].lr_multiplier;
    }
    return model;
}

static struct model *small_network(const struct reduction *r, const struct parsimony_start *start)
{
    const struct parsimony *law = r->law;
    struct model *model = small_outline(r->large, law->blocks, law->q);
    model->params = params_create(model);
    for (int l = 1; l <= law->blocks; l++) dmat_identity(model->params->W[l - 1], law->epsilon[l - 1]);
    for (int l = law->blocks + 1; l <= r->large->depth; l++)
        start->apply(start, l, 'N', law->V[l - 1], model->params->W[l - 1]);
    return model;
}

/* ---------------------------------------------------------------- life */

/* What the law and the small data are made from: factors, or a set that is there. */
struct source_data {
    struct factors *factors; /* owned, or NULL */
    struct data *full;       /* owned, or NULL */
    struct dmat *target;     /* Φ of `full`; owned, or NULL */
    int64_t features, outputs, samples;
    double squared; /* ‖Y‖_F² */
};

static void load_factors(struct source_data *from, const struct grid *grid, const struct spec *spec,
                         struct problems *problems)
{
    if (!spec_is(spec, "data.kind", "low_rank_matrix") || !matrix_problem_fits(spec, problems)) return;
    from->factors = matrix_problem_factors(grid, spec);
    from->features = from->samples = spec_int(spec, "data.cols");
    from->outputs = spec_int(spec, "data.rows");
}

static void load(struct source_data *from, const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    load_factors(from, grid, spec, problems);
    if (from->factors || !problems_none(problems, grid->comm)) return;
    from->full = data_create(grid, spec, problems);
    if (!from->full) return;
    const struct dataset *train = from->full->train;
    from->features = train->features;
    from->outputs = train->outputs;
    from->samples = train->samples;
    check_data(from->full, spec, problems);
    if (problems->count) return;
    const struct loss loss = loss_of(spec);
    from->target = premises_target(train, &loss);
    from->squared = dmat_dot(train->Y, train->Y);
}

static void unload(struct source_data *from)
{
    factors_destroy(&from->factors);
    data_destroy(&from->full);
    dmat_destroy(&from->target);
}

static void find_law(struct reduction *r, const struct source_data *from, enum parsimony_case kind, int rank,
                     const struct parsimony_start *start, const struct spec *spec, struct problems *problems)
{
    if (!from->factors) {
        ensure(from->target);
        r->law = law_of_matrix(kind, start, from->target, rank, spec, problems);
        return;
    }
    struct dmat *all = NULL; /* with few outputs all of them are seen, not only the target's */
    if (kind == PARSIMONY_OUTPUTS) all = dmat_create(from->factors->U->grid, from->outputs, from->outputs);
    if (all) dmat_identity(all, 1);
    r->law = parsimony_of(kind, start, all ? all : from->factors->U, from->factors->V);
    dmat_destroy(&all);
}

static double norm_of_target(const struct source_data *from)
{
    double sum = 0;
    if (!from->factors) return dmat_norm(from->target);
    for (int k = 0; k < from->factors->rank; k++) sum += from->factors->s[k] * from->factors->s[k];
    return sqrt(sum);
}

/* The law is there: what is trained in the large network's place. */
static void make_small(struct reduction *r, const struct source_data *from, const struct parsimony_start *start,
                       const struct spec *spec, struct data **data, struct model **model)
{
    const struct loss loss = loss_of(spec);
    const double alpha = r->large->output_scale;
    struct dmat *image =
        from->factors ? image_of_factors(r->law, from->factors) : product('N', from->target, r->law->V[0]);
    *data = small_data(r, image, from->samples, from->squared);
    *model = small_network(r, start);
    r->scalars = scalars_create(r->law, r->large, spec, alpha * alpha * loss_scale_on(&loss, (*data)->train));
    r->orthogonality = worst_basis(r->law);
    r->missed = fabs(dmat_norm((*data)->train->Y) / norm_of_target(from) - 1);
    log_say("compressed: layers of order %d in place of %lld, exact by the law of parsimony", r->law->q,
            (long long)r->large->width[0]);
}

/* The case and the rank of a large network that fulfils the premises, as far as they show without data; else problems.
 */
static int rank_of(const struct model *large, const struct spec *spec, enum parsimony_case *kind,
                   struct problems *problems)
{
    *kind = case_of(large, spec, problems);
    if (problems->count) return 0;
    const int rank = premises_rank(*kind, large, spec, "model.rank");
    premises_check(*kind, rank, large, spec, "model", problems);
    return rank;
}

static void prepare(struct reduction *r, const struct source_data *from, const struct grid *grid,
                    const struct spec *spec, struct data **data, struct model **model, struct problems *problems)
{
    enum parsimony_case kind;
    r->large = model_outline(grid, spec, from->features, from->outputs, problems);
    if (!r->large) return;
    const int rank = rank_of(r->large, spec, &kind, problems);
    if (from->factors && !spec_is(spec, "model.rank", "auto") && spec_int(spec, "model.rank") != from->factors->rank)
        spec_problem(spec, problems, "model.rank", "is %d, but data.rank is %d: leave it out", rank,
                     from->factors->rank);
    if (problems->count) return;
    double *epsilon = NEW(double, r->large->depth);
    const struct parsimony_start start = start_of(r->large, spec, epsilon);
    find_law(r, from, kind, rank, &start, spec, problems);
    if (problems_none(problems, grid->comm)) make_small(r, from, &start, spec, data, model);
    memory_free(epsilon);
}

struct reduction *reduction_create(const struct grid *grid, const struct spec *spec, struct data **data,
                                   struct model **model, struct problems *problems)
{
    struct reduction *r = NEW(struct reduction, 1);
    struct source_data from = {0};
    check_settings(spec, problems);
    if (problems->count == 0) load(&from, grid, spec, problems);
    if (problems_none(problems, grid->comm)) prepare(r, &from, grid, spec, data, model, problems);
    unload(&from);
    if (!problems_none(problems, grid->comm)) reduction_destroy(&r);
    return r;
}

struct model *reduction_outline(const struct grid *grid, const struct spec *spec, struct data_sizes *sizes,
                                struct problems *problems)
{
    enum parsimony_case kind;
    struct model *small = NULL, *large = NULL;
    check_settings(spec, problems);
    if (problems->count == 0) large = model_outline(grid, spec, sizes->features, sizes->outputs, problems);
    const int64_t order = large ? 2 * (int64_t)rank_of(large, spec, &kind, problems) : 0;
    if (large && problems->count == 0) {
        const bool outputs = kind == PARSIMONY_OUTPUTS;
        const int64_t q = order < sizes->features ? order : sizes->features;
        small = small_outline(large, outputs ? large->depth - 1 : large->depth, q);
        *sizes =
            (struct data_sizes){.features = q, .outputs = outputs ? sizes->outputs : q, .train = q, .identity = true};
    }
    model_destroy(&large);
    return small;
}

void reduction_destroy(struct reduction **reduction)
{
    struct reduction *r = *reduction;
    if (!r) return;
    model_destroy(&r->large);
    parsimony_destroy(&r->law);
    scalars_destroy(&r->scalars);
    memory_free(r);
    *reduction = NULL;
}

void reduction_complete(struct reduction *r, double *loss, double *squared_norm)
{
    r->small_loss = *loss;
    *loss += scalars_loss(r->scalars);
    *squared_norm += scalars_gradient(r->scalars);
}

void reduction_advance(struct reduction *r, double lr)
{
    scalars_advance(r->scalars, lr);
}

void reduction_archive(struct reduction *r, struct dataset *train, struct archive *archive)
{
    archive_enter(archive, "compressed");
    parsimony_archive(&r->law, train->Y, archive);
    scalars_archive(r->scalars, archive);
    archive_matrix(archive, "target", train->Y);
    archive_real(archive, "constant", &train->constant);
    archive_real(archive, "orthogonality", &r->orthogonality);
    archive_real(archive, "missed", &r->missed);
    archive_leave(archive);
}
