#include "dist/grid.h"

#include "base/error.h"
#include "base/memory.h"

#include "fortran.h"

/* PBLAS cuts its operands in panels of pilaenv_() columns, 32 in the library whatever the block size. The symbol is
 * looked up dynamically, so this one takes its place: 2048³ on two ranks gains a quarter. */
int pilaenv_(const int *context, const char *precision);
int pilaenv_(const int *context, const char *precision)
{
    return 256;
}

/* BLACS option "repeatable sums" (SGET_TOPSREPEAT of the BLACS interface). */
enum { BLACS_REPEATABLE = 15 };

static int context_create(MPI_Comm comm, int nprow, int npcol)
{
    int context = Csys2blacs_handle(comm);
    Cblacs_gridinit(&context, "Row", nprow, npcol);
    const int on = 1;
    Cblacs_set(context, BLACS_REPEATABLE, &on);
    return context;
}

struct grid *grid_create(MPI_Comm comm, int nprow, int npcol, int block)
{
    struct grid *grid = NEW(struct grid, 1);
    MPI_Comm_dup(comm, &grid->comm);
    MPI_Comm_rank(grid->comm, &grid->rank);
    MPI_Comm_size(grid->comm, &grid->size);
    ensure(nprow >= 1 && npcol >= 1 && nprow * npcol == grid->size && block >= 1);
    grid->nprow = nprow;
    grid->npcol = npcol;
    grid->myrow = grid->rank / npcol;
    grid->mycol = grid->rank % npcol;
    grid->block = block;
    grid->gemm = GRID_GEMM_PANEL;
    MPI_Comm_split(grid->comm, grid->myrow, grid->mycol, &grid->row_comm);
    MPI_Comm_split(grid->comm, grid->mycol, grid->myrow, &grid->col_comm);
    grid->context = context_create(grid->comm, nprow, npcol);
    grid->slab_context = context_create(grid->comm, grid->size, 1);
    grid->work = NEW(struct grid_work, 1);
    return grid;
}

void grid_destroy(struct grid **grid)
{
    struct grid *old = *grid;
    if (!old) return;
    Cblacs_gridexit(old->slab_context);
    Cblacs_gridexit(old->context);
    MPI_Comm_free(&old->col_comm);
    MPI_Comm_free(&old->row_comm);
    MPI_Comm_free(&old->comm);
    for (int slot = 0; slot < GRID_WORK_SLOTS; slot++) memory_free(old->work->buffer[slot]);
    memory_free(old->work);
    memory_free(old);
    *grid = NULL;
}

double *grid_work(const struct grid *grid, int slot, int64_t count)
{
    struct grid_work *work = grid->work;
    ensure(slot >= 0 && slot < GRID_WORK_SLOTS);
    if (work->count[slot] < count) {
        memory_free(work->buffer[slot]);
        work->buffer[slot] = NEW(double, count);
        work->count[slot] = count;
    }
    return work->buffer[slot];
}

int grid_count(int64_t n, int nb, int me, int source, int nprocs)
{
    int64_t blocks = n / nb;
    int distance = (nprocs + me - source) % nprocs;
    int64_t count = blocks / nprocs * nb;
    if (distance < blocks % nprocs)
        count += nb;
    else if (distance == blocks % nprocs)
        count += n % nb;
    return to_int(count);
}

void grid_sum(const struct grid *grid, double *values, int count)
{
    MPI_Allreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, MPI_SUM, grid->comm);
}
