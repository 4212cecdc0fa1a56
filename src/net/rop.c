/* rop: the work space of the sweeps, and what a chunk keeps for its products:
 *     E_L = α ∂loss/∂f,  D_l = scale φ′(z_l)∘E_l,  E_{l−1} = W_lᵀ D_l + Σ E_m over the layers m that skip to l − 1 */
#include "net/rop.h"

#include "base/error.h"
#include "base/memory.h"
#include "net/backprop.h"

#include "rop_private.h"
#include "sweep_private.h"

static struct rop_pass arrays(int depth)
{
    const int n = depth + 1;
    return (struct rop_pass){.a = NEW(struct dmat *, n),
                             .slope = NEW(struct dmat *, n),
                             .bend = NEW(struct dmat *, n),
                             .D = NEW(struct dmat *, n),
                             .Ra = NEW(struct dmat *, n),
                             .Rz = NEW(struct dmat *, n)};
}

static void destroy_arrays(struct rop_pass *pass, int depth)
{
    if (!pass->a) return;
    for (int l = 0; l <= depth; l++) {
        dmat_destroy(&pass->a[l]);
        dmat_destroy(&pass->slope[l]);
        dmat_destroy(&pass->bend[l]);
        dmat_destroy(&pass->D[l]);
        dmat_destroy(&pass->Ra[l]);
        dmat_destroy(&pass->Rz[l]);
    }
    dmat_destroy(&pass->F);
    memory_free(pass->a);
    memory_free(pass->slope);
    memory_free(pass->bend);
    memory_free(pass->D);
    memory_free(pass->Ra);
    memory_free(pass->Rz);
    *pass = (struct rop_pass){0};
}

struct rop *rop_create(const struct model *model, const struct loss *loss, int64_t samples, int64_t chunk)
{
    const int L = model->depth;
    struct rop *r = NEW(struct rop, 1);
    r->model = model;
    r->loss = *loss;
    r->depth = L;
    r->chunk = backprop_columns(model->grid, samples, chunk);
    r->whole = arrays(L);
    int height = 0;
    for (int l = 1; l <= L; l++) {
        const struct layer *layer = &model->layer[l - 1];
        const int64_t n = model->width[l];
        if (l < L) r->whole.a[l] = dmat_create(model->grid, n, r->chunk);
        if (sweep_has_slope(layer)) {
            r->whole.slope[l] = dmat_create(model->grid, n, r->chunk);
            r->whole.Rz[l] = dmat_create(model->grid, n, r->chunk);
        }
        if (activation_bends(layer->activation)) r->whole.bend[l] = dmat_create(model->grid, n, r->chunk);
        r->whole.D[l] = dmat_create(model->grid, n, r->chunk);
        r->whole.Ra[l] = dmat_create(model->grid, n, r->chunk);
        if (r->whole.D[l]->mloc > height) height = r->whole.D[l]->mloc;
    }
    r->whole.F = dmat_create(model->grid, model->width[L], r->chunk);
    r->work = NEW(double, height);
    r->share = NEW(double, r->whole.F->nloc);
    return r;
}

void rop_destroy(struct rop **rop)
{
    struct rop *r = *rop;
    if (!r) return;
    destroy_arrays(&r->pass, r->depth);
    destroy_arrays(&r->whole, r->depth);
    memory_free(r->work);
    memory_free(r->share);
    memory_free(r);
    *rop = NULL;
}

int64_t rop_bytes(const struct model *model, int64_t columns)
{
    int64_t elements = dmat_local_size(model->grid, model->width[model->depth], columns);
    for (int l = 1; l <= model->depth; l++) {
        const struct layer *layer = &model->layer[l - 1];
        const int count =
            2 + (l < model->depth) + (sweep_has_slope(layer) ? 2 : 0) + (activation_bends(layer->activation) ? 1 : 0);
        elements += count * dmat_local_size(model->grid, model->width[l], columns);
    }
    return elements * (int64_t)sizeof(double);
}

