/* model: the architecture and its parameters.
 *
 * Layers l = 1…L map a_{l−1} to a_l (columns are samples):
 *     z_l = W_l a_{l−1} + b_l 1ᵀ,    a_l = φ_l(z_l)                         (plain)
 *     a_l = a_{skip} + scale · φ_l(z_l)                                     (residual)
 * and the output is f = α a_L.
 * `residual: pairs` makes x ← x + B φ(A x) of layers (2,3), (4,5), …, between a linear first and a linear last layer;
 * `residual: scaled` makes x ← x + φ(W x)/L of every square layer. */
#ifndef EIGENTRAIN_NET_MODEL_H
#define EIGENTRAIN_NET_MODEL_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/archive.h"
#include "dist/dmat.h"
#include "net/activation.h"

#include <stdbool.h>
#include <stdint.h>

/* All matrices of a network as ONE contiguous local array; each layer is a view into it. Gradients, optimizer state,
 * Krylov vectors have the same layout, so that nothing is ever redistributed between them. */
struct params {
    const struct grid *grid; /* borrowed */
    int depth;               /* L */
    struct dmat **W;         /* [L] views: W[l−1] is n_l × n_{l−1}; owned headers */
    struct dmat **b;         /* [L] views n_l × 1 (on process column 0), or NULL without bias; owned headers */
    int64_t *start;          /* [L + 1] layer l occupies local[start[l−1]] … local[start[l] − 1]; owned */
    double *local;           /* [size]: W_1, b_1, W_2, b_2, …; owned unless `view` */
    int64_t size;            /* local elements */
    bool view;               /* over somebody else's memory */
};

/* One layer. */
struct layer {
    int64_t n_in, n_out; /* n_{l−1}, n_l */
    enum activation activation;
    bool bias;
    bool trainable;       /* false: frozen */
    double lr_multiplier; /* of the learning rate */
    int skip;             /* index of the activation that is added (0 is the input), or −1 */
    double scale;         /* of φ_l(z_l) in a residual layer, else 1 */
};

struct model {
    const struct grid *grid; /* borrowed */
    int depth;               /* L */
    int64_t *width;          /* [L + 1] n_0 … n_L, owned */
    struct layer *layer;     /* [L] layer[l−1], owned */
    struct params *params;   /* owned */
    double output_scale;     /* α > 0 in f = α a_L */
    bool linear;             /* every φ is the identity and there is no bias: f(X) is linear in X */
};

/* Local. Whether a low-rank network is trained in place of the full one (train/low_rank.h). */
bool model_is_low_rank(const struct spec *spec);

/* Collective on the grid. The network that the input describes, for `features` inputs and `outputs` outputs, with
 * initialised weights. NULL with problems (EXIT_INPUT: widths that do not fit the data, residual pairs of unequal
 * width, lists of the wrong length, …) on every rank. Not for a low-rank network. */
struct model *model_create(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                           struct problems *problems);

/* Local. A linear network of these widths (copied, [depth + 1]) and f = α W_L … W_1 X, all layers trainable, without
 * parameters (params NULL). */
struct model *model_linear(const struct grid *grid, int depth, const int64_t *width, double output_scale);

/* Local. The same network without parameters (params NULL), for a grid that may be on paper only; NULL with problems.
 */
struct model *model_outline(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                            struct problems *problems);

/* Local. The full network in place of which `model.parametrization: low_rank` trains the one above; else the same. */
struct model *model_outline_full(const struct grid *grid, const struct spec *spec, int64_t features, int64_t outputs,
                                 struct problems *problems);

/* Local. The widths n_0…n_L that the input asks for, without creating anything; returns the depth, 0 with problems.
 * *width is owned by the caller (memory_free). */
int model_widths(const struct spec *spec, int64_t features, int64_t outputs, int64_t **width,
                 struct problems *problems);

/* Local. Frees the model and sets *model to NULL. */
void model_destroy(struct model **model);

/* Collective on the grid. Zero parameters of the same layout as the model's. */
struct params *params_create(const struct model *model);

/* Collective on the grid. Matrices of the same layout over no memory yet, for params_point. */
struct params *params_view(const struct model *model);

/* Local. Lets a view's matrices lie in local [size], without a copy. */
void params_point(struct params *view, double *local);

/* Local. Number of all weights and biases, of a model that may have none yet. */
int64_t model_parameters(const struct model *model);

/* Local. Local elements of one such array. */
int64_t params_size(const struct model *model);

/* Local. Frees them and sets *params to NULL. */
void params_destroy(struct params **params);

/* Collective on the grid. Saves or restores them as a group of the archive: W1 … WL, and b1 … bL with biases. */
void params_archive(struct params *params, const char *name, struct archive *archive);

/* Collective on the grid. Σ over all parameters; the same bits on every rank. */
double params_dot(const struct params *p, const struct params *q);

#endif
