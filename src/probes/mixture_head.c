/* mixture_head: what the last layer of a two-layer network does on a mixture. */
#include "mixture_private.h"

#include "base/memory.h"

#include <math.h>

static double *copy_whole(const struct dmat *A)
{
    double *full = NEW(double, A->m * A->n);
    dmat_gather(A, full, -1);
    return full;
}

struct dataset *mixture_centres(const struct grid *grid, const struct mixture *mixture)
{
    struct dataset *set = NEW(struct dataset, 1);
    *set = (struct dataset){.features = mixture->features, .outputs = mixture->outputs, .samples = mixture->clusters};
    set->X = dmat_create(grid, set->features, set->samples);
    set->Y = dmat_create(grid, set->outputs, set->samples);
    for (int jl = 0; jl < set->X->nloc; jl++) {
        const struct cluster cluster = mixture_cluster(mixture, dmat_col(set->X, jl));
        for (int il = 0; il < set->X->mloc; il++)
            set->X->local[il + (int64_t)jl * set->X->lld] = dmat_row(set->X, il) == cluster.axis ? cluster.sign : 0;
    }
    return set;
}

/* ---------------------------------------------------------------- a pass over the training set */

struct pass {
    struct dmat *h;                  /* hidden features of the chunk; owned, NULL between chunks */
    struct dmat *gradient, *hessian; /* K × K sums; owned */
    double scale;                    /* of the outputs */
};

/* C ← C + h diag(w) hᵀ. */
static void add(const struct dmat *h, const double *w, struct dmat *C)
{
    struct dmat *weighted = dmat_create(h->grid, h->m, h->n);
    for (int jl = 0; jl < h->nloc; jl++)
        for (int il = 0; il < h->mloc; il++)
            weighted->local[il + (int64_t)jl * weighted->lld] = w[jl] * h->local[il + (int64_t)jl * h->lld];
    dmat_gemm('N', 'T', 1, weighted, h, 1, C);
    dmat_destroy(&weighted);
}

/* e² and q of every column, on all of its process column: the output is a single row, held by one process. */
static void take_weights(const struct pass *pass, const struct dmat *f, const struct dmat *Y, double *error, double *q)
{
    for (int jl = 0; f->mloc > 0 && jl < f->nloc; jl++) {
        const double share = 1 / (1 + exp(-pass->scale * f->local[(int64_t)jl * f->lld]));
        const double e = share - Y->local[(int64_t)jl * Y->lld];
        error[jl] = e * e;
        q[jl] = share * (1 - share);
    }
    MPI_Allreduce(MPI_IN_PLACE, error, 2 * f->nloc, MPI_DOUBLE, MPI_SUM, f->grid->col_comm);
}

static void visit(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct pass *pass = context;
    (void)first;
    if (l == 1) {
        pass->h = dmat_create(a->grid, a->m, a->n);
        dmat_copy(pass->h, a);
    }
    if (l < 2) return;
    double *error = NEW(double, 2 * a->nloc), *q = error + a->nloc;
    take_weights(pass, a, Y, error, q);
    add(pass->h, error, pass->gradient);
    add(pass->h, q, pass->hessian);
    memory_free(error);
    dmat_destroy(&pass->h);
}

static double *mean_of(struct dmat **sum, double scale)
{
    dmat_scale(*sum, scale);
    double *mean = copy_whole(*sum);
    dmat_destroy(sum);
    return mean;
}

/* ---------------------------------------------------------------- the clusters */

struct logits {
    double scale;
    double *value; /* [clusters], this rank's */
};

static void keep_logits(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    const struct logits *logits = context;
    (void)Y;
    for (int jl = 0; l == 2 && a->mloc > 0 && jl < a->nloc; jl++)
        logits->value[first + dmat_col(a, jl)] = logits->scale * a->local[(int64_t)jl * a->lld];
}

struct mixture_head mixture_head_measure(const struct moment *moment, const struct dataset *centres)
{
    const struct model *model = moment->model;
    const int64_t K = model->width[1];
    struct mixture_head head = {.units = to_int(K), .v = copy_whole(model->params->W[1])};
    struct pass pass = {.scale = model->output_scale,
                        .gradient = dmat_create(model->grid, K, K),
                        .hessian = dmat_create(model->grid, K, K)};
    backprop_features(moment->backprop, model, moment->train, false, visit, &pass);
    /* of f by v_i: the scale of the outputs times h_i */
    const double scale = pass.scale * pass.scale / (double)moment->train->samples;
    head.gradient = mean_of(&pass.gradient, scale);
    head.hessian = mean_of(&pass.hessian, scale);
    head.logit = NEW(double, centres->samples);
    struct logits logits = {model->output_scale, head.logit};
    backprop_features(moment->backprop, model, centres, false, keep_logits, &logits);
    grid_sum(model->grid, head.logit, to_int(centres->samples));
    return head;
}

void mixture_head_free(struct mixture_head *head)
{
    memory_free(head->v);
    memory_free(head->gradient);
    memory_free(head->hessian);
    memory_free(head->logit);
}
