/* curvature_space: the eigenspace E_k of a curvature matrix, and what lies in it. */
#include "curvature_private.h"

#include "base/memory.h"
#include "dist/basis.h"

#include <math.h>
#include <string.h>

/* A space is defined when its gap is this many times the residual that was asked for. */
static const double GAP_OVER_TOLERANCE = 100;

static struct basis basis_of(const struct curvature *s, int count, const double *vectors)
{
    const struct eigenpairs *E = s->end[0] ? s->end[0] : s->end[1];
    return (struct basis){s->A->comm, E->n, count, E->nloc, vectors, E->index};
}

/* ---------------------------------------------------------------- the space */

const double *curvature_vectors(const struct curvature *s)
{
    if (s->merged) return s->merged;
    const struct eigenpairs *E = s->end[s->which == CURVATURE_SMALLEST];
    ensure(E);
    return E->vectors;
}

const double *curvature_values(const struct curvature *s)
{
    if (s->merged) return s->merged_value;
    const struct eigenpairs *E = s->end[s->which == CURVATURE_SMALLEST];
    ensure(E);
    return E->lambda;
}

static void take(struct curvature *s, int at, const struct eigenpairs *E, int i)
{
    s->merged_value[at] = E->lambda[i];
    s->merged_value[s->rank + at] = E->residual[i];
    memcpy(s->merged + (int64_t)at * E->nloc, E->vectors + (int64_t)i * E->nloc, (size_t)E->nloc * sizeof(double));
}

/* The largest in magnitude are non-negative ones of the one end and negative ones of the other. Where an end has not
 * converged the order is not known. */
void curvature_merge(struct curvature *s)
{
    if (s->which != CURVATURE_MAGNITUDE) return;
    const struct eigenpairs *largest = s->end[0], *smallest = s->end[1];
    const int k = s->rank;
    if (!s->merged) s->merged = NEW(double, (int64_t)k * largest->nloc);
    if (!s->merged_value) s->merged_value = NEW(double, 2 * k);
    for (int i = 0; i < 2 * k; i++) s->merged_value[i] = NAN;
    for (int at = 0, i = 0, j = 0; at < k; at++) {
        const double up = i < k ? largest->lambda[i] : -INFINITY, down = j < k ? -smallest->lambda[j] : -INFINITY;
        if (isnan(up) || isnan(down)) break;
        if (up >= down)
            take(s, at, largest, i++);
        else
            take(s, at, smallest, j++);
    }
}

/* The next value that E_k leaves out, in the direction from which it takes them. */
static double next_of(const struct curvature *s)
{
    if (s->which != CURVATURE_MAGNITUDE) return s->end[s->which == CURVATURE_SMALLEST]->next;
    int i = 0, j = 0;
    for (int at = 0; at < s->rank; at++) *(s->merged_value[at] >= 0 ? &i : &j) += 1;
    const double up = i < s->rank ? s->end[0]->lambda[i] : s->end[0]->next;
    const double down = -(j < s->rank ? s->end[1]->lambda[j] : s->end[1]->next);
    return fmax(up, down);
}

static double scale_of(const struct curvature *s)
{
    return fmax(s->end[0] ? s->end[0]->scale : 0, s->end[1] ? s->end[1]->scale : 0);
}

/* Whether E_k is known, and its distance from the rest of the spectrum. */
static double judge(struct curvature *s)
{
    const double *value = curvature_values(s), scale = scale_of(s);
    const double last = s->which == CURVATURE_MAGNITUDE ? fabs(value[s->rank - 1]) : value[s->rank - 1];
    const bool all = s->rank == s->A->n;
    const double gap = all || !(scale > 0) ? NAN : fabs(last - next_of(s)) / scale;
    s->flag = isnan(last)                                              ? CURVATURE_NOT_CONVERGED
              : all || gap > GAP_OVER_TOLERANCE * s->options.tolerance ? CURVATURE_FINE
                                                                       : CURVATURE_NO_GAP;
    return gap;
}

