/* balance_gates: which neurons of ReLU layers are open on which samples, step by step. A process holds the gates of its
 * neurons on its samples as bits; what is known of a neuron is the same on every rank. */
#include "balance_private.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool has_gates(const struct layer *layer)
{
    const bool kinked = layer->activation == ACTIVATION_RELU || layer->activation == ACTIVATION_LEAKY_RELU;
    return kinked && layer->skip < 0;
}

void gates_create(struct balance *s, const struct model *model, int64_t samples)
{
    const struct grid *grid = model->grid;
    s->gates = NEW(struct gates, s->depth);
    for (int l = 1; l <= s->depth; l++) {
        struct gates *g = &s->gates[l - 1];
        if (!has_gates(&model->layer[l - 1])) continue;
        g->layer = l;
        g->n = model->width[l];
        g->samples = samples;
        g->mloc = grid_count(g->n, grid->block, grid->myrow, 0, grid->nprow);
        g->words = (grid_count(samples, grid->block, grid->mycol, 0, grid->npcol) + 63) / 64;
        g->bits = NEW(uint64_t, (int64_t)g->mloc * g->words);
        g->on = NEW(int64_t, g->n);
        g->always = NEW(bool, g->n);
        g->never = NEW(bool, g->n);
        g->history = NEW(uint64_t, g->n);
        g->flips = NAN;
        for (int64_t i = 0; i < g->n; i++) g->always[i] = g->never[i] = true;
    }
}

void gates_destroy(struct balance *s)
{
    for (int l = 0; s->gates && l < s->depth; l++) {
        struct gates *g = &s->gates[l];
        memory_free(g->bits);
        memory_free(g->on);
        memory_free(g->always);
        memory_free(g->never);
        memory_free(g->history);
    }
    memory_free(s->gates);
}

bool gates_stable(const struct balance *s, int l, int64_t i)
{
    return l < 1 || !s->gates[l - 1].layer || s->gates[l - 1].always[i];
}

/* ---------------------------------------------------------------- one look */

/* The finaliser of splitmix64: every bit of x moves half the bits of the result. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

struct look {
    const struct balance *s;
    uint64_t **fresh; /* [L] bits of this look, as in struct gates; owned */
    uint64_t **sums;  /* [L] per neuron: open gates, then Σ of a hash of the samples they are open on; owned */
    double margin;    /* min y f */
    double scale;     /* f = scale · a_L */
    bool margins;
};

static void take_gates(const struct gates *g, const struct dmat *a, int64_t first, uint64_t *fresh, uint64_t *sums)
{
    const int at = grid_count(first, a->nb, a->grid->mycol, 0, a->grid->npcol);
    for (int jl = 0; jl < a->nloc; jl++) {
        const int sample = at + jl;
        const uint64_t word = UINT64_C(1) << (sample % 64);
        const uint64_t hash = mix((uint64_t)(first + dmat_col(a, jl)) + UINT64_C(0x9E3779B97F4A7C15));
        for (int il = 0; il < a->mloc; il++) {
            if (!(a->local[il + (int64_t)jl * a->lld] > 0)) continue;
            const int64_t i = dmat_row(a, il);
            fresh[(int64_t)il * g->words + sample / 64] |= word;
            sums[i]++;
            sums[g->n + i] += hash;
        }
    }
}

static void take_margins(struct look *look, const struct dmat *a, const struct dmat *Y)
{
    for (int jl = 0; a->mloc > 0 && jl < a->nloc; jl++) {
        const double f = look->scale * a->local[(int64_t)jl * a->lld], y = Y->local[(int64_t)jl * Y->lld];
        look->margin = fmin(look->margin, y > 0 ? f : -f);
    }
}

static void visit(void *context, int l, const struct dmat *a, const struct dmat *Y, int64_t first)
{
    struct look *look = context;
    if (l == 0) return;
    const struct gates *g = &look->s->gates[l - 1];
    if (g->layer) take_gates(g, a, first, look->fresh[l - 1], look->sums[l - 1]);
    if (l == look->s->depth && look->margins) take_margins(look, a, Y);
}

