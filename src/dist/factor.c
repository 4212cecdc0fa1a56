#include "dist/factor.h"

#include "base/error.h"
#include "base/memory.h"

#include "fortran.h"

#include <string.h>

static const int one = 1;

/* Matrices of at most this many elements are solved whole on one rank. */
static const int64_t GATHER_LIMIT = (int64_t)2048 * 2048;

static void succeeded(const char *routine, int info)
{
    if (info != 0) bug("%s returned info = %d", routine, info);
}

/* Workspace queries answer in work[0]; ScaLAPACK's can be too small by rounding and by off-by-one errors. */
static int margin(double answer)
{
    return to_int((int64_t)answer + (int64_t)(answer / 64) + 1024);
}

/* signs[j] = sign of the diagonal element (j, j) of A, on every rank. */
static void diagonal_signs(const struct dmat *A, double *signs)
{
    memset(signs, 0, (size_t)A->n * sizeof *signs);
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            if (dmat_row(A, il) == dmat_col(A, jl))
                signs[dmat_col(A, jl)] = A->local[il + (int64_t)jl * A->lld] < 0 ? -1 : 1;
    grid_sum(A->grid, signs, to_int(A->n));
}

void factor_orthonormal(struct dmat *A)
{
    ensure(A->m >= A->n);
    if (A->n == 0) return;
    const int m = to_int(A->m), n = to_int(A->n);
    double *tau = NEW(double, A->nloc + A->nb), *signs = NEW(double, A->n), answer;
    int info, query = -1;
    pdgeqrf_(&m, &n, A->local, &one, &one, A->desc, tau, &answer, &query, &info);
    int lwork = margin(answer);
    pdorgqr_(&m, &n, &n, A->local, &one, &one, A->desc, tau, &answer, &query, &info);
    lwork = margin(answer) > lwork ? margin(answer) : lwork;
    double *work = NEW(double, lwork);
    pdgeqrf_(&m, &n, A->local, &one, &one, A->desc, tau, work, &lwork, &info);
    succeeded("pdgeqrf", info);
    diagonal_signs(A, signs);
    pdorgqr_(&m, &n, &n, A->local, &one, &one, A->desc, tau, work, &lwork, &info);
    succeeded("pdorgqr", info);
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) A->local[il + (int64_t)jl * A->lld] *= signs[dmat_col(A, jl)];
    memory_free(work);
    memory_free(signs);
    memory_free(tau);
}

void factor_orthonormal_rows(struct dmat *A)
{
    struct dmat *T = dmat_create(A->grid, A->n, A->m);
    dmat_transpose(A, T);
    factor_orthonormal(T);
    dmat_transpose(T, A);
    dmat_destroy(&T);
}

/* L ← lower triangle of the first columns of X. */
static void lower_part(const struct dmat *X, struct dmat *L)
{
    struct dmat *first = dmat_columns(X, 0, L->n);
    dmat_copy(L, first);
    for (int jl = 0; jl < L->nloc; jl++)
        for (int il = 0; il < L->mloc; il++)
            if (dmat_row(L, il) < dmat_col(L, jl)) L->local[il + (int64_t)jl * L->lld] = 0;
    dmat_destroy(&first);
}

void factor_local_singular_values(int m, int n, double *A, double *sigma)
{
    int query = -1, info, least = m < n ? m : n;
    double answer, unused;
    int *iwork = NEW(int, 8 * least);
    dgesdd_("N", &m, &n, A, &m, sigma, &unused, &one, &unused, &one, &answer, &query, iwork, &info);
    int lwork = (int)answer;
    double *work = NEW(double, lwork);
    dgesdd_("N", &m, &n, A, &m, sigma, &unused, &one, &unused, &one, work, &lwork, iwork, &info);
    succeeded("dgesdd", info);
    memory_free(work);
    memory_free(iwork);
}

void factor_local_eigenpairs(int n, double *A, double *value, double *V)
{
    int query = -1, info;
    double answer;
    memcpy(V, A, (size_t)n * (size_t)n * sizeof *V);
    dsyev_("V", "U", &n, V, &n, value, &answer, &query, &info);
    int lwork = margin(answer);
    double *work = NEW(double, lwork);
    dsyev_("V", "U", &n, V, &n, value, work, &lwork, &info);
    succeeded("dsyev", info);
    memory_free(work);
}

