#include "theory/parsimony.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double SAME_DIRECTION = 1e-8; /* singular values of B below this: directions that are there already */

/* ---------------------------------------------------------------- the subspaces */

void parsimony_put_columns(struct dmat *A, int first, int count, const double *vectors, int mloc, const int64_t *global)
{
    double *whole = NEW(double, A->m *count);
    for (int k = 0; k < count; k++)
        for (int i = 0; i < mloc; i++) whole[global[i] + k * A->m] = vectors[i + (int64_t)k * mloc];
    for (int k = 0; k < count; k++) grid_sum(A->grid, whole + k * A->m, to_int(A->m)); /* each entry has one owner */
    for (int jl = 0; jl < A->nloc; jl++) {
        const int64_t k = dmat_col(A, jl) - first;
        if (k < 0 || k >= count) continue;
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] = whole[dmat_row(A, il) + k * A->m];
    }
    memory_free(whole);
}

bool parsimony_leading(const struct dmat *A, int rank, uint64_t seed, struct dmat *left, struct dmat *right,
                       struct problems *problems)
{
    struct linop *L = linop_of_matrix(A);
    struct triplets *T = triplets_create(L, rank);
    const struct krylov_options options = {
        .tolerance = 1e-14, .max_products = 1000000, .seed = seed, .stream = RANDOM_KRYLOV + RANDOM_DATA};
    krylov_svd(L, &options, T);
    const bool ok = T->converged == rank;
    if (!ok)
        problems_add(problems, EXIT_ENVIRONMENT,
                     "the %d leading singular vectors for the invariant subspace did not converge: is the rank right?",
                     rank);
    parsimony_put_columns(left, 0, rank, T->left, T->mloc, T->row);
    parsimony_put_columns(right, 0, rank, T->right, T->nloc, T->col);
    triplets_destroy(&T);
    linop_destroy(&L);
    return ok;
}

/* C ← op(A) B. */
static struct dmat *product(char ta, const struct dmat *A, const struct dmat *B)
{
    struct dmat *C = dmat_create(A->grid, ta == 'N' ? A->m : A->n, B->n);
    dmat_gemm(ta, 'N', 1, A, B, 0, C);
    return C;
}

/* W_{last:1}ᵀ U / ∏ε, layer by layer. */
static struct dmat *pull_back(const struct parsimony_start *start, int last, const struct dmat *U)
{
    struct dmat *Z = dmat_create(U->grid, U->m, U->n);
    dmat_copy(Z, U);
    for (int l = last; l >= 1; l--) {
        struct dmat *next = dmat_create(U->grid, start->width[l - 1], U->n);
        start->apply(start, l, 'T', Z, next);
        dmat_scale(next, 1 / start->epsilon[l - 1]);
        dmat_destroy(&Z);
        Z = next;
    }
    return Z;
}

/* The columns of A, then those of B, as rows: what factor_svd reduces by LQ. */
static struct dmat *stack_rows(const struct dmat *A, const struct dmat *B)
{
    struct dmat *both = dmat_create(A->grid, A->m, A->n + B->n), *rows = dmat_create(A->grid, A->n + B->n, A->m);
    double *column = NEW(double, A->m);
    int64_t *index = NEW(int64_t, A->m);
    for (int64_t i = 0; i < A->m; i++) index[i] = i;
    for (int64_t j = 0; j < both->n; j++) {
        const struct dmat *from = j < A->n ? A : B;
        const int64_t jg = j < A->n ? j : j - A->n;
        memset(column, 0, (size_t)A->m * sizeof *column);
        for (int jl = 0; jl < from->nloc; jl++)
            for (int il = 0; dmat_col(from, jl) == jg && il < from->mloc; il++)
                column[dmat_row(from, il)] = from->local[il + (int64_t)jl * from->lld];
        grid_sum(A->grid, column, to_int(A->m));
        parsimony_put_columns(both, to_int(j), 1, column, A->grid->rank == 0 ? to_int(A->m) : 0, index);
    }
    dmat_transpose(both, rows);
    memory_free(index);
    memory_free(column);
    dmat_destroy(&both);
    return rows;
}

/* V_{1,1}: an orthonormal basis of the columns of [A B]. */
static struct dmat *span_of(struct parsimony *p, const struct dmat *A, const struct dmat *B)
{
    struct dmat *rows = stack_rows(A, B);
    p->candidates = to_int(rows->m < rows->n ? rows->m : rows->n);
    struct dmat *U = dmat_create(rows->grid, rows->m, p->candidates),
                *Vt = dmat_create(rows->grid, p->candidates, rows->n);
    p->singular = NEW(double, p->candidates);
    factor_svd(rows, U, p->singular, Vt);
    while (p->q < p->candidates && p->singular[p->q] > SAME_DIRECTION) p->q++;
    struct dmat *V = dmat_create(rows->grid, rows->n, p->candidates), *span = dmat_create(rows->grid, rows->n, p->q);
    dmat_transpose(Vt, V);
    int64_t *columns = NEW(int64_t, p->q);
    for (int j = 0; j < p->q; j++) columns[j] = j;
    dmat_take_columns(V, columns, span);
    memory_free(columns);
    dmat_destroy(&V);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
    dmat_destroy(&rows);
    return span;
}

