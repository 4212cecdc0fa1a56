/* estimate_shapes: a step on grids of other shapes, and other numbers of ranks, than the one that is planned. */
#include "app/estimate.h"

#include "base/memory.h"
#include "net/backprop.h"
#include "net/layout.h"

#include <string.h>

/* On a copy of the estimate whose grid has another shape; what is not counted again stays as it is. */
static struct estimate_step step_on(const struct estimate *e, int nprow, int npcol, int block)
{
    const int64_t microbatch = spec_is(e->spec, "train.microbatch", "all") ? 0 : spec_int(e->spec, "train.microbatch");
    struct estimate copy = *e;
    struct model model = *e->model;
    copy.grid.size = nprow * npcol;
    copy.grid.nprow = nprow;
    copy.grid.npcol = npcol;
    copy.grid.block = block;
    model.grid = &copy.grid;
    copy.model = &model;
    copy.chunk = backprop_columns(&copy.grid, e->batches.columns, microbatch);
    copy.kernel = NULL;
    copy.kernels = 0;
    copy.step = (struct estimate_step){0};
    memset(copy.amount, 0, sizeof copy.amount);
    estimate_count_steps(&copy);
    memory_free(copy.kernel);
    return copy.step;
}

static double seconds_of(const struct estimate_step *step, const struct estimate_rates *rates, double flops)
{
    double sum = flops > 0 ? step->mine / flops : 0;
    for (int i = 0; i < RATES; i++) sum += step->amount[i] * rates->seconds[i];
    return sum;
}

struct estimate_shape estimate_shape(const struct estimate *e, int nprow, int npcol, const struct estimate_rates *rates,
                                     double flops)
{
    struct estimate_shape shape = {.nprow = nprow, .npcol = npcol, .block = layout_block(e->spec, nprow, npcol)};
    const struct estimate_step alone = step_on(e, 1, 1, layout_block(e->spec, 1, 1));
    shape.step = step_on(e, nprow, npcol, shape.block);
    shape.seconds = seconds_of(&shape.step, rates, flops);
    shape.efficiency = seconds_of(&alone, rates, flops) / ((double)nprow * npcol * shape.seconds);
    return shape;
}

struct estimate_shape *estimate_shapes(const struct estimate *e, int ranks, const struct estimate_rates *rates,
                                       double flops, int *count, int *best)
{
    struct estimate_shape *list = NULL;
    *count = *best = 0;
    for (int rows = 1; rows <= ranks; rows++) {
        if (ranks % rows != 0) continue;
        list = memory_grow(list, (size_t)*count, (size_t)*count + 1, sizeof *list);
        list[*count] = estimate_shape(e, rows, ranks / rows, rates, flops);
        if (list[*count].seconds < list[*best].seconds) *best = *count;
        ++*count;
    }
    return list;
}
