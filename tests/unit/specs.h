/* specs: inputs that are read from texts, with what --set adds. */
#ifndef EIGENTRAIN_TESTS_SPECS_H
#define EIGENTRAIN_TESTS_SPECS_H

#include "base/spec.h"
#include "unit.h"

#include <string.h>

#define MATRIX "data: {kind: low_rank_matrix, rows: 4, cols: 5, rank: 2}\n" /* line 1 of a valid input */

enum { MOST_SETS = 4 };

/* Local. Reads with the sets that are not NULL. */
static inline struct spec *read_with(const char *text, size_t length, const char *const *sets,
                                     struct problems *problems)
{
    int nsets = 0;

    while (sets && nsets < MOST_SETS && sets[nsets]) nsets++;
    return spec_read(text, length, "in.yaml", nsets, sets, problems);
}

/* Local. The spec of this text, which must be right. */
static inline struct spec *read_valid(const char *text, const char *const *sets)
{
    struct problems problems = {0};
    struct spec *spec = read_with(text, strlen(text), sets, &problems);

    problems_print(&problems);
    assert_non_null(spec);
    assert_int_equal(problems.count, 0);
    return spec;
}

#endif
