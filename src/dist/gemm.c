/* gemm: distributed products (declared in dmat.h).
 *
 * The `panel` route keeps the larger work local: panels of one operand (on a two-dimensional grid: of both) are
 * gathered along process rows or columns, multiplied by one local DGEMM, and where the inner index is distributed the
 * partial products are exchanged and added in rank order, so that the result has the same bits on every run. Memory is
 * bounded by the panel.
 *
 *     N,N   C_ij = Σ_k A_ik B_kj    panels of k: columns of A gathered along the process row, rows of B down the column
 *     T,N   C_ij = Σ_p A_p:ᵀ B_pj   panels of rows of C: columns of A gathered along the row; sums over process rows
 *     N,T   C_ij = Σ_q A_iq B_:qᵀ   panels of columns of C: rows of B gathered down the column; sums over process
 * columns
 */
#include "base/error.h"
#include "base/memory.h"
#include "dist/dmat.h"

#include "fortran.h"

#include <string.h>

enum { SLOT_PANEL, SLOT_PANEL_B, SLOT_EXCHANGE };

/* Doubles in one panel: large enough for a DGEMM at full speed, small beside the operands. */
static const int64_t PANEL_DOUBLES = (int64_t)1 << 18;
static const int64_t PANEL_WIDTH = 256; /* at least */

/* C ← a·op(A) op(B) + b·C on local arrays; empty results are left alone, an empty inner index scales C. */
static void local_gemm(char ta, char tb, int m, int n, int k, double a, const double *A, int lda, const double *B,
                       int ldb, double b, double *C, int ldc)
{
    if (m == 0 || n == 0) return;
    dgemm_(&ta, &tb, &m, &n, &k, &a, A, &lda, B, &ldb, &b, C, &ldc);
}

/* Width of panels over an index of size n when a panel has `rows` rows, the same on every rank: the count is of the
 * largest rank. A multiple of the block times the processes, so that every panel but the last is dealt evenly. */
static int64_t panel_width(int64_t rows, int64_t n, int nb, int procs)
{
    int64_t unit = (int64_t)nb * procs;
    int64_t width = PANEL_DOUBLES / (rows > 0 ? rows : 1);
    if (width < PANEL_WIDTH) width = PANEL_WIDTH;
    width = (width + unit - 1) / unit * unit;
    return width < n ? width : n;
}

/* One gather along a communicator of `procs` processes over block-cyclic index range [k0, k1): who gives how many. */
struct deal {
    int *count, *at; /* [procs] local indices of the range, and their start in the range's rank-major order; owned */
    int first;       /* my first local index of the range */
};

static struct deal deal_create(int64_t k0, int64_t k1, int nb, int me, int procs)
{
    struct deal deal = {NEW(int, procs), NEW(int, procs), grid_count(k0, nb, me, 0, procs)};
    for (int p = 0; p < procs; p++) {
        deal.count[p] = grid_count(k1, nb, p, 0, procs) - grid_count(k0, nb, p, 0, procs);
        deal.at[p] = p ? deal.at[p - 1] + deal.count[p - 1] : 0;
    }
    return deal;
}

static void deal_destroy(struct deal *deal)
{
    memory_free(deal->count);
    memory_free(deal->at);
}

/* Where index k of range [k0, k1) stands in rank-major order, for a whole block starting at k. */
static int deal_position(const struct deal *deal, int64_t k, int64_t k0, int nb, int procs)
{
    int owner = grid_owner(k, nb, procs);
    return deal->at[owner] + grid_local(k, nb, procs) - grid_count(k0, nb, owner, 0, procs);
}

static int64_t block_end(int64_t k, int64_t k1, int nb)
{
    int64_t end = (k / nb + 1) * nb;
    return end < k1 ? end : k1;
}

/* Gathers with counts in columns of `rows` doubles. */
static void gather_along(MPI_Comm comm, int procs, const double *mine, int me, const struct deal *deal, int rows,
                         double *all)
{
    int *count = NEW(int, 2 * procs), *at = count + procs;
    for (int p = 0; p < procs; p++) {
        count[p] = to_int((int64_t)deal->count[p] * rows);
        at[p] = to_int((int64_t)deal->at[p] * rows);
    }
    MPI_Allgatherv(mine, count[me], MPI_DOUBLE, all, count, at, MPI_DOUBLE, comm);
    memory_free(count);
}

