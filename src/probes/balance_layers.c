/* balance_layers: leading singular triplets of the layers, how near to rank one they are, how neighbours are aligned,
 * and what theorems say of both (Ji and Telgarsky, arXiv 1810.02032, lemma 2, and a form of it that holds for any
 * weights). */
#include "balance_private.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"

#include <math.h>
#include <string.h>

/* σ_1 = σ_2 as far as rounding tells. */
static const double TIED = 1e-12;

static struct krylov_options options_of(const struct probe *probe, uint64_t stream)
{
    return (struct krylov_options){
        .tolerance = 1e-8, .max_products = 20000, .seed = probe->seed, .stream = RANDOM_KRYLOV + 0x6000 + stream};
}

/* ---------------------------------------------------------------- leading triplets */

static void solve_whole(const struct dmat *W, struct leading *lead)
{
    const int64_t k = W->m < W->n ? W->m : W->n;
    struct dmat *U = dmat_create(W->grid, W->m, k), *Vt = dmat_create(W->grid, k, W->n);
    double *sigma = NEW(double, k);
    factor_svd(W, U, sigma, Vt);
    lead->sigma = sigma[0];
    lead->next = k > 1 ? sigma[1] : 0;
    for (int il = 0; U->grid->mycol == 0 && il < U->mloc; il++) lead->u[dmat_row(U, il)] = U->local[il];
    for (int jl = 0; Vt->grid->myrow == 0 && jl < Vt->nloc; jl++)
        lead->v[dmat_col(Vt, jl)] = Vt->local[(int64_t)jl * Vt->lld];
    memory_free(sigma);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static void solve_krylov(const struct probe *probe, int l, const struct dmat *W, struct leading *lead)
{
    const struct krylov_options options = options_of(probe, (uint64_t)l);
    struct linop *A = linop_of_matrix(W);
    if (!lead->T) lead->T = triplets_create(A, 2);
    krylov_svd(A, &options, lead->T);
    const struct triplets *T = lead->T;
    lead->sigma = T->sigma[0];
    lead->next = T->sigma[1];
    for (int i = 0; i < T->mloc; i++) lead->u[T->row[i]] = T->left[i];
    for (int j = 0; j < T->nloc; j++) lead->v[T->col[j]] = T->right[j];
    linop_destroy(&A);
}

/* ‖W − σ_1 u vᵀ‖_F²: ‖W‖_F² − σ_1² would cancel for a matrix of nearly rank one. */
static double defect_of(const struct dmat *W, const struct leading *lead)
{
    double sum = 0;
    for (int jl = 0; jl < W->nloc; jl++)
        for (int il = 0; il < W->mloc; il++) {
            const double rest =
                W->local[il + (int64_t)jl * W->lld] - lead->sigma * lead->u[dmat_row(W, il)] * lead->v[dmat_col(W, jl)];
            sum += rest * rest;
        }
    grid_sum(W->grid, &sum, 1);
    return sum;
}

/* Of W; by iteration only with a place for the warm start (l ≥ 1). */
static void solve(const struct probe *probe, int l, const struct dmat *W, struct leading *lead)
{
    const int64_t least = W->m < W->n ? W->m : W->n;
    if (!lead->u) lead->u = NEW(double, W->m);
    if (!lead->v) lead->v = NEW(double, W->n);
    memset(lead->u, 0, (size_t)W->m * sizeof(double));
    memset(lead->v, 0, (size_t)W->n * sizeof(double));
    lead->norm2 = dmat_dot(W, W);
    if (least <= BALANCE_WHOLE)
        solve_whole(W, lead);
    else
        solve_krylov(probe, l, W, lead);
    grid_sum(W->grid, lead->u, to_int(W->m));
    grid_sum(W->grid, lead->v, to_int(W->n));
    lead->defect = defect_of(W, lead);
    lead->alone = lead->next < lead->sigma * (1 - TIED);
}

void layers_solve(const struct probe *probe, const struct model *model)
{
    struct balance *s = probe->state;
    for (int l = 1; l <= s->depth; l++) solve(probe, l, model->params->W[l - 1], &s->leading[l - 1]);
}

static void free_leading(struct leading *lead)
{
    memory_free(lead->u);
    memory_free(lead->v);
    triplets_destroy(&lead->T);
}

void layers_free(struct balance *s)
{
    for (int l = 0; s->leading && l < s->depth; l++) free_leading(&s->leading[l]);
    memory_free(s->leading);
}

double layers_norm(const struct probe *probe, const struct dmat *A, struct triplets **T)
{
    double *sigma = NEW(double, A->n), largest;
    if (A->n <= BALANCE_WHOLE) {
        factor_singular_values(&A, 1, sigma, to_int(A->n));
        largest = sigma[0];
    } else {
        const struct krylov_options options = options_of(probe, 0x1000 + (uint64_t)A->n);
        struct linop *L = linop_of_matrix(A);
        if (!*T) *T = triplets_create(L, 1);
        krylov_svd(L, &options, *T);
        largest = (*T)->sigma[0];
        linop_destroy(&L);
    }
    memory_free(sigma);
    return largest;
}

/* ---------------------------------------------------------------- one layer */

static void put_layer(const struct probe *probe, int l, int *flag)
{
    const struct balance *s = probe->state;
    const struct leading *lead = &s->leading[l - 1];
    const double norm = sqrt(lead->norm2);
    balance_put(probe, BALANCE_NORM, l - 1, norm);
    balance_put(probe, BALANCE_DEFECT, l - 1, lead->defect);
    if (!(norm > 0)) {
        *flag |= LAYER_ZERO;
        return;
    }
    balance_put(probe, BALANCE_RATIO, l - 1, lead->sigma / norm);
    balance_put(probe, BALANCE_GAP, l - 1, lead->next / lead->sigma);
    balance_put(probe, BALANCE_STABLE_RANK, l - 1, lead->norm2 / (lead->sigma * lead->sigma));
    if (!lead->alone) {
        *flag |= LAYER_TIED;
        return;
    }
    /* √(2 − 2σ/‖W‖) without cancellation */
    balance_put(probe, BALANCE_RANK1, l - 1, sqrt(2 * lead->defect / (norm * (norm + lead->sigma))));
}

/* W_l restricted to neurons that have always been open, on either side. */
static void put_stable_block(const struct probe *probe, const struct model *model, int l, int *flag)
{
    const struct balance *s = probe->state;
    const struct dmat *W = model->params->W[l - 1];
    struct leading lead = {0};
    int64_t rows = 0, columns = 0;
    for (int64_t i = 0; i < W->m; i++) rows += gates_stable(s, l, i);
    for (int64_t j = 0; j < W->n; j++) columns += gates_stable(s, l - 1, j);
    if (rows == 0 || columns == 0) {
        *flag |= LAYER_NO_BLOCK;
        return;
    }
    struct dmat *B = dmat_create(W->grid, W->m, W->n);
    dmat_copy(B, W);
    for (int jl = 0; jl < B->nloc; jl++)
        for (int il = 0; il < B->mloc; il++)
            if (!gates_stable(s, l, dmat_row(B, il)) || !gates_stable(s, l - 1, dmat_col(B, jl)))
                B->local[il + (int64_t)jl * B->lld] = 0;
    solve(probe, 0x800 + l, B, &lead);
    if (lead.norm2 > 0) balance_put(probe, BALANCE_BLOCK_RATIO, l - 1, lead.sigma / sqrt(lead.norm2));
    if (!(lead.norm2 > 0)) *flag |= LAYER_NO_BLOCK;
    free_leading(&lead);
    dmat_destroy(&B);
}

void layers_blocks(const struct probe *probe, const struct model *model, int *flag)
{
    const struct balance *s = probe->state;
    for (int l = 1; l <= s->depth; l++)
        if (s->gates[l - 1].layer) put_stable_block(probe, model, l, &flag[l - 1]);
}

/* ---------------------------------------------------------------- bounds in the head */

/* D_k = Σ_{j ≥ k} (‖T_j‖₂ + tr T_j) + δ_L, whose traces are differences of squared norms. */
static double defect_bound(const struct balance *s, const struct law_state *state, int l)
{
    const struct leading *top = &s->leading[s->depth - 1];
    double sum = s->leading[l - 1].norm2 - top->norm2 + top->defect;
    for (int j = l; j < s->depth; j++) sum += state[j - 1].norm;
    return sum;
}

/* D = max_k ‖W_k‖_F² − ‖W_L‖_F² + Σ ‖T_k‖₂ at the first step. */
static double jt_constant(const struct balance *s, const struct law_state *state)
{
    double largest = 0, sum = 0;
    for (int l = s->head; l <= s->depth; l++) largest = fmax(largest, s->leading[l - 1].norm2);
    for (int l = s->head; l < s->depth; l++) sum += state[l - 1].norm;
    return largest - s->leading[s->depth - 1].norm2 + sum + s->leading[s->depth - 1].defect;
}

/* Whether the published bounds, for the gradient flow, are theorems here. */
static bool is_published_case(const struct balance *s)
{
    return s->flows && s->decay == 0 && s->linear && s->margins && s->first == 0 && s->first_loss <= s->loss_at_zero;
}

static void put_defect_bounds(const struct probe *probe, const struct law_state *state, int *flag)
{
    struct balance *s = probe->state;
    for (int l = 1; l <= s->depth; l++) {
        const struct leading *lead = &s->leading[l - 1];
        if (l < s->head || s->head == s->depth) {
            flag[l - 1] |= LAYER_NOT_HEAD;
            continue;
        }
        const double bound = defect_bound(s, state, l), scale = fmax(1, lead->norm2);
        balance_put(probe, BALANCE_DEFECT_BOUND, l - 1, bound);
        if (l < s->depth) balance_note(s, WORST_DEFECT, (lead->defect - bound) / scale); /* else it is its own bound */
        if (is_published_case(s)) balance_note(s, WORST_FLOW_DEFECT, (lead->defect - s->jt) / scale);
    }
}

/* ⟨v_{k+1}, u_k⟩² of layers l and l + 1. */
static double alignment_of(const struct balance *s, int l)
{
    const struct leading *below = &s->leading[l - 1], *above = &s->leading[l];
    double sum = 0;
    for (int64_t i = 0; i < s->law[l - 1].n; i++) sum += above->v[i] * below->u[i];
    return sum * sum;
}

static void put_alignment_bounds(const struct probe *probe, const struct law_state *state, int l, double alignment)
{
    struct balance *s = probe->state;
    const struct leading *below = &s->leading[l - 1], *above = &s->leading[l];
    const double square = above->sigma * above->sigma, *sigma = s->start + s->depth;
    const double bound = (square - state[l - 1].norm - below->defect) / (below->sigma * below->sigma);
    const double flow = 1 - (s->jt + sigma[l] * sigma[l] + sigma[l - 1] * sigma[l - 1]) / square;
    balance_put(probe, BALANCE_ALIGNMENT_BOUND, l - 1, bound);
    balance_put(probe, BALANCE_ALIGNMENT_FLOW, l - 1, flow);
    if (isnan(alignment)) return;
    balance_note(s, WORST_ALIGNMENT, bound - alignment);
    if (is_published_case(s)) balance_note(s, WORST_FLOW_ALIGNMENT, flow - alignment);
}

static void put_alignment(const struct probe *probe, const struct law_state *state, int l, int *flag)
{
    const struct balance *s = probe->state;
    const struct leading *below = &s->leading[l - 1], *above = &s->leading[l];
    const bool defined = below->alone && above->alone;
    const double alignment = defined ? alignment_of(s, l) : NAN;
    balance_put(probe, BALANCE_ALIGNMENT, l - 1, alignment);
    if (!defined) *flag |= LAW_NO_ALIGNMENT;
    if (l >= s->head && above->sigma > 0 && below->sigma > 0)
        put_alignment_bounds(probe, state, l, alignment);
    else
        *flag |= LAW_NO_BOUND;
}

/* max − min of the changes of ‖W_l‖_F² in the head. */
static double norm_spread(const struct balance *s)
{
    double low = INFINITY, high = -INFINITY;
    for (int l = s->head; l <= s->depth; l++) {
        const double change = s->leading[l - 1].norm2 - s->start[l - 1];
        low = fmin(low, change);
        high = fmax(high, change);
    }
    return high - low;
}

void layers_begin(struct balance *s, const struct law_state *state)
{
    for (int l = 0; l < s->depth; l++) {
        s->start[l] = s->leading[l].norm2;
        s->start[s->depth + l] = s->leading[l].sigma;
    }
    s->jt = jt_constant(s, state);
}

void layers_measure(const struct probe *probe, const struct law_state *state, int *flag, int *law_flag, int *missing)
{
    const struct balance *s = probe->state;
    for (int l = 1; l <= s->depth; l++) put_layer(probe, l, &flag[l - 1]);
    put_defect_bounds(probe, state, flag);
    for (int l = 1; l < s->depth; l++) put_alignment(probe, state, l, &law_flag[l - 1]);
    if (s->count >= s->depth) law_flag[s->count - 1] |= LAW_NO_ALIGNMENT | LAW_NO_BOUND; /* the stream */
    if (s->head == s->depth) {
        *missing |= FLAG_NO_HEAD;
        return;
    }
    balance_put(probe, BALANCE_JT, 0, s->jt);
    balance_put(probe, BALANCE_SPREAD, 0, norm_spread(s));
}

/* ---------------------------------------------------------------- direction */

/* 1 − ⟨a, b⟩/(‖a‖ ‖b‖), without cancellation. */
static double turn(const double *a, const double *b, int64_t n)
{
    double aa = 0, bb = 0, sum = 0;
    for (int64_t i = 0; i < n; i++) {
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    for (int64_t i = 0; i < n; i++) sum += pow(a[i] / sqrt(aa) - b[i] / sqrt(bb), 2);
    return sum / 2;
}

void layers_direction(const struct probe *probe, const struct model *model, int *missing)
{
    const struct balance *s = probe->state;
    const int64_t n = model->width[0];
    if (!s->direction || !s->linear) {
        *missing |= FLAG_NO_DIRECTION;
        return;
    }
    struct dmat *row = dmat_create(model->grid, 1, model->width[s->depth - 1]);
    dmat_copy(row, model->params->W[s->depth - 1]);
    for (int l = s->depth - 1; l >= 1; l--) {
        struct dmat *next = dmat_create(model->grid, 1, model->width[l - 1]);
        dmat_gemm('N', 'N', 1, row, model->params->W[l - 1], 0, next);
        dmat_destroy(&row);
        row = next;
    }
    double *w = NEW(double, n);
    dmat_gather(row, w, -1);
    const double same = turn(s->leading[0].v, s->direction, n);
    balance_put(probe, BALANCE_DIRECTION, 0, turn(w, s->direction, n));
    balance_put(probe, BALANCE_VECTOR_DIRECTION, 0, same < 1 ? same : 2 - same); /* the sign of v is arbitrary */
    memory_free(w);
    dmat_destroy(&row);
}