static double count_flips(const struct gates *g, const uint64_t *fresh)
{
    int64_t flips = 0;
    for (int64_t w = 0; w < (int64_t)g->mloc * g->words; w++) flips += __builtin_popcountll(fresh[w] ^ g->bits[w]);
    return (double)flips;
}

/* Takes over what was seen of one layer, with the sums of all ranks. */
static void update(struct gates *g, const struct grid *grid, uint64_t *fresh, uint64_t *sums, bool again)
{
    double flips = count_flips(g, fresh);
    MPI_Allreduce(MPI_IN_PLACE, sums, to_int(2 * g->n), MPI_UINT64_T, MPI_SUM, grid->comm);
    grid_sum(grid, &flips, 1);
    g->flips = again ? flips : NAN;
    if (again) g->all_flips += flips;
    for (int64_t i = 0; i < g->n; i++) {
        g->on[i] = (int64_t)sums[i];
        g->always[i] = g->always[i] && g->on[i] == g->samples;
        g->never[i] = g->never[i] && g->on[i] == 0;
        g->history[i] = mix(g->history[i] ^ sums[g->n + i]);
    }
    memcpy(g->bits, fresh, (size_t)g->mloc * (size_t)g->words * sizeof *fresh);
}

void gates_look(struct balance *s, const struct moment *moment, double *margin)
{
    struct look look = {.s = s,
                        .fresh = NEW(uint64_t *, s->depth),
                        .sums = NEW(uint64_t *, s->depth),
                        .margin = INFINITY,
                        .scale = moment->model->output_scale,
                        .margins = margin != NULL};
    const bool again = s->looked >= 0;
    for (int l = 0; l < s->depth; l++) {
        look.fresh[l] = NEW(uint64_t, (int64_t)s->gates[l].mloc * s->gates[l].words);
        look.sums[l] = NEW(uint64_t, 2 * s->gates[l].n);
    }
    backprop_features(moment->backprop, moment->model, moment->train, false, visit, &look);
    for (int l = 0; l < s->depth; l++) {
        if (s->gates[l].layer && s->looked < moment->step)
            update(&s->gates[l], moment->model->grid, look.fresh[l], look.sums[l], again);
        memory_free(look.fresh[l]);
        memory_free(look.sums[l]);
    }
    if (margin) MPI_Allreduce(&look.margin, margin, 1, MPI_DOUBLE, MPI_MIN, moment->model->grid->comm);
    s->looked = moment->step;
    memory_free(look.fresh);
    memory_free(look.sums);
}

/* ---------------------------------------------------------------- what is recorded */

/* Classes of neurons that had the same gates at every look: 0 those that were always open, 1 those that never were,
 * then the others in the order of their first neuron. */
static void put_classes(const struct probe *probe, const struct gates *g)
{
    const struct balance *s = probe->state;
    int *class = NEW(int, g->n);
    int count = 2;
    for (int64_t i = 0; i < g->n; i++) {
        int64_t j = 0;
        while (j < i && (g->always[j] || g->never[j] || g->history[j] != g->history[i])) j++;
        class[i] = g->always[i] ? 0 : g->never[i] ? 1 : j < i ? class[j] : count++;
        balance_put(probe, BALANCE_CLASS, (g->layer - 1) * s->listed + i, class[i]);
    }
    memory_free(class);
}

void gates_measure(const struct probe *probe, const struct moment *moment, int *flag)
{
    struct balance *s = probe->state;
    (void)moment;
    for (int l = 1; l <= s->depth; l++) {
        const struct gates *g = &s->gates[l - 1];
        int64_t on[2] = {0, 0}, off[2] = {0, 0};
        if (!g->layer) flag[l - 1] |= LAYER_NO_GATES;
        if (!g->layer) continue;
        for (int64_t i = 0; i < g->n; i++) {
            on[0] += g->on[i] == g->samples;
            off[0] += g->on[i] == 0;
            on[1] += g->always[i];
            off[1] += g->never[i];
        }
        for (int since = 0; since < 2; since++) {
            balance_put(probe, BALANCE_ON, 2 * (int64_t)(l - 1) + since, (double)on[since]);
            balance_put(probe, BALANCE_OFF, 2 * (int64_t)(l - 1) + since, (double)off[since]);
        }
        balance_put(probe, BALANCE_FLIPS, l - 1, g->flips);
        balance_put(probe, BALANCE_ALL_FLIPS, l - 1, g->all_flips);
        if (s->listed > 0) put_classes(probe, g);
    }
}