/* A panel: columns [k0, k1) of A's local rows, or rows [k0, k1) of its local columns, in natural order. */
struct panel {
    const double *data;
    int lld;
};

static struct panel gather_columns(const struct dmat *A, int64_t k0, int64_t k1, int slot)
{
    const struct grid *grid = A->grid;
    if (grid->npcol == 1) return (struct panel){A->local + k0 * A->lld, A->lld};
    ensure(A->lld == A->mloc || A->mloc == 0);
    struct deal deal = deal_create(k0, k1, A->nb, grid->mycol, grid->npcol);
    int64_t rows = A->mloc;
    double *dealt = grid_work(grid, SLOT_EXCHANGE, rows * (k1 - k0)), *panel = grid_work(grid, slot, rows * (k1 - k0));
    gather_along(grid->row_comm, grid->npcol, A->local + (int64_t)deal.first * rows, grid->mycol, &deal, A->mloc,
                 dealt);
    for (int64_t k = k0, end; k < k1; k = end) {
        end = block_end(k, k1, A->nb);
        int64_t from = deal_position(&deal, k, k0, A->nb, grid->npcol);
        memcpy(panel + (k - k0) * rows, dealt + from * rows, (size_t)((end - k) * rows) * sizeof(double));
    }
    deal_destroy(&deal);
    return (struct panel){panel, A->lld};
}

static void copy_rows(const double *from, int64_t ld_from, double *to, int64_t ld_to, int rows, int cols)
{
    for (int j = 0; j < cols; j++) memcpy(to + j * ld_to, from + j * ld_from, (size_t)rows * sizeof(double));
}

static struct panel gather_rows(const struct dmat *B, int64_t k0, int64_t k1, int slot)
{
    const struct grid *grid = B->grid;
    if (grid->nprow == 1) return (struct panel){B->local + k0, B->lld};
    struct deal deal = deal_create(k0, k1, B->mb, grid->myrow, grid->nprow);
    int width = (int)(k1 - k0), mine = deal.count[grid->myrow];
    double *dealt = grid_work(grid, SLOT_EXCHANGE, (int64_t)width * B->nloc);
    double *panel = grid_work(grid, slot, (int64_t)(width > mine ? width : mine) * B->nloc);
    copy_rows(B->local + deal.first, B->lld, panel, mine, mine, B->nloc); /* the panel serves as send buffer first */
    gather_along(grid->col_comm, grid->nprow, panel, grid->myrow, &deal, B->nloc, dealt);
    for (int64_t k = k0, end; k < k1; k = end) {
        end = block_end(k, k1, B->mb);
        int owner = grid_owner(k, B->mb, grid->nprow), height = deal.count[owner];
        int64_t start = (int64_t)deal.at[owner] * B->nloc, row = deal_position(&deal, k, k0, B->mb, grid->nprow);
        copy_rows(dealt + start + row - deal.at[owner], height, panel + (k - k0), width, (int)(end - k), B->nloc);
    }
    deal_destroy(&deal);
    return (struct panel){panel, width > 0 ? width : 1};
}

/* C's part of a panel += Σ over the process row of the partial panels T (C->mloc × (j1 − j0)), added in rank order.
 * T stands in slot SLOT_EXCHANGE with columns in rank-major order, so that it is its own send buffer. */
static void add_columns(struct dmat *C, int64_t j0, int64_t j1, const struct deal *deal, const double *T, double b)
{
    const struct grid *grid = C->grid;
    const int procs = grid->npcol, mine = deal->count[grid->mycol];
    int *n = NEW(int, 4 * procs), *at = n + procs, *nr = n + 2 * procs, *at_r = n + 3 * procs;
    for (int p = 0; p < procs; p++) {
        n[p] = to_int((int64_t)deal->count[p] * C->mloc);
        at[p] = to_int((int64_t)deal->at[p] * C->mloc);
        nr[p] = to_int((int64_t)mine * C->mloc);
        at_r[p] = to_int((int64_t)p * nr[p]);
    }
    double *parts = grid_work(grid, SLOT_PANEL, (int64_t)procs * mine * C->mloc);
    MPI_Alltoallv(T, n, at, MPI_DOUBLE, parts, nr, at_r, MPI_DOUBLE, grid->row_comm);
    int64_t size = (int64_t)mine * C->mloc;
    double *restrict to = C->local + (int64_t)deal->first * C->mloc;
    for (int64_t i = 0; i < size; i++) {
        double sum = parts[i];
        for (int p = 1; p < procs; p++) sum += parts[i + p * size];
        to[i] = b == 0 ? sum : b * to[i] + sum;
    }
    memory_free(n);
}

