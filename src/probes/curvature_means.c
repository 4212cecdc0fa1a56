/* curvature_means: the means of the classes in what a layer gets, and how the eigenvectors of the layer's block, or of
 * the block of one of its units, lie to them. */
#include "curvature_private.h"

#include "base/memory.h"
#include "dist/factor.h"

#include <math.h>

/* More classes than this are followed no more: their Gram matrix is solved on every rank. */
enum { MOST_CLASSES = 256 };

/* Means whose Gram matrix has smaller eigenvalues than this share of the largest are dependent. */
static const double DEPENDENT = 1e-12;

bool curvature_has_means(const struct curvature *s, const struct setting *setting)
{
    const struct dataset *set = s->of == CURVATURE_TEST ? setting->test : setting->train;
    return !s->full && !s->cross && s->of != CURVATURE_BATCH && set && set->X && set->classification &&
           set->outputs <= MOST_CLASSES && curvature_lists(setting->model->width[s->row.layer - 1]);
}

struct sums {
    int layer;         /* whose output is what the block's layer gets */
    struct dmat *mean; /* n × C: class sums; owned */
};

static void add_class_sums(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct sums *sums = context;
    if (l == sums->layer) dmat_gemm('N', 'T', 1, a, Y, first == 0 ? 0 : 1, sums->mean);
}

/* Directions of the class means [n × C] on every rank, of length 1; 0 for a class without samples. */
static double *directions(const struct curvature *s, const struct moment *moment, const struct dataset *set)
{
    const struct model *model = moment->model;
    struct sums sums = {.layer = s->row.layer - 1};
    sums.mean = dmat_create(model->grid, model->width[sums.layer], set->outputs);
    backprop_features(moment->backprop, model, set, false, add_class_sums, &sums);
    const int64_t n = sums.mean->m, C = sums.mean->n;
    double *M = NEW(double, n *C);
    dmat_gather(sums.mean, M, -1);
    for (int64_t c = 0; c < C; c++) {
        double square = 0;
        for (int64_t j = 0; j < n; j++) square += M[j + c * n] * M[j + c * n];
        for (int64_t j = 0; square > 0 && j < n; j++) M[j + c * n] /= sqrt(square);
    }
    dmat_destroy(&sums.mean);
    return M;
}

/* along[i + k (c + C a)] ← ⟨row a of eigenvector i, direction c⟩, on every rank; owned by the caller. */
static double *products(const struct curvature *s, const struct grid *grid, int64_t rows, int64_t n, int C,
                        const double *M)
{
    const struct eigenpairs *E = s->end[0] ? s->end[0] : s->end[1];
    const double *V = curvature_vectors(s);
    const int k = s->rank;
    double *along = NEW(double, rows *C *k);
    for (int e = 0; e < E->nloc; e++) {
        if (E->index[e] >= rows * n) continue; /* a bias */
        const int64_t a = E->index[e] / n, j = E->index[e] % n;
        for (int c = 0; c < C; c++)
            for (int i = 0; i < k; i++) along[i + k * (c + C * a)] += V[e + (int64_t)i * E->nloc] * M[j + c * n];
    }
    grid_sum(grid, along, to_int(rows * C * k));
    return along;
}

/* How much of each eigenvector has its rows in the span of the means: with Mᵀ M = U Λ Uᵀ an orthonormal basis of it is
 * M U Λ^(−1/2). Returns the span's dimension. */
static int put_span(const struct curvature *s, const struct probe *probe, int64_t rows, int64_t n, int C,
                    const double *M, const double *along)
{
    const int k = s->rank;
    double *G = NEW(double, C *(2 * C + 1)), *U = G + C * C, *value = U + C * C;
    double *share = NEW(double, k);
    int dimension = 0;
    for (int c = 0; c < C; c++)
        for (int d = 0; d < C; d++)
            for (int64_t j = 0; j < n; j++) G[c + d * C] += M[j + c * n] * M[j + d * n];
    factor_local_eigenpairs(C, G, value, U);
    for (int r = 0; r < C; r++) {
        if (value[r] <= DEPENDENT * value[C - 1]) continue;
        dimension++;
        for (int64_t a = 0; a < rows; a++)
            for (int i = 0; i < k; i++) {
                double part = 0;
                for (int c = 0; c < C; c++) part += U[c + r * C] * along[i + k * (c + C * a)];
                share[i] += part * part / value[r];
            }
    }
    record_put(probe->group, s->q_mean_share, share);
    memory_free(share);
    memory_free(G);
    return dimension;
}

void curvature_means(const struct curvature *s, const struct probe *probe, const struct moment *moment,
                     const struct dataset *set)
{
    if (!s->means || s->flag == CURVATURE_NOT_CONVERGED) return;
    const int64_t rows = s->row.unit >= 0 ? 1 : moment->model->width[s->row.layer];
    const int64_t n = moment->model->width[s->row.layer - 1];
    const int C = to_int(set->outputs), k = s->rank, most = k < rows ? k : to_int(rows);
    double *M = directions(s, moment, set), *along = products(s, moment->model->grid, rows, n, C, M);
    const int dimension = put_span(s, probe, rows, n, C, M, along);
    record_put_at(probe->group, s->q_mean_random, 0, (double)dimension / (double)n);
    for (int c = 0; c < C && s->flag == CURVATURE_FINE; c++) {
        double sum = 0;
        for (int64_t a = 0; a < rows; a++)
            for (int i = 0; i < k; i++) sum += along[i + k * (c + C * a)] * along[i + k * (c + C * a)];
        record_put_at(probe->group, s->q_mean, c, sum > 0 ? sqrt(sum / most) : NAN);
    }
    memory_free(along);
    memory_free(M);
}