static struct dmat *first_columns(const struct dmat *A, int64_t count)
{
    return A ? dmat_columns(A, 0, count) : NULL;
}

static void begin_pass(struct rop *r, int64_t j0)
{
    const struct dataset *set = r->set;
    destroy_arrays(&r->pass, r->depth);
    struct rop_pass *pass = &r->pass, *whole = &r->whole;
    *pass = arrays(r->depth);
    pass->j0 = j0;
    pass->j1 = j0 + r->chunk < set->Y->n ? j0 + r->chunk : set->Y->n;
    const int64_t count = pass->j1 - j0;
    for (int l = 1; l <= r->depth; l++) {
        pass->a[l] = first_columns(whole->a[l], count);
        pass->slope[l] = first_columns(whole->slope[l], count);
        pass->bend[l] = first_columns(whole->bend[l], count);
        pass->D[l] = first_columns(whole->D[l], count);
        pass->Ra[l] = first_columns(whole->Ra[l], count);
        pass->Rz[l] = first_columns(whole->Rz[l], count);
    }
    if (set->X) pass->a[0] = dmat_columns(set->X, j0, pass->j1);
    pass->F = first_columns(whole->F, count);
}

static inline int64_t elements(const struct dmat *A)
{
    return (int64_t)A->lld * A->nloc;
}

/* a_l, φ′(z_l) in slope, φ″(z_l) in bend; a_L stands in R a_L. */
static void forward(struct rop *r)
{
    struct rop_pass *pass = &r->pass;
    for (int l = 1; l <= r->depth; l++) {
        const struct layer *layer = &r->model->layer[l - 1];
        struct dmat *a = l < r->depth ? pass->a[l] : pass->Ra[l], *z = pass->slope[l] ? pass->slope[l] : a;
        sweep_multiply(r->model->params->W[l - 1], pass->a[l - 1], pass->j0, false, z);
        if (layer->bias) sweep_add_bias(r->model->params->b[l - 1], z, r->work);
        if (pass->bend[l]) {
            dmat_copy(pass->bend[l], z);
            activation_second(layer->activation, elements(z), pass->bend[l]->local);
        }
        if (pass->slope[l]) activation_apply(layer->activation, elements(z), z->local, a->local);
        if (pass->slope[l] && layer->scale != 1) dmat_scale(pass->slope[l], layer->scale);
        if (layer->skip >= 0) sweep_add_skip(layer->scale, pass->a[layer->skip], pass->j0, a);
    }
}

/* D = slope∘E, bend ← scale·bend∘E. */
static void through_activation(double scale, const struct dmat *E, const struct dmat *slope, struct dmat *bend,
                               struct dmat *D)
{
    if (!slope) dmat_copy(D, E);
    if (slope) activation_pull(elements(E), 1, slope->local, E->local, D->local);
    if (bend) activation_pull(elements(E), scale, bend->local, E->local, bend->local);
}

void rop_add_skipped(const struct rop *r, int l)
{
    for (int m = l; m <= r->depth; m++)
        if (r->model->layer[m - 1].skip == l - 1) dmat_axpy(r->pass.Ra[l - 1], 1, r->pass.Ra[m]);
}

/* E_L stands in R a_L; the E below go to the other R a_l. */
static void backward(struct rop *r)
{
    struct rop_pass *pass = &r->pass;
    const int lowest = sweep_lowest_trainable(r->model);
    for (int l = r->depth; l >= lowest; l--) {
        through_activation(r->model->layer[l - 1].scale, pass->Ra[l], pass->slope[l], pass->bend[l], pass->D[l]);
        if (l == lowest) break;
        dmat_gemm('T', 'N', 1, r->model->params->W[l - 1], pass->D[l], 0, pass->Ra[l - 1]);
        rop_add_skipped(r, l);
    }
}

