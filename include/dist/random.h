/* random: counter-based random numbers (Philox 4×64, Random123). A number is a pure function of (seed, stream, index):
 * the same for every rank count, in any order, after any restart; there is no generator state. */
#ifndef EIGENTRAIN_DIST_RANDOM_H
#define EIGENTRAIN_DIST_RANDOM_H

#include "dist/dmat.h"

#include <stdint.h>

/* Streams keep the uses of one seed apart. Layer l adds l; never renumber: runs would change. */
enum random_stream {
    RANDOM_WEIGHTS = 0x10000, /* + 0x8000 biases */
    RANDOM_BATCHES = 0x20000,
    RANDOM_KRYLOV = 0x30000,
    RANDOM_DATA = 0x40000,   /* +0 training inputs, +1 training targets, +2 test inputs, +3 test targets, +4 teacher, +5
                                noise of inputs, +6 mask, +7 measurements, +8, +9 singular vectors, +10 means of clusters,
                                +11 their offset */
    RANDOM_ONLINE = 0x50000, /* +0 inputs, +1 targets of the fresh samples that each step draws */
    RANDOM_SUBSPACE = 0x60000, /* +0 directions of a low-rank network that are not the gradient's, +1 basis */
    RANDOM_TWINS = 0x100000,   /* twin i adds i · 0x10000: the start of its weights */
};

/* Local. 64 random bits. */
uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t index);

/* Local. Uniform in [0, 1). */
double random_uniform(uint64_t seed, uint64_t stream, uint64_t index);

/* Local. Standard normal. */
double random_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* Local. Uniform integer in [0, n). */
int64_t random_below(uint64_t seed, uint64_t stream, uint64_t index, int64_t n);

/* Local. Number `index` (from 0) of a sequence that other programs make easily: splitmix64 started at `seed`, as
 * uniform numbers of mean 0 and variance 1. For comparisons digit by digit; there are no streams. */
double random_sequence(uint64_t seed, uint64_t index);

/* Local. Element (ig, jg) of A ← standard normal with index ig + jg·m. */
void random_fill_normal(struct dmat *A, uint64_t seed, uint64_t stream);

/* Local. The same with uniform numbers in [−1, 1). */
void random_fill_uniform(struct dmat *A, uint64_t seed, uint64_t stream);

/* Local. Element (ig, jg) of A ← number ig·n + jg of random_sequence. */
void random_fill_sequence(struct dmat *A, uint64_t seed);

/* Local. permutation[0…n−1] ← a uniform random permutation of 0…n−1 (Fisher–Yates), the same on every rank. */
void random_permutation(int64_t n, int64_t *permutation, uint64_t seed, uint64_t stream, uint64_t epoch);

#endif