struct parsimony *parsimony_of(enum parsimony_case kind, const struct parsimony_start *start, const struct dmat *left,
                               const struct dmat *right)
{
    struct parsimony *p = NEW(struct parsimony, 1);
    p->kind = kind;
    p->depth = start->depth;
    p->blocks = kind == PARSIMONY_OUTPUTS ? start->depth - 1 : start->depth;
    p->epsilon = NEW(double, start->depth);
    memcpy(p->epsilon, start->epsilon, (size_t)start->depth * sizeof *p->epsilon);
    p->V = NEW(struct dmat *, p->blocks + 1);
    struct dmat *back = pull_back(start, kind == PARSIMONY_GRADIENT ? 1 : start->depth, left);
    p->V[0] = span_of(p, right, back);
    dmat_destroy(&back);
    for (int l = 1; l <= p->blocks; l++) {
        p->V[l] = dmat_create(left->grid, start->width[l], p->q);
        start->apply(start, l, 'N', p->V[l - 1], p->V[l]);
        dmat_scale(p->V[l], 1 / p->epsilon[l - 1]);
    }
    return p;
}

/* Of weights that are there: the context is their list. */
static void apply_weights(const struct parsimony_start *start, int l, char transposed, const struct dmat *in,
                          struct dmat *out)
{
    const struct dmat *const *W = start->context;
    dmat_gemm(transposed, 'N', 1, W[l - 1], in, 0, out);
}

struct parsimony *parsimony_create(enum parsimony_case kind, const struct dmat *const *W, int depth,
                                   const struct dmat *matrix, int rank, uint64_t seed, struct problems *problems)
{
    double *epsilon = NEW(double, depth);
    int64_t *width = NEW(int64_t, depth + 1);
    width[0] = W[0]->n;
    for (int l = 1; l <= depth; l++) width[l] = W[l - 1]->m;
    for (int l = 0; l < depth; l++)
        epsilon[l] = dmat_norm(W[l]) / sqrt((double)(W[l]->m < W[l]->n ? W[l]->m : W[l]->n));
    const struct parsimony_start start = {depth, width, epsilon, apply_weights, W};
    struct dmat *left = dmat_create(matrix->grid, matrix->m, rank), *right = dmat_create(matrix->grid, matrix->n, rank);
    struct parsimony *p = NULL;
    if (parsimony_leading(matrix, rank, seed, left, right, problems)) p = parsimony_of(kind, &start, left, right);
    dmat_destroy(&left);
    dmat_destroy(&right);
    memory_free(width);
    memory_free(epsilon);
    if (!problems_none(problems, matrix->grid->comm)) parsimony_destroy(&p);
    return p;
}

/* The sizes, from which a restored one is made. */
static void archive_sizes(struct parsimony *p, struct archive *archive)
{
    int64_t kind = p->kind, depth = p->depth, q = p->q, candidates = p->candidates;
    archive_int(archive, "case", &kind);
    archive_int(archive, "depth", &depth);
    archive_int(archive, "order", &q);
    archive_int(archive, "candidates", &candidates);
    p->kind = (enum parsimony_case)kind;
    p->depth = to_int(depth);
    p->blocks = p->kind == PARSIMONY_OUTPUTS ? p->depth - 1 : p->depth;
    p->q = to_int(q);
    p->candidates = to_int(candidates);
}

static void make_room(struct parsimony *p, const struct grid *grid, const int64_t *height)
{
    p->epsilon = NEW(double, p->depth);
    p->singular = NEW(double, p->candidates);
    p->V = NEW(struct dmat *, p->blocks + 1);
    for (int l = 0; l <= p->blocks; l++) p->V[l] = dmat_create(grid, height[l], p->q);
}

void parsimony_archive(struct parsimony **parsimony, const struct dmat *like, struct archive *archive)
{
    const bool there = archive_flag(archive, "law", *parsimony != NULL);
    if (archive_loading(archive)) parsimony_destroy(parsimony);
    if (!there) return;
    const bool loading = archive_loading(archive);
    struct parsimony *p = loading ? NEW(struct parsimony, 1) : *parsimony;
    ensure(p);
    *parsimony = p;
    archive_sizes(p, archive);
    int64_t *height = NEW(int64_t, p->blocks + 1);
    for (int l = 0; l <= p->blocks; l++) {
        char name[32];
        snprintf(name, sizeof name, "height_%d", l);
        if (!loading) height[l] = p->V[l]->m;
        archive_int(archive, name, &height[l]);
    }
    if (loading) make_room(p, like->grid, height);
    archive_reals(archive, "epsilon", p->depth, p->epsilon);
    archive_reals(archive, "singular", p->candidates, p->singular);
    for (int l = 0; l <= p->blocks; l++) {
        char name[32];
        snprintf(name, sizeof name, "V%d", l + 1);
        archive_matrix(archive, name, p->V[l]);
    }
    memory_free(height);
}

