/* parsimony: the law of parsimony in deep linear networks (arXiv 2306.01154). Gradient descent from scaled orthogonal
 * weights moves only a small part of each weight matrix's singular spaces: there are orthogonal bases V_l = [V_{l,1}
 * V_{l,2}], U_l = V_{l+1}, fixed in time, such that U_lᵀ W_l(t) V_l = [ Ŵ_l(t) 0 ; 0 ρ_l(t) I ],   Ŵ_l of order q ≤ 2r,
 * ρ_l(0) = ε_l. Here are the moving subspaces, the scalars ρ_l, the residual of the statement, and the blocks Ŵ_l.
 * Nothing of the size of a weight matrix is gathered. Notation and cases: shared specification of the law, after the
 * paper and its sequels. */
#ifndef EIGENTRAIN_THEORY_PARSIMONY_H
#define EIGENTRAIN_THEORY_PARSIMONY_H

#include "base/error.h"
#include "dist/archive.h"
#include "dist/dmat.h"

#include <stdbool.h>
#include <stdint.h>

/* Which statement of the law. */
enum parsimony_case {
    PARSIMONY_SQUARE, /* A: square layers and target Φ = Y Xᵀ of rank r, X Xᵀ = I (or X = I): all layers have blocks */
    PARSIMONY_OUTPUTS, /* B: K outputs, X Xᵀ = I: layers 1 … L − 1 have blocks, ρ_l without gradient, W_L V_{L,2} = 0 */
    PARSIMONY_GRADIENT /* any other loss: from the leading singular vectors of the first gradient; approximate */
};

/* The moving subspaces, from the weights at the start. */
struct parsimony {
    enum parsimony_case kind;
    int depth;        /* L */
    int blocks;       /* layers with blocks: L, in case B L − 1 */
    int q;            /* their order */
    int candidates;   /* columns of B, at most 2r */
    double *singular; /* [candidates] singular values of B, descending: q of them are above 1e-8; owned */
    double *epsilon;  /* [L] ε_l; owned */
    struct dmat **V;  /* [blocks + 1] V[0] = V_{1,1}, V[l] = U_{l,1} = V_{l+1,1}: width n_l × q, orthonormal; owned */
};

/* The weights at the start as maps of a few columns, so that nothing of their own size need exist; all borrowed. */
struct parsimony_start {
    int depth;             /* L */
    const int64_t *width;  /* [L + 1] W_l is width[l] × width[l − 1] */
    const double *epsilon; /* [L] scales: W_l is ε_l times an orthogonal matrix, or rows or columns of one */
    /* Collective on the grid. out ← W_l in ('N') or W_lᵀ in ('T') */
    void (*apply)(const struct parsimony_start *start, int l, char transposed, const struct dmat *in, struct dmat *out);
    const void *context;
};

/* Collective on the grid. The subspaces from `left` (d_y × r) and `right` (d_x × r), the leading singular vectors of Φ
 * or of the first gradient by W_1, by the route of parsimony_create. */
struct parsimony *parsimony_of(enum parsimony_case kind, const struct parsimony_start *start, const struct dmat *left,
                               const struct dmat *right);

/* Collective on the grid. These vectors of a matrix that is there. False with a problem (EXIT_ENVIRONMENT) if they do
 * not converge. */
bool parsimony_leading(const struct dmat *matrix, int rank, uint64_t seed, struct dmat *left, struct dmat *right,
                       struct problems *problems);

/* Collective on the grid. The first `count` of distributed vectors (local entries [mloc × count], their global indices)
 * become the columns first … of A: they are few, every rank gets them whole. */
void parsimony_put_columns(struct dmat *A, int first, int count, const double *vectors, int mloc,
                           const int64_t *global);

