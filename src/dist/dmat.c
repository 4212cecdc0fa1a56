#include "dist/dmat.h"

#include "base/error.h"
#include "base/memory.h"

#include "fortran.h"

#include <math.h>
#include <string.h>

static const int one = 1;

static void describe(struct dmat *A)
{
    const int desc[9] = {1, A->grid->context, to_int(A->m), to_int(A->n), A->mb, A->nb, 0, 0, A->lld};
    memcpy(A->desc, desc, sizeof desc);
}

struct dmat *dmat_over(const struct grid *grid, int64_t m, int64_t n, double *local)
{
    struct dmat *A = NEW(struct dmat, 1);
    A->grid = grid;
    A->m = m;
    A->n = n;
    A->mb = A->nb = grid->block;
    A->mloc = grid_count(m, A->mb, grid->myrow, 0, grid->nprow);
    A->nloc = grid_count(n, A->nb, grid->mycol, 0, grid->npcol);
    A->lld = A->mloc > 0 ? A->mloc : 1;
    A->local = local;
    describe(A);
    return A;
}

struct dmat *dmat_create(const struct grid *grid, int64_t m, int64_t n)
{
    struct dmat *A = dmat_over(grid, m, n, NULL);
    to_int((int64_t)A->lld * A->nloc);
    A->local = NEW(double, (int64_t)A->lld * A->nloc);
    A->owned = true;
    return A;
}

int64_t dmat_local_size(const struct grid *grid, int64_t m, int64_t n)
{
    return (int64_t)grid_count(m, grid->block, grid->myrow, 0, grid->nprow) *
           grid_count(n, grid->block, grid->mycol, 0, grid->npcol);
}

struct dmat *dmat_columns(const struct dmat *A, int64_t j0, int64_t j1)
{
    ensure(0 <= j0 && j0 <= j1 && j1 <= A->n && j0 % ((int64_t)A->nb * A->grid->npcol) == 0);
    struct dmat *V = NEW(struct dmat, 1);
    *V = *A;
    V->n = j1 - j0;
    V->nloc = grid_count(V->n, A->nb, A->grid->mycol, 0, A->grid->npcol);
    V->local = A->local + (int64_t)grid_count(j0, A->nb, A->grid->mycol, 0, A->grid->npcol) * A->lld;
    V->owned = false;
    V->held = DMAT_DEALT;
    V->whole = NULL;
    describe(V);
    return V;
}

void dmat_destroy(struct dmat **A)
{
    if (!*A) return;
    if ((*A)->owned) memory_free((*A)->local);
    memory_free((*A)->whole);
    memory_free(*A);
    *A = NULL;
}

static void ensure_same_layout(const struct dmat *A, const struct dmat *B)
{
    ensure(A->m == B->m && A->n == B->n && A->mb == B->mb && A->nb == B->nb && A->grid == B->grid);
}

/* Local column jl. */
static inline double *column(const struct dmat *A, int jl)
{
    return A->local + (int64_t)jl * A->lld;
}

void dmat_fill(struct dmat *A, double value)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) column(A, jl)[il] = value;
}

void dmat_copy(struct dmat *A, const struct dmat *B)
{
    ensure_same_layout(A, B);
    for (int jl = 0; jl < A->nloc; jl++) memcpy(column(A, jl), column(B, jl), (size_t)A->mloc * sizeof(double));
}

void dmat_scale(struct dmat *A, double a)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) column(A, jl)[il] *= a;
}

void dmat_axpy(struct dmat *A, double a, const struct dmat *B)
{
    ensure_same_layout(A, B);
    for (int jl = 0; jl < A->nloc; jl++) {
        double *restrict to = column(A, jl);
        const double *restrict from = column(B, jl);
        for (int il = 0; il < A->mloc; il++) to[il] += a * from[il];
    }
}

void dmat_set(struct dmat *A, double (*value)(int64_t ig, int64_t jg, const void *context), const void *context)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) column(A, jl)[il] = value(dmat_row(A, il), dmat_col(A, jl), context);
}

void dmat_identity(struct dmat *A, double value)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) column(A, jl)[il] = dmat_row(A, il) == dmat_col(A, jl) ? value : 0;
}

double dmat_largest(const struct dmat *A)
{
    double largest[2] = {0, 0}; /* of numbers, and whether there is a NaN: MPI_MAX does not say how it treats one */
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) {
            const double value = fabs(column(A, jl)[il]);
            if (value > largest[0]) largest[0] = value;
            if (isnan(value)) largest[1] = 1;
        }
    MPI_Allreduce(MPI_IN_PLACE, largest, 2, MPI_DOUBLE, MPI_MAX, A->grid->comm);
    return largest[1] > 0 ? NAN : largest[0];
}

