/* gemm_row: products on one process row, where only columns are dealt.
 *
 *     N,N   C_:j = Σ_q A_:q B_qj      panels of k: columns of A come from their owners
 *     T,N   C_qj = A_:qᵀ B_:j         panels of k: rows of all columns of A come from their owners
 *     N,T   C_:q = Σ_p A_:p B_qpᵀ     panels of C's columns: everybody's part for me comes from the others
 *
 * What is sent stands together in memory, so that MPI copies it once, straight from the sender's memory on one node. A
 * panel that holds one block of every process needs little other copying: N,N multiplies it owner by owner where it
 * arrives, my own part first, from where it is, while the others are on their way, so that nobody waits for a short
 * delay of another one; T,N receives it in natural order; in N,T the first part arrives where the sum is to stand.
 * Smaller blocks are put in natural order first, because DGEMM is slow on thin panels. The order of additions is fixed,
 * so the result has the same bits on every run. */
#include "base/error.h"
#include "base/memory.h"

#include "gemm_private.h"

#include <math.h>

/* The columns [k0, k1) of a matrix: whose they are. */
struct deal {
    int64_t k0, k1;
    int nb, procs, me;
    int *count, *first; /* [procs] how many are process q's, and the first one's local index there; owned */
    bool whole;         /* every process has at most one run of neighbouring columns */
};

static struct deal deal_create(const struct dmat *A, int64_t k0, int64_t k1)
{
    struct deal deal = {.k0 = k0, .k1 = k1, .nb = A->nb, .procs = A->grid->npcol, .me = A->grid->mycol};
    deal.count = NEW(int, 2 * deal.procs);
    deal.first = deal.count + deal.procs;
    for (int q = 0; q < deal.procs; q++) {
        deal.first[q] = grid_count(k0, A->nb, q, 0, deal.procs);
        deal.count[q] = grid_count(k1, A->nb, q, 0, deal.procs) - deal.first[q];
    }
    deal.whole = (k1 - 1) / A->nb - k0 / A->nb < deal.procs;
    return deal;
}

static void deal_destroy(struct deal *deal)
{
    memory_free(deal->count);
}

/* Global index of process q's first column of the deal. */
static int64_t deal_start(const struct deal *deal, int q)
{
    return grid_global(deal->first[q], deal->nb, q, deal->procs);
}

/* One process after the other, from the next one on: everybody sends to another one at a time. */
static int deal_next(const struct deal *deal, int step)
{
    return (deal->me + step) % deal->procs;
}
static int deal_previous(const struct deal *deal, int step)
{
    return (deal->me + deal->procs - step) % deal->procs;
}

/* Messages under way: from process deal_previous(step) request[step], to deal_next(step) request[procs + step]. */
struct exchange {
    MPI_Request *request; /* [2 procs] owned */
    double **from;        /* [procs] what process q sends; borrowed; mine too */
};

static struct exchange exchange_create(int procs)
{
    struct exchange x = {NEW(MPI_Request, 2 * procs), NEW(double *, procs)};
    for (int i = 0; i < 2 * procs; i++) x.request[i] = MPI_REQUEST_NULL;
    return x;
}

static void exchange_wait(struct exchange *x, int step)
{
    MPI_Wait(&x->request[step], MPI_STATUS_IGNORE);
}

static void exchange_end(struct exchange *x, int procs)
{
    MPI_Waitall(2 * procs, x->request, MPI_STATUSES_IGNORE);
    memory_free(x->request);
    memory_free(x->from);
}

/* Starts the gathering of rows [i0, i1) of A's columns of the deal: from[q] will hold process q's, rows × count[q]. My
 * own are there at once. `in_order`: the parts, which are whole, stand in natural order, and from[0] begins the panel.
 */
static struct exchange gather_begin(const struct dmat *A, int i0, int i1, const struct deal *deal, bool in_order)
{
    const int procs = deal->procs, me = deal->me, rows = i1 - i0;
    const bool together = i0 == 0 && i1 == A->lld, copied = in_order || !together;
    struct exchange x = exchange_create(procs);
    const int64_t own = (int64_t)rows * deal->count[me], all = (int64_t)rows * (deal->k1 - deal->k0);
    double *at = grid_work(A->grid, SLOT_PANEL, copied ? all : all - own);
    x.from[me] = A->local + (int64_t)deal->first[me] * A->lld;
    for (int q = 0; q < procs; q++) {
        const int place = in_order ? q : (me + q) % procs;
        if (place == me && !copied) continue;
        if (place == me) copy_rows(x.from[me] + i0, A->lld, at, rows, rows, deal->count[me]);
        x.from[place] = at;
        at += (int64_t)rows * deal->count[place];
    }
    for (int step = 1; step < procs; step++) {
        const int from = deal_previous(deal, step), to = deal_next(deal, step);
        MPI_Irecv(x.from[from], to_int((int64_t)rows * deal->count[from]), MPI_DOUBLE, from, 0, A->grid->row_comm,
                  &x.request[step]);
        MPI_Isend(x.from[me], to_int(own), MPI_DOUBLE, to, 0, A->grid->row_comm, &x.request[procs + step]);
    }
    return x;
}