/* Collective on the grid. The subspaces for the initial weights W[0 … depth − 1], each ε_l times an orthogonal matrix
 * (or rows or columns of one), by the well-conditioned route, without a null space:
 *     A, B       B = [ V_r | W_{L:1}(0)ᵀ U_r / ∏ε ], U_r Σ V_rᵀ the leading part of Φ (`matrix`, d_y × d_x)
 *     GRADIENT   B = [ V_g | W_1(0)ᵀ U_g / ε_1 ], of G_1(0) (`matrix`, n_1 × d_x)
 * V_{1,1} are the left singular vectors of B with singular values above 1e-8, V_{l+1,1} = W_l(0) V_{l,1} / ε_l. `rank`
 * is r. `seed` is for the start of the Krylov iteration. NULL with a problem (EXIT_ENVIRONMENT) if that does not
 * converge. */
struct parsimony *parsimony_create(enum parsimony_case kind, const struct dmat *const *W, int depth,
                                   const struct dmat *matrix, int rank, uint64_t seed, struct problems *problems);

/* Collective on the grid. Saves or restores the subspaces; *p may be NULL, and is created or destroyed to be what was
 * saved. `like` is any matrix of the grid. */
void parsimony_archive(struct parsimony **p, const struct dmat *like, struct archive *archive);

/* Local. Frees it and sets *p to NULL. */
void parsimony_destroy(struct parsimony **p);

/* Collective on the grid. Ŵ_l = U_{l,1}ᵀ W V_{l,1} (q × q, column-major, the same on every rank) for a layer l = 1 …
 * blocks. */
void parsimony_block(const struct parsimony *p, int l, const struct dmat *W, double *block);

/* What is left of a layer outside its block. */
struct parsimony_rest {
    double rho; /* ρ measured: ⟨W_l, E_l⟩_F / (d − q), E_l = W_l(0)/ε_l − U_{l,1} V_{l,1}ᵀ; NaN if d = q */
    double residual; /* max |R_l|, R_l = W_l − U_{l,1} Ŵ_l V_{l,1}ᵀ − ρ E_l with the given ρ: 0 by the theorem */
    double off;      /* ‖W_l V_{l,1} − U_{l,1} Ŵ_l‖_F: what the block leaks into the complement */
};

/* Collective on the grid. For layer l = 1 … blocks with weights W now and W0 at the start; `rho` is the predicted value
 * (with NaN the measured one is used in the residual). */
struct parsimony_rest parsimony_rest(const struct parsimony *p, int l, const struct dmat *W, const struct dmat *W0,
                                     double rho);

/* Collective on the grid. max |W_L (I − V_{L,1} V_{L,1}ᵀ)| of the last layer in case B: 0 by the theorem. */
double parsimony_leak(const struct parsimony *p, const struct dmat *W);

/* The scalars ρ_l(t) of plain gradient descent, with weight decay λ and momentum μ:
 *     v_l ← μ v_l + s⁻¹ ρ_l ∏_{k≠l} ρ_k² (case A; 0 in case B),  ρ_l ← (1 − ηλ) ρ_l − η v_l,  all at the old values. */
struct rho {
    int layers;
    bool driven;      /* case A: the data drives them */
    double scale;     /* 1/s of the loss */
    double *value;    /* [layers] ρ_l, owned */
    double *velocity; /* [layers] v_l, owned */
};

/* Local. At the start: ρ_l = ε_l of the layers with blocks. */
struct rho *rho_create(const struct parsimony *p, double scale);

/* Local. One update with learning rate lr times multiplier[l] (NULL: 1), decay λ, momentum μ (0: none). */
void rho_step(struct rho *rho, double lr, const double *multiplier, double decay, double momentum);

/* Local. s⁻¹ ρ_l ∏_{k≠l} ρ_k² of layer l + 1, the gradient in the complement as a multiple of I; 0 in case B. */
double rho_drive(const struct rho *rho, int l);

/* Local. ∏ ρ_l². */
double rho_product_squared(const struct rho *rho);

/* Collective on the archive's comm. Saves or restores the values. */
void rho_archive(struct rho *rho, struct archive *archive);

/* Local. Frees it and sets *rho to NULL. */
void rho_destroy(struct rho **rho);

#endif