double dmat_dot(const struct dmat *A, const struct dmat *B)
{
    ensure_same_layout(A, B);
    double sum = 0;
    for (int jl = 0; jl < A->nloc; jl++) {
        const double *a = column(A, jl), *b = column(B, jl);
        for (int il = 0; il < A->mloc; il++) sum += a[il] * b[il];
    }
    grid_sum(A->grid, &sum, 1);
    return sum;
}

double dmat_norm(const struct dmat *A)
{
    return sqrt(dmat_dot(A, A));
}

void dmat_transpose(const struct dmat *A, struct dmat *B)
{
    ensure(A->m == B->n && A->n == B->m);
    const int m = to_int(B->m), n = to_int(B->n);
    const double unit = 1, zero = 0;
    if (m && n) pdtran_(&m, &n, &unit, A->local, &one, &one, A->desc, &zero, B->local, &one, &one, B->desc);
}

void dmat_take_columns(const struct dmat *A, const int64_t *columns, struct dmat *B)
{
    ensure(A->m == B->m && A->grid == B->grid && A->mb == B->mb);
    const struct grid *grid = A->grid;
    const int procs = grid->npcol, me = grid->mycol;
    if (procs == 1) {
        for (int jl = 0; jl < B->nloc; jl++)
            memcpy(column(B, jl), column(A, (int)columns[jl]), (size_t)A->mloc * sizeof(double));
        return;
    }
    int *counts = NEW(int, 4 * procs);
    int *nsend = counts, *at_send = counts + procs, *nrecv = counts + 2 * procs, *at_recv = counts + 3 * procs;
    for (int64_t c = 0; c < B->n; c++) {
        int from = grid_owner(columns[c], A->nb, procs), to = grid_owner(c, B->nb, procs);
        if (from == me) nsend[to] += A->mloc;
        if (to == me) nrecv[from] += A->mloc;
    }
    for (int p = 1; p < procs; p++) {
        at_send[p] = at_send[p - 1] + nsend[p - 1];
        at_recv[p] = at_recv[p - 1] + nrecv[p - 1];
    }
    double *send = grid_work(grid, 0, at_send[procs - 1] + nsend[procs - 1]);
    double *recv = grid_work(grid, 1, at_recv[procs - 1] + nrecv[procs - 1]);
    int *fill = NEW(int, procs);
    for (int64_t c = 0; c < B->n; c++) {
        if (grid_owner(columns[c], A->nb, procs) != me) continue;
        int to = grid_owner(c, B->nb, procs);
        memcpy(send + at_send[to] + fill[to], column(A, grid_local(columns[c], A->nb, procs)),
               (size_t)A->mloc * sizeof(double));
        fill[to] += A->mloc;
    }
    MPI_Alltoallv(send, nsend, at_send, MPI_DOUBLE, recv, nrecv, at_recv, MPI_DOUBLE, grid->row_comm);
    memset(fill, 0, (size_t)procs * sizeof *fill);
    for (int jl = 0; jl < B->nloc; jl++) {
        int from = grid_owner(columns[dmat_col(B, jl)], A->nb, procs);
        memcpy(column(B, jl), recv + at_recv[from] + fill[from], (size_t)A->mloc * sizeof(double));
        fill[from] += A->mloc;
    }
    memory_free(fill);
    memory_free(counts);
}

void dmat_slab_rows(const struct dmat *A, int64_t *first, int64_t *count)
{
    int64_t height = (A->m + A->grid->size - 1) / A->grid->size;
    *first = height * A->grid->rank < A->m ? height * A->grid->rank : A->m;
    *count = *first + height < A->m ? height : A->m - *first;
}

/* Columns moved by one pdgemr2d call, so that no message reaches 2 GiB: at most 1 GiB a rank. */
static int64_t slab_columns(const struct dmat *A, int64_t height)
{
    int64_t columns = ((int64_t)1 << 27) / (height > 0 ? height : 1);
    return columns < 1 ? 1 : columns < A->n ? columns : A->n;
}

/* Moves columns in pieces between A and a column-major slab piece; `to_slab` says which way. The slab itself is
 * row-major, as C readers of a file expect. */
