/* subspace: how the leading singular subspaces turn away from a reference time, and how the singular vectors of
 * neighbouring layers align. */
#include "base/log.h"
#include "base/memory.h"
#include "dist/basis.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "probes/probe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const struct probe_kind probe_subspace;

/* Why a number is missing. */
enum flag { FLAG_FINE, FLAG_NO_REFERENCE, FLAG_NO_GAP, FLAG_NOT_CONVERGED };

/* What is followed of one layer. */
struct follow {
    int rank;             /* k, at most min(m, n) */
    struct triplets *now; /* k + 1 triplets if the matrix has so many, for the gap; owned, NULL before the first */
    double *left, *right; /* the reference: [mloc × k], [nloc × k]; owned, NULL before there is one */
    enum flag flag;       /* of the last measurement */
};

struct subspace {
    enum probe_of of;
    int depth, rank;   /* L, and the k asked for */
    int64_t reference; /* step */
    double tolerance;
    int64_t max_products;
    struct follow *layer;                            /* [depth], owned */
    int q_left, q_right, q_alignment, q_gap, q_flag; /* in the record */
};

/* A subspace is defined when its gap is this many times the residual that was asked for: its angles are then known to
 * 1e-4 at worst. */
static const double GAP_OVER_TOLERANCE = 1e4;

static void declare(struct subspace *s, struct probe *probe, struct record *record)
{
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "leading singular subspaces: rotation and alignment");
    record_group_text(g, "kind", "subspace");
    record_group_text(g, "of", probe_of_word(s->of));
    record_dimension(g, "layer", s->depth, "layer, 1 is the first");
    record_dimension(g, "index", s->rank, "principal angle, 1 is the smallest");
    s->q_left = record_quantity(
        g, &(struct quantity){.name = "angle_left",
                              .units = "rad",
                              .long_name = "principal angles of the left singular subspace to the reference",
                              .reference = "Bjorck and Golub, Math. Comp. 27 (1973)",
                              .dims = {"layer", "index"}});
    s->q_right = record_quantity(
        g, &(struct quantity){.name = "angle_right",
                              .units = "rad",
                              .long_name = "principal angles of the right singular subspace to the reference",
                              .reference = "Bjorck and Golub, Math. Comp. 27 (1973)",
                              .dims = {"layer", "index"}});
    s->q_gap = record_quantity(g, &(struct quantity){.name = "gap",
                                                     .units = "1",
                                                     .long_name = "relative gap below the subspace",
                                                     .formula = "(sigma_k - sigma_{k+1}) / sigma_k",
                                                     .dims = {"layer"}});
    s->q_flag = record_quantity(
        g, &(struct quantity){
               .name = "flag",
               .units = "1",
               .integer = true,
               .long_name =
                   "0 fine, 1 no reference yet, 2 the gap is closed: the subspace is not defined, 3 not converged",
               .dims = {"layer"}});
    if (s->depth < 2) return;
    record_dimension(g, "interface", s->depth - 1, "between layers l and l + 1");
    record_dimension(g, "left_index", s->rank, "left singular vector of layer l");
    record_dimension(g, "right_index", s->rank, "right singular vector of layer l + 1");
    s->q_alignment = record_quantity(g, &(struct quantity){.name = "alignment",
                                                           .units = "1",
                                                           .long_name = "alignment of neighbouring layers",
                                                           .formula = "|<u_i(W_l), v_j(W_{l+1})>|",
                                                           .dims = {"interface", "left_index", "right_index"}});
}

static void create(struct probe *probe, const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    const struct model *model = setting->model;
    char key[128];
#define KEY(name) (snprintf(key, sizeof key, "%s." name, probe->key), key)
    struct subspace *s = probe->state = NEW(struct subspace, 1);
    s->of = probe_of(spec_text(spec, KEY("of")));
    s->reference = spec_int(spec, KEY("reference"));
    s->tolerance = spec_real(spec, KEY("tolerance"));
    s->max_products = spec_int(spec, KEY("max_products"));
    s->depth = model->depth;
    s->layer = NEW(struct follow, s->depth);
    const int64_t asked = spec_int(spec, KEY("rank"));
    int64_t largest = 0;
    for (int l = 1; l <= s->depth; l++) {
        const int64_t m = model->width[l], n = model->width[l - 1], least = m < n ? m : n;
        s->layer[l - 1].rank = to_int(asked < least ? asked : least);
        if (least > largest) largest = least;
    }
    if (asked > largest)
        spec_problem(spec, problems, KEY("rank"), "is %lld, but no matrix has more than %lld singular vectors",
                     (long long)asked, (long long)largest);
#undef KEY
    s->rank = to_int(asked < largest ? asked : largest);
    probe->needs_previous = s->of == PROBE_OF_UPDATE;
    declare(s, probe, record);
}

