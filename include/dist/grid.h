/* grid: the process grid (BLACS). Everything else takes its communicator from here, never MPI_COMM_WORLD, so that an
 * ensemble can run many models side by side on split communicators. */
#ifndef EIGENTRAIN_DIST_GRID_H
#define EIGENTRAIN_DIST_GRID_H

#include <mpi.h>
#include <stdint.h>

enum grid_gemm { GRID_GEMM_PANEL, GRID_GEMM_PDGEMM };

/* nprow × npcol processes; rank r of comm is at (r / npcol, r % npcol). */
struct grid {
    MPI_Comm comm;     /* all processes of the grid; owned (a duplicate) */
    MPI_Comm row_comm; /* the npcol processes of my process row, ordered by column; owned */
    MPI_Comm col_comm; /* the nprow processes of my process column, ordered by row; owned */
    int rank, size;
    int nprow, npcol, myrow, mycol;
    int block;              /* default block size, rows and columns */
    int context;            /* BLACS context of this grid */
    int slab_context;       /* BLACS context of the same processes as size × 1, for contiguous row slabs */
    enum grid_gemm gemm;    /* the route that dmat_gemm takes */
    struct grid_work *work; /* buffers that products use again and again; owned */
};

/* Buffers kept between products: fresh pages for every product would cost several per cent of it. */
enum { GRID_WORK_SLOTS = 3 };
struct grid_work {
    double *buffer[GRID_WORK_SLOTS]; /* [count], owned */
    int64_t count[GRID_WORK_SLOTS];
};

/* Collective on comm. Creates an nprow × npcol grid over all ranks of comm; nprow·npcol must equal its size (a bug
 * otherwise). BLACS sums are made repeatable. */
struct grid *grid_create(MPI_Comm comm, int nprow, int npcol, int block);

/* Collective on grid->comm. Frees the contexts and communicators and sets *grid to NULL. */
void grid_destroy(struct grid **grid);

/* Local. Buffer `slot` with room for at least `count` doubles; valid until the next call with the same slot. */
double *grid_work(const struct grid *grid, int slot, int64_t count);

/* Local. How many of n indices, dealt in blocks of nb to `nprocs` processes starting at process `source`, belong to
 * process `me` (NUMROC). */
int grid_count(int64_t n, int nb, int me, int source, int nprocs);

/* Local. The process that owns global index ig, its local index there, and back. Blocks start at process 0. */
static inline int grid_owner(int64_t ig, int nb, int nprocs)
{
    return (int)((ig / nb) % nprocs);
}
static inline int grid_local(int64_t ig, int nb, int nprocs)
{
    return (int)(ig / ((int64_t)nb * nprocs)) * nb + (int)(ig % nb);
}
static inline int64_t grid_global(int il, int nb, int me, int nprocs)
{
    return ((int64_t)(il / nb) * nprocs + me) * nb + il % nb;
}

/* Collective on grid->comm. Sum of count doubles over all ranks, in place; the same bits on every rank. */
void grid_sum(const struct grid *grid, double *values, int count);

#endif
