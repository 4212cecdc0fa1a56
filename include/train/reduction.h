/* reduction: model.parametrization: compressed. The small network of the law of parsimony is trained in place of the
 * large one, which is never formed: with orthogonal starts that are products of reflections and a target in factors
 * nothing is larger than width × 2r. By the theorem (theory/parsimony.h) every number of the large network is one of
 * the small network's or of the scalars ρ_l: U_lᵀ W_l V_l = [ Ŵ_l 0 ; 0 ρ_l I ],  loss = small loss + α² (d − q) ∏ρ² /
 * 2s,  and so on. The small network is an ordinary model, L layers that start as ε_l I (with few outputs the last is
 * W_L V_{L,1}), and its target an ordinary dataset: identity input and U_{L,1}ᵀ Φ V_{1,1}. */
#ifndef EIGENTRAIN_TRAIN_REDUCTION_H
#define EIGENTRAIN_TRAIN_REDUCTION_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/archive.h"
#include "dist/h5.h"
#include "net/dataset.h"
#include "net/model.h"
#include "probes/record.h"

#include <stdbool.h>
#include <stdint.h>

struct reduction;

/* Local. Whether the input asks for it. */
bool reduction_wanted(const struct spec *spec);

/* Collective on the grid. Finds the moving subspaces and makes the small network and its data (both the caller's). NULL
 * with problems on every rank: EXIT_INPUT for each premise of the theorem that the input does not fulfil. */
struct reduction *reduction_create(const struct grid *grid, const struct spec *spec, struct data **data,
                                   struct model **model, struct problems *problems);

/* Collective on the grid, which may be on paper only. The small network without parameters, on paper: *sizes, those of
 * the large one's data, become those of the small one's. NULL with problems, as far as they show without the data. */
struct model *reduction_outline(const struct grid *grid, const struct spec *spec, struct data_sizes *sizes,
                                struct problems *problems);

/* Local. Frees it and sets *reduction to NULL. */
void reduction_destroy(struct reduction **reduction);

/* Local. Declares its series, the group `compressed`. */
void reduction_declare(struct reduction *reduction, struct record *record);

/* Local. Adds what the complement has to the loss and the squared gradient norm of the small network. */
void reduction_complete(struct reduction *reduction, double *loss, double *squared_norm);

/* Local. An update with this learning rate has been made. */
void reduction_advance(struct reduction *reduction, double lr);

/* Collective on the grid. A row of the group: what the large network's layers are at this step. */
void reduction_measure(const struct reduction *reduction, const struct model *model, int64_t step, double time);

/* Collective on the grid. Saves or restores bases, scalars and the small target: blocks mean nothing without the bases
 * that they belong to, and these are equal to rounding only on another grid. */
void reduction_archive(struct reduction *reduction, struct dataset *train, struct archive *archive);

/* Collective on the file's comm. The group `compressed` of a snapshot: blocks, bases and scalars, from which a layer of
 * the large network follows as V_{l+1} Ŵ_l V_lᵀ + ρ_l (W_l(0)/ε_l − V_{l+1} V_lᵀ). */
void reduction_snapshot(const struct reduction *reduction, const struct model *model, struct h5 *file);

/* Local. The checks, at the end of a run: how exactly the bases are orthonormal and hold the target. */
void reduction_check(const struct reduction *reduction, struct record *record);

/* Root only. The closing words. */
void reduction_summary(const struct reduction *reduction);

#endif