/* The whole panel in natural order. */
static const double *gather_natural(const struct dmat *A, struct exchange *x, const struct deal *deal, int rows)
{
    double *panel = grid_work(A->grid, SLOT_PANEL_B, rows * (deal->k1 - deal->k0));
    for (int step = 0; step < deal->procs; step++) {
        const int q = deal_previous(deal, step);
        const double *from = x->from[q];
        exchange_wait(x, step);
        for (int64_t k = deal->k0, end; k < deal->k1; k = end) {
            end = block_end(k, deal->k1, deal->nb);
            if (grid_owner(k, deal->nb, deal->procs) != q) continue;
            const int64_t size = rows * (end - k);
            memcpy(panel + rows * (k - deal->k0), from, (size_t)size * sizeof(double));
            from += size;
        }
    }
    return panel;
}

static void row_nn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width)
{
    const int rows = A->mloc, ld = rows > 0 ? rows : 1;
    for (int64_t k0 = 0; k0 < A->n; k0 += width) {
        const int64_t k1 = k0 + width < A->n ? k0 + width : A->n;
        struct deal deal = deal_create(A, k0, k1);
        struct exchange x = gather_begin(A, 0, rows, &deal, false);
        double keep = k0 == 0 ? b : 1;
        if (!deal.whole)
            local_gemm('N', 'N', rows, C->nloc, (int)(k1 - k0), a, gather_natural(A, &x, &deal, rows), ld,
                       B->local + k0, B->lld, keep, C->local, C->lld);
        for (int step = 0; deal.whole && step < deal.procs; step++, keep = 1) {
            const int q = deal_previous(&deal, step);
            exchange_wait(&x, step);
            local_gemm('N', 'N', rows, C->nloc, deal.count[q], a, x.from[q], ld, B->local + deal_start(&deal, q),
                       B->lld, keep, C->local, C->lld);
        }
        exchange_end(&x, deal.procs);
        deal_destroy(&deal);
    }
}

/* One DGEMM: two that share Aᵀ's long rows take 10 per cent more. */
static void row_tn(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width)
{
    struct deal deal = deal_create(A, 0, A->n);
    for (int64_t k0 = 0; k0 < A->m; k0 += width) {
        const int64_t k1 = k0 + width < A->m ? k0 + width : A->m;
        const int rows = (int)(k1 - k0);
        struct exchange x = gather_begin(A, (int)k0, (int)k1, &deal, deal.whole);
        for (int step = 1; deal.whole && step < deal.procs; step++) exchange_wait(&x, step);
        const double *panel = deal.whole ? x.from[0] : gather_natural(A, &x, &deal, rows);
        local_gemm('T', 'N', C->mloc, C->nloc, rows, a, panel, rows, B->local + k0, B->lld, k0 == 0 ? b : 1, C->local,
                   C->lld);
        exchange_end(&x, deal.procs);
    }
    deal_destroy(&deal);
}

/* The rows of B that are process q's columns of C, together in memory. */
static const double *rows_for(const struct dmat *B, int q, const struct deal *deal, int *ld)
{
    const int count = deal->count[q];
    *ld = B->lld;
    if (deal->whole) return B->local + deal_start(deal, q);
    double *packed = grid_work(B->grid, SLOT_PANEL_B, (int64_t)count * B->nloc), *to = packed;
    *ld = count > 0 ? count : 1;
    for (int64_t k = deal->k0, end; k < deal->k1; k = end) {
        end = block_end(k, deal->k1, deal->nb);
        if (grid_owner(k, deal->nb, deal->procs) != q) continue;
        copy_rows(B->local + k, B->lld, to, *ld, (int)(end - k), B->nloc);
        to += end - k;
    }
    return packed;
}

/* The parts of the others for my columns of the deal, one after another; the first one goes where C has them if C is
 * not kept: then DGEMM adds mine to it. */
static void receive_parts(struct exchange *x, const struct deal *deal, const struct dmat *C, bool keep, double *mine)
{
    const int64_t own = (int64_t)C->mloc * deal->count[deal->me];
    double *in = grid_work(C->grid, SLOT_PANEL, own * (deal->procs - (keep ? 1 : 2)));
    for (int step = 1; step < deal->procs; step++) {
        const int q = deal_previous(deal, step);
        const bool in_place = step == 1 && !keep;
        x->from[q] = in_place ? mine : in;
        MPI_Irecv(x->from[q], to_int(own), MPI_DOUBLE, q, 1, C->grid->row_comm, &x->request[step]);
        if (!in_place) in += own;
    }
}

