/* invariant_private: what invariant.c (blocks and scalars) and invariant_full.c (whole spectra) share. */
#ifndef EIGENTRAIN_PROBES_INVARIANT_PRIVATE_H
#define EIGENTRAIN_PROBES_INVARIANT_PRIVATE_H

#include "dist/archive.h"
#include "net/model.h"
#include "probes/record.h"

/* Full spectra of square layers, and their singular vectors at the first step after the start. */
struct full;

/* Local. Declares its quantities; the group has the dimension "layer". d × d layers, rank r of the target. */
struct full *full_create(struct record_group *group, int layers, int64_t width, int rank);

/* Local. Frees it and sets *full to NULL. */
void full_destroy(struct full **full);

/* Collective on the grid. Saves or restores the reference vectors. */
void full_archive(struct full *full, const struct model *model, struct archive *archive);

/* Collective on the grid. Measures layer l into the current row. `rho` is the value that the rest of the spectrum
 * should have, `predicted` the subspace V_{l,1} of the right singular vectors that move. Returns how many values equal
 * ρ. */
int full_measure(struct full *full, struct record_group *group, int l, const struct dmat *W, int64_t step, double rho,
                 const struct dmat *predicted);

#endif
