/* project: training in a part of the parameter space only (Song, Ahn, Yun, ICLR 2025). With P the projector on the k
 * leading eigenvectors of the Hessian of the whole training loss, from the switch on
 *     dominant   θ ← θ − η P g
 *     bulk       θ ← θ − η (I − P) g
 * with g the gradient of the step's batch. With train.weight_decay λ its λθ is part of g, and λI of the Hessian. */
#ifndef EIGENTRAIN_TRAIN_PROJECT_H
#define EIGENTRAIN_TRAIN_PROJECT_H

#include "base/error.h"
#include "dist/archive.h"
#include "probes/probe.h"

struct project;

/* Local. Whether the input asks for it. */
bool project_wanted(const struct spec *spec);

/* Collective on the grid. Declares its series, the group `project`. NULL with problems (EXIT_INPUT) on every rank. All
 * of the setting is borrowed. */
struct project *project_create(const struct setting *setting, struct record *record, struct problems *problems);

/* Local. Frees it and sets *project to NULL. */
void project_destroy(struct project **project);

/* Collective on the grid. Looks at the gradient of this step: finds the eigenvectors anew where that is due, decides
 * whether it is time to switch, and adds a row to the record. Nothing happens before the step of the switch, if that is
 * given. */
void project_look(struct project *project, const struct model *model, const struct params *gradient, int64_t step,
                  double time);

/* Local. Replaces the gradient that was looked at by the part of it that is kept; does nothing before the switch. */
void project_apply(const struct project *project, struct params *gradient);

/* Collective on the grid. Saves or restores all that training depends on. */
void project_archive(struct project *project, struct archive *archive);

/* Root only. How it went, in a line. */
void project_summary(const struct project *project);

#endif
