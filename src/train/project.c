#include "train/project.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"
#include "dist/random.h"
#include "net/rop.h"

#include <math.h>
#include <string.h>

struct project {
    const struct dataset *train; /* borrowed */
    bool bulk;                   /* the leading eigenvectors are what is removed, else what is kept */
    int rank;                    /* k */
    int64_t every;               /* steps between solves */
    int64_t given;               /* step of the switch; −1: the average decides */
    double threshold, factor;
    double weight_decay;
    struct krylov_options options;

    struct rop *rop;            /* owned */
    struct linop *hessian;      /* with the weights that rop_set saw last; owned */
    struct eigenpairs *pairs;   /* leading ones; owned */
    struct params *full;        /* gradient of the whole training loss; owned */
    struct params *kept;        /* part of the step's gradient; owned */
    double average;             /* of chi_k_full; NaN before the first */
    int64_t switched;           /* step of the switch, −1 before */
    int64_t solves, products;   /* of this process */
    bool warned;                /* that a solve has not converged */
    struct record_group *group; /* borrowed */
    int q_full, q_batch, q_average, q_removed, q_switch, q_value, q_residual, q_converged, q_products;
};

bool project_wanted(const struct spec *spec)
{
    return !spec_is(spec, "train.project.kind", "none");
}

/* ---------------------------------------------------------------- what cannot be */

static int rank_of(const struct spec *spec, const struct model *model)
{
    return to_int(spec_is(spec, "train.project.rank", "auto") ? model->width[model->depth]
                                                              : spec_int(spec, "train.project.rank"));
}

static void check(const struct setting *setting, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    int64_t parameters = 0;
    bool even = true;
    for (int l = 0; l < model->depth; l++) {
        const struct layer *layer = &model->layer[l];
        parameters += layer->trainable ? layer->n_out * (layer->n_in + layer->bias) : 0;
        even = even && (!layer->trainable || layer->lr_multiplier == 1);
    }
    if (!spec_is(spec, "train.optimizer", "gd") && !spec_is(spec, "train.optimizer", "sgd"))
        spec_problem(spec, problems, "train.optimizer",
                     "train.project projects gradients: take gd or sgd (with a memory of earlier steps an update does "
                     "not lie in the subspace of its own step)");
    if (!even)
        spec_problem(spec, problems, "model.lr_multiplier",
                     "train.project needs the same learning rate in all layers, or an update leaves its subspace");
    if (spec_count(spec, "twins") > 0)
        spec_problem(spec, problems, "twins[0].kind",
                     "twins follow plain training: leave them out, or take train.project.kind: none");
    if (spec_is(spec, "model.parametrization", "compressed"))
        spec_problem(spec, problems, "train.project.kind",
                     "the Hessian of a compressed network is not the large one's: take model.parametrization: full");
    if (rank_of(spec, model) > parameters)
        spec_problem(spec, problems, "train.project.rank", "is %d, but only %lld parameters are trained",
                     rank_of(spec, model), (long long)parameters);
}

/* ---------------------------------------------------------------- life */

static void declare(struct project *p, struct record *record)
{
    p->group =
        record_group(record, "project", "step", p->bulk ? "training in the bulk" : "training in the dominant subspace");
    record_dimension(p->group, "index", p->rank, "number of the eigenvalue");
    p->q_full = record_quantity(p->group, &(struct quantity){.name = "chi_k_full",
                                                             .units = "1",
                                                             .long_name = "share of the full gradient in the subspace",
                                                             .formula = "|P_k g|/|g|, g of the whole training set",
                                                             .reference = "Song, Ahn, Yun 2025"});
    p->q_batch = record_quantity(p->group, &(struct quantity){.name = "chi_k_batch",
                                                              .units = "1",
                                                              .long_name = "the same of the step's gradient",
                                                              .formula = "|P_k g|/|g|"});
    p->q_average = record_quantity(p->group, &(struct quantity){.name = "chi_k_average",
                                                                .units = "1",
                                                                .long_name = "exponential average of chi_k_full",
                                                                .formula = "a <- f a + (1 - f) chi_k_full"});
    p->q_removed =
        record_quantity(p->group, &(struct quantity){.name = "removed_share",
                                                     .units = "1",
                                                     .long_name = "share of the step's gradient that is left out",
                                                     .formula = "|removed part|/|g|"});
    p->q_switch = record_quantity(p->group, &(struct quantity){.name = "switch_step",
                                                               .units = "1",
                                                               .long_name = "step of the switch; -1: not yet",
                                                               .integer = true});
    p->q_value = record_quantity(p->group, &(struct quantity){.name = "curvature_eigenvalue",
                                                              .units = "1",
                                                              .long_name = "largest eigenvalues of the Hessian",
                                                              .dims = {"index"}});
    p->q_residual = record_quantity(p->group, &(struct quantity){.name = "curvature_residual",
                                                                 .units = "1",
                                                                 .long_name = "largest residual of an eigenpair",
                                                                 .formula = "max_i |H v_i - l_i v_i|/max|l|"});
    p->q_converged = record_quantity(p->group, &(struct quantity){.name = "eigen_converged",
                                                                  .units = "1",
                                                                  .long_name = "eigenpairs found, of which P_k is made",
                                                                  .integer = true});
    p->q_products =
        record_quantity(p->group, &(struct quantity){.name = "curvature_products",
                                                     .units = "1",
                                                     .long_name = "Hessian products of the solve; 0: none was due",
                                                     .integer = true});
}