static void distributed_singular_values(const struct dmat *A, double *sigma)
{
    struct dmat *copy = dmat_create(A->grid, A->m, A->n);
    dmat_copy(copy, A);
    const int m = to_int(A->m), n = to_int(A->n);
    int query = -1, info;
    double answer, unused;
    pdgesvd_("N", "N", &m, &n, copy->local, &one, &one, copy->desc, sigma, &unused, &one, &one, copy->desc, &unused,
             &one, &one, copy->desc, &answer, &query, &info);
    int lwork = margin(answer);
    double *work = NEW(double, lwork);
    pdgesvd_("N", "N", &m, &n, copy->local, &one, &one, copy->desc, sigma, &unused, &one, &one, copy->desc, &unused,
             &one, &one, copy->desc, work, &lwork, &info);
    succeeded("pdgesvd", info);
    memory_free(work);
    dmat_destroy(&copy);
}

void factor_singular_values(const struct dmat *const *A, int count, double *sigma, int stride)
{
    if (count == 0) return;
    const struct grid *grid = A[0]->grid;
    double **mine = NEW(double *, count);
    memset(sigma, 0, (size_t)count * (size_t)stride * sizeof *sigma);
    for (int k = 0; k < count; k++) {
        const int solver = k % grid->size;
        if (A[k]->m * A[k]->n > GATHER_LIMIT) continue;
        if (grid->rank == solver) mine[k] = NEW(double, A[k]->m *A[k]->n);
        dmat_gather(A[k], mine[k], solver);
    }
    for (int k = 0; k < count; k++)
        if (mine[k] && A[k]->m && A[k]->n)
            factor_local_singular_values(to_int(A[k]->m), to_int(A[k]->n), mine[k], sigma + (int64_t)k * stride);
    grid_sum(grid, sigma, to_int((int64_t)count * stride));
    for (int k = 0; k < count; k++) {
        if (A[k]->m * A[k]->n > GATHER_LIMIT) distributed_singular_values(A[k], sigma + (int64_t)k * stride);
        memory_free(mine[k]);
    }
    memory_free(mine);
}

void factor_local_svd(int m, int n, double *A, double *sigma, double *U, double *Vt)
{
    const int k = m < n ? m : n;
    int query = -1, info, *iwork = NEW(int, 8 * k);
    double answer;
    dgesdd_("S", &m, &n, A, &m, sigma, U, &m, Vt, &k, &answer, &query, iwork, &info);
    int lwork = margin(answer);
    double *work = NEW(double, lwork);
    dgesdd_("S", &m, &n, A, &m, sigma, U, &m, Vt, &k, work, &lwork, iwork, &info);
    succeeded("dgesdd", info);
    memory_free(work);
    memory_free(iwork);
}

int factor_local_null_space(int m, int n, double *A, double threshold, double *basis)
{
    const int least = m < n ? m : n;
    const char *job = m < n ? "A" : "S"; /* all right singular vectors, of the left ones as few as that takes */
    int query = -1, info, *iwork = NEW(int, 8 * least + 1), rank = 0;
    double answer, *sigma = NEW(double, least), *U = NEW(double, (int64_t)m *least);
    ensure(m > 0 && n > 0);
    double *Vt = NEW(double, (int64_t)n *n);
    dgesdd_(job, &m, &n, A, &m, sigma, U, &m, Vt, &n, &answer, &query, iwork, &info);
    int lwork = margin(answer);
    double *work = NEW(double, lwork);
    dgesdd_(job, &m, &n, A, &m, sigma, U, &m, Vt, &n, work, &lwork, iwork, &info);
    succeeded("dgesdd", info);
    while (rank < least && sigma[rank] > threshold * sigma[0]) rank++;
    for (int j = rank; basis && j < n; j++)
        for (int i = 0; i < n; i++) basis[i + (int64_t)(j - rank) * n] = Vt[j + (int64_t)i * n];
    memory_free(work);
    memory_free(Vt);
    memory_free(U);
    memory_free(sigma);
    memory_free(iwork);
    return rank;
}

void factor_local_product(char ta, char tb, int m, int n, int k, const double *A, const double *B, double *C)
{
    const double factor = 1, none = 0;
    const int lda = ta == 'N' ? m : k, ldb = tb == 'N' ? k : n;
    if (m > 0 && n > 0 && k > 0)
        dgemm_(&ta, &tb, &m, &n, &k, &factor, A, &lda, B, &ldb, &none, C, &m);
    else
        memset(C, 0, (size_t)m * (size_t)n * sizeof *C);
}

/* My elements of a matrix that every rank holds whole. */
static void take(struct dmat *A, const double *whole)
{
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++)
            A->local[il + (int64_t)jl * A->lld] = whole[dmat_row(A, il) + dmat_col(A, jl) * A->m];
}

