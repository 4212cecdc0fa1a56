/* gemm: distributed products (declared in dmat.h).
 *
 * The `panel` route gathers panels of one operand (on a two-dimensional grid: of both) along process rows or columns,
 * multiplies them by one local DGEMM each, and where the inner index is distributed exchanges the partial products and
 * adds them in rank order, so that the result has the same bits on every run. Memory is bounded by the panels.
 *
 *     N,N   C_ij = Σ_k A_ik B_kj    panels of k: columns of A gathered along the process row, rows of B down the column
 *     T,N   C_ij = Σ_p A_p:ᵀ B_pj   panels of rows of C: columns of A gathered, sums over process rows
 *     N,T   C_ij = Σ_q A_iq B_:qᵀ   panels of columns of C: rows of B gathered down the column, sums over process
 *                                   columns
 *
 * This is for several process rows; gemm_row does it on one, with less copying. */
#include "base/error.h"
#include "base/memory.h"

#include "fortran.h"
#include "gemm_private.h"

#include <math.h>

/* DGEMM copies its operands into an order of its own, which takes longer than multiplying them where one of them is
 * this thin. OpenBLAS has kernels without copies (SkylakeX; elsewhere nothing is lost) for products of up to MOST_SMALL
 * multiplications: 1.2 to 2.5 times as fast, in strips. */
static const int LEAST_STRIP = 16, MOST_SMALL = 1000000;

/* How many of the columns of C (of the inner index where B is transposed) to multiply at a time: all, unless it is
 * thin. */
static int strip_of(bool inner, int m, int n, int k)
{
    const int64_t others = inner ? (int64_t)m * n : (int64_t)m * k, length = inner ? k : n;
    const bool thin = m <= DMAT_THIN || (inner ? n : k) <= DMAT_THIN;
    const int64_t most = others > 0 ? MOST_SMALL / others / LEAST_STRIP * LEAST_STRIP : 0;
    return thin && most >= LEAST_STRIP && most < length ? (int)most : length > 0 ? (int)length : 1;
}

void local_gemm(char ta, char tb, int m, int n, int k, double a, const double *A, int lda, const double *B, int ldb,
                double b, double *C, int ldc)
{
    const bool inner = ta == 'N' && tb == 'T';
    const double one = 1;
    if (m == 0 || n == 0) return;
    const int strip = strip_of(inner, m, n, k), length = inner ? k : n;
    for (int i = 0; i == 0 || i < length; i += strip) {
        const int width = i + strip < length ? strip : length - i;
        if (inner)
            dgemm_(&ta, &tb, &m, &n, &width, &a, A + (int64_t)i * lda, &lda, B + (int64_t)i * ldb, &ldb, i ? &one : &b,
                   C, &ldc);
        else
            dgemm_(&ta, &tb, &m, &width, &k, &a, A, &lda, B + (int64_t)i * ldb, &ldb, &b, C + (int64_t)i * ldc, &ldc);
    }
}

/* Doubles in one panel: large enough for a DGEMM at full speed, small beside the operands. */
static const int64_t PANEL_DOUBLES = (int64_t)1 << 18;
static const int64_t PANEL_WIDTH = 512; /* at least: DGEMM packs an operand anew, or updates C, once a panel */

