/* premises: which case of the law of parsimony (parsimony.h) a run is, and whether it fulfils what the theorem assumes.
 */
#ifndef EIGENTRAIN_THEORY_PREMISES_H
#define EIGENTRAIN_THEORY_PREMISES_H

#include "base/error.h"
#include "base/spec.h"
#include "net/dataset.h"
#include "net/loss.h"
#include "net/model.h"
#include "theory/parsimony.h"

#include <stdbool.h>

/* Local. Inputs, hidden layers and outputs of equal width. */
bool premises_square(const struct model *model);

/* Local. Inputs and hidden layers of equal width, and less than half as many outputs. */
bool premises_few_outputs(const struct model *model);

/* Local. The case that `case:` of the input asks for ("square", "outputs", "gradient"); auto: the one whose premises
 * hold as far as shapes, loss and optimizer tell. */
enum parsimony_case premises_case(const char *word, const struct model *model, const struct spec *spec);

/* Local. The rank r: number of outputs K in case `outputs`; else what the key says; auto: data.rank. 0 if it is not
 * known. */
int premises_rank(enum parsimony_case kind, const struct model *model, const struct spec *spec, const char *key);

/* Local. What is impossible, as problems of KEY.case and KEY.rank: shapes that the case does not have, a rank that is
 * not known or too large. */
void premises_check(enum parsimony_case kind, int rank, const struct model *model, const struct spec *spec,
                    const char *key, struct problems *problems);

/* Collective on the grid. Φ = Y Xᵀ, where the loss is masked (M ∘ Y) Xᵀ; the caller owns it. */
struct dmat *premises_target(const struct dataset *train, const struct loss *loss);

/* Collective on the grid. X Xᵀ = I. */
bool premises_white(const struct dataset *train);

/* Collective on the grid. Nothing is left of Φ in the complement of the moving space. */
bool premises_of_rank(const struct parsimony *law, const struct dmat *target);

/* Collective on the grid. Whether the theorem is exact for training that starts from the model's weights: linear
 * network, squared loss of full batches, plain or momentum gradient descent, X Xᵀ = I, layers that are multiples of
 * orthogonal matrices, and a target of the rank that the subspaces were made for. */
bool premises_hold(const struct parsimony *law, const struct model *start, const struct spec *spec,
                   const struct dataset *train, const struct dmat *target);

#endif