void parsimony_destroy(struct parsimony **parsimony)
{
    struct parsimony *p = *parsimony;
    if (!p) return;
    for (int l = 0; l <= p->blocks; l++) dmat_destroy(&p->V[l]);
    memory_free(p->V);
    memory_free(p->epsilon);
    memory_free(p->singular);
    memory_free(p);
    *parsimony = NULL;
}

/* ---------------------------------------------------------------- blocks and what is left */

static struct dmat *block_of(const struct parsimony *p, int l, const struct dmat *WV)
{
    return product('T', p->V[l], WV);
}

void parsimony_block(const struct parsimony *p, int l, const struct dmat *W, double *block)
{
    struct dmat *WV = product('N', W, p->V[l - 1]), *B = block_of(p, l, WV);
    dmat_gather(B, block, -1);
    dmat_destroy(&B);
    dmat_destroy(&WV);
}

struct parsimony_rest parsimony_rest(const struct parsimony *p, int l, const struct dmat *W, const struct dmat *W0,
                                     double rho)
{
    const struct dmat *U = p->V[l], *V = p->V[l - 1];
    struct parsimony_rest rest = {.rho = NAN};
    struct dmat *E = dmat_create(W->grid, W->m, W->n), *WV = product('N', W, V), *B = block_of(p, l, WV);
    const double order = (double)(W->m < W->n ? W->m : W->n) - p->q;
    dmat_copy(E, W0);
    dmat_scale(E, 1 / p->epsilon[l - 1]);
    dmat_gemm('N', 'T', -1, U, V, 1, E);
    if (order > 0) rest.rho = dmat_dot(W, E) / order;
    if (isnan(rho)) rho = order > 0 ? rest.rho : 0;
    dmat_scale(E, -rho);
    dmat_axpy(E, 1, W); /* now W − ρE; the block goes next */
    dmat_gemm('N', 'N', -1, U, B, 1, WV);
    rest.off = dmat_norm(WV);
    struct dmat *UB = product('N', U, B);
    dmat_gemm('N', 'T', -1, UB, V, 1, E);
    rest.residual = dmat_largest(E);
    dmat_destroy(&UB);
    dmat_destroy(&B);
    dmat_destroy(&WV);
    dmat_destroy(&E);
    return rest;
}

double parsimony_leak(const struct parsimony *p, const struct dmat *W)
{
    const struct dmat *V = p->V[p->blocks];
    struct dmat *rest = dmat_create(W->grid, W->m, W->n), *WV = product('N', W, V);
    dmat_copy(rest, W);
    dmat_gemm('N', 'T', -1, WV, V, 1, rest);
    const double leak = dmat_largest(rest);
    dmat_destroy(&WV);
    dmat_destroy(&rest);
    return leak;
}

/* ---------------------------------------------------------------- ρ */

struct rho *rho_create(const struct parsimony *p, double scale)
{
    struct rho *rho = NEW(struct rho, 1);
    rho->layers = p->blocks;
    rho->driven = p->kind == PARSIMONY_SQUARE;
    rho->scale = scale;
    rho->value = NEW(double, rho->layers);
    rho->velocity = NEW(double, rho->layers);
    memcpy(rho->value, p->epsilon, (size_t)rho->layers * sizeof(double));
    return rho;
}

double rho_drive(const struct rho *rho, int l)
{
    double product = rho->driven ? rho->scale : 0;
    for (int k = 0; k < rho->layers; k++) product *= k == l ? rho->value[k] : rho->value[k] * rho->value[k];
    return product;
}

void rho_step(struct rho *rho, double lr, const double *multiplier, double decay, double momentum)
{
    for (int l = 0; l < rho->layers; l++) rho->velocity[l] = momentum * rho->velocity[l] + rho_drive(rho, l);
    for (int l = 0; l < rho->layers; l++) {
        const double eta = lr * (multiplier ? multiplier[l] : 1);
        rho->value[l] = (1 - eta * decay) * rho->value[l] - eta * rho->velocity[l];
    }
}

double rho_product_squared(const struct rho *rho)
{
    double product = 1;
    for (int l = 0; l < rho->layers; l++) product *= rho->value[l] * rho->value[l];
    return product;
}

void rho_archive(struct rho *rho, struct archive *archive)
{
    archive_reals(archive, "rho", rho->layers, rho->value);
    archive_reals(archive, "rho_velocity", rho->layers, rho->velocity);
}

void rho_destroy(struct rho **rho)
{
    if (!*rho) return;
    memory_free((*rho)->value);
    memory_free((*rho)->velocity);
    memory_free(*rho);
    *rho = NULL;
}