/* The same for rows [i0, i1) of C over the process column; T is a natural-order panel ((i1 − i0) × C->nloc). */
static void add_rows(struct dmat *C, int64_t i0, int64_t i1, const double *T, double b)
{
    const struct grid *grid = C->grid;
    const int procs = grid->nprow, width = (int)(i1 - i0);
    struct deal deal = deal_create(i0, i1, C->mb, grid->myrow, procs);
    const int mine = deal.count[grid->myrow];
    double *send = grid_work(grid, SLOT_PANEL_B, (int64_t)width * C->nloc);
    double *parts = grid_work(grid, SLOT_PANEL, (int64_t)procs * mine * C->nloc);
    int *n = NEW(int, 4 * procs), *at = n + procs, *nr = n + 2 * procs, *at_r = n + 3 * procs;
    for (int p = 0; p < procs; p++) {
        n[p] = to_int((int64_t)deal.count[p] * C->nloc);
        at[p] = to_int((int64_t)deal.at[p] * C->nloc);
        nr[p] = to_int((int64_t)mine * C->nloc);
        at_r[p] = to_int((int64_t)p * nr[p]);
    }
    for (int64_t i = i0, end; i < i1; i = end) {
        end = block_end(i, i1, C->mb);
        int owner = grid_owner(i, C->mb, procs);
        int64_t row = deal_position(&deal, i, i0, C->mb, procs) - deal.at[owner];
        copy_rows(T + (i - i0), width, send + at[owner] + row, deal.count[owner], (int)(end - i), C->nloc);
    }
    MPI_Alltoallv(send, n, at, MPI_DOUBLE, parts, nr, at_r, MPI_DOUBLE, grid->col_comm);
    int64_t size = (int64_t)mine * C->nloc;
    for (int jl = 0; jl < C->nloc; jl++)
        for (int il = 0; il < mine; il++) {
            const double *part = parts + il + (int64_t)jl * mine;
            double sum = part[0], *to = C->local + deal.first + il + (int64_t)jl * C->lld;
            for (int p = 1; p < procs; p++) sum += part[p * size];
            *to = b == 0 ? sum : b * *to + sum;
        }
    memory_free(n);
    deal_destroy(&deal);
}

static int64_t largest_local(int64_t n, int nb, int procs)
{
    return grid_count(n, nb, 0, 0, procs);
}

static void panel_nn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const struct grid *grid = C->grid;
    int64_t rows = largest_local(A->m, A->mb, grid->nprow), cols = largest_local(B->n, B->nb, grid->npcol);
    int64_t tall = grid->npcol > 1 ? rows : 0, wide = grid->nprow > 1 ? cols : 0;
    int procs = grid->npcol > grid->nprow ? grid->npcol : grid->nprow;
    int64_t width = grid->size == 1 ? A->n : panel_width(tall > wide ? tall : wide, A->n, A->nb, procs);
    for (int64_t k0 = 0; k0 < A->n; k0 += width) {
        int64_t k1 = k0 + width < A->n ? k0 + width : A->n;
        struct panel left = gather_columns(A, k0, k1, SLOT_PANEL), right = gather_rows(B, k0, k1, SLOT_PANEL_B);
        local_gemm('N', 'N', C->mloc, C->nloc, (int)(k1 - k0), a, left.data, left.lld, right.data, right.lld,
                   k0 == 0 ? b : 1, C->local, C->lld);
    }
}

