#include "dist/random.h"

#include <Random123/philox.h>

#include <math.h>

static philox4x64_ctr_t words(uint64_t seed, uint64_t stream, uint64_t index)
{
    philox4x64_ctr_t counter = {{index, 0, 0, 0}};
    philox4x64_key_t key = {{seed, stream}};
    return philox4x64(counter, key);
}

/* 53 random bits as a number in [0, 1). */
static double unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    return words(seed, stream, index).v[0];
}

double random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return unit(random_bits(seed, stream, index));
}

/* Box and Muller; the half keeps the logarithm's argument above zero. */
double random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    const philox4x64_ctr_t w = words(seed, stream, index);
    const double u = ((double)(w.v[0] >> 11) + 0.5) * 0x1p-53;
    return sqrt(-2 * log(u)) * cos(6.283185307179586476925 * unit(w.v[1]));
}

double random_sequence(uint64_t seed, uint64_t index)
{
    uint64_t x = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return sqrt(3) * (2 * unit(x ^ x >> 31) - 1);
}

/* The high word of bits × n: the bias is below n/2⁶⁴. */
int64_t random_below(uint64_t seed, uint64_t stream, uint64_t index, int64_t n)
{
    __extension__ typedef unsigned __int128 wide;
    return (int64_t)(((wide)random_bits(seed, stream, index) * (uint64_t)n) >> 64);
}

static void fill(struct dmat *A, double (*draw)(uint64_t, uint64_t, uint64_t), double scale, double shift,
                 uint64_t seed, uint64_t stream)
{
    for (int jl = 0; jl < A->nloc; jl++) {
        const int64_t jg = dmat_col(A, jl);
        for (int il = 0; il < A->mloc; il++)
            A->local[il + (int64_t)jl * A->lld] =
                scale * draw(seed, stream, (uint64_t)(dmat_row(A, il) + jg * A->m)) + shift;
    }
}

void random_fill_normal(struct dmat *A, uint64_t seed, uint64_t stream)
{
    fill(A, random_normal, 1, 0, seed, stream);
}

void random_fill_uniform(struct dmat *A, uint64_t seed, uint64_t stream)
{
    fill(A, random_uniform, 2, -1, seed, stream);
}

struct sequence {
    uint64_t seed;
    int64_t columns;
};

static double in_sequence(int64_t ig, int64_t jg, const void *context)
{
    const struct sequence *s = context;
    return random_sequence(s->seed, (uint64_t)(ig * s->columns + jg));
}

void random_fill_sequence(struct dmat *A, uint64_t seed)
{
    dmat_set(A, in_sequence, &(struct sequence){.seed = seed, .columns = A->n});
}

void random_permutation(int64_t n, int64_t *permutation, uint64_t seed, uint64_t stream, uint64_t epoch)
{
    for (int64_t i = 0; i < n; i++) permutation[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        const int64_t j = random_below(seed, stream, epoch * (uint64_t)n + (uint64_t)i, i + 1);
        const int64_t moved = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = moved;
    }
}
