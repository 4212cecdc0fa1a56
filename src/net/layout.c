#include "net/layout.h"

#include "base/memory.h"

/* Widths and columns as far as the input tells them before the data is read; a width that only the data knows is taken
 * for the hidden one, and an unknown number of samples for many. */
static double traffic(const struct spec *spec, int nprow, int npcol)
{
    const bool listed = !spec_is(spec, "model.widths", "auto");
    if (spec_is(spec, "model.parametrization", "compressed")) return npcol; /* a few columns: they are split by rows */
    const double unknown_columns = 1e5, unknown_width = 256;
    double columns = unknown_columns;
    if (!spec_is(spec, "train.batch", "full"))
        columns = (double)spec_int(spec, "train.batch");
    else if (spec_applies(spec, "data.train") && !spec_is(spec, "data.train", "all"))
        columns = (double)spec_int(spec, "data.train");
    const int depth = listed ? spec_count(spec, "model.widths") - 1 : 1;
    const double width = spec_is(spec, "model.width", "auto") ? unknown_width : (double)spec_int(spec, "model.width");
    double sum = 0;
    for (int l = 1; l <= depth; l++) {
        const double m = listed ? (double)spec_int_at(spec, "model.widths", l) : width;
        const double n = listed ? (double)spec_int_at(spec, "model.widths", l - 1) : width;
        sum += m / nprow * n * (1 - 1.0 / npcol) + n * columns / npcol * (1 - 1.0 / nprow);
    }
    return sum;
}

bool layout_choose(const struct spec *spec, int size, int *nprow, int *npcol, struct problems *problems)
{
    int best = 0;
    double least = 0;
    const bool rows_auto = spec_is(spec, "grid.rows", "auto"), cols_auto = spec_is(spec, "grid.cols", "auto");
    for (int rows = 1; rows <= size; rows++) {
        if (size % rows != 0) continue;
        if (!rows_auto && spec_int(spec, "grid.rows") != rows) continue;
        if (!cols_auto && spec_int(spec, "grid.cols") != size / rows) continue;
        const double moved = traffic(spec, rows, size / rows);
        if (best && moved >= least) continue;
        best = rows;
        least = moved;
    }
    *nprow = best;
    *npcol = best ? size / best : 0;
    if (best) return true;
    const char *key = rows_auto ? "grid.cols" : "grid.rows";
    if (rows_auto || cols_auto)
        spec_problem(spec, problems, key, "%lld does not divide the number of ranks, %d",
                     (long long)spec_int(spec, key), size);
    else
        spec_problem(spec, problems, key, "%lld × %lld is not the number of ranks, %d",
                     (long long)spec_int(spec, "grid.rows"), (long long)spec_int(spec, "grid.cols"), size);
    return false;
}

struct grid *layout_create(MPI_Comm comm, const struct spec *spec, struct problems *problems)
{
    int size, nprow, npcol;
    MPI_Comm_size(comm, &size);
    if (!layout_choose(spec, size, &nprow, &npcol, problems)) return NULL;
    struct grid *grid = grid_create(comm, nprow, npcol, to_int(spec_int(spec, "grid.block")));
    grid->gemm = spec_is(spec, "grid.gemm", "panel") ? GRID_GEMM_PANEL : GRID_GEMM_PDGEMM;
    return grid;
}
