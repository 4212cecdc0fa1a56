#include "theory/confine.h"

#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "theory/parsimony.h"

#include <math.h>

enum { SMALL = 256 }; /* up to this order a full decomposition is cheaper than an iteration */

/* C ← op(A) B. */
static struct dmat *product(char ta, const struct dmat *A, const struct dmat *B)
{
    struct dmat *C = dmat_create(A->grid, ta == 'N' ? A->m : A->n, B->n);
    dmat_gemm(ta, 'N', 1, A, B, 0, C);
    return C;
}

/* A copy that is not wider than high. */
static struct dmat *tall(const struct dmat *A, bool transposed)
{
    struct dmat *T = transposed ? dmat_create(A->grid, A->n, A->m) : dmat_create(A->grid, A->m, A->n);
    if (transposed)
        dmat_transpose(A, T);
    else
        dmat_copy(T, A);
    return T;
}

struct confine *confine_create(const struct dmat *W)
{
    struct confine *c = NEW(struct confine, 1);
    c->transposed = W->m < W->n;
    c->E = tall(W, c->transposed);
    c->epsilon = dmat_norm(W) / sqrt((double)c->E->n);
    if (c->epsilon > 0) dmat_scale(c->E, 1 / c->epsilon);
    c->orthonormal = dmat_orthogonality(c->E, 1) < 1e-10 * sqrt((double)c->E->n);
    return c;
}

void confine_destroy(struct confine **c)
{
    if (!*c) return;
    dmat_destroy(&(*c)->E);
    dmat_destroy(&(*c)->V);
    memory_free(*c);
    *c = NULL;
}

/* ---------------------------------------------------------------- the subspaces */

static void apply_start(const struct parsimony_start *start, int l, char transposed, const struct dmat *in,
                        struct dmat *out)
{
    ensure(l == 1);
    dmat_gemm(transposed, 'N', 1, start->context, in, 0, out);
}

/* The moving subspace of the law of parsimony for this one layer. */
struct dmat *confine_span(const struct dmat *E, const struct dmat *left, const struct dmat *right)
{
    const int64_t width[2] = {E->n, E->m};
    const double one = 1;
    const struct parsimony_start start = {1, width, &one, apply_start, E};
    struct parsimony *law = parsimony_of(PARSIMONY_GRADIENT, &start, left, right);
    struct dmat *span = law->V[0];
    law->V[0] = NULL;
    parsimony_destroy(&law);
    return span;
}

void confine_find(struct confine *c, const struct dmat *left, const struct dmat *right)
{
    dmat_destroy(&c->V);
    c->V = c->transposed ? confine_span(c->E, right, left) : confine_span(c->E, left, right);
}

void confine_archive(struct confine *c, struct archive *archive)
{
    const bool there = archive_flag(archive, "subspaces", c->V != NULL);
    if (archive_loading(archive)) dmat_destroy(&c->V);
    if (!there) return;
    int64_t order = c->V ? c->V->n : 0;
    archive_int(archive, "order", &order);
    if (!c->V) c->V = dmat_create(c->E->grid, c->E->n, order);
    archive_matrix(archive, "V", c->V);
}

/* ---------------------------------------------------------------- parts of a matrix */

/* A ← (I − V Vᵀ) A. */
static void leave_out(const struct dmat *V, struct dmat *A)
{
    struct dmat *inside = product('T', V, A);
    dmat_gemm('N', 'N', -1, V, inside, 1, A);
    dmat_destroy(&inside);
}

/* Squared norms of U_2ᵀ A = (E V_2)ᵀ A and, unless NULL, of U_1ᵀ A: what is left of A without its part in U_2. */
static double quiet(const struct confine *c, struct dmat *A, double *moving)
{
    struct dmat *seen = product('T', c->E, A);
    leave_out(c->V, seen);
    const double part = dmat_dot(seen, seen);
    if (moving) {
        dmat_gemm('N', 'N', -1, c->E, seen, 1, A);
        *moving = dmat_dot(A, A);
    }
    dmat_destroy(&seen);
    return part;
}

