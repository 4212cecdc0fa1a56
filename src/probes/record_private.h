/* record_private: what record.c (series in memory) and record_file.c (series in files) share. */
#ifndef EIGENTRAIN_PROBES_RECORD_PRIVATE_H
#define EIGENTRAIN_PROBES_RECORD_PRIVATE_H

#include "probes/record.h"

enum { DIMS = sizeof(((struct quantity *)0)->dims) / sizeof(char *) };

struct dimension {
    char *name, *long_name; /* owned */
    int64_t size;
};

struct series {
    char *name, *units, *long_name, *formula, *reference; /* owned; the last two may be NULL */
    int dim[DIMS];                                        /* [ndims] numbers of the group's dimensions */
    int ndims;
    int64_t width; /* values a row */
    bool integer;
    double *reals; /* [capacity × width], owned; NULL if integer */
    int64_t *ints; /* the same; NULL if not integer */
};

struct record_group {
    char *name, *axis, *about; /* owned */
    char **texts;              /* [2 × ntexts] names and values of attributes, owned */
    int ntexts;
    bool keep;                    /* on the root */
    struct dimension *dimensions; /* [ndimensions], owned */
    struct series *series;        /* [nseries], owned */
    int ndimensions, nseries;
    int64_t rows, capacity;
    int64_t expected; /* rows that a checkpoint says there should be */
    int64_t *step;    /* [capacity], owned */
    double *time;     /* [capacity], owned */
};

struct check {
    char *name, *reference; /* owned */
    double measured, bound;
    bool passed;
};

struct record {
    bool root;
    struct record_group **groups; /* [ngroups], owned */
    struct check *checks;         /* [nchecks], owned */
    int ngroups, nchecks;
};

/* Local. Number of the group's rows before `step`: the index of the first row that is not before it. */
int64_t record_rows_from(const struct record_group *group, int64_t step);

#endif