/* ---------------------------------------------------------------- checkpoints */

/* A file holds the gates of 32 samples in one number, so that any grid can read it. */
enum { PACKED = 32 };

/* Global words of 32 samples, of the local neurons, from the bits of this rank's samples; and back. */
static void pack(const struct gates *g, const struct grid *grid, uint32_t *packed, int64_t words, bool back)
{
    const int mine = grid_count(g->samples, grid->block, grid->mycol, 0, grid->npcol);
    for (int jl = 0; jl < mine; jl++) {
        const int64_t j = grid_global(jl, grid->block, grid->mycol, grid->npcol);
        for (int il = 0; il < g->mloc; il++) {
            uint64_t *word = &g->bits[(int64_t)il * g->words + jl / 64];
            uint32_t *other = &packed[il * words + j / PACKED];
            if (back && (*other >> (j % PACKED) & 1)) *word |= UINT64_C(1) << (jl % 64);
            if (!back && (*word >> (jl % 64) & 1)) *other |= UINT32_C(1) << (j % PACKED);
        }
    }
}

static void archive_bits(struct gates *g, const struct grid *grid, struct archive *archive)
{
    const int64_t words = (g->samples + PACKED - 1) / PACKED;
    const bool loading = archive_loading(archive);
    struct dmat *P = dmat_create(grid, g->n, words);
    uint32_t *packed = NEW(uint32_t, g->mloc * words);
    if (!loading) pack(g, grid, packed, words, false);
    if (!loading) MPI_Allreduce(MPI_IN_PLACE, packed, to_int(g->mloc * words), MPI_UINT32_T, MPI_BOR, grid->row_comm);
    for (int jl = 0; !loading && jl < P->nloc; jl++)
        for (int il = 0; il < P->mloc; il++) P->local[il + (int64_t)jl * P->lld] = packed[il * words + dmat_col(P, jl)];
    archive_matrix(archive, "bits", P);
    for (int jl = 0; loading && jl < P->nloc; jl++)
        for (int il = 0; il < P->mloc; il++)
            packed[il * words + dmat_col(P, jl)] = (uint32_t)P->local[il + (int64_t)jl * P->lld];
    if (loading) {
        MPI_Allreduce(MPI_IN_PLACE, packed, to_int(g->mloc * words), MPI_UINT32_T, MPI_BOR, grid->row_comm);
        memset(g->bits, 0, (size_t)g->mloc * (size_t)g->words * sizeof *g->bits);
        pack(g, grid, packed, words, true);
    }
    memory_free(packed);
    dmat_destroy(&P);
}

/* 64 bits as two numbers that a double holds exactly. */
static void archive_neurons(struct gates *g, struct archive *archive)
{
    double *value = NEW(double, 5 * g->n);
    for (int64_t i = 0; i < g->n; i++) {
        value[i] = (double)g->on[i];
        value[g->n + i] = g->always[i];
        value[2 * g->n + i] = g->never[i];
        value[3 * g->n + i] = (double)(g->history[i] >> 32);
        value[4 * g->n + i] = (double)(g->history[i] & 0xFFFFFFFF);
    }
    archive_reals(archive, "neurons", 5 * g->n, value);
    for (int64_t i = 0; i < g->n; i++) {
        g->on[i] = (int64_t)value[i];
        g->always[i] = value[g->n + i] > 0;
        g->never[i] = value[2 * g->n + i] > 0;
        g->history[i] = (uint64_t)value[3 * g->n + i] << 32 | (uint64_t)value[4 * g->n + i];
    }
    memory_free(value);
}

void gates_archive(struct balance *s, const struct grid *grid, struct archive *archive)
{
    for (int l = 1; l <= s->depth; l++) {
        struct gates *g = &s->gates[l - 1];
        char name[32];
        if (!g->layer) continue;
        snprintf(name, sizeof name, "gates_%d", l);
        archive_enter(archive, name);
        archive_bits(g, grid, archive);
        archive_neurons(g, archive);
        archive_real(archive, "flips", &g->all_flips);
        archive_leave(archive);
    }
}
