/* What the starts of a room share. */
#ifndef EIGENTRAIN_NET_INIT_PRIVATE_H
#define EIGENTRAIN_NET_INIT_PRIVATE_H

#include "net/init.h"

/* Local. Whether `model.init.kind` is `balanced` or `relaxed_balanced`. */
bool init_is_balanced(const struct spec *spec);

/* Collective on the grid. All layers of such a start; layer l has the streams `stream` + l and `stream` + l − 1. */
void init_balanced(struct model *model, const struct spec *spec, uint64_t stream);

#endif