static void read_settings(struct project *p, const struct spec *spec)
{
    p->bulk = spec_is(spec, "train.project.kind", "bulk");
    p->every = spec_int(spec, "train.project.every");
    p->given = -1;
    p->average = NAN;
    p->switched = -1;
    if (spec_is(spec, "train.project.switch", "step")) {
        p->given = spec_int(spec, "train.project.step");
    } else {
        p->threshold = spec_real(spec, "train.project.threshold");
    }
    p->factor = spec_real(spec, "train.project.factor");
    p->weight_decay = spec_real(spec, "train.weight_decay");
    p->options = (struct krylov_options){.tolerance = spec_real(spec, "train.project.tolerance"),
                                         .max_products = spec_int(spec, "train.project.max_products"),
                                         .seed = (uint64_t)spec_int(spec, "run.seed"),
                                         .stream = RANDOM_KRYLOV};
}

struct project *project_create(const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    check(setting, problems);
    if (!problems_none(problems, model->grid->comm)) return NULL;
    struct project *p = NEW(struct project, 1);
    const int64_t chunk = spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
    read_settings(p, spec);
    p->train = setting->train;
    p->rank = rank_of(spec, model);
    p->rop = rop_create(model, setting->loss, p->train->Y->n, chunk);
    p->hessian = rop_operator(p->rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, p->weight_decay);
    p->pairs = eigenpairs_create(p->hessian, p->rank, false);
    p->full = params_create(model);
    p->kept = params_create(model);
    declare(p, record);
    return p;
}

void project_destroy(struct project **project)
{
    struct project *p = *project;
    if (!p) return;
    params_destroy(&p->kept);
    params_destroy(&p->full);
    eigenpairs_destroy(&p->pairs);
    linop_destroy(&p->hessian);
    rop_destroy(&p->rop);
    memory_free(p);
    *project = NULL;
}

/* ---------------------------------------------------------------- a step */

/* g ← g + λθ of the trained layers. */
static void add_ridge(const struct project *p, const struct model *model, double factor, struct params *g)
{
    for (int l = 0; p->weight_decay > 0 && l < model->depth; l++)
        for (int64_t i = g->start[l]; model->layer[l].trainable && i < g->start[l + 1]; i++)
            g->local[i] += factor * p->weight_decay * model->params->local[i];
}

/* along ← Vᵀ g, and g's length as the last number. */
static void components(const struct project *p, const struct params *g, double *along)
{
    const int k = p->pairs->converged;
    for (int i = 0; i <= k; i++) {
        const double *v = i < k ? p->pairs->vectors + (int64_t)i * g->size : g->local;
        along[i] = 0;
        for (int64_t j = 0; j < g->size; j++) along[i] += v[j] * g->local[j];
    }
    grid_sum(g->grid, along, k + 1);
    along[k] = sqrt(along[k]);
}

/* ‖P g‖/‖g‖; NaN of nothing. */
static double share_of(const struct project *p, const double *along)
{
    const int k = p->pairs->converged;
    double sum = 0;
    for (int i = 0; i < k; i++) sum += along[i] * along[i];
    return along[k] > 0 ? sqrt(sum) / along[k] : NAN;
}

