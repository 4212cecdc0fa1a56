/* rop_classes: what the outputs' curvature pulls back to the parameters: the class-wise sums of a softmax classifier
 * (Papyan, ICML 2019), and the exact trace of its Gauss–Newton matrix. */
#ifndef EIGENTRAIN_NET_ROP_CLASSES_H
#define EIGENTRAIN_NET_ROP_CLASSES_H

#include "net/rop.h"

/* With π_i the softmax of the outputs for sample i, J_i = ∂f_i/∂θ and q = N/s (see loss.h),
 *     δ_{i,c'} = √(q π_{i,c'}) J_iᵀ (e_{c'} − π_i),   (1/N) Σ_i Σ_c' δ_{i,c'} δ_{i,c'}ᵀ = GGN,
 * and δ_{cc'} is the mean over the samples i of class c. */
struct class_sums {
    int classes;   /* C */
    int nloc;      /* local entries of a vector, in the order of struct params */
    double *share; /* [C] w_c: share of the samples that are of class c; owned */
    double *delta; /* [nloc × C²] δ_{cc'} in column c·C + c'; owned */
    double trace;  /* of the GGN, exact */
};

/* Collective on the grid. Those of a model on a dataset with one-hot targets and cross-entropy, one class after
 * another: a forward pass and C backward passes over the data, C² vectors. `rop` has room for all samples of a chunk;
 * rop_set has to be called before it makes operators again. */
struct class_sums *class_sums_create(struct rop *rop, const struct model *model, const struct dataset *dataset);

/* Local. Frees them and sets *sums to NULL. */
void class_sums_destroy(struct class_sums **sums);

/* Collective on the grid. The exact trace of the GGN, by as many backward passes over the data as there are outputs;
 * NaN for measurements, whose curvature is no sum over outputs. */
double rop_trace_ggn(struct rop *rop);

#endif