static void destroy(struct probe *probe)
{
    struct subspace *s = probe->state;
    for (int l = 0; l < s->depth; l++) {
        triplets_destroy(&s->layer[l].now);
        memory_free(s->layer[l].left);
        memory_free(s->layer[l].right);
    }
    memory_free(s->layer);
    memory_free(s);
    probe->state = NULL;
}

static struct basis left_basis(const struct follow *f, MPI_Comm comm, const double *local)
{
    return (struct basis){comm, f->now->m, f->rank, f->now->mloc, local, f->now->row};
}

static struct basis right_basis(const struct follow *f, MPI_Comm comm, const double *local)
{
    return (struct basis){comm, f->now->n, f->rank, f->now->nloc, local, f->now->col};
}

static double *duplicate(const double *vectors, int64_t size)
{
    double *copy = NEW(double, size);
    memcpy(copy, vectors, (size_t)size * sizeof *copy);
    return copy;
}

/* One triplet more than the subspace has dimensions, for the gap, if there are so many. */
static int wanted(const struct follow *f, const struct dmat *A)
{
    return f->rank < A->m && f->rank < A->n ? f->rank + 1 : f->rank;
}

/* Solves for the subspace and decides whether it is defined. */
static double find(struct probe *probe, const struct subspace *s, int l, const struct dmat *A)
{
    struct follow *f = &s->layer[l - 1];
    struct linop *L = linop_of_matrix(A);
    const int64_t least = A->m < A->n ? A->m : A->n;
    const int k = f->rank;
    if (!f->now) f->now = triplets_create(L, wanted(f, A));
    const struct krylov_options options = {.tolerance = s->tolerance,
                                           .max_products = s->max_products,
                                           .seed = probe->seed,
                                           .stream = RANDOM_KRYLOV + (uint64_t)l};
    krylov_svd(L, &options, f->now);
    linop_destroy(&L);
    const double *sigma = f->now->sigma, next = k < least ? sigma[k] : 0;
    const double gap = sigma[k - 1] > 0 ? (sigma[k - 1] - next) / sigma[k - 1] : 0;
    f->flag = f->now->converged < f->now->rank                                     ? FLAG_NOT_CONVERGED
              : gap * sigma[k - 1] <= GAP_OVER_TOLERANCE * s->tolerance * sigma[0] ? FLAG_NO_GAP
                                                                                   : FLAG_FINE;
    return f->flag == FLAG_NOT_CONVERGED ? NAN : gap;
}

static void measure_angles(struct probe *probe, const struct subspace *s, int l, const struct moment *moment)
{
    struct follow *f = &s->layer[l - 1];
    if (f->flag != FLAG_FINE) return;
    if (!f->left && moment->step >= s->reference) {
        f->left = duplicate(f->now->left, (int64_t)f->rank * f->now->mloc);
        f->right = duplicate(f->now->right, (int64_t)f->rank * f->now->nloc);
    }
    if (!f->left) {
        f->flag = FLAG_NO_REFERENCE;
        return;
    }
    MPI_Comm comm = moment->model->grid->comm;
    double *angle = NEW(double, f->rank);
    struct basis then = left_basis(f, comm, f->left), now = left_basis(f, comm, f->now->left);
    basis_angles(&then, &now, angle);
    for (int i = 0; i < f->rank; i++) record_put_at(probe->group, s->q_left, (l - 1) * s->rank + i, angle[i]);
    then = right_basis(f, comm, f->right);
    now = right_basis(f, comm, f->now->right);
    basis_angles(&then, &now, angle);
    for (int i = 0; i < f->rank; i++) record_put_at(probe->group, s->q_right, (l - 1) * s->rank + i, angle[i]);
    memory_free(angle);
}

static bool defined(const struct follow *f)
{
    return f->flag == FLAG_FINE || f->flag == FLAG_NO_REFERENCE;
}

static void measure_alignment(struct probe *probe, const struct subspace *s, int l, MPI_Comm comm)
{
    const struct follow *below = &s->layer[l - 1], *above = &s->layer[l];
    if (!defined(below) || !defined(above)) return;
    double *overlap = NEW(double, below->rank * above->rank);
    const struct basis u = left_basis(below, comm, below->now->left), v = right_basis(above, comm, above->now->right);
    basis_overlap(&u, &v, overlap);
    for (int i = 0; i < below->rank; i++)
        for (int j = 0; j < above->rank; j++)
            record_put_at(probe->group, s->q_alignment, ((int64_t)(l - 1) * s->rank + i) * s->rank + j,
                          fabs(overlap[i + j * below->rank]));
    memory_free(overlap);
}