bool rop_next(const struct rop *r, int64_t *j0)
{
    *j0 = *j0 < 0 ? 0 : *j0 + r->chunk;
    return *j0 < r->set->Y->n;
}

double rop_fill(struct rop *r, int64_t j0)
{
    const double alpha = r->model->output_scale;
    if (r->filled) return 0;
    begin_pass(r, j0);
    struct rop_pass *pass = &r->pass;
    forward(r);
    struct dmat *E = pass->Ra[r->depth];
    if (alpha != 1) dmat_scale(E, alpha);
    dmat_copy(pass->F, E);
    const double loss = loss_derivative_on(&r->loss, r->set, j0, E);
    if (alpha != 1) dmat_scale(E, alpha);
    backward(r);
    r->filled = r->chunk >= r->set->Y->n;
    return loss;
}

double rop_set(struct rop *r, const struct model *model, const struct dataset *dataset)
{
    ensure(model->depth == r->depth && r->whole.F->m == model->width[r->depth]);
    r->model = model;
    r->set = dataset;
    r->filled = false;
    double loss = model->grid->rank == 0 ? loss_scale_on(&r->loss, dataset) * dataset->constant : 0;
    for (int64_t j0 = -1; rop_next(r, &j0);) loss += rop_fill(r, j0);
    grid_sum(model->grid, &loss, 1);
    return loss;
}

/* ---------------------------------------------------------------- sweeps */

/* R a = slope∘R z, and R z ← bend∘R z, which the way back needs. */
static void tangent_through(const struct dmat *slope, const struct dmat *bend, struct dmat *Rz, struct dmat *Ra)
{
    const int64_t n = elements(Ra);
    const double *restrict s = slope->local, *restrict c = bend ? bend->local : NULL;
    double *restrict z = Rz->local, *restrict a = Ra->local;
    if (!c) {
        for (int64_t i = 0; i < n; i++) a[i] = s[i] * z[i];
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        a[i] = s[i] * z[i];
        z[i] *= c[i];
    }
}

/* R z_l = V_l a_{l−1} + u_l 1ᵀ + W_l R a_{l−1} and R a_l, from the lowest layer with a part of v; `moved[l]`: R a_l is
 * not zero. */
static void tangent_forward(struct rop *r, bool bends, const struct rop_vector *v, bool *moved)
{
    struct rop_pass *pass = &r->pass;
    moved[0] = false;
    for (int l = 1; l <= r->depth; l++) {
        const int skip = r->model->layer[l - 1].skip;
        const bool skipped = skip >= 0 && moved[skip];
        struct dmat *Rz = pass->slope[l] ? pass->Rz[l] : pass->Ra[l];
        moved[l] = v->W[l - 1] || moved[l - 1] || skipped;
        if (!moved[l]) continue;
        if (v->W[l - 1]) sweep_multiply(v->W[l - 1], pass->a[l - 1], pass->j0, false, Rz);
        if (moved[l - 1])
            dmat_gemm('N', 'N', 1, r->model->params->W[l - 1], pass->Ra[l - 1], v->W[l - 1] ? 1 : 0, Rz);
        else if (!v->W[l - 1])
            dmat_fill(Rz, 0);
        if (v->b[l - 1]) sweep_add_bias(v->b[l - 1], Rz, r->work);
        if (pass->slope[l]) tangent_through(pass->slope[l], bends ? pass->bend[l] : NULL, Rz, pass->Ra[l]);
        if (skipped) dmat_axpy(pass->Ra[l], 1, pass->Ra[skip]);
    }
}

/* R D = slope∘R E + bend∘R z, the second term (where `bent`) standing in R D already. */
static void tangent_back_through(const struct dmat *slope, bool bent, const struct dmat *RE, struct dmat *RD)
{
    const int64_t n = elements(RE);
    const double *restrict s = slope->local, *restrict e = RE->local;
    double *restrict d = RD->local;
    if (bent)
        for (int64_t i = 0; i < n; i++) d[i] += s[i] * e[i];
    else
        for (int64_t i = 0; i < n; i++) d[i] = s[i] * e[i];
}