static void gathered_svd(const struct dmat *A, struct dmat *U, double *sigma, struct dmat *Vt)
{
    const int64_t k = A->m < A->n ? A->m : A->n;
    double *whole = NEW(double, A->m * A->n), *u = NEW(double, A->m *k), *vt = NEW(double, k * A->n);
    dmat_gather(A, whole, -1);
    factor_local_svd(to_int(A->m), to_int(A->n), whole, sigma, u, vt);
    take(U, u);
    take(Vt, vt);
    memory_free(vt);
    memory_free(u);
    memory_free(whole);
}

static void distributed_svd(const struct dmat *A, struct dmat *U, double *sigma, struct dmat *Vt)
{
    struct dmat *copy = dmat_create(A->grid, A->m, A->n);
    dmat_copy(copy, A);
    const int m = to_int(A->m), n = to_int(A->n);
    int query = -1, info;
    double answer;
    pdgesvd_("V", "V", &m, &n, copy->local, &one, &one, copy->desc, sigma, U->local, &one, &one, U->desc, Vt->local,
             &one, &one, Vt->desc, &answer, &query, &info);
    int lwork = margin(answer);
    double *work = NEW(double, lwork);
    pdgesvd_("V", "V", &m, &n, copy->local, &one, &one, copy->desc, sigma, U->local, &one, &one, U->desc, Vt->local,
             &one, &one, Vt->desc, work, &lwork, &info);
    succeeded("pdgesvd", info);
    memory_free(work);
    dmat_destroy(&copy);
}

/* X (d × N, d ≤ N) = L Q: L in place of the first d columns, Q in place of X. */
static void factor_lq(struct dmat *X, struct dmat *L)
{
    const int d = to_int(X->m), N = to_int(X->n);
    double *tau = NEW(double, X->mloc + X->mb), answer;
    int info, query = -1;
    pdgelqf_(&d, &N, X->local, &one, &one, X->desc, tau, &answer, &query, &info);
    int lwork = margin(answer);
    pdorglq_(&d, &N, &d, X->local, &one, &one, X->desc, tau, &answer, &query, &info);
    lwork = margin(answer) > lwork ? margin(answer) : lwork;
    double *work = NEW(double, lwork);
    pdgelqf_(&d, &N, X->local, &one, &one, X->desc, tau, work, &lwork, &info);
    succeeded("pdgelqf", info);
    lower_part(X, L);
    pdorglq_(&d, &N, &d, X->local, &one, &one, X->desc, tau, work, &lwork, &info);
    succeeded("pdorglq", info);
    memory_free(work);
    memory_free(tau);
}

void factor_svd(const struct dmat *X, struct dmat *U, double *sigma, struct dmat *Vt)
{
    const int64_t k = X->m < X->n ? X->m : X->n;
    ensure(U->m == X->m && U->n == k && Vt->m == k && Vt->n == X->n);
    if (X->n <= X->m) {
        (X->m * X->n > GATHER_LIMIT ? distributed_svd : gathered_svd)(X, U, sigma, Vt);
        return;
    }
    struct dmat *Q = dmat_create(X->grid, X->m, X->n), *L = dmat_create(X->grid, k, k);
    struct dmat *inner = dmat_create(X->grid, k, k);
    dmat_copy(Q, X);
    factor_lq(Q, L);
    (k * k > GATHER_LIMIT ? distributed_svd : gathered_svd)(L, U, sigma, inner);
    dmat_gemm('N', 'N', 1, inner, Q, 0, Vt);
    dmat_destroy(&inner);
    dmat_destroy(&L);
    dmat_destroy(&Q);
}

void factor_compress(const struct dmat *X, const struct dmat *Y, struct dmat *R, struct dmat *YQt)
{
    ensure(X->m <= X->n && Y->n == X->n && R->m == X->m && R->n == X->m && YQt->m == Y->m && YQt->n == X->m);
    const int d = to_int(X->m), N = to_int(X->n), K = to_int(Y->m);
    struct dmat *L = dmat_create(X->grid, X->m, X->n), *C = dmat_create(Y->grid, Y->m, Y->n);
    dmat_copy(L, X);
    dmat_copy(C, Y);
    double *tau = NEW(double, L->mloc + L->mb), answer;
    int info, query = -1;
    pdgelqf_(&d, &N, L->local, &one, &one, L->desc, tau, &answer, &query, &info);
    int lwork = margin(answer);
    pdormlq_("R", "T", &K, &N, &d, L->local, &one, &one, L->desc, tau, C->local, &one, &one, C->desc, &answer, &query,
             &info);
    lwork = margin(answer) > lwork ? margin(answer) : lwork;
    double *work = NEW(double, lwork);
    pdgelqf_(&d, &N, L->local, &one, &one, L->desc, tau, work, &lwork, &info);
    succeeded("pdgelqf", info);
    pdormlq_("R", "T", &K, &N, &d, L->local, &one, &one, L->desc, tau, C->local, &one, &one, C->desc, work, &lwork,
             &info);
    succeeded("pdormlq", info);
    struct dmat *left = dmat_columns(C, 0, X->m);
    dmat_copy(YQt, left);
    lower_part(L, R);
    dmat_destroy(&left);
    memory_free(work);
    memory_free(tau);
    dmat_destroy(&C);
    dmat_destroy(&L);
}

