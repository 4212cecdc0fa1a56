#include "net/layout.h"

#include "base/memory.h"

#include <math.h>

/* Blocks that `auto` chooses from: smaller ones make thin panels, larger ones slow the factorisations of the set-up. A
 * panel of one block of every process is wide enough from here on. */
enum { LEAST_BLOCK = 64, LARGEST_BLOCK = 512, WIDE_PANEL = 512 };

/* What a number moved costs on several process rows beside on one, where it is not copied in and out, and moves while
 * products are made: 784-1024-1024-1024-10 with 1000 images takes 1.38 times as long on 2 × 1 as on 1 × 2, and 1.28
 * times on 2 × 2 as on 1 × 4, although there less is moved [run]. */
static const double SEVERAL_ROWS = 2;

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
    return nprow > 1 ? SEVERAL_ROWS * sum : sum;
}

/* Columns a step as far as the input tells; 0 if it does not. */
static int64_t columns_known(const struct spec *spec)
{
    if (!spec_is(spec, "train.batch", "full")) return spec_int(spec, "train.batch");
    if (spec_applies(spec, "data.train") && !spec_is(spec, "data.train", "all")) return spec_int(spec, "data.train");
    return spec_applies(spec, "data.cols") ? spec_int(spec, "data.cols") : 0;
}

/* How much more than its share the fullest process has of n columns in blocks of b, if it could have less. */
static double imbalance(int64_t n, int64_t b, int npcol)
{
    if (n < (int64_t)LEAST_BLOCK * npcol) return 1;
    return (double)grid_count(n, to_int(b), 0, 0, npcol) * npcol / (double)n;
}

/* The worst of columns and widths, and what copying costs when a panel is more than one block of every process.
 * Products are divided by the columns of a step, which stand last; only memory and the passes over parameters by the
 * widths. */
static double burden(const int64_t *size, int count, bool columns, int64_t b, int npcol)
{
    double worst = 1;
    for (int i = 0; i < count; i++) {
        const double weight = columns && i == count - 1 ? 1 : 0.25;
        worst = fmax(worst, 1 + weight * (imbalance(size[i], b, npcol) - 1));
    }
    return worst * (b * npcol < WIDE_PANEL ? 1.05 : 1);
}

/* Samples at a time are whole rounds of blocks: larger ones would make more of them than train.microbatch wants. */
static int64_t largest_block(const struct spec *spec, int npcol)
{
    if (spec_is(spec, "train.microbatch", "all")) return LARGEST_BLOCK;
    const int64_t most = spec_int(spec, "train.microbatch") / npcol;
    return most < LEAST_BLOCK ? LEAST_BLOCK : most < LARGEST_BLOCK ? most : LARGEST_BLOCK;
}

/* Only columns are dealt: blocks between 64 and 512 that give every process as many as the others, and few of them. */
static int block_for_row(const struct spec *spec, int npcol)
{
    const int listed = spec_is(spec, "model.widths", "auto") ? 0 : spec_count(spec, "model.widths");
    int64_t *size = NEW(int64_t, listed + 2);
    int count = 0;
    for (; count < listed; count++) size[count] = spec_int_at(spec, "model.widths", count);
    if (!spec_is(spec, "model.width", "auto")) size[count++] = spec_int(spec, "model.width");
    const bool columns = columns_known(spec) > 0;
    if (columns) size[count++] = columns_known(spec);
    const int64_t largest = largest_block(spec, npcol);
    int64_t best = LEAST_BLOCK;
    for (int i = 0; i < count; i++)
        for (int64_t rounds = 1;; rounds++) {
            const int64_t b = (size[i] + rounds * npcol - 1) / (rounds * npcol);
            if (b < LEAST_BLOCK) break;
            if (b <= largest && burden(size, count, columns, b, npcol) < burden(size, count, columns, best, npcol))
                best = b;
        }
    memory_free(size);
    return to_int(best);
}

int layout_block(const struct spec *spec, int nprow, int npcol)
{
    if (!spec_is(spec, "grid.block", "auto")) return to_int(spec_int(spec, "grid.block"));
    /* whitening is a singular value decomposition, which wants small blocks */
    const bool whitens = spec_applies(spec, "data.whiten") && spec_bool(spec, "data.whiten");
    return nprow == 1 && npcol > 1 && !whitens ? block_for_row(spec, npcol) : LEAST_BLOCK;
}

bool layout_choose(const struct spec *spec, int size, struct layout *layout, struct problems *problems)
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
    *layout = (struct layout){0};
    if (best) {
        *layout = (struct layout){best, size / best, layout_block(spec, best, size / best)};
        return true;
    }
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
    int size;
    struct layout layout;
    MPI_Comm_size(comm, &size);
    if (!layout_choose(spec, size, &layout, problems)) return NULL;
    struct grid *grid = grid_create(comm, layout.nprow, layout.npcol, layout.block);
    grid->gemm = spec_is(spec, "grid.gemm", "panel") ? GRID_GEMM_PANEL : GRID_GEMM_PDGEMM;
    return grid;
}