/* (1/k) Σ cos² of the principal angles. */
static double overlap(const struct curvature *s, const double *vectors)
{
    const struct basis then = basis_of(s, s->rank, vectors), now = basis_of(s, s->rank, curvature_vectors(s));
    double *cosine = NEW(double, s->rank * s->rank), sum = 0;
    basis_inner(&then, &now, cosine);
    for (int i = 0; i < s->rank * s->rank; i++) sum += cosine[i] * cosine[i];
    memory_free(cosine);
    return sum / s->rank;
}

static double *duplicate(const struct curvature *s)
{
    const int64_t size = (int64_t)s->rank * s->A->nloc;
    double *copy = NEW(double, size);
    memcpy(copy, curvature_vectors(s), (size_t)size * sizeof *copy);
    return copy;
}

static double orthogonality(const struct curvature *s)
{
    const struct basis V = basis_of(s, s->rank, curvature_vectors(s));
    double *gram = NEW(double, s->rank * s->rank), worst = 0;
    basis_inner(&V, &V, gram);
    for (int i = 0; i < s->rank; i++)
        for (int j = 0; j < s->rank; j++) worst = fmax(worst, fabs(gram[i + j * s->rank] - (i == j)));
    memory_free(gram);
    return worst;
}

/* ---------------------------------------------------------------- solving */

static void put_pairs(const struct curvature *s, const struct probe *probe)
{
    int at = 0, converged = 0;
    int64_t products = 0;
    for (int e = 0; e < 2; e++) {
        const struct eigenpairs *E = s->end[e];
        if (!E) continue;
        products += E->products;
        for (int i = 0; s->which != CURVATURE_MAGNITUDE && i < s->rank; i++, at++) {
            record_put_at(probe->group, s->q_value, at, E->lambda[i]);
            record_put_at(probe->group, s->q_residual, at, E->residual[i]);
            converged += !isnan(E->lambda[i]);
        }
    }
    for (int i = 0; s->which == CURVATURE_MAGNITUDE && i < s->rank; i++) {
        record_put_at(probe->group, s->q_value, i, s->merged_value[i]);
        record_put_at(probe->group, s->q_residual, i, s->merged_value[s->rank + i]);
        converged += !isnan(s->merged_value[i]);
    }
    record_put_int_at(probe->group, s->q_products, 0, products);
    record_put_int_at(probe->group, s->q_converged, 0, converged);
}

static void put_sharpness(const struct curvature *s, const struct probe *probe, const struct moment *moment)
{
    const double sharpness = s->end[0]->lambda[0];
    const double threshold = (1 - moment->lr * s->decay / 2) * s->limit / moment->lr + s->ridge;
    record_put_at(probe->group, s->q_sharpness, 0, sharpness);
    if (!(moment->lr > 0) || isnan(s->limit)) return;
    record_put_at(probe->group, s->q_threshold, 0, threshold);
    record_put_at(probe->group, s->q_ratio, 0, sharpness / threshold);
}

static void put_overlaps(struct curvature *s, const struct probe *probe, const struct moment *moment,
                         const double *before)
{
    if (s->flag != CURVATURE_FINE) return;
    if (before) record_put_at(probe->group, s->q_overlap, 0, overlap(s, before));
    if (!s->fixed && moment->step >= s->reference) s->fixed = duplicate(s);
    if (s->fixed) record_put_at(probe->group, s->q_reference, 0, overlap(s, s->fixed));
}

void curvature_solve(struct curvature *s, struct probe *probe, const struct moment *moment)
{
    const bool known = (s->end[0] || s->end[1]) && s->flag == CURVATURE_FINE;
    double *before = known ? duplicate(s) : NULL;
    for (int e = 0; e < 2; e++) {
        if (s->which == (e == 0 ? CURVATURE_SMALLEST : CURVATURE_LARGEST)) continue;
        struct krylov_options options = s->options;
        options.stream += (uint64_t)e;
        if (!s->end[e]) s->end[e] = eigenpairs_create(s->A, s->rank, e == 1);
        s->end[e]->filled = s->end[e]->filled && s->track;
        krylov_eigen(s->A, &options, s->end[e]);
    }
    curvature_merge(s);
    put_pairs(s, probe);
    record_put_at(probe->group, s->q_gap, 0, judge(s));
    record_put_int_at(probe->group, s->q_flag, 0, s->flag);
    if (s->flag != CURVATURE_NOT_CONVERGED) record_put_at(probe->group, s->q_orthogonality, 0, orthogonality(s));
    put_overlaps(s, probe, moment, before);
    if (curvature_is_sharpness(s)) put_sharpness(s, probe, moment);
    memory_free(before);
}

