/* sweep: many runs from one input, each in a directory of its own within the sweep's. What a member is and where it
 * stands (sweep_members.c), and the tables of all members (sweep_table.c); the command is in sweep.c. */
#ifndef EIGENTRAIN_APP_SWEEP_H
#define EIGENTRAIN_APP_SWEEP_H

#include "app/arguments.h"
#include "base/error.h"
#include "base/spec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sweep_state {
    SWEEP_WAITING, /* not begun */
    SWEEP_RUNNING, /* some process is at it */
    SWEEP_STOPPED, /* can be resumed */
    SWEEP_DONE,
    SWEEP_DIVERGED,
    SWEEP_FAILED,  /* a file, the machine: worth another try */
    SWEEP_INVALID, /* its parameters are impossible */
    SWEEP_STATES
};

/* What this process knows of a member beyond the files: how its session ended here. */
struct sweep_end {
    bool known;
    enum sweep_state state;
    char *reason; /* owned, or NULL */
};

/* A sweep; the same on every rank but for `end`. */
struct sweep {
    const char *input; /* path of the input file, for messages; borrowed */
    const char *text;  /* [length + 1] its bytes and a zero; borrowed */
    size_t length;
    const struct argument_list *sets; /* --set of the command line; borrowed */
    struct sweep_axes *axes;          /* owned */
    int members;
    char *dir;             /* without a final slash; owned */
    char **name;           /* [members] names of their directories, owned */
    struct sweep_end *end; /* [members] owned */
};

/* Where a member stands, from its status.json. */
struct sweep_status {
    enum sweep_state state;
    char *reason;         /* owned, or NULL */
    int64_t step, steps;  /* 0: not begun */
    double loss, seconds; /* NaN where there is none */
    char **key;           /* [finals] "train/loss", owned */
    double *final;        /* [finals] last values of the scalar series, NaN where there is none; owned */
    int finals;
};

/* ---- members (sweep_members.c); members count from 0 here, from 1 for the user */

/* Local. The names of the directories, "width=64_depth=2_seed=1": distinct, at most 150 characters of [A-Za-z0-9._=+-].
 * An array of owned texts. */
char **sweep_names(const struct sweep_axes *axes);

/* Local. What is behind the last dot of a key; the whole key if another swept key ends so, too. Borrowed. */
const char *sweep_label(const struct sweep_axes *axes, const char *key);

/* Local. A value of the sweep without the quotes of YAML (memory_free). */
char *sweep_plain(const char *value);

/* Local. The member's input: the file, over it the command line, over it the member's parameters. NULL with problems
 * if that is impossible. Without sweep->name, run.name is what the input says. */
struct spec *sweep_spec(const struct sweep *sweep, int member, struct problems *problems);

/* Local. The path of a file in the member's directory, or of the directory itself with file = "" (memory_free). */
char *sweep_path(const struct sweep *sweep, int member, const char *file);

/* Local. The floating-point operations that a run takes, roughly: to begin with the longest. */
double sweep_cost(const struct spec *spec);

/* Local. Where the member stands; what this process knows wins over the files. Free with sweep_status_clear. */
struct sweep_status sweep_status(const struct sweep *sweep, int member);

/* Local. Frees what a status owns. */
void sweep_status_clear(struct sweep_status *status);

/* Local. Whether some process is at work in the member's directory. */
bool sweep_is_live(const struct sweep *sweep, int member);

/* Local. Whether the member needs no more work: done or diverged with the physics and the number of steps of `spec`. A
 * directory with other physics, or with more steps than that, is a problem (EXIT_INPUT). */
bool sweep_finished(const struct sweep *sweep, int member, const struct spec *spec, struct problems *problems);

/* Local. "diverged", the word in status.json. */
const char *sweep_state_name(enum sweep_state state);

/* ---- a pass (sweep_pass.c) */

struct sweep_pass {
    const int *order; /* [count] the members to run, the same on every rank; borrowed */
    int count;
    int groups; /* of equal size */
    bool overwrite, quiet;
    bool alone; /* one member, whose log goes to the terminal */
};

/* Collective on MPI_COMM_WORLD. Runs the members; each group takes the next that is free and not finished. Rank 0 knows
 * then how every member has ended. Returns EXIT_STOPPED if a group has stopped early; of a member alone the exit code,
 * with its problems on every rank; else EXIT_DONE. */
int sweep_pass(struct sweep *sweep, const struct sweep_pass *pass, struct problems *problems);

/* ---- tables (sweep_table.c) */

/* Local. Writes DIR/members.csv and DIR/sweep.h5 from the status of all members. Other processes may do the same: waits
 * for them up to `patience` seconds. False with a problem (EXIT_ENVIRONMENT) if that is not enough, or if something
 * could not be written; what was there before then stays. */
bool sweep_tables(const struct sweep *sweep, double patience, struct problems *problems);

#endif