/* ---------------------------------------------------------------- how much memory that takes */

static int64_t local_rows(const struct grid *grid, int64_t m)
{
    return grid_count(m, grid->block, 0, 0, grid->nprow);
}

static int64_t local_cols(const struct grid *grid, int64_t n)
{
    return grid_count(n, grid->block, 0, 0, grid->npcol);
}

/* Doubles of work space of a blocked QR or LQ factorisation, or of the product with its Q, as ScaLAPACK documents it.
 */
static int64_t panel_work(const struct grid *grid, int64_t m, int64_t n)
{
    return grid->block * (local_rows(grid, m) + 2 * local_cols(grid, n) + grid->block);
}

/* dmat_gather of an m × n matrix: a copy of the local part, and the parts of all ranks. */
static int64_t gather_work(const struct grid *grid, int64_t m, int64_t n)
{
    return local_rows(grid, m) * local_cols(grid, n) + m * n;
}

/* PDGESVD works on a copy, and turns the vectors in a layout of its own. */
static int64_t distributed_work(const struct grid *grid, int64_t m, int64_t n, bool vectors)
{
    const int64_t k = m < n ? m : n;
    return local_rows(grid, m) * local_cols(grid, n) + panel_work(grid, m, n) + 16 * k +
           (vectors ? k * ((m + n) / grid->size + 2) : 0);
}

bool factor_gathers(int64_t m, int64_t n)
{
    return m * n <= GATHER_LIMIT;
}

int64_t factor_orthonormal_bytes(const struct grid *grid, int64_t m, int64_t n)
{
    const int64_t turned = m < n ? local_rows(grid, n) * local_cols(grid, m) : 0;
    return 8 * (turned + panel_work(grid, m > n ? m : n, m > n ? n : m) + 2 * (m < n ? m : n));
}

int64_t factor_singular_values_bytes(const struct grid *grid, int count, const int64_t *m, const int64_t *n)
{
    int64_t most = 0;
    for (int solver = 0; solver < grid->size && solver < count; solver++) {
        int64_t kept = 0, extra = 0;
        for (int k = solver; k < count; k += grid->size) {
            const bool gathers = factor_gathers(m[k], n[k]);
            const int64_t work = gathers ? gather_work(grid, m[k], n[k]) : distributed_work(grid, m[k], n[k], false);
            if (gathers) kept += m[k] * n[k];
            if (work > extra) extra = work;
        }
        if (kept + extra > most) most = kept + extra;
    }
    return 8 * most;
}

/* gathered_svd: the matrix and both sets of vectors whole; DGESDD wants three more of them. */
static int64_t gathered_svd_work(const struct grid *grid, int64_t m, int64_t n)
{
    const int64_t k = m < n ? m : n, gather = gather_work(grid, m, n);
    return m * n + k * (m + n) + (gather > 3 * k * k ? gather : 3 * k * k);
}

int64_t factor_svd_bytes(const struct grid *grid, int64_t m, int64_t n)
{
    const int64_t inner_n = n > m ? m : n;
    const int64_t inner =
        factor_gathers(m, inner_n) ? gathered_svd_work(grid, m, inner_n) : distributed_work(grid, m, inner_n, true);
    if (n <= m) return 8 * inner;
    const int64_t wide = local_rows(grid, m) * local_cols(grid, n), small = local_rows(grid, m) * local_cols(grid, m);
    const int64_t lq = panel_work(grid, m, n);
    return 8 * (wide + 2 * small + (inner > lq ? inner : lq));
}

int64_t factor_compress_bytes(const struct grid *grid, int64_t d, int64_t N, int64_t K)
{
    return 8 * ((local_rows(grid, d) + local_rows(grid, K)) * local_cols(grid, N) + panel_work(grid, d > K ? d : K, N));
}
