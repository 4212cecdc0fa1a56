/* curvature: extreme eigenpairs of the Hessian and its relatives, tracked through training, and how gradients, updates,
 * weights and class means lie to their span. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/random.h"

#include "curvature_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_curvature;

/* ---------------------------------------------------------------- reading the input */

/* Number of `word` in a '|'-free list that ends with NULL. */
static int word_of(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (strcmp(word, words[i]) == 0) return i;
    bug("no such word: '%s'", word);
}

static int64_t part_size(const struct model *model, const struct rop_part *part)
{
    int64_t size = 0;
    for (int l = 1; l <= model->depth; l++) {
        const struct layer *layer = &model->layer[l - 1];
        const bool bias = layer->bias && !part->weights_only;
        if (part->layer == 0 || part->layer == l) size += (part->unit < 0 ? layer->n_out : 1) * (layer->n_in + bias);
    }
    return size;
}

static struct rop_part read_part(const struct probe *probe, const struct setting *setting, int i,
                                 struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    char block[128], unit[128], biases[128];
    snprintf(block, sizeof block, "%s.block", probe->key);
    snprintf(unit, sizeof unit, "%s.unit", probe->key);
    snprintf(biases, sizeof biases, "%s.biases", probe->key);
    const int64_t layer = spec_int_at(spec, block, i);
    struct rop_part part = {.layer = 1, .unit = -1, .weights_only = !spec_bool(spec, biases)};
    if (layer > model->depth) {
        spec_problem(spec, problems, block, "there is no layer %lld: the network has %d", (long long)layer,
                     model->depth);
        return part;
    }
    part.layer = to_int(layer);
    if (!model->layer[layer - 1].trainable)
        spec_problem(spec, problems, block, "layer %lld is frozen (model.trainable): its block is zero",
                     (long long)layer);
    if (spec_is(spec, unit, "all")) return part;
    const int64_t number = spec_int_at(spec, unit, i < spec_count(spec, unit) ? i : 0);
    if (number > model->width[layer])
        spec_problem(spec, problems, unit, "there is no unit %lld in layer %lld: it has %lld", (long long)number,
                     (long long)layer, (long long)model->width[layer]);
    else
        part.unit = number - 1;
    return part;
}

static void read_block(struct curvature *s, const struct probe *probe, const struct setting *setting,
                       struct problems *problems)
{
    const struct spec *spec = setting->spec;
    char block[128], unit[128];
    snprintf(block, sizeof block, "%s.block", probe->key);
    snprintf(unit, sizeof unit, "%s.unit", probe->key);
    const int layers = spec_count(spec, block), units = spec_count(spec, unit);
    s->row = s->col = ROP_ALL;
    s->full = layers == 0;
    if (s->full && units > 0) spec_problem(spec, problems, unit, "a unit of which layer? give `block`, too");
    if (layers > 2)
        spec_problem(spec, problems, block, "one layer, or two for a block off the diagonal, not %d", layers);
    if (units > 2 || (units == 2 && layers == 0))
        spec_problem(spec, problems, unit, "one unit, or two for a block off the diagonal, not %d", units);
    if (s->full || layers > 2 || units > 2) return;
    s->row = s->col = read_part(probe, setting, 0, problems);
    if (layers == 2) s->col = read_part(probe, setting, 1, problems);
    if (layers == 1 && units == 2) /* two units of one layer */
        s->col.unit = spec_int_at(spec, unit, 1) - 1;
    if (s->col.unit >= setting->model->width[s->col.layer])
        spec_problem(spec, problems, unit, "there is no unit %lld in layer %d", (long long)s->col.unit + 1,
                     s->col.layer);
    s->cross = s->row.layer != s->col.layer || s->row.unit != s->col.unit;
}

