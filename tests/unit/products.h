/* products: curvature products of whole vectors, and the networks that tests take them of. */
#ifndef EIGENTRAIN_TESTS_PRODUCTS_H
#define EIGENTRAIN_TESTS_PRODUCTS_H

#include "base/memory.h"
#include "base/spec.h"
#include "dist/random.h"
#include "net/rop.h"
#include "inputs.h"
#include "unit.h"

#include <string.h>

/* ---------------------------------------------------------------- vectors by global index */

/* Local. The local elements of a vector given whole; the caller owns them. */
static inline double *take(const struct linop *A, bool rows, const double *whole)
{
    const int count = rows ? A->mloc : A->nloc;
    double *x = NEW(double, count);

    for (int i = 0; i < count; i++) x[i] = whole[(rows ? A->row_index : A->col_index)(A, i)];
    return x;
}

/* Collective on the grid. whole ← the vector of which every rank has its local elements. */
static inline void gather(const struct grid *grid, const struct linop *A, bool rows, const double *x, double *whole)
{
    const int64_t n = rows ? A->m : A->n;

    memset(whole, 0, (size_t)n * sizeof *whole);
    for (int i = 0; i < (rows ? A->mloc : A->nloc); i++) whole[(rows ? A->row_index : A->col_index)(A, i)] += x[i];
    grid_sum(grid, whole, to_int(n));
}

/* Collective on the grid. to ← A from, or Aᵀ from, of whole vectors. */
static inline void multiply(const struct grid *grid, const struct linop *A, bool adjoint, const double *from,
                            double *to)
{
    double *x = take(A, adjoint, from), *y = NEW(double, adjoint ? A->nloc : A->mloc);

    for (int i = 0; i < (adjoint ? A->nloc : A->mloc); i++) y[i] = NAN;
    (adjoint ? A->apply_adjoint : A->apply)(A, x, y);
    gather(grid, A, !adjoint, y, to);
    memory_free(x);
    memory_free(y);
}

/* Local. xᵀ y. */
static inline double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* Local. A whole vector from the generator; the caller owns it. */
static inline double *random_vector(int64_t n, uint64_t stream)
{
    double *x = NEW(double, n);

    for (int64_t i = 0; i < n; i++) x[i] = random_normal(9, stream, (uint64_t)i);
    return x;
}

/* Local. Fails unless all elements agree to `tolerance` times the largest modulus in y, or 1 if that is larger. */
static inline void assert_vectors(int64_t n, const double *x, const double *y, double tolerance, const char *what)
{
    double largest = 1;

    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(y[i]));
    for (int64_t i = 0; i < n; i++) {
        if (fabs(x[i] - y[i]) <= tolerance * largest) continue;
        print_error("%s: element %lld is %.17g, expected %.17g\n", what, (long long)i, x[i], y[i]);
        fail();
    }
}

/* Collective on the grid. The whole matrix, m × n column-major, on every rank; the caller owns it. */
static inline double *dense(const struct grid *grid, const struct linop *A)
{
    double *full = NEW(double, A->m * A->n), *unit = NEW(double, A->n);

    for (int64_t j = 0; j < A->n; j++) {
        unit[j] = 1;
        multiply(grid, A, false, unit, full + j * A->m);
        unit[j] = 0;
    }
    memory_free(unit);
    return full;
}

/* ---------------------------------------------------------------- networks */

/* Local. All of a layer. */
static inline struct rop_part layer(int l)
{
    return (struct rop_part){.layer = l, .unit = -1};
}

/* A matrix of n columns of such numbers (ref_unit), times a factor. */
struct reference {
    uint64_t seed;
    int64_t n;
    double factor;
    int64_t classes; /* > 0: add ref_unit(602)[:, class] */
};

/* Local. Number e of the sequence `seed` of the specification. */
static inline double ref_unit(uint64_t seed, uint64_t e)
{
    uint64_t x = seed + (e + 1) * 0x9E3779B97F4A7C15u;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    return sqrt(3.0) * (2 * (double)(x >> 11) * 0x1p-53 - 1);
}

/* Local. Entry of a matrix of such numbers, for dmat_set. */
static inline double reference_entry(int64_t ig, int64_t jg, const void *context)
{
    const struct reference *r = context;
    double value = r->factor * ref_unit(r->seed, (uint64_t)(ig * r->n + jg));

    if (r->classes) value += ref_unit(r->seed + 1, (uint64_t)(ig * r->classes + jg % r->classes));
    return value;
}

/* Local. Entry of one-hot targets where sample j is of class j mod *classes, for dmat_set. */
static inline double class_of(int64_t ig, int64_t jg, const void *classes)
{
    return jg % *(const int64_t *)classes == ig;
}

/* A network, a loss and data. */
struct problem {
    struct spec *spec;
    struct model *model;
    struct loss loss;
    struct dataset *data;
};

/* Local. Frees what is in it. */
static inline void problem_destroy(struct problem *p)
{
    dataset_destroy(&p->data);
    model_destroy(&p->model);
    spec_destroy(&p->spec);
}

/* Local. An input with so many features and this text. */
static inline struct spec *spec_of(int64_t features, const char *text)
{
    char *all =
        memory_text("data: {kind: gaussian, features: %lld, outputs: 3, train: 24}\n%s", (long long)features, text);
    struct spec *spec = input_of(all);

    memory_free(all);
    return spec;
}

/* Collective on the grid. The reference case of the specification. */
static inline struct problem curv_ref(const struct grid *grid, const char *activation, const char *loss)
{
    const int64_t classes = 3;
    struct problem p = {0};
    char *text = memory_text("model: {widths: [6, 5, 4, 3], activation: %s, bias: true}\n"
                             "loss: {kind: %s, reduction: samples}\n",
                             activation, loss);

    p.spec = spec_of(6, text);
    p.model = network_of(grid, p.spec, 6, 3);
    p.loss = loss_of(p.spec);
    p.data = NEW(struct dataset, 1);
    *p.data = (struct dataset){.features = 6, .outputs = 3, .samples = 24, .classification = true};
    p.data->X = dmat_create(grid, 6, 24);
    p.data->Y = dmat_create(grid, 3, 24);
    dmat_set(p.data->X, reference_entry, &(struct reference){601, 24, 1, 3});
    dmat_set(p.data->Y, class_of, &classes);
    for (int l = 1; l <= 3; l++) {
        const int64_t n = p.model->width[l - 1];
        dmat_set(p.model->params->W[l - 1], reference_entry,
                 &(struct reference){610 + (uint64_t)l, n, 1 / sqrt((double)n), 0});
        dmat_set(p.model->params->b[l - 1], reference_entry, &(struct reference){630 + (uint64_t)l, 1, 0.1, 0});
    }
    memory_free(text);
    return p;
}

#endif