static void measure(struct probe *probe, const struct moment *moment, struct record *record)
{
    struct subspace *s = probe->state;
    for (int l = 1; l <= s->depth; l++) {
        struct dmat *owned;
        const struct dmat *A = probe_matrix(moment, s->of, l, &owned);
        s->layer[l - 1].flag = FLAG_NO_GAP;
        if (A) {
            record_put_at(probe->group, s->q_gap, l - 1, find(probe, s, l, A));
            measure_angles(probe, s, l, moment);
        }
        record_put_int_at(probe->group, s->q_flag, l - 1, s->layer[l - 1].flag);
        dmat_destroy(&owned);
    }
    for (int l = 1; l < s->depth; l++) measure_alignment(probe, s, l, moment->model->grid->comm);
}

/* The reference has the layout of the triplets, which have been restored before. */
static void archive_reference(struct follow *f, struct archive *archive)
{
    const bool there = archive_flag(archive, "reference", f->left != NULL);
    if (archive_loading(archive)) {
        memory_free(f->left);
        memory_free(f->right);
        f->left = f->right = NULL;
        if (there && f->now) f->left = NEW(double, (int64_t)f->rank * f->now->mloc);
        if (there && f->now) f->right = NEW(double, (int64_t)f->rank * f->now->nloc);
    }
    if (!f->left) return;
    archive_vectors(archive, "left", f->now->m, f->rank, f->now->mloc, f->now->row, f->left);
    archive_vectors(archive, "right", f->now->n, f->rank, f->now->nloc, f->now->col, f->right);
}

static void archive(struct probe *probe, const struct model *model, struct archive *archive)
{
    struct subspace *s = probe->state;
    for (int l = 1; l <= s->depth; l++) {
        struct follow *f = &s->layer[l - 1];
        char name[32];
        snprintf(name, sizeof name, "layer_%d", l);
        archive_enter(archive, name);
        struct linop *A = linop_of_matrix(model->params->W[l - 1]);
        triplets_archive(&f->now, A, wanted(f, model->params->W[l - 1]), "triplets", archive);
        linop_destroy(&A);
        archive_reference(f, archive);
        archive_leave(archive);
    }
}

static void need(const struct probe *probe, const struct model *model, struct probe_need *need)
{
    const struct subspace *s = probe->state;
    need->count = s->depth;
    need->solve = NEW(struct probe_solve, s->depth);
    need->copies = s->of == PROBE_OF_UPDATE;
    for (int l = 1; l <= s->depth; l++) {
        const int64_t m = model->width[l], n = model->width[l - 1], least = m < n ? m : n;
        const int k = s->layer[l - 1].rank;
        need->solve[l - 1] = (struct probe_solve){.m = m,
                                                  .n = n,
                                                  .elements = m * n,
                                                  .factors = 1,
                                                  .rank = k < least ? k + 1 : k,
                                                  .kept = 2,
                                                  .tolerance = s->tolerance,
                                                  .bulk = probe_bulk(s->of)};
    }
}

static void snapshot(const struct probe *probe, struct h5 *file)
{
    const struct subspace *s = probe->state;
    for (int l = 1; l <= s->depth; l++)
        if (s->layer[l - 1].now) probe_write_triplets(s->layer[l - 1].now, file, probe->name, l);
}

static void summary(const struct probe *probe, const struct record *record)
{
    const struct subspace *s = probe->state;
    log_say("  %s (last step), %d-dimensional", probe->name, s->rank);
    for (int l = 1; l <= s->depth; l++) {
        const int64_t largest = (int64_t)(l - 1) * s->rank + s->layer[l - 1].rank - 1;
        const double degree = 57.29577951308232;
        const double left = record_last(record, probe->name, "angle_left", largest);
        const double right = record_last(record, probe->name, "angle_right", largest);
        const double aligned = record_last(record, probe->name, "alignment", (int64_t)(l - 1) * s->rank * s->rank);
        char turned[96] = "no angles: no reference yet, or the gap is closed", next[64] = "";
        if (isfinite(left))
            snprintf(turned, sizeof turned,
                     "turned by at most %.3g (left) and %.3g (right) degrees since the reference", degree * left,
                     degree * right);
        if (l < s->depth && isfinite(aligned))
            snprintf(next, sizeof next, "; |<u_1, v_1(layer %d)>| = %.4f", l + 1, aligned);
        log_say("    layer %d: %s%s", l, turned, next);
    }
}

const struct probe_kind probe_subspace = {.name = "subspace",
                                          .create = create,
                                          .measure = measure,
                                          .snapshot = snapshot,
                                          .archive = archive,
                                          .need = need,
                                          .summary = summary,
                                          .destroy = destroy};
