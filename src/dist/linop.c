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

/* The vectors on one side of a matrix: its local rows belong to the process row, its local columns to the process
 * column, and each of these vectors is split over the processes there. */
struct side {
    MPI_Comm comm;   /* borrowed */
    int n;           /* local rows or columns of the matrix */
    int *count, *at; /* the pieces of the processes of comm; owned */
    int mine;        /* my piece */
    double *whole;   /* [n] of all pieces; owned */
};

struct matrix_context {
    const struct dmat *A; /* borrowed */
    struct side row, col; /* of y = A x: y and x */
};

static struct side side_create(int n, MPI_Comm comm, int me, int procs)
{
    struct side side = {comm, n, NEW(int, procs), NEW(int, procs), 0, NEW(double, n)};
    for (int p = 0; p < procs; p++) {
        side.at[p] = split(n, p, procs);
        side.count[p] = split(n, p + 1, procs) - side.at[p];
    }
    side.mine = side.count[me];
    return side;
}

static void side_destroy(struct side *side)
{
    memory_free(side->count);
    memory_free(side->at);
    memory_free(side->whole);
}

/* out ← A in, or Aᵀ in, for `count` vectors: small messages one by one, the matrix read once. */
static void multiply(const struct matrix_context *c, bool adjoint, int count, const double *in, double *out)
{
    const struct dmat *A = c->A;
    const struct side *from = adjoint ? &c->row : &c->col, *to = adjoint ? &c->col : &c->row;
    const int step = 1, ld_from = from->n > 0 ? from->n : 1, ld_to = to->n > 0 ? to->n : 1;
    const double unit = 1, zero = 0;
    const char *trans = adjoint ? "T" : "N";
    double *x = count == 1 ? from->whole : NEW(double, (int64_t)from->n *count);
    double *y = count == 1 ? to->whole : NEW(double, (int64_t)to->n *count);
    for (int k = 0; k < count; k++)
        MPI_Allgatherv(in + (int64_t)k * from->mine, from->mine, MPI_DOUBLE, x + (int64_t)k * from->n, from->count,
                       from->at, MPI_DOUBLE, from->comm);
    if (from->n == 0)
        memset(y, 0, (size_t)to->n * (size_t)count * sizeof *y);
    else if (to->n > 0 && count == 1)
        dgemv_(trans, &A->mloc, &A->nloc, &unit, A->local, &A->lld, x, &step, &zero, y, &step);
    else if (to->n > 0)
        dgemm_(trans, "N", &to->n, &count, &from->n, &unit, A->local, &A->lld, x, &ld_from, &zero, y, &ld_to);
    for (int k = 0; k < count; k++)
        MPI_Reduce_scatter(y + (int64_t)k * to->n, out + (int64_t)k * to->mine, to->count, MPI_DOUBLE, MPI_SUM,
                           to->comm);
    if (count == 1) return;
    memory_free(x);
    memory_free(y);
}

static void matrix_apply(const struct linop *L, const double *x, double *y)
{
    multiply(L->context, false, 1, x, y);
}

static void matrix_apply_adjoint(const struct linop *L, const double *y, double *x)
{
    multiply(L->context, true, 1, y, x);
}

static void matrix_apply_block(const struct linop *L, int count, const double *X, double *Y)
{
    multiply(L->context, false, count, X, Y);
}

static void matrix_apply_adjoint_block(const struct linop *L, int count, const double *Y, double *X)
{
    multiply(L->context, true, count, Y, X);
}

static int64_t matrix_row(const struct linop *L, int il)
{
    const struct matrix_context *c = L->context;
    return dmat_row(c->A, c->row.at[c->A->grid->mycol] + il);
}

static int64_t matrix_col(const struct linop *L, int jl)
{
    const struct matrix_context *c = L->context;
    return dmat_col(c->A, c->col.at[c->A->grid->myrow] + jl);
}

static void matrix_destroy(struct linop *L)
{
    struct matrix_context *c = L->context;
    side_destroy(&c->row);
    side_destroy(&c->col);
    memory_free(c);
}

struct linop *linop_of_matrix(const struct dmat *A)
{
    const struct grid *grid = A->grid;
    struct matrix_context *c = NEW(struct matrix_context, 1);
    c->A = A;
    c->row = side_create(A->mloc, grid->row_comm, grid->mycol, grid->npcol);
    c->col = side_create(A->nloc, grid->col_comm, grid->myrow, grid->nprow);
    struct linop *L = NEW(struct linop, 1);
    *L = (struct linop){.comm = grid->comm,
                        .m = A->m,
                        .n = A->n,
                        .mloc = c->row.mine,
                        .nloc = c->col.mine,
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
