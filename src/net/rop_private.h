/* rop_private: the sweeps behind the operators of rop. */
#ifndef EIGENTRAIN_NET_ROP_PRIVATE_H
#define EIGENTRAIN_NET_ROP_PRIVATE_H

#include "net/rop.h"

/* One chunk of columns j0 ≤ j < j1. Indices are those of layers; a[0] is the input. */
struct rop_pass {
    int64_t j0, j1;
    struct dmat **a; /* [L] a_0 … a_{L−1}; a[0] NULL if the input is the identity; owned views, like all below */
    struct dmat **slope; /* [L + 1] scale·φ′(z_l); NULL where that is 1 */
    struct dmat **bend;  /* [L + 1] scale·φ″(z_l)∘E_l; NULL where that is 0 */
    struct dmat **D;     /* [L + 1] ∂loss/∂z_l */
    struct dmat **Ra;    /* [L + 1] work: R a_l, then R E_l */
    struct dmat **Rz;    /* [L + 1] work: R z_l, then R D_l; NULL where there is no slope: the same as Ra then */
    struct dmat *F;      /* the outputs f */
};

struct rop {
    const struct model *model; /* borrowed, like set */
    const struct dataset *set;
    struct loss loss;
    int depth;
    int64_t chunk;
    struct rop_pass whole; /* owned matrices of `chunk` columns; a[0] is NULL */
    struct rop_pass pass;  /* the present chunk */
    bool filled;           /* pass is all of the dataset, its activations are there */
    double *work;          /* [largest local height] owned */
    double *share;         /* [local columns of a chunk] owned */
};

/* A vector, or what a product is added to: matrices of struct params; NULL where a part has none. */
struct rop_vector {
    struct dmat **W, **b; /* [L], owned headers */
};

/* Local. The chunks of a dataset: sets *j0 to the start of the next one (from −1) until there is none. */
bool rop_next(const struct rop *rop, int64_t *j0);

/* Collective on the grid. Makes the chunk at j0 the present one: forward and backward sweep, unless it is there.
 * Returns this rank's part of its loss (0 if it was there). */
double rop_fill(struct rop *rop, int64_t j0);

/* Collective on the grid. out += the product of the Hessian or (ggn) of the GGN of the present chunk with v; out is
 * overwritten by the first chunk. */
void rop_sweep(struct rop *rop, bool ggn, const struct rop_vector *v, const struct rop_vector *out);

/* Collective on the grid. share[jl] ← ⟨γ_j, v⟩, γ_j the gradient of the loss of column j, for the local columns. */
void rop_shares(struct rop *rop, const struct rop_vector *v, double *share);

/* Collective on the grid. out += Σ_j share_j γ_j over the columns of the present chunk; overwritten by the first one.
 * share NULL: all 1. */
void rop_combine(struct rop *rop, const double *share, const struct rop_vector *out);

/* Collective on the grid. R ← (∂²loss/∂F²) R for columns j0 … of a dataset with outputs F. */
void rop_loss_curvature(const struct loss *loss, const struct dataset *set, int64_t j0, const struct dmat *F,
                        struct dmat *R);

/* Local. E_{l−1} += Σ E_m over the layers m that skip to l − 1; they all stand in R a. */
void rop_add_skipped(const struct rop *rop, int l);

/* Collective on the process column. squares[jl] ← Σ_i A_ij² of the local columns. */
void rop_column_squares(const struct dmat *A, double *squares);

#endif
