/* hold: small matrices that every rank has whole for a while (declared in dmat.h). Where samples are many and a layer
 * is small, products with it need no messages then: one gathering before, one sum after all of them. */
#include "base/error.h"
#include "base/memory.h"

#include "dist/dmat.h"

#include <string.h>

/* Doubles: 1 MiB, which stays in a core's cache, and is little beside what products with larger ones take. */
static const int64_t SMALL = (int64_t)1 << 17;

bool dmat_is_small(const struct grid *grid, int64_t m, int64_t n)
{
    return grid->nprow == 1 && grid->npcol > 1 && grid->gemm == GRID_GEMM_PANEL && m * n <= SMALL;
}

static bool is_thin(int64_t m, int64_t n)
{
    return m <= DMAT_THIN || n <= DMAT_THIN;
}

int64_t dmat_held_size(int64_t m, int64_t n, bool collects)
{
    return m * n * (!collects && is_thin(m, n) ? 2 : 1);
}

static bool make_room(struct dmat *A, bool collects)
{
    if (!dmat_is_small(A->grid, A->m, A->n)) return false;
    if (!A->whole) A->whole = NEW(double, dmat_held_size(A->m, A->n, collects));
    return true;
}

/* Behind the whole stands its transpose: DGEMM is slow with thin matrices, and slower with transposed ones. */
static void transpose(const struct dmat *A)
{
    double *to = A->whole + A->m * A->n;
    for (int64_t j = 0; j < A->n; j++)
        for (int64_t i = 0; i < A->m; i++) to[j + i * A->n] = A->whole[i + j * A->m];
}

/* The columns of each process stand together in the whole, and all of mine in my memory. */
static bool in_order(const struct dmat *A)
{
    return A->n <= (int64_t)A->nb * A->grid->npcol && A->lld == A->mloc;
}

static void gather_in_order(const struct dmat *A)
{
    const int procs = A->grid->npcol;
    int *count = NEW(int, 2 * procs), *at = count + procs;
    for (int q = 0; q < procs; q++) {
        count[q] = to_int(A->m * grid_count(A->n, A->nb, q, 0, procs));
        at[q] = q > 0 ? at[q - 1] + count[q - 1] : 0;
    }
    MPI_Allgatherv(A->local, count[A->grid->mycol], MPI_DOUBLE, A->whole, count, at, MPI_DOUBLE, A->grid->row_comm);
    memory_free(count);
}

void dmat_hold(struct dmat *A)
{
    if (!make_room(A, false)) return;
    A->held = DMAT_HELD;
    if (in_order(A))
        gather_in_order(A);
    else
        dmat_gather(A, A->whole, -1);
    if (is_thin(A->m, A->n)) transpose(A);
}

void dmat_collect(struct dmat *C)
{
    if (make_room(C, true)) C->held = DMAT_COLLECTS;
}

void dmat_release(struct dmat *A)
{
    if (A->held == DMAT_COLLECTS) {
        MPI_Allreduce(MPI_IN_PLACE, A->whole, to_int(A->m * A->n), MPI_DOUBLE, MPI_SUM, A->grid->row_comm);
        for (int jl = 0; jl < A->nloc; jl++)
            memcpy(A->local + (int64_t)jl * A->lld, A->whole + dmat_col(A, jl) * A->m, (size_t)A->m * sizeof(double));
    }
    A->held = DMAT_DEALT;
}
