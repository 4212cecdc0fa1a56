#include "dist/linop.h"

#include "base/error.h"
#include "base/memory.h"

#include "fortran.h"

#include <string.h>

/* Entry `p` of the even split of n local indices over procs processes starts here. */
static int split(int n, int p, int procs)
{
    return (int)((int64_t)n * p / procs);
}

struct matrix_context {
    const struct dmat *A;    /* borrowed */
    int *col_count, *col_at; /* [nprow] pieces of my local columns over the process column; owned */
    int *row_count, *row_at; /* [npcol] pieces of my local rows over the process row; owned */
    double *x, *y;           /* [A->nloc], [A->mloc] vectors of the whole process column and row; owned */
};

static void pieces(int n, int procs, int **count, int **at)
{
    *count = NEW(int, procs);
    *at = NEW(int, procs);
    for (int p = 0; p < procs; p++) {
        (*at)[p] = split(n, p, procs);
        (*count)[p] = split(n, p + 1, procs) - (*at)[p];
    }
}

static void matrix_apply(const struct linop *L, const double *x, double *y)
{
    const struct matrix_context *c = L->context;
    const struct dmat *A = c->A;
    const int step = 1;
    const double unit = 1, zero = 0;
    MPI_Allgatherv(x, L->nloc, MPI_DOUBLE, c->x, c->col_count, c->col_at, MPI_DOUBLE, A->grid->col_comm);
    memset(c->y, 0, (size_t)A->mloc * sizeof(double));
    if (A->mloc && A->nloc) dgemv_("N", &A->mloc, &A->nloc, &unit, A->local, &A->lld, c->x, &step, &zero, c->y, &step);
    MPI_Reduce_scatter(c->y, y, c->row_count, MPI_DOUBLE, MPI_SUM, A->grid->row_comm);
}

static void matrix_apply_adjoint(const struct linop *L, const double *y, double *x)
{
    const struct matrix_context *c = L->context;
    const struct dmat *A = c->A;
    const int step = 1;
    const double unit = 1, zero = 0;
    MPI_Allgatherv(y, L->mloc, MPI_DOUBLE, c->y, c->row_count, c->row_at, MPI_DOUBLE, A->grid->row_comm);
    memset(c->x, 0, (size_t)A->nloc * sizeof(double));
    if (A->mloc && A->nloc) dgemv_("T", &A->mloc, &A->nloc, &unit, A->local, &A->lld, c->y, &step, &zero, c->x, &step);
    MPI_Reduce_scatter(c->x, x, c->col_count, MPI_DOUBLE, MPI_SUM, A->grid->col_comm);
}

/* Several vectors: the small messages one by one, the matrix read once. */
static void matrix_apply_block(const struct linop *L, int count, const double *X, double *Y)
{
    const struct matrix_context *c = L->context;
    const struct dmat *A = c->A;
    const double unit = 1, zero = 0;
    const int ldx = A->nloc > 0 ? A->nloc : 1, ldy = A->mloc > 0 ? A->mloc : 1;
    double *x = NEW(double, (int64_t)A->nloc *count), *y = NEW(double, (int64_t)A->mloc *count);
    for (int k = 0; k < count; k++)
        MPI_Allgatherv(X + (int64_t)k * L->nloc, L->nloc, MPI_DOUBLE, x + (int64_t)k * A->nloc, c->col_count, c->col_at,
                       MPI_DOUBLE, A->grid->col_comm);
    if (A->mloc && A->nloc)
        dgemm_("N", "N", &A->mloc, &count, &A->nloc, &unit, A->local, &A->lld, x, &ldx, &zero, y, &ldy);
    for (int k = 0; k < count; k++)
        MPI_Reduce_scatter(y + (int64_t)k * A->mloc, Y + (int64_t)k * L->mloc, c->row_count, MPI_DOUBLE, MPI_SUM,
                           A->grid->row_comm);
    memory_free(y);
    memory_free(x);
}

