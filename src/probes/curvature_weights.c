/* curvature_weights: how the weights lie to the eigenspace E_k, and the eigenvectors to the means of a mixture. */
#include "curvature_private.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "mixture_private.h"
#include "theory/mixtures.h"

#include <math.h>

/* Rows shorter than this have no direction: weight decay drives dead units to 0. */
static const double SHORTEST = 1e-6;

/* More rows than this have no small Gram matrix. */
enum { MOST_ROWS = 256 };

/* ---------------------------------------------------------------- means of a mixture */

bool curvature_sees_means(const struct curvature *s, const struct spec *spec)
{
    return mixture_is(spec) && !s->cross && s->row.layer == 1 && s->row.unit >= 0;
}

bool curvature_has_theory(const struct curvature *s, const struct setting *setting)
{
    const struct layer *layer = &setting->model->layer[0];
    return s->mixture && s->mixture->classes && isfinite(s->mixture->lambda) && setting->model->depth == 1 &&
           spec_is(setting->spec, "loss.kind", "cross_entropy") && !spec_is(setting->spec, "loss.reduction", "sum") &&
           s->matrix != ROP_G_CENTRED && s->matrix != ROP_REMAINDER && s->which == CURVATURE_LARGEST &&
           s->of != CURVATURE_BATCH && !layer->bias && layer->trainable && layer->skip < 0 &&
           setting->model->output_scale == 1 && layer->n_out <= MOST_ROWS;
}

/* cᵀ R⁺ c for each vector: its squared part in the span of the rows, perpendicular to the means. R is destroyed. */
static void perpendicular(int rows, int k, double *R, const double *c, double *square)
{
    double *value = NEW(double, rows *(rows + 1)), *Q = value + rows;
    factor_local_eigenpairs(rows, R, value, Q);
    for (int i = 0; i < k; i++) {
        square[i] = 0;
        for (int r = 0; r < rows; r++) {
            double along = 0;
            for (int a = 0; a < rows; a++) along += Q[a + r * rows] * c[a + i * rows];
            if (value[r] > 1e-12 * value[rows - 1]) square[i] += along * along / value[r];
        }
    }
    memory_free(value);
}

static void put_theory(const struct curvature *s, const struct probe *probe, int rows, double phi, double d,
                       const double *m, const double *R)
{
    const double *value = curvature_values(s);
    const enum mixture_matrix matrix = s->matrix == ROP_G ? MIXTURE_GRADIENT : MIXTURE_HESSIAN;
    struct outliers *o =
        outliers_create(rows, m, R, s->mixture->weight, s->mixture->lambda, phi, matrix, to_int(s->row.unit));
    int count = 0;
    for (int i = 0; i < s->rank; i++) count += value[i] - s->ridge > o->edge * (1 + 2 * pow(d, -2.0 / 3));
    record_put_at(probe->group, s->q_edge, 0, o->edge + s->ridge);
    record_put_int_at(probe->group, s->q_outlier_count, 0, count);
    for (int i = 0; i < s->rank && i < o->count; i++) {
        record_put_at(probe->group, s->q_outlier, i, o->value[i] + s->ridge);
        record_put_at(probe->group, s->q_projection_theory, 2 * i, outliers_projection_on_means(o, i));
        record_put_at(probe->group, s->q_projection_theory, 2 * i + 1, o->projection[i]);
    }
    for (int a = 0; a < rows; a++) {
        record_put_at(probe->group, s->q_leading_theory, 2 * a, outliers_alignment(o, a, 1));
        if (o->count >= s->rank)
            record_put_at(probe->group, s->q_leading_theory, 2 * a + 1, outliers_alignment(o, a, s->rank));
    }
    outliers_destroy(&o);
}

/* The share of the eigenvectors in the spans of the means and of means and weights, and what the theory says; V [n_0 ×
 * k] are the eigenvectors, the same on every rank, WV [rows × k] their products with W. */
static void put_outliers(const struct curvature *s, const struct probe *probe, const struct model *model,
                         int64_t samples, const double *V, const double *WV)
{
    const struct mixture *mixture = s->mixture;
    const struct dmat *W = model->params->W[0];
    const int rows = to_int(W->m), axes = to_int(mixture->classes ? mixture->clusters : mixture->clusters / 2);
    double *m = NEW(double, rows *(axes + rows + s->rank)), *R = m + rows * axes, *c = R + rows * rows;
    double *square = NEW(double, s->rank);
    mixture_state(W, axes, m, R);
    if (s->theory && model->grid->rank == 0)
        put_theory(s, probe, rows, (double)samples / (double)W->n, (double)W->n, m, R);
    for (int i = 0; i < s->rank; i++)
        for (int a = 0; a < rows; a++) {
            c[a + i * rows] = WV[a + i * rows];
            for (int b = 0; b < axes; b++) c[a + i * rows] -= m[a * axes + b] * V[b + i * W->n];
        }
    perpendicular(rows, s->rank, R, c, square);
    for (int i = 0; i < s->rank; i++) {
        double means = 0;
        for (int b = 0; b < axes; b++) means += V[b + i * W->n] * V[b + i * W->n];
        record_put_at(probe->group, s->q_projection, 2 * i, means);
        record_put_at(probe->group, s->q_projection, 2 * i + 1, means + square[i]);
    }
    memory_free(square);
    memory_free(m);
}

/* ---------------------------------------------------------------- weights */