static void slab_exchange(const struct dmat *A, double *slab, bool to_slab)
{
    if (A->m == 0 || A->n == 0) return;
    int64_t height = (A->m + A->grid->size - 1) / A->grid->size, first, rows;
    dmat_slab_rows(A, &first, &rows);
    int64_t piece = slab_columns(A, height);
    double *columns = NEW(double, rows *piece);
    for (int64_t j0 = 0; j0 < A->n; j0 += piece) {
        int width = (int)(j0 + piece < A->n ? piece : A->n - j0);
        const int desc[9] = {1, A->grid->slab_context,      to_int(A->m), width, to_int(height), width, 0,
                             0, to_int(rows > 0 ? rows : 1)};
        if (to_slab) {
            Cpdgemr2d(to_int(A->m), width, A->local, 1, to_int(j0 + 1), A->desc, columns, 1, 1, desc, A->grid->context);
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < width; j++) slab[i * A->n + j0 + j] = columns[i + j * rows];
        } else {
            for (int64_t i = 0; i < rows; i++)
                for (int64_t j = 0; j < width; j++) columns[i + j * rows] = slab[i * A->n + j0 + j];
            Cpdgemr2d(to_int(A->m), width, columns, 1, 1, desc, A->local, 1, to_int(j0 + 1), A->desc, A->grid->context);
        }
    }
    memory_free(columns);
}

/* The slab, the columns of a piece, and what pdgemr2d allocates to send and to receive them. */
int64_t dmat_slab_bytes(const struct grid *grid, int64_t m, int64_t n)
{
    const int64_t height = (m + grid->size - 1) / grid->size;
    const int64_t columns = ((int64_t)1 << 27) / (height > 0 ? height : 1), piece = columns < n ? columns : n;
    return 8 * height * (n + 3 * piece);
}

void dmat_to_slab(const struct dmat *A, double *slab)
{
    slab_exchange(A, slab, true);
}

void dmat_from_slab(struct dmat *A, const double *slab)
{
    slab_exchange(A, (double *)slab, false);
}

void dmat_gather(const struct dmat *A, double *full, int root)
{
    const struct grid *grid = A->grid;
    int *counts = NEW(int, 2 * grid->size), *at = counts + grid->size;
    int64_t total = 0;
    for (int r = 0; r < grid->size; r++) {
        counts[r] = to_int((int64_t)grid_count(A->m, A->mb, r / grid->npcol, 0, grid->nprow) *
                           grid_count(A->n, A->nb, r % grid->npcol, 0, grid->npcol));
        at[r] = to_int(total);
        total += counts[r];
    }
    bool receive = root < 0 || root == grid->rank;
    double *mine = NEW(double, counts[grid->rank]), *parts = NEW(double, receive ? total : 0);
    for (int jl = 0; jl < A->nloc; jl++)
        memcpy(mine + (int64_t)jl * A->mloc, column(A, jl), (size_t)A->mloc * sizeof(double));
    if (root < 0)
        MPI_Allgatherv(mine, counts[grid->rank], MPI_DOUBLE, parts, counts, at, MPI_DOUBLE, grid->comm);
    else
        MPI_Gatherv(mine, counts[grid->rank], MPI_DOUBLE, parts, counts, at, MPI_DOUBLE, root, grid->comm);
    for (int r = 0; receive && r < grid->size; r++) {
        int prow = r / grid->npcol, pcol = r % grid->npcol;
        int rows = grid_count(A->m, A->mb, prow, 0, grid->nprow), cols = grid_count(A->n, A->nb, pcol, 0, grid->npcol);
        for (int jl = 0; jl < cols; jl++)
            for (int il = 0; il < rows; il++)
                full[grid_global(il, A->mb, prow, grid->nprow) + grid_global(jl, A->nb, pcol, grid->npcol) * A->m] =
                    parts[at[r] + il + (int64_t)jl * rows];
    }
    memory_free(parts);
    memory_free(mine);
    memory_free(counts);
}

double dmat_orthogonality(const struct dmat *A, double s)
{
    bool columns = A->m >= A->n;
    int64_t n = columns ? A->n : A->m;
    struct dmat *C = dmat_create(A->grid, n, n);
    dmat_gemm(columns ? 'T' : 'N', columns ? 'N' : 'T', 1, A, A, 0, C);
    for (int jl = 0; jl < C->nloc; jl++)
        for (int il = 0; il < C->mloc; il++) {
            if (dmat_row(C, il) == dmat_col(C, jl)) column(C, jl)[il] -= s;
        }
    double norm = dmat_norm(C);
    dmat_destroy(&C);
    return norm;
}