/* Computes what I have for the others' columns of the deal, and sends it. */
static void send_parts(struct exchange *x, const struct deal *deal, double a, const struct dmat *A,
                       const struct dmat *B)
{
    const int rows = A->mloc;
    double *out = grid_work(A->grid, SLOT_EXCHANGE, (int64_t)rows * (deal->k1 - deal->k0 - deal->count[deal->me]));
    for (int step = 1; step < deal->procs; step++) {
        const int q = deal_next(deal, step), size = to_int((int64_t)rows * deal->count[q]);
        int ld;
        const double *right = rows_for(B, q, deal, &ld);
        local_gemm('N', 'T', rows, deal->count[q], A->nloc, a, A->local, A->lld, right, ld, 0, out, rows);
        MPI_Isend(out, size, MPI_DOUBLE, q, 1, A->grid->row_comm, &x->request[deal->procs + step]);
        out += size;
    }
}

static void row_nt(double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C, int64_t width)
{
    const bool keep = b != 0;
    for (int64_t j0 = 0; j0 < C->n; j0 += width) {
        struct deal deal = deal_create(C, j0, j0 + width < C->n ? j0 + width : C->n);
        struct exchange x = exchange_create(deal.procs);
        double *mine = C->local + (int64_t)deal.first[deal.me] * C->lld;
        const int64_t own = (int64_t)C->mloc * deal.count[deal.me];
        int ld;
        receive_parts(&x, &deal, C, keep, mine);
        send_parts(&x, &deal, a, A, B);
        const double *right = rows_for(B, deal.me, &deal, &ld);
        if (!keep) exchange_wait(&x, 1);
        local_gemm('N', 'T', C->mloc, deal.count[deal.me], A->nloc, a, A->local, A->lld, right, ld, keep ? b : 1, mine,
                   C->lld);
        for (int step = keep ? 1 : 2; step < deal.procs; step++) {
            exchange_wait(&x, step);
            const double *part = x.from[deal_previous(&deal, step)];
            for (int64_t i = 0; i < own; i++) mine[i] += part[i];
        }
        exchange_end(&x, deal.procs);
        deal_destroy(&deal);
    }
}

/* ---------------------------------------------------------------- the three shapes */

/* Of panels of C (m × n) with inner index k. */
static int64_t width_of(const struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k)
{
    return ta == 'T' ? panel_width(m, k, 1, 1) : panel_width(m, tb == 'T' ? n : k, grid->block, grid->npcol);
}

void row_gemm(char ta, char tb, double a, const struct dmat *A, const struct dmat *B, double b, struct dmat *C)
{
    const int64_t width = width_of(C->grid, ta, tb, C->m, C->n, ta == 'T' ? A->m : A->n);
    (ta == 'T' ? row_tn : tb == 'T' ? row_nt : row_nn)(a, A, B, b, C, width);
}

/* To gather `width` dealt columns of `rows` out of `high` local rows; in natural order they are copied. */
static void need_gather(struct gemm_need *need, const struct grid *grid, int64_t rows, int64_t high, int64_t width,
                        bool in_order)
{
    const int64_t size = rows * width;
    const double others = grid->npcol - 1, own = (double)size / grid->npcol;
    const bool whole = width <= (int64_t)grid->block * grid->npcol, copied = rows < high || (whole && in_order);
    need->messages = others * ceil(need->panels);
    need->received = 8 * own * others * need->panels;
    need->copied = 16 * ((copied ? own : 0) + (whole ? 0 : (double)size)) * need->panels;
    need->work[SLOT_PANEL] = copied ? size : size - size / grid->npcol;
    if (!whole) need->work[SLOT_PANEL_B] = size;
}

/* To sum `width` dealt columns of C, whose parts have `rows` rows, from `inner` local columns; work space as if C's old
 * elements are kept. */
static void need_parts(struct gemm_need *need, const struct grid *grid, int64_t rows, int64_t width, int64_t inner)
{
    const int64_t share = largest_local(width, grid->block, grid->npcol);
    const double others = grid->npcol - 1, part = (double)(share * rows);
    const bool whole = width <= (int64_t)grid->block * grid->npcol;
    need->messages = others * ceil(need->panels);
    need->received = 8 * part * others * need->panels;
    need->copied = (24 * part * (others - 1) + (whole ? 0 : 16 * (double)(width * inner))) * need->panels;
    need->work[SLOT_PANEL] = share * rows * (grid->npcol - 1);
    need->work[SLOT_EXCHANGE] = rows * (width - width / grid->npcol);
    if (!whole) need->work[SLOT_PANEL_B] = share * inner;
}

struct gemm_need row_need(const struct grid *grid, char ta, char tb, int64_t m, int64_t n, int64_t k)
{
    const int64_t width = width_of(grid, ta, tb, m, n, k), cols = largest_local(n, grid->block, grid->npcol);
    struct gemm_need need = {.m = m, .n = cols, .k = width, .panels = (double)k / (double)width};
    if (ta == 'T') {
        need_gather(&need, grid, width, k, m, true);
    } else if (tb == 'T') {
        const int64_t inner = largest_local(k, grid->block, grid->npcol);
        need = (struct gemm_need){.m = m, .n = width, .k = inner, .panels = (double)n / (double)width};
        need_parts(&need, grid, m, width, inner);
    } else {
        need_gather(&need, grid, m, m, width, false);
    }
    return need;
}
