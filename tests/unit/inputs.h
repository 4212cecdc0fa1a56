/* inputs: valid inputs and networks for tests. */
#ifndef EIGENTRAIN_TESTS_INPUTS_H
#define EIGENTRAIN_TESTS_INPUTS_H

#include "base/spec.h"
#include "net/model.h"
#include "unit.h"

#include <string.h>

/* Local. The input of this text, which must be right. */
static inline struct spec *input_of(const char *text)
{
    struct problems problems = {0};
    struct spec *spec = spec_read(text, strlen(text), "in.yaml", 0, NULL, &problems);

    problems_print(&problems);
    assert_non_null(spec);
    return spec;
}

/* Collective on the grid. The network that the input describes. */
static inline struct model *network_of(const struct grid *grid, const struct spec *spec, int64_t features,
                                       int64_t outputs)
{
    struct problems problems = {0};
    struct model *model = model_create(grid, spec, features, outputs, &problems);

    problems_print(&problems);
    assert_non_null(model);
    return model;
}

#endif