static void read_solver(struct curvature *s, const struct probe *probe, const struct setting *setting,
                        struct problems *problems)
{
    const struct spec *spec = setting->spec;
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    const int64_t asked = spec_int(spec, KEY("rank")), rows = part_size(setting->model, &s->row),
                  columns = part_size(setting->model, &s->col);
    s->size = rows < columns ? rows : columns;
    if (asked > s->size)
        spec_problem(spec, problems, KEY("rank"), "is %lld, but the matrix has only %lld rows or columns",
                     (long long)asked, (long long)s->size);
    s->rank = to_int(asked < s->size ? asked : s->size);
    s->count = s->which == CURVATURE_BOTH && !s->cross ? 2 * s->rank : s->rank;
    s->options = (struct krylov_options){.tolerance = spec_real(spec, KEY("tolerance")),
                                         .max_products = spec_int(spec, KEY("max_products")),
                                         .seed = probe->seed,
                                         .stream = RANDOM_KRYLOV + 0x8000};
    s->track = spec_bool(spec, KEY("track"));
    s->reference = spec_int(spec, KEY("reference"));
    if (spec_is(spec, KEY("basis"), "auto")) return;
    s->options.basis = to_int(spec_int(spec, KEY("basis")));
    if (s->options.basis <= s->rank && s->rank < s->size)
        spec_problem(spec, problems, KEY("basis"), "is %d, but %d vectors are wanted: take more", s->options.basis,
                     s->rank);
#undef KEY
}

/* Largest ηh at which descent on a parabola of curvature h does not diverge, without weight decay: 2 for plain descent,
 * 2(1 + μ) for the heavy ball, 2(1 + μ)/(1 + 2μ) for Nesterov (the root −1 of the linear recursion). Adaptive
 * rates, or rates of their own for layers, have none that is known. */
static double stability_limit(const struct setting *setting)
{
    const struct spec *spec = setting->spec;
    for (int l = 0; l < setting->model->depth; l++)
        if (setting->model->layer[l].trainable && setting->model->layer[l].lr_multiplier != 1) return NAN;
    const bool nesterov = spec_is(spec, "train.optimizer", "nesterov");
    const double mu = nesterov || spec_is(spec, "train.optimizer", "momentum") ? spec_real(spec, "train.momentum") : 0;
    if (nesterov) return 2 * (1 + mu) / (1 + 2 * mu);
    if (spec_is(spec, "train.optimizer", "momentum")) return 2 * (1 + mu);
    return spec_is(spec, "train.optimizer", "gd") || spec_is(spec, "train.optimizer", "sgd") ? 2 : NAN;
}

/* ---------------------------------------------------------------- creating */

static const struct dataset *data_of(const struct curvature *s, const struct moment *moment)
{
    return s->of == CURVATURE_TRAIN ? moment->train : s->of == CURVATURE_TEST ? moment->test : moment->batch;
}