/* sums[0 … k − 1] += products of the vectors' local element e with w, sums[k] += w². */
static void collect(const struct curvature *s, int64_t e, double w, double *sums)
{
    const double *V = curvature_vectors(s);
    for (int i = 0; i < s->rank; i++) sums[i] += V[e + (int64_t)i * s->A->nloc] * w;
    sums[s->rank] += w * w;
}

/* ‖P x‖ / ‖x‖ on the first j vectors, from such sums. */
static double share(const double *sums, int j, int k)
{
    double along = 0;
    for (int i = 0; i < j; i++) along += sums[i] * sums[i];
    return sums[k] >= SHORTEST * SHORTEST ? sqrt(along / sums[k]) : NAN;
}

static void measure_layers(const struct curvature *s, const struct probe *probe, const struct model *model)
{
    const int k = s->rank, L = model->depth, width = k + 1;
    double *sums = NEW(double, (L + 1) * width), *all = sums + L * width;
    for (int l = 1; l <= L; l++) {
        const struct dmat *W = model->params->W[l - 1];
        for (int64_t e = 0; e < (int64_t)W->mloc * W->nloc; e++)
            collect(s, model->params->start[l - 1] + e, W->local[e], sums + (l - 1) * width);
    }
    grid_sum(model->grid, sums, L * width);
    for (int l = 1; l <= L; l++) {
        record_put_at(probe->group, s->q_layers, l - 1, share(sums + (l - 1) * width, k, k));
        for (int i = 0; i < width; i++) all[i] += sums[(l - 1) * width + i];
    }
    record_put_at(probe->group, s->q_weights, 0, share(all, k, k));
    memory_free(sums);
}

/* Each row (column) of the layer's matrix alone, with zeros elsewhere, and the matrix. */
static void measure_lines(const struct curvature *s, const struct probe *probe, const struct model *model)
{
    const struct dmat *W = model->params->W[s->row.layer - 1];
    const int k = s->rank, width = k + 1;
    double *sums = NEW(double, (W->m + W->n) * width), *all = NEW(double, width), *columns = sums + W->m * width;
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) {
            const int64_t e = il + (int64_t)jl * W->mloc;
            collect(s, e, W->local[e], sums + dmat_row(W, il) * width);
            collect(s, e, W->local[e], columns + dmat_col(W, jl) * width);
        }
    grid_sum(model->grid, sums, to_int((W->m + W->n) * width));
    for (int64_t a = 0; a < W->m; a++) {
        for (int i = 0; i < width; i++) all[i] += sums[a * width + i];
        if (curvature_lists(W->m)) record_put_at(probe->group, s->q_rows, a, share(sums + a * width, k, k));
    }
    for (int64_t b = 0; curvature_lists(W->n) && b < W->n; b++)
        record_put_at(probe->group, s->q_columns, b, share(columns + b * width, k, k));
    record_put_at(probe->group, s->q_weights, 0, share(all, k, k));
    memory_free(all);
    memory_free(sums);
}

/* The vectors of a unit's block without the bias, on every rank: [n × k]. */
static double *gather_vectors(const struct curvature *s, const struct model *model, int64_t n)
{
    const struct eigenpairs *E = s->end[0] ? s->end[0] : s->end[1];
    const double *V = curvature_vectors(s);
    double *full = NEW(double, n * s->rank);
    for (int i = 0; i < s->rank; i++)
        for (int e = 0; e < E->nloc; e++)
            if (E->index[e] < n) full[E->index[e] + i * n] = V[e + (int64_t)i * E->nloc];
    grid_sum(model->grid, full, to_int(n * s->rank));
    return full;
}

/* Every row of the layer's matrix in the space of one unit. */
static void measure_rows(const struct curvature *s, const struct probe *probe, const struct model *model,
                         int64_t samples)
{
    const struct dmat *W = model->params->W[s->row.layer - 1];
    const int k = s->rank, width = k + 1;
    double *V = gather_vectors(s, model, W->n), *sums = NEW(double, W->m *width), *WV = NEW(double, W->m *k);
    double along = 0, square = 0;
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) {
            const double w = W->local[il + (int64_t)jl * W->lld];
            double *row = sums + dmat_row(W, il) * width;
            for (int i = 0; i < k; i++) row[i] += w * V[dmat_col(W, jl) + i * W->n];
            row[k] += w * w;
        }
    grid_sum(model->grid, sums, to_int(W->m * width));
    for (int64_t a = 0; a < W->m; a++) {
        const double *row = sums + a * width;
        for (int i = 0; i < k; i++) along += row[i] * row[i];
        for (int i = 0; i < k; i++) WV[a + i * W->m] = row[i];
        square += row[k];
        if (curvature_lists(W->m)) {
            record_put_at(probe->group, s->q_leading, 2 * a, share(row, 1, k));
            record_put_at(probe->group, s->q_leading, 2 * a + 1, share(row, k, k));
        }
    }
    record_put_at(probe->group, s->q_weights, 0, square > 0 ? sqrt(along / square) : NAN);
    if (s->mixture && W->m <= MOST_ROWS) put_outliers(s, probe, model, samples, V, WV);
    memory_free(WV);
    memory_free(sums);
    memory_free(V);
}

void curvature_weights(struct curvature *s, struct probe *probe, const struct moment *moment, int64_t samples)
{
    if (s->flag == CURVATURE_NOT_CONVERGED) return;
    if (s->full)
        measure_layers(s, probe, moment->model);
    else if (s->row.unit < 0)
        measure_lines(s, probe, moment->model);
    else
        measure_rows(s, probe, moment->model, samples);
}