struct confine_parts confine_measure(const struct confine *c, const struct dmat *M, bool blocks)
{
    struct confine_parts parts = {.total = dmat_dot(M, M)};
    struct dmat *Q = tall(M, c->transposed), *A = product('N', Q, c->V);
    dmat_gemm('N', 'T', -1, A, c->V, 1, Q); /* now M V_2 V_2ᵀ */
    double b[2][2] = {{0}};
    const double beside = dmat_dot(Q, Q);
    b[1][0] = quiet(c, A, blocks ? &b[0][0] : NULL);
    parts.outside = beside + b[1][0];
    if (blocks) b[1][1] = quiet(c, Q, &b[0][1]);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) parts.block[i][j] = c->transposed ? b[j][i] : b[i][j];
    dmat_destroy(&A);
    dmat_destroy(&Q);
    return parts;
}

/* ---------------------------------------------------------------- singular values and angles */

static void take_leading(const struct dmat *from, struct dmat *to)
{
    int64_t *columns = NEW(int64_t, to->n);
    for (int64_t k = 0; k < to->n; k++) columns[k] = k;
    dmat_take_columns(from, columns, to);
    memory_free(columns);
}

static void whole(const struct dmat *A, int least, double *sigma, struct dmat *left, struct dmat *right)
{
    if (!left) {
        const struct dmat *const list[1] = {A};
        factor_singular_values(list, 1, sigma, least);
        return;
    }
    struct dmat *U = dmat_create(A->grid, A->m, least), *Vt = dmat_create(A->grid, least, A->n);
    struct dmat *V = dmat_create(A->grid, A->n, least);
    factor_svd(A, U, sigma, Vt);
    dmat_transpose(Vt, V);
    take_leading(U, left);
    take_leading(V, right);
    dmat_destroy(&V);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static void iterate(const struct dmat *A, int wanted, const struct krylov_options *options, double *sigma,
                    struct dmat *left, struct dmat *right)
{
    struct linop *L = linop_of_matrix(A);
    struct triplets *T = triplets_create(L, wanted);
    krylov_svd(L, options, T);
    for (int k = 0; k < wanted; k++) sigma[k] = T->sigma[k];
    if (left) {
        parsimony_put_columns(left, 0, to_int(left->n), T->left, T->mloc, T->row);
        parsimony_put_columns(right, 0, to_int(right->n), T->right, T->nloc, T->col);
    }
    triplets_destroy(&T);
    linop_destroy(&L);
}

void confine_leading(const struct dmat *A, int rank, double tolerance, uint64_t seed, double *sigma, struct dmat *left,
                     struct dmat *right)
{
    const int least = to_int(A->m < A->n ? A->m : A->n), wanted = rank + 1 < least ? rank + 1 : least;
    ensure(rank <= least);
    double *found = NEW(double, least);
    if (least <= SMALL && factor_gathers(A->m, A->n))
        whole(A, least, found, left, right);
    else
        iterate(
            A, wanted,
            &(struct krylov_options){
                .tolerance = tolerance, .max_products = 100000, .seed = seed, .stream = RANDOM_KRYLOV + RANDOM_DATA},
            found, left, right);
    for (int k = 0; k <= rank; k++) sigma[k] = k < wanted ? found[k] : 0;
    memory_free(found);
}

double confine_angle(const struct dmat *A, const struct dmat *B)
{
    struct dmat *rest = dmat_create(B->grid, B->m, B->n);
    double *sine = NEW(double, B->n);
    dmat_copy(rest, B);
    leave_out(A, rest);
    const struct dmat *const list[1] = {rest};
    factor_singular_values(list, 1, sine, to_int(B->n));
    const double largest = sine[0] < 1 ? sine[0] : 1;
    memory_free(sine);
    dmat_destroy(&rest);
    return 180 / acos(-1) * asin(largest);
}