/* g ← P g or (I − P) g. */
static void keep_part(const struct project *p, const double *along, struct params *g)
{
    if (!p->bulk) memset(g->local, 0, (size_t)g->size * sizeof *g->local);
    for (int i = 0; i < p->pairs->converged; i++) {
        const double *v = p->pairs->vectors + (int64_t)i * g->size, c = p->bulk ? -along[i] : along[i];
        for (int64_t j = 0; j < g->size; j++) g->local[j] += c * v[j];
    }
}

/* Eigenvectors for these weights. */
static void solve(struct project *p, int64_t step)
{
    const struct eigenpairs *E = p->pairs;
    krylov_eigen(p->hessian, &p->options, p->pairs);
    p->solves++;
    p->products += E->products;
    if (E->converged == E->rank || p->warned) return;
    log_warn("train.project: only %d of %d eigenvectors were found at step %lld, the projector has no more; the record "
             "has the numbers of later steps (eigen_converged)",
             E->converged, E->rank, (long long)step);
    p->warned = true;
}

static void put_pairs(const struct project *p, bool solved)
{
    const struct eigenpairs *E = p->pairs;
    double residual = E->converged > 0 ? 0 : NAN;
    for (int i = 0; i < E->converged; i++) residual = fmax(residual, E->residual[i]);
    record_put(p->group, p->q_value, E->lambda);
    record_put_at(p->group, p->q_residual, 0, residual);
    record_put_int_at(p->group, p->q_converged, 0, E->converged);
    record_put_int_at(p->group, p->q_products, 0, solved ? E->products : 0);
}

/* The average takes part from its first value on. */
static void follow(struct project *p, double chi, int64_t step)
{
    if (isfinite(chi)) p->average = isfinite(p->average) ? p->factor * p->average + (1 - p->factor) * chi : chi;
    if (p->switched < 0 && (p->given >= 0 || p->average > p->threshold)) p->switched = step;
}

void project_look(struct project *p, const struct model *model, const struct params *gradient, int64_t step,
                  double time)
{
    if (step < p->given) return;
    const double since = timer_now();
    const bool due = step % p->every == 0 || !p->pairs->filled;
    double *along = NEW(double, p->rank + 1);
    rop_set(p->rop, model, p->train);
    if (due) solve(p, step);
    rop_gradient(p->rop, p->full);
    add_ridge(p, model, 1, p->full);
    components(p, p->full, along);
    const double chi = share_of(p, along);
    follow(p, chi, step);
    memcpy(p->kept->local, gradient->local, (size_t)gradient->size * sizeof *gradient->local);
    add_ridge(p, model, 1, p->kept);
    components(p, p->kept, along);
    const double chi_batch = share_of(p, along), length = along[p->pairs->converged];
    memcpy(p->full->local, p->kept->local, (size_t)p->kept->size * sizeof *p->kept->local);
    keep_part(p, along, p->kept);
    for (int64_t i = 0; i < p->full->size; i++) p->full->local[i] -= p->kept->local[i];
    const double removed = length > 0 ? sqrt(params_dot(p->full, p->full)) / length : NAN;
    add_ridge(p, model, -1, p->kept); /* which the optimizer adds as weight decay */
    record_row(p->group, step, time);
    record_put_at(p->group, p->q_full, 0, chi);
    record_put_at(p->group, p->q_batch, 0, chi_batch);
    record_put_at(p->group, p->q_average, 0, p->average);
    record_put_at(p->group, p->q_removed, 0, p->switched < 0 ? 0 : removed);
    record_put_int_at(p->group, p->q_switch, 0, p->switched);
    put_pairs(p, due);
    memory_free(along);
    timer_add(TIMER_UPDATE, since);
}

void project_apply(const struct project *p, struct params *gradient)
{
    if (p->switched < 0) return;
    memcpy(gradient->local, p->kept->local, (size_t)gradient->size * sizeof *gradient->local);
}

void project_archive(struct project *p, struct archive *archive)
{
    archive_enter(archive, "project");
    archive_real(archive, "average", &p->average);
    archive_int(archive, "switched", &p->switched);
    eigenpairs_archive(&p->pairs, p->hessian, p->rank, false, "pairs", archive);
    archive_leave(archive);
}

void project_summary(const struct project *p)
{
    const char *part = p->bulk ? "the bulk" : "the dominant subspace";
    if (p->switched < 0) {
        log_say("  project: no switch to %s; the average of chi_%d is %.4f", part, p->rank, p->average);
        return;
    }
    log_say("  project: %s of rank %d from step %lld on; %.1f Hessian products a solve", part, p->rank,
            (long long)p->switched, p->solves ? (double)p->products / (double)p->solves : 0);
}
