#include "net/sensing.h"

#include "base/error.h"
#include "base/memory.h"
#include "dist/random.h"

#include <string.h>

/* misfit ← ⟨A_k, F⟩ − offset_k, the same bits on every rank. */
static void measure(const struct sensing *s, const struct dmat *F, const double *offset, double *misfit)
{
    ensure(F->mloc == s->mloc && F->nloc == s->nloc && (F->lld == s->mloc || s->mloc == 0));
    const int64_t size = (int64_t)s->mloc * s->nloc;
    for (int64_t k = 0; k < s->count; k++) {
        const double *restrict A = s->A + k * size, *restrict f = F->local;
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < size; i++) sum += A[i] * f[i];
        misfit[k] = sum;
    }
    grid_sum(F->grid, misfit, to_int(s->count));
    for (int64_t k = 0; offset && k < s->count; k++) misfit[k] -= offset[k];
}

struct sensing *sensing_create(const struct dmat *Phi, int64_t count, uint64_t seed)
{
    struct sensing *s = NEW(struct sensing, 1);
    s->count = count;
    s->mloc = Phi->mloc;
    s->nloc = Phi->nloc;
    s->A = NEW(double, (int64_t)s->mloc * s->nloc * count);
    s->y = NEW(double, count);
    s->misfit = NEW(double, count);
    double *a = s->A;
    for (int64_t k = 0; k < count; k++)
        for (int jl = 0; jl < s->nloc; jl++)
            for (int il = 0; il < s->mloc; il++) {
                const int64_t column = k * Phi->n + dmat_col(Phi, jl);
                *a++ = random_normal(seed, RANDOM_DATA + 7, (uint64_t)(dmat_row(Phi, il) + column * Phi->m));
            }
    measure(s, Phi, NULL, s->y);
    return s;
}

void sensing_destroy(struct sensing **sensing)
{
    if (!*sensing) return;
    memory_free((*sensing)->A);
    memory_free((*sensing)->y);
    memory_free((*sensing)->misfit);
    memory_free(*sensing);
    *sensing = NULL;
}

double sensing_value(const struct sensing *s, double scale, const struct dmat *F)
{
    double sum = 0;
    measure(s, F, s->y, s->misfit);
    for (int64_t k = 0; k < s->count; k++) sum += s->misfit[k] * s->misfit[k];
    return F->grid->rank == 0 ? 0.5 * scale * sum : 0;
}

double sensing_derivative(const struct sensing *s, double scale, struct dmat *F)
{
    const double part = sensing_value(s, scale, F);
    const int64_t size = (int64_t)s->mloc * s->nloc;
    memset(F->local, 0, (size_t)size * sizeof *F->local);
    for (int64_t k = 0; k < s->count; k++) {
        const double *restrict A = s->A + k * size, weight = scale * s->misfit[k];
        double *restrict D = F->local;
        for (int64_t i = 0; i < size; i++) D[i] += weight * A[i];
    }
    return part;
}

int64_t sensing_bytes(const struct grid *grid, int64_t rows, int64_t cols, int64_t count)
{
    return 8 * count * (dmat_local_size(grid, rows, cols) + 2);
}