static void panel_tn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const struct grid *grid = C->grid;
    int64_t inner = largest_local(A->m, A->mb, grid->nprow), cols = largest_local(C->n, C->nb, grid->npcol);
    int64_t rows = grid->nprow > 1 && cols > inner ? cols : inner;
    int64_t width = grid->size == 1 ? A->n : panel_width(rows, A->n, A->nb, grid->npcol);
    for (int64_t i0 = 0; i0 < A->n; i0 += width) {
        int64_t i1 = i0 + width < A->n ? i0 + width : A->n;
        struct panel left = gather_columns(A, i0, i1, SLOT_PANEL);
        if (grid->nprow == 1) {
            local_gemm('T', 'N', (int)(i1 - i0), C->nloc, A->mloc, a, left.data, left.lld, B->local, B->lld, b,
                       C->local + i0, C->lld);
            continue;
        }
        double *T = grid_work(grid, SLOT_EXCHANGE, (i1 - i0) * C->nloc);
        local_gemm('T', 'N', (int)(i1 - i0), C->nloc, A->mloc, a, left.data, left.lld, B->local, B->lld, 0, T,
                   (int)(i1 - i0));
        add_rows(C, i0, i1, T, b);
    }
}

/* Panels of columns of C in the rank-major order of their owners: one DGEMM an owner, straight into the send buffer. */
static void panel_nt(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const struct grid *grid = C->grid;
    int64_t rows = largest_local(C->m, C->mb, grid->nprow), inner = largest_local(B->n, B->nb, grid->npcol);
    int64_t tall = grid->nprow > 1 && inner > rows ? inner : rows;
    int64_t width = grid->size == 1 ? B->m : panel_width(tall, B->m, C->nb, grid->npcol);
    for (int64_t j0 = 0; j0 < B->m; j0 += width) {
        int64_t j1 = j0 + width < B->m ? j0 + width : B->m;
        struct panel right = gather_rows(B, j0, j1, SLOT_PANEL_B);
        if (grid->npcol == 1) {
            local_gemm('N', 'T', C->mloc, (int)(j1 - j0), A->nloc, a, A->local, A->lld, right.data, right.lld, b,
                       C->local + j0 * C->lld, C->lld);
            continue;
        }
        struct deal deal = deal_create(j0, j1, C->nb, grid->mycol, grid->npcol);
        double *sorted = grid_work(grid, SLOT_PANEL, (j1 - j0) * A->nloc);
        int height = (int)(j1 - j0);
        for (int64_t j = j0, end; j < j1; j = end) {
            end = block_end(j, j1, C->nb);
            copy_rows(right.data + (j - j0), right.lld, sorted + deal_position(&deal, j, j0, C->nb, grid->npcol),
                      height, (int)(end - j), A->nloc);
        }
        double *T = grid_work(grid, SLOT_EXCHANGE, (j1 - j0) * C->mloc);
        local_gemm('N', 'T', C->mloc, height, A->nloc, a, A->local, A->lld, sorted, height, 0, T, C->mloc);
        add_columns(C, j0, j1, &deal, T, b);
        deal_destroy(&deal);
    }
}

static void by_pblas(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const int m = to_int(C->m), n = to_int(C->n), k = to_int(ta == 'N' ? A->n : A->m), one = 1;
    pdgemm_(&ta, &tb, &m, &n, &k, &a, A->local, &one, &one, A->desc, B->local, &one, &one, B->desc, &b, C->local, &one,
            &one, C->desc);
}

void dmat_gemm(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    int64_t m = ta == 'N' ? A->m : A->n, k = ta == 'N' ? A->n : A->m;
    ensure(m == C->m && k == (tb == 'N' ? B->m : B->n) && C->n == (tb == 'N' ? B->n : B->m));
    ensure((ta == 'N' || ta == 'T') && (tb == 'N' || tb == 'T') && !(ta == 'T' && tb == 'T'));
    ensure(A->grid == C->grid && B->grid == C->grid);
    if (C->m == 0 || C->n == 0) return;
    if (k == 0 && b == 0)
        dmat_fill(C, 0); /* whatever C held, NaN too */
    else if (k == 0)
        dmat_scale(C, b);
    else if (C->grid->gemm == GRID_GEMM_PDGEMM)
        by_pblas(ta, tb, a, A, B, b, C);
    else if (ta == 'T')
        panel_tn(a, A, B, b, C);
    else if (tb == 'T')
        panel_nt(a, A, B, b, C);
    else
        panel_nn(a, A, B, b, C);
}
