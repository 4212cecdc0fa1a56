/* error: what went wrong, for whom, and how the program ends.
 *
 * Problems of the user or of the environment are collected, so that all of them are shown at once, and end the program
 * in an orderly way with the exit code of their kind. Bugs abort at once with rank, file and line. */
#ifndef EIGENTRAIN_BASE_ERROR_H
#define EIGENTRAIN_BASE_ERROR_H

#include <mpi.h>
#include <stdbool.h>

enum exit_code {
    EXIT_DONE = 0,
    EXIT_INPUT = 2,       /* the user's input is wrong */
    EXIT_ENVIRONMENT = 3, /* a file, a library, the machine */
    EXIT_DIVERGED = 4,    /* the loss is no longer a finite number */
    EXIT_BUG = 70,
    EXIT_STOPPED = 85 /* stopped early with a valid checkpoint */
};

/* A list of problems. Start from {0}. */
struct problems {
    char **text; /* [count], owned, without a final newline */
    int count;
    int code; /* exit code of the first problem; EXIT_DONE while there is none */
};

/* Local. Appends one problem, printf style. `code` is EXIT_INPUT, EXIT_ENVIRONMENT or EXIT_DIVERGED. */
void problems_add(struct problems *problems, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Local. Writes "eigentrain: <text>" lines to standard error. */
void problems_print(const struct problems *problems);

/* Local. Frees the texts and empties the list. */
void problems_clear(struct problems *problems);

/* Collective on comm. True if no rank has a problem. Otherwise every rank gets the list of the lowest rank that has
 * one in place of its own, so that all ranks take the same way out. */
bool problems_none(struct problems *problems, MPI_Comm comm);

/* Collective on comm. The end of a part of the work that may have failed: agrees on its problems as problems_none does,
 * moves them behind those in `problems` and empties `own`. True if there were none. */
bool problems_join(struct problems *own, MPI_Comm comm, struct problems *problems);

/* Local. Ends all ranks with `code` after printing rank and message: for what no caller can handle (no memory). */
_Noreturn void error_end(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local. Ends all ranks with EXIT_BUG after printing rank, file, line and the message. */
_Noreturn void bug_at(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define bug(...) bug_at(__FILE__, __LINE__, __VA_ARGS__)
#define ensure(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition)) bug("this should always hold: %s", #condition);                                              \
    } while (0)

#endif
