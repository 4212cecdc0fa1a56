/* build: what this program is and what it runs on: version, git, compiler, libraries, BLAS kernel, CPU. */
#ifndef EIGENTRAIN_BASE_BUILD_H
#define EIGENTRAIN_BASE_BUILD_H

/* One fact, for `eigentrain info` and for the provenance group of every file. */
struct build_fact {
    const char *name;  /* "openblas kernel" */
    const char *value; /* "SKYLAKEX" */
};

/* Local. All facts that can be known on this floor, ended by a row with name = NULL. Static storage. Rooms that own a
 * library add its version by build_add. */
const struct build_fact *build_facts(void);

/* Local. Adds or replaces a fact; both texts are copied. */
void build_add(const char *name, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local. The version, "0.1.0". */
const char *build_version(void);

/* Local. The git description of the source, or "unknown". */
const char *build_git(void);

#endif