void curvature_solve_cross(struct curvature *s, struct probe *probe)
{
    if (!s->triplets) s->triplets = triplets_create(s->A, s->rank);
    s->triplets->filled = s->triplets->filled && s->track;
    krylov_svd(s->A, &s->options, s->triplets);
    s->flag = s->triplets->converged < s->rank ? CURVATURE_NOT_CONVERGED : CURVATURE_FINE;
    record_put(probe->group, s->q_value, s->triplets->sigma);
    record_put(probe->group, s->q_residual, s->triplets->residual);
    record_put_int_at(probe->group, s->q_products, 0, s->triplets->products);
    record_put_int_at(probe->group, s->q_converged, 0, s->triplets->converged);
    record_put_int_at(probe->group, s->q_flag, 0, s->flag);
}

/* ---------------------------------------------------------------- gradients */

static double dot(const struct curvature *s, const double *x, const double *y)
{
    const struct basis a = basis_of(s, 1, x), b = basis_of(s, 1, y);
    double sum;
    basis_inner(&a, &b, &sum);
    return sum;
}

/* ‖P x‖ / ‖x‖, NaN for x = 0 or where E_k is not defined. */
static double share(const struct curvature *s, const double *x)
{
    const double square = dot(s, x, x);
    if (s->flag != CURVATURE_FINE || !(square > 0)) return NAN;
    const struct basis V = basis_of(s, s->rank, curvature_vectors(s)), one = basis_of(s, 1, x);
    double *along = NEW(double, s->rank), sum = 0;
    basis_inner(&V, &one, along);
    for (int i = 0; i < s->rank; i++) sum += along[i] * along[i];
    memory_free(along);
    return sqrt(sum / square);
}

static double rayleigh(const struct curvature *s, const double *x, double *y)
{
    const double square = dot(s, x, x);
    s->A->apply(s->A, x, y);
    return square > 0 ? dot(s, x, y) / square : NAN;
}

/* g ← g + ridge·θ, so that gradient and Hessian are of the same function. */
static void add_ridge(const struct curvature *s, const struct model *model, struct params *g)
{
    for (int l = 1; s->ridge > 0 && l <= model->depth; l++)
        for (int64_t i = g->start[l - 1]; model->layer[l - 1].trainable && i < g->start[l]; i++)
            g->local[i] += s->ridge * model->params->local[i];
}

static void put_update(const struct curvature *s, const struct probe *probe, const struct moment *moment,
                       struct params *change, double *x)
{
    if (!moment->previous) return;
    for (int64_t i = 0; i < change->size; i++)
        change->local[i] = moment->model->params->local[i] - moment->previous->local[i];
    rop_take(moment->model, s->row, change, x);
    record_put_at(probe->group, s->q_update, 0, share(s, x));
}

void curvature_gradients(struct curvature *s, struct probe *probe, const struct moment *moment)
{
    const struct model *model = moment->model;
    struct params *g = params_create(model);
    double *x = NEW(double, 2 * (int64_t)s->A->nloc), *y = x + s->A->nloc;
    rop_gradient(s->rop, g);
    if (s->full && (s->matrix == ROP_G || s->matrix == ROP_G_CENTRED))
        record_put_at(probe->group, s->q_trace, 0,
                      rop_trace_g(s->rop) - (s->matrix == ROP_G_CENTRED ? params_dot(g, g) : 0));
    add_ridge(s, model, g);
    rop_take(model, s->row, g, x);
    const double chi = share(s, x);
    record_put_at(probe->group, s->q_rayleigh, 0, rayleigh(s, x, y));
    record_put_at(probe->group, s->q_full, 0, chi);
    record_put_at(probe->group, s->q_share, 0, chi * chi);
    memcpy(g->local, moment->gradient->local, (size_t)g->size * sizeof *g->local);
    add_ridge(s, model, g);
    rop_take(model, s->row, g, x);
    record_put_at(probe->group, s->q_batch, 0, share(s, x));
    put_update(s, probe, moment, g, x);
    memory_free(x);
    params_destroy(&g);
}