int64_t panel_width(int64_t rows, int64_t n, int nb, int procs)
{
    int64_t unit = (int64_t)nb * procs;
    int64_t width = PANEL_DOUBLES / (rows > 0 ? rows : 1);
    if (width < PANEL_WIDTH) width = PANEL_WIDTH;
    width = unit >= PANEL_WIDTH ? unit : (width + unit - 1) / unit * unit;
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

/* The columns of an array (`rows` doubles each) that belong to process q, where they stand in the natural order of the
 * range [k0, k1): whole blocks. */
static MPI_Datatype columns_of(int q, int64_t k0, int64_t k1, int nb, int procs, int rows)
{
    const int most = (int)((k1 - k0) / nb) + 2;
    int *length = NEW(int, most), *at = NEW(int, most), count = 0;
    for (int64_t k = k0, end; k < k1; k = end) {
        end = block_end(k, k1, nb);
        if (grid_owner(k, nb, procs) != q) continue;
        length[count] = (int)(end - k);
        at[count++] = (int)(k - k0);
    }
    MPI_Datatype column, type;
    MPI_Type_contiguous(rows, MPI_DOUBLE, &column);
    MPI_Type_indexed(count, length, at, column, &type);
    MPI_Type_commit(&type);
    MPI_Type_free(&column);
    memory_free(at);
    memory_free(length);
    return type;
}

/* Local rows [i0, i1) of columns [k0, k1) of A, in natural order: mine are copied to their place and sent from there,
 * the others' are received into theirs. */
static struct panel gather_columns(const struct dmat *A, int i0, int i1, int64_t k0, int64_t k1)
{
    const struct grid *grid = A->grid;
    const int procs = grid->npcol, me = grid->mycol, rows = i1 - i0;
    if (procs == 1) return (struct panel){A->local + i0 + k0 * A->lld, A->lld};
    double *panel = grid_work(grid, SLOT_PANEL, rows * (k1 - k0));
    for (int64_t k = k0, end; k < k1; k = end) {
        end = block_end(k, k1, A->nb);
        if (grid_owner(k, A->nb, procs) == me)
            copy_rows(A->local + i0 + (int64_t)grid_local(k, A->nb, procs) * A->lld, A->lld, panel + (k - k0) * rows,
                      rows, rows, (int)(end - k));
    }
    MPI_Request *request = NEW(MPI_Request, 2 * procs);
    MPI_Datatype mine = columns_of(me, k0, k1, A->nb, procs, rows);
    int count = 0;
    for (int step = 1; step < procs; step++) {
        const int from = (me + procs - step) % procs, to = (me + step) % procs;
        MPI_Datatype theirs = columns_of(from, k0, k1, A->nb, procs, rows);
        MPI_Irecv(panel, 1, theirs, from, 0, grid->row_comm, &request[count++]);
        MPI_Isend(panel, 1, mine, to, 0, grid->row_comm, &request[count++]);
        MPI_Type_free(&theirs);
    }
    MPI_Waitall(count, request, MPI_STATUSES_IGNORE);
    MPI_Type_free(&mine);
    memory_free(request);
    return (struct panel){panel, rows > 0 ? rows : 1};
}

static struct panel gather_rows(const struct dmat *B, int64_t k0, int64_t k1, int slot)
{
    const struct grid *grid = B->grid;
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

/* Columns [j0, j1) of C ← b·C + Σ over the process row of the partial panels T (C->mloc × (j1 − j0), natural order),
 * added in rank order. */
static void add_columns(struct dmat *C, int64_t j0, int64_t j1, const double *T, double b)
{
    const struct grid *grid = C->grid;
    const int procs = grid->npcol, me = grid->mycol, rows = C->mloc;
    const int first = grid_count(j0, C->nb, me, 0, procs), mine = grid_count(j1, C->nb, me, 0, procs) - first;
    const int64_t size = (int64_t)mine * rows;
    double *parts = grid_work(grid, SLOT_PANEL, procs * size);
    MPI_Request *request = NEW(MPI_Request, 2 * procs);
    int count = 0;
    for (int step = 1; step < procs; step++) {
        const int from = (me + procs - step) % procs, to = (me + step) % procs;
        MPI_Datatype theirs = columns_of(to, j0, j1, C->nb, procs, rows);
        MPI_Irecv(parts + from * size, to_int(size), MPI_DOUBLE, from, 1, grid->row_comm, &request[count++]);
        MPI_Isend(T, 1, theirs, to, 1, grid->row_comm, &request[count++]);
        MPI_Type_free(&theirs);
    }
    MPI_Waitall(count, request, MPI_STATUSES_IGNORE);
    memory_free(request);
    const double **part = NEW(const double *, procs);
    int64_t done = 0;
    for (int64_t j = j0, end; j < j1; j = end) {
        end = block_end(j, j1, C->nb);
        if (grid_owner(j, C->nb, procs) != me) continue;
        const int64_t length = (end - j) * rows;
        for (int p = 0; p < procs; p++) part[p] = p == me ? T + (j - j0) * rows : parts + p * size + done;
        double *to = C->local + ((int64_t)first * rows + done);
        for (int64_t i = 0; i < length; i++) {
            double sum = part[0][i];
            for (int p = 1; p < procs; p++) sum += part[p][i];
            to[i] = b == 0 ? sum : b * to[i] + sum;
        }
        done += length;
    }
    memory_free(part);
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

/* Width of the panels of C (m × n) with inner index k, of the three shapes of products; several process rows. */
static int64_t width_nn(const struct grid *grid, int64_t m, int64_t n, int64_t k)
{
    const int64_t rows = largest_local(m, grid->block, grid->nprow), cols = largest_local(n, grid->block, grid->npcol);
    const int64_t tall = grid->npcol > 1 ? rows : 0;
    const int procs = grid->npcol > grid->nprow ? grid->npcol : grid->nprow;
    return panel_width(tall > cols ? tall : cols, k, grid->block, procs);
}

static int64_t width_tn(const struct grid *grid, int64_t m, int64_t n, int64_t k)
{
    const int64_t inner = largest_local(k, grid->block, grid->nprow), cols = largest_local(n, grid->block, grid->npcol);
    return panel_width(cols > inner ? cols : inner, m, grid->block, grid->npcol);
}

static int64_t width_nt(const struct grid *grid, int64_t m, int64_t n, int64_t k)
{
    const int64_t rows = largest_local(m, grid->block, grid->nprow), inner = largest_local(k, grid->block, grid->npcol);
    return panel_width(inner > rows ? inner : rows, n, grid->block, grid->npcol);
}

static void panel_nn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const int64_t width = width_nn(C->grid, C->m, C->n, A->n);
    for (int64_t k0 = 0; k0 < A->n; k0 += width) {
        int64_t k1 = k0 + width < A->n ? k0 + width : A->n;
        struct panel left = gather_columns(A, 0, A->mloc, k0, k1), right = gather_rows(B, k0, k1, SLOT_PANEL_B);
        local_gemm('N', 'N', C->mloc, C->nloc, (int)(k1 - k0), a, left.data, left.lld, right.data, right.lld,
                   k0 == 0 ? b : 1, C->local, C->lld);
    }
}

static void panel_tn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const struct grid *grid = C->grid;
    const int64_t width = width_tn(grid, C->m, C->n, A->m);
    for (int64_t i0 = 0; i0 < A->n; i0 += width) {
        int64_t i1 = i0 + width < A->n ? i0 + width : A->n;
        struct panel left = gather_columns(A, 0, A->mloc, i0, i1);
        double *T = grid_work(grid, SLOT_EXCHANGE, (i1 - i0) * C->nloc);
        local_gemm('T', 'N', (int)(i1 - i0), C->nloc, A->mloc, a, left.data, left.lld, B->local, B->lld, 0, T,
                   (int)(i1 - i0));
        add_rows(C, i0, i1, T, b);
    }
}

static void panel_nt(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const struct grid *grid = C->grid;
    const int64_t width = width_nt(grid, C->m, C->n, A->n);
    for (int64_t j0 = 0; j0 < B->m; j0 += width) {
        int64_t j1 = j0 + width < B->m ? j0 + width : B->m;
        struct panel right = gather_rows(B, j0, j1, SLOT_PANEL_B);
        const bool alone = grid->npcol == 1;
        double *T = alone ? C->local + j0 * C->lld : grid_work(grid, SLOT_EXCHANGE, (j1 - j0) * C->mloc);
        local_gemm('N', 'T', C->mloc, (int)(j1 - j0), A->nloc, a, A->local, A->lld, right.data, right.lld,
                   alone ? b : 0, T, C->lld);
        if (!alone) add_columns(C, j0, j1, T, b);
    }
}

/* What gather_rows does for a panel of `width` rows of a matrix with `cols` local columns. */
static void need_rows(struct gemm_need *need, const struct grid *grid, int64_t width, int64_t cols, int slot)
{
    const double size = (double)(width * cols), others = grid->nprow - 1;
    need->messages += others * ceil(need->panels);
    need->received += 8 * size * others / grid->nprow * need->panels;
    need->copied += 16 * (size + size / grid->nprow) * need->panels;
    need->work[slot] = width * cols;
    if (need->work[SLOT_EXCHANGE] < width * cols) need->work[SLOT_EXCHANGE] = width * cols;
}

/* What gather_columns does for `width` columns of a matrix with `rows` local rows. */
static void need_columns(struct gemm_need *need, const struct grid *grid, int64_t rows, int64_t width)
{
    const double size = (double)(rows * width), others = grid->npcol - 1;
    if (grid->npcol == 1) return;
    need->messages += others * ceil(need->panels);
    need->received += 8 * size * others / grid->npcol * need->panels;
    need->copied += 16 * size / grid->npcol * need->panels;
    need->work[SLOT_PANEL] = rows * width;
}

/* What add_rows (procs process rows) and add_columns do with a partial panel of `size` doubles. */
static void need_sums(struct gemm_need *need, int procs, int64_t size, bool rows)
{
    const double share = (double)size / procs;
    if (procs == 1) return;
    need->messages += (procs - 1) * ceil(need->panels);
    need->received += 8 * share * (procs - 1) * need->panels;
    need->copied += 8 * (share * (procs + 1) + (rows ? 2 * (double)size : 0)) * need->panels;
    need->work[SLOT_EXCHANGE] = need->work[SLOT_EXCHANGE] < size ? size : need->work[SLOT_EXCHANGE];
    if (need->work[SLOT_PANEL] < size) need->work[SLOT_PANEL] = size;
    if (rows) need->work[SLOT_PANEL_B] = size;
}

struct gemm_need gemm_need(const struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k)
{
    const int64_t rows = largest_local(m, grid->block, grid->nprow), cols = largest_local(n, grid->block, grid->npcol);
    struct gemm_need need = {.m = m, .n = n, .k = k, .panels = 1};
    if (grid->size == 1) return need;
    if (grid->nprow == 1) return row_need(grid, ta, tb, m, n, k);
    if (ta == 'T') {
        const int64_t width = width_tn(grid, m, n, k), inner = largest_local(k, grid->block, grid->nprow);
        need = (struct gemm_need){.m = width, .n = cols, .k = inner, .panels = (double)m / (double)width};
        need_columns(&need, grid, inner, width);
        need_sums(&need, grid->nprow, width * cols, true);
    } else if (tb == 'T') {
        const int64_t width = width_nt(grid, m, n, k), inner = largest_local(k, grid->block, grid->npcol);
        need = (struct gemm_need){.m = rows, .n = width, .k = inner, .panels = (double)n / (double)width};
        need_rows(&need, grid, width, inner, SLOT_PANEL_B);
        need_sums(&need, grid->npcol, width * rows, false);
    } else {
        const int64_t width = width_nn(grid, m, n, k);
        need = (struct gemm_need){.m = rows, .n = cols, .k = width, .panels = (double)k / (double)width};
        need_columns(&need, grid, rows, width);
        need_rows(&need, grid, width, cols, SLOT_PANEL_B);
    }
    return need;
}

static void by_pblas(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const int m = to_int(C->m), n = to_int(C->n), k = to_int(ta == 'N' ? A->n : A->m), one = 1;
    pdgemm_(&ta, &tb, &m, &n, &k, &a, A->local, &one, &one, A->desc, B->local, &one, &one, B->desc, &b, C->local, &one,
            &one, C->desc);
}

/* With a matrix that is whole here, and its transpose beside it if it is thin. */
static void multiply_held(char ta, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const bool turned = ta == 'T' && (A->m <= DMAT_THIN || A->n <= DMAT_THIN);
    local_gemm(turned ? 'N' : ta, 'N', (int)C->m, C->nloc, (int)B->m, a, turned ? A->whole + A->m * A->n : A->whole,
               (int)(turned ? A->n : A->m), B->local, B->lld, b, C->local, C->lld);
}

/* My part of a product that is summed at the end. */
static void collect(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    ensure(ta == 'N' && tb == 'T');
    local_gemm(ta, tb, (int)C->m, (int)C->n, A->nloc, a, A->local, A->lld, B->local, B->lld, b, C->whole, (int)C->m);
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
    else if (A->held == DMAT_HELD && tb == 'N')
        multiply_held(ta, a, A, B, b, C);
    else if (C->held == DMAT_COLLECTS)
        collect(ta, tb, a, A, B, b, C);
    else if (C->grid->size == 1)
        local_gemm(ta, tb, C->mloc, C->nloc, (int)k, a, A->local, A->lld, B->local, B->lld, b, C->local, C->lld);
    else if (C->grid->nprow == 1)
        row_gemm(ta, tb, a, A, B, b, C);
    else if (ta == 'T')
        panel_tn(a, A, B, b, C);
    else if (tb == 'T')
        panel_nt(a, A, B, b, C);
    else
        panel_nn(a, A, B, b, C);
}