static void matrix_apply_adjoint_block(const struct linop *L, int count, const double *Y, double *X)
{
    const struct matrix_context *c = L->context;
    const struct dmat *A = c->A;
    const double unit = 1, zero = 0;
    const int ldx = A->nloc > 0 ? A->nloc : 1, ldy = A->mloc > 0 ? A->mloc : 1;
    double *x = NEW(double, (int64_t)A->nloc *count), *y = NEW(double, (int64_t)A->mloc *count);
    for (int k = 0; k < count; k++)
        MPI_Allgatherv(Y + (int64_t)k * L->mloc, L->mloc, MPI_DOUBLE, y + (int64_t)k * A->mloc, c->row_count, c->row_at,
                       MPI_DOUBLE, A->grid->row_comm);
    if (A->mloc && A->nloc)
        dgemm_("T", "N", &A->nloc, &count, &A->mloc, &unit, A->local, &A->lld, y, &ldy, &zero, x, &ldx);
    for (int k = 0; k < count; k++)
        MPI_Reduce_scatter(x + (int64_t)k * A->nloc, X + (int64_t)k * L->nloc, c->col_count, MPI_DOUBLE, MPI_SUM,
                           A->grid->col_comm);
    memory_free(y);
    memory_free(x);
}

static int64_t matrix_row(const struct linop *L, int il)
{
    const struct matrix_context *c = L->context;
    return dmat_row(c->A, c->row_at[c->A->grid->mycol] + il);
}

static int64_t matrix_col(const struct linop *L, int jl)
{
    const struct matrix_context *c = L->context;
    return dmat_col(c->A, c->col_at[c->A->grid->myrow] + jl);
}

static void matrix_destroy(struct linop *L)
{
    struct matrix_context *c = L->context;
    memory_free(c->col_count);
    memory_free(c->col_at);
    memory_free(c->row_count);
    memory_free(c->row_at);
    memory_free(c->x);
    memory_free(c->y);
    memory_free(c);
}

struct linop *linop_of_matrix(const struct dmat *A)
{
    struct matrix_context *c = NEW(struct matrix_context, 1);
    c->A = A;
    pieces(A->nloc, A->grid->nprow, &c->col_count, &c->col_at);
    pieces(A->mloc, A->grid->npcol, &c->row_count, &c->row_at);
    c->x = NEW(double, A->nloc);
    c->y = NEW(double, A->mloc);
    struct linop *L = NEW(struct linop, 1);
    *L = (struct linop){.comm = A->grid->comm,
                        .m = A->m,
                        .n = A->n,
                        .mloc = c->row_count[A->grid->mycol],
                        .nloc = c->col_count[A->grid->myrow],
                        .context = c,
                        .apply = matrix_apply,
                        .apply_adjoint = matrix_apply_adjoint,
                        .apply_block = matrix_apply_block,
                        .apply_adjoint_block = matrix_apply_adjoint_block,
                        .row_index = matrix_row,
                        .col_index = matrix_col,
                        .destroy = matrix_destroy};
    return L;
}

/* Between two factors a vector goes from the row layout of one to the column layout of the next: it is gathered whole
 * (a vector is small beside a matrix) and each rank takes what it owns. */
struct seam {
    int *count, *at;       /* [size] entries by rank; owned */
    int64_t *index;        /* [n] global index of every entry in rank order; owned */
    double *dealt, *whole; /* [n], owned */
};

struct product_context {
    int count;
    struct linop **factor;  /* [count], owned */
    struct seam *down, *up; /* [count] down[i]: y of factor i by global index; up[i]: x of factor i; owned */
    double **piece;         /* [count] work vectors of max(mloc, nloc) of factor i; owned */
};

static struct seam seam_create(const struct linop *L, bool rows)
{
    int size, mine = rows ? L->mloc : L->nloc;
    int64_t n = rows ? L->m : L->n;
    MPI_Comm_size(L->comm, &size);
    struct seam s = {NEW(int, size), NEW(int, size), NEW(int64_t, n), NEW(double, n), NEW(double, n)};
    int64_t *index = NEW(int64_t, mine);
    for (int i = 0; i < mine; i++) index[i] = rows ? L->row_index(L, i) : L->col_index(L, i);
    MPI_Allgather(&mine, 1, MPI_INT, s.count, 1, MPI_INT, L->comm);
    for (int p = 1; p < size; p++) s.at[p] = s.at[p - 1] + s.count[p - 1];
    MPI_Allgatherv(index, mine, MPI_INT64_T, s.index, s.count, s.at, MPI_INT64_T, L->comm);
    memory_free(index);
    return s;
}

static void seam_destroy(struct seam *s)
{
    memory_free(s->count);
    memory_free(s->at);
    memory_free(s->index);
    memory_free(s->dealt);
    memory_free(s->whole);
}

/* Gathers the pieces into the seam's whole vector, in global order. */
static void seam_gather(const struct seam *s, MPI_Comm comm, const double *mine, int count, int64_t n)
{
    MPI_Allgatherv(mine, count, MPI_DOUBLE, s->dealt, s->count, s->at, MPI_DOUBLE, comm);
    for (int64_t i = 0; i < n; i++) s->whole[s->index[i]] = s->dealt[i];
}