static int lowest_of(const struct rop *r, const struct rop_vector *v)
{
    int l = 1;
    while (l <= r->depth && !v->W[l - 1]) l++;
    return l;
}

void rop_sweep(struct rop *r, bool ggn, const struct rop_vector *v, const struct rop_vector *out)
{
    struct rop_pass *pass = &r->pass;
    const int L = r->depth, lowest = lowest_of(r, out);
    const double alpha = r->model->output_scale;
    bool *moved = NEW(bool, L + 1);
    tangent_forward(r, !ggn, v, moved);
    if (!moved[L]) dmat_fill(pass->Ra[L], 0);
    if (alpha != 1) dmat_scale(pass->Ra[L], alpha * alpha);
    rop_loss_curvature(&r->loss, r->set, pass->j0, pass->F, pass->Ra[L]);
    for (int l = L; l >= lowest; l--) {
        struct dmat *RE = pass->Ra[l], *RD = pass->slope[l] ? pass->Rz[l] : RE, *G = out->W[l - 1];
        if (pass->slope[l]) tangent_back_through(pass->slope[l], !ggn && moved[l] && pass->bend[l], RE, RD);
        if (G) sweep_weight_product(RD, pass->a[l - 1], pass->j0, pass->j0 > 0, G);
        if (G && !ggn && moved[l - 1]) dmat_gemm('N', 'T', 1, pass->D[l], pass->Ra[l - 1], 1, G);
        if (out->b[l - 1]) sweep_add_row_sums(RD, out->b[l - 1], r->work);
        if (l == lowest) break;
        dmat_gemm('T', 'N', 1, r->model->params->W[l - 1], RD, 0, pass->Ra[l - 1]);
        if (!ggn && v->W[l - 1]) dmat_gemm('T', 'N', 1, v->W[l - 1], pass->D[l], 1, pass->Ra[l - 1]);
        rop_add_skipped(r, l);
    }
    memory_free(moved);
}

void rop_shares(struct rop *r, const struct rop_vector *v, double *share)
{
    struct rop_pass *pass = &r->pass;
    const struct grid *grid = pass->F->grid;
    const int nloc = pass->F->nloc;
    for (int jl = 0; jl < nloc; jl++) share[jl] = 0;
    for (int l = 1; l <= r->depth; l++) {
        const struct dmat *D = pass->D[l];
        struct dmat *T = pass->Ra[l];
        if (!v->W[l - 1]) continue;
        sweep_multiply(v->W[l - 1], pass->a[l - 1], pass->j0, false, T);
        if (v->b[l - 1]) sweep_add_bias(v->b[l - 1], T, r->work);
        for (int jl = 0; jl < nloc; jl++)
            for (int il = 0; il < D->mloc; il++)
                share[jl] += D->local[il + (int64_t)jl * D->lld] * T->local[il + (int64_t)jl * T->lld];
    }
    if (grid->nprow > 1) MPI_Allreduce(MPI_IN_PLACE, share, nloc, MPI_DOUBLE, MPI_SUM, grid->col_comm);
}

void rop_combine(struct rop *r, const double *share, const struct rop_vector *out)
{
    struct rop_pass *pass = &r->pass;
    for (int l = 1; l <= r->depth; l++) {
        struct dmat *D = pass->D[l], *T = pass->Ra[l];
        if (!out->W[l - 1]) continue;
        for (int jl = 0; share && jl < D->nloc; jl++)
            for (int il = 0; il < D->mloc; il++)
                T->local[il + (int64_t)jl * T->lld] = share[jl] * D->local[il + (int64_t)jl * D->lld];
        sweep_weight_product(share ? T : D, pass->a[l - 1], pass->j0, pass->j0 > 0, out->W[l - 1]);
        if (out->b[l - 1]) sweep_add_row_sums(share ? T : D, out->b[l - 1], r->work);
    }
}