/* The work space for all measurements, and the data's part of the questions that `plan` cannot ask. */
static void make_room(struct curvature *s, const struct probe *probe, const struct setting *setting,
                      struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct dataset *set = s->of == CURVATURE_TEST ? setting->test : setting->train;
    char key[128];
    if (!set) {
        snprintf(key, sizeof key, "%s.of", probe->key);
        spec_problem(spec, problems, key, "there is no test set");
        return;
    }
    if (!rop_defined(setting->loss, set, s->matrix)) {
        snprintf(key, sizeof key, "%s.operator", probe->key);
        spec_problem(spec, problems, key,
                     "measurements of a matrix are no samples: there is no such moment of "
                     "gradients");
        return;
    }
    const bool batches = s->of == CURVATURE_BATCH && !spec_is(spec, "train.batch", "full");
    const int64_t columns = batches ? spec_int(spec, "train.batch") : set->Y->n;
    s->samples = batches ? columns : set->samples;
    s->rop = rop_create(setting->model, setting->loss, columns,
                        spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch"));
    s->A = rop_operator(s->rop, s->matrix, s->row, s->col, s->ridge);
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    static const char *const matrices[] = {"hessian", "ggn", "g", "g_centred", "remainder", NULL};
    static const char *const sets[] = {"train", "test", "batch", NULL};
    static const char *const whiches[] = {"largest", "smallest", "magnitude", "both", NULL};
    const struct spec *spec = setting->spec;
    struct curvature *s = probe->state = NEW(struct curvature, 1);
    s->rises.loss = NAN;
    const int before = problems->count;
    char key[128];
    snprintf(key, sizeof key, "%s.operator", probe->key);
    s->matrix = (enum rop_kind)word_of(spec_text(spec, key), matrices);
    snprintf(key, sizeof key, "%s.of", probe->key);
    s->of = (enum curvature_of)word_of(spec_text(spec, key), sets);
    snprintf(key, sizeof key, "%s.which", probe->key);
    s->which = (enum curvature_which)word_of(spec_text(spec, key), whiches);
    s->decay = spec_real(spec, "train.weight_decay");
    s->ridge = s->matrix == ROP_HESSIAN ? s->decay : 0;
    s->limit = stability_limit(setting);
    read_block(s, probe, setting, problems);
    if (problems->count > before) return;
    read_solver(s, probe, setting, problems);
    if (setting->model->params) make_room(s, probe, setting, problems);
    if (problems->count > before) return;
    if (curvature_sees_means(s, spec)) s->mixture = mixture_of(spec);
    s->theory = curvature_has_theory(s, setting);
    s->means = curvature_has_means(s, setting);
    probe->needs_previous = !s->cross;
    curvature_declare(s, probe, setting, record);
}

static void destroy(struct probe *probe)
{
    struct curvature *s = probe->state;
    eigenpairs_destroy(&s->end[0]);
    eigenpairs_destroy(&s->end[1]);
    triplets_destroy(&s->triplets);
    linop_destroy(&s->A);
    rop_destroy(&s->rop);
    mixture_destroy(&s->mixture);
    memory_free(s->merged);
    memory_free(s->merged_value);
    memory_free(s->fixed);
    memory_free(s);
    probe->state = NULL;
}

/* ---------------------------------------------------------------- measuring */

static void follow_loss(struct rises *r, double loss)
{
    if (!isnan(r->loss)) {
        r->updates++;
        r->rises += loss > r->loss;
    }
    r->loss = loss;
}

static void advance(struct probe *probe, double lr, double loss)
{
    struct rises *r = &((struct curvature *)probe->state)->rises;
    (void)lr;
    if (!r->measured) follow_loss(r, loss);
    r->measured = false;
}

static void put_rises(struct curvature *s, const struct probe *probe, double loss)
{
    struct rises *r = &s->rises;
    follow_loss(r, loss);
    if (curvature_is_sharpness(s) && r->updates > 0)
        record_put_at(probe->group, s->q_increase, 0, (double)r->rises / (double)r->updates);
    *r = (struct rises){.loss = loss, .measured = true};
}

static void archive_rises(struct rises *r, struct archive *archive)
{
    archive_real(archive, "rises_loss", &r->loss);
    archive_int(archive, "rises_updates", &r->updates);
    archive_int(archive, "rises", &r->rises);
    r->measured = archive_flag(archive, "rises_measured", r->measured);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct curvature *s = probe->state;
    put_rises(s, probe, moment->loss);
    (void)record;
    const struct dataset *set = data_of(s, moment);
    record_put_at(probe->group, s->q_loss, 0, rop_set(s->rop, moment->model, set));
    if (s->cross) {
        curvature_solve_cross(s, probe);
        return;
    }
    curvature_solve(s, probe, moment);
    curvature_gradients(s, probe, moment);
    curvature_weights(s, probe, moment, set->samples);
    curvature_means(s, probe, moment, set);
}

/* The reference has the layout of the matrix's vectors. */
static void archive_reference(struct curvature *s, struct archive *archive)
{
    const bool there = archive_flag(archive, "reference", s->fixed != NULL);
    const struct eigenpairs *E = s->end[0] ? s->end[0] : s->end[1];
    if (archive_loading(archive)) {
        memory_free(s->fixed);
        s->fixed = there && E ? NEW(double, (int64_t)s->rank * E->nloc) : NULL;
    }
    if (s->fixed) archive_vectors(archive, "reference_vectors", E->n, s->rank, E->nloc, E->index, s->fixed);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct curvature *s = probe->state;
    int64_t flag = s->flag;
    (void)model;
    archive_int(archive, "flag", &flag);
    s->flag = (enum curvature_flag)flag;
    archive_rises(&s->rises, archive);
    if (s->cross) {
        triplets_archive(&s->triplets, s->A, s->rank, "triplets", archive);
        return;
    }
    if (s->which != CURVATURE_SMALLEST) eigenpairs_archive(&s->end[0], s->A, s->rank, false, "largest", archive);
    if (s->which != CURVATURE_LARGEST) eigenpairs_archive(&s->end[1], s->A, s->rank, true, "smallest", archive);
    if (archive_loading(archive) && s->end[0] && s->end[1]) curvature_merge(s);
    archive_reference(s, archive);
}

/* A product takes so many multiply-adds a sample, and a pass of the network Σ of them. */
static double product_over_pass(const struct curvature *s, const struct model *model)
{
    double first = 0, sum = 0;
    for (int l = 1; l <= model->depth; l++) sum += (double)(model->width[l] * model->width[l - 1]);
    first = (double)(model->width[1] * model->width[0]);
    const double hessian = 6 * sum - 4 * first, ggn = 4 * sum - 2 * first;
    return (s->matrix == ROP_HESSIAN     ? hessian
            : s->matrix == ROP_GGN       ? ggn
            : s->matrix == ROP_REMAINDER ? hessian + ggn
                                         : 2 * sum) /
           sum;
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct curvature *s = probe->state;
    const int ends = s->which == CURVATURE_MAGNITUDE || s->which == CURVATURE_BOTH ? 2 : 1;
    const int basis = s->options.basis ? s->options.basis : krylov_eigen_basis(s->size, s->rank);
    const int products = ends * (basis + 10);
    need->passes = to_int((int64_t)ceil(products * product_over_pass(s, model))) + 3;
    const double share = (double)s->size / (double)model_parameters(model);
    const bool merged = s->which == CURVATURE_MAGNITUDE;
    const int copies = (merged ? s->rank : 0) + (s->reference >= 0 ? s->rank : 0);
    need->kept = share * (ends * krylov_eigen_kept(s->rank, 1) + copies);
    need->more = share * ends;
    need->most = share * (ends * krylov_eigen_kept(s->rank, INT64_MAX) + copies);
    need->work = share * (krylov_eigen_work(s->size, s->rank, s->options.basis) + s->count);
    need->products = s->of == CURVATURE_TEST ? NEED_TEST : s->of == CURVATURE_BATCH ? NEED_BATCH : NEED_TRAIN;
    need->stays = true;
}

static void write_vectors(const struct eigenpairs *E, struct h5 *file, const char *group, const char *end)
{
    char path[256], index[64];
    const char *dims[1] = {index};
    const int64_t size = E->rank;
    snprintf(index, sizeof index, "index_%s", end);
    snprintf(path, sizeof path, "%s/%s", group, index);
    h5_dimension(file, path, E->rank, NULL, &(struct h5_about){.units = "1", .long_name = "eigenpair"});
    snprintf(path, sizeof path, "%s/eigenvalue_%s", group, end);
    h5_write_reals(file, path, 1, dims, &size, E->lambda,
                   &(struct h5_about){.units = "1", .long_name = "eigenvalue, NaN if not converged"});
    snprintf(path, sizeof path, "%s/curvature_eigenvector_%s", group, end);
    h5_write_vectors(file, path, NULL, index, E->n, E->rank, E->nloc, E->index, E->vectors,
                     &(struct h5_about){.units = "1",
                                        .long_name = "eigenvectors, one a column; elements in the order W_1 by rows, "
                                                     "b_1, W_2, ... of the block"});
}

static void snapshot(const struct probe *probe, struct h5 *file)
{
    static const char *const ends[] = {"largest", "smallest"};
    const struct curvature *s = probe->state;
    if (!s->end[0] && !s->end[1] && !s->triplets) return;
    h5_group(file, probe->name);
    if (s->triplets) probe_write_triplets(s->triplets, file, probe->name, s->row.layer);
    for (int e = 0; e < 2; e++)
        if (s->end[e]) write_vectors(s->end[e], file, probe->name, ends[e]);
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct curvature *s = probe->state;
    const char *name = probe->name, *value = s->cross ? "block_singular_value" : "curvature_eigenvalue";
    log_say("  %s (last step): %s %.6g, %.6g … %.6g; %.0f of %d converged, %.0f products", name,
            s->cross ? "singular values" : "eigenvalues", record_last(record, name, value, 0),
            record_last(record, name, value, s->rank > 1), record_last(record, name, value, s->count - 1),
            record_last(record, name, "eigen_converged", 0), s->count,
            record_last(record, name, "curvature_products", 0));
    if (s->cross) return;
    log_say("    share of the gradient in the eigenspace %.4f, of the batch's %.4f; overlap with the one before %.4f",
            record_last(record, name, "chi_k_full", 0), record_last(record, name, "chi_k_batch", 0),
            record_last(record, name, "subspace_overlap", 0));
    if (curvature_is_sharpness(s))
        log_say("    sharpness over the threshold of stability %.4f", record_last(record, name, "stability_ratio", 0));
}

const struct probe_kind probe_curvature = {.name = "curvature",
                                           .create = create,
                                           .advance = advance,
                                           .measure = measure,
                                           .snapshot = snapshot,
                                           .archive = archive,
                                           .need = need,
                                           .summary = summary,
                                           .destroy = destroy};