static void product_apply(const struct linop *L, const double *x, double *y)
{
    const struct product_context *c = L->context;
    const double *from = x;
    for (int i = 0; i < c->count; i++) {
        const struct linop *factor = c->factor[i];
        const bool last = i == c->count - 1;
        double *to = last ? y : c->piece[i];
        factor->apply(factor, from, to);
        if (last) break;
        const struct linop *next = c->factor[i + 1];
        seam_gather(&c->down[i], L->comm, to, factor->mloc, factor->m);
        for (int k = 0; k < next->nloc; k++) c->piece[i + 1][k] = c->down[i].whole[next->col_index(next, k)];
        from = c->piece[i + 1];
        /* the next factor writes into piece[i + 1] only after it has read all of it */
    }
}

static void product_apply_adjoint(const struct linop *L, const double *y, double *x)
{
    const struct product_context *c = L->context;
    const double *from = y;
    for (int i = c->count - 1; i >= 0; i--) {
        const struct linop *factor = c->factor[i];
        double *to = i == 0 ? x : c->piece[i];
        factor->apply_adjoint(factor, from, to);
        if (i == 0) break;
        const struct linop *next = c->factor[i - 1];
        seam_gather(&c->up[i], L->comm, to, factor->nloc, factor->n);
        for (int k = 0; k < next->mloc; k++) c->piece[i - 1][k] = c->up[i].whole[next->row_index(next, k)];
        from = c->piece[i - 1];
    }
}

static int64_t product_row(const struct linop *L, int il)
{
    const struct product_context *c = L->context;
    return c->factor[c->count - 1]->row_index(c->factor[c->count - 1], il);
}

static int64_t product_col(const struct linop *L, int jl)
{
    const struct product_context *c = L->context;
    return c->factor[0]->col_index(c->factor[0], jl);
}

static void product_destroy(struct linop *L)
{
    struct product_context *c = L->context;
    for (int i = 0; i < c->count; i++) {
        linop_destroy(&c->factor[i]);
        seam_destroy(&c->down[i]);
        seam_destroy(&c->up[i]);
        memory_free(c->piece[i]);
    }
    memory_free(c->factor);
    memory_free(c->down);
    memory_free(c->up);
    memory_free(c->piece);
    memory_free(c);
}

struct linop *linop_of_product(const struct dmat *const *A, int count)
{
    ensure(count >= 1);
    struct product_context *c = NEW(struct product_context, 1);
    c->count = count;
    c->factor = NEW(struct linop *, count);
    c->down = NEW(struct seam, count);
    c->up = NEW(struct seam, count);
    c->piece = NEW(double *, count);
    for (int i = 0; i < count; i++) {
        struct linop *factor = c->factor[i] = linop_of_matrix(A[i]);
        ensure(i == 0 || A[i]->n == A[i - 1]->m);
        c->down[i] = seam_create(factor, true);
        c->up[i] = seam_create(factor, false);
        c->piece[i] = NEW(double, factor->mloc > factor->nloc ? factor->mloc : factor->nloc);
    }
    struct linop *L = NEW(struct linop, 1);
    *L = (struct linop){.comm = c->factor[0]->comm,
                        .m = c->factor[count - 1]->m,
                        .n = c->factor[0]->n,
                        .mloc = c->factor[count - 1]->mloc,
                        .nloc = c->factor[0]->nloc,
                        .context = c,
                        .apply = product_apply,
                        .apply_adjoint = product_apply_adjoint,
                        .row_index = product_row,
                        .col_index = product_col,
                        .destroy = product_destroy};
    return L;
}

void linop_apply_block(const struct linop *A, int count, const double *X, double *Y)
{
    if (A->apply_block) {
        A->apply_block(A, count, X, Y);
        return;
    }
    for (int k = 0; k < count; k++) A->apply(A, X + (int64_t)k * A->nloc, Y + (int64_t)k * A->mloc);
}

void linop_apply_adjoint_block(const struct linop *A, int count, const double *Y, double *X)
{
    if (A->apply_adjoint_block) {
        A->apply_adjoint_block(A, count, Y, X);
        return;
    }
    for (int k = 0; k < count; k++) A->apply_adjoint(A, Y + (int64_t)k * A->mloc, X + (int64_t)k * A->nloc);
}

void linop_destroy(struct linop **A)
{
    if (!*A) return;
    if ((*A)->destroy) (*A)->destroy(*A);
    memory_free(*A);
    *A = NULL;
}
