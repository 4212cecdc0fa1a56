/* arguments: the words behind a command, from a table of options; and the input file that they name. */
#ifndef EIGENTRAIN_APP_ARGUMENTS_H
#define EIGENTRAIN_APP_ARGUMENTS_H

#include "base/error.h"

#include <mpi.h>
#include <stdbool.h>

/* Options that can be given again and again ("--set"). Start from {0}; free `text`. */
struct argument_list {
    const char **text; /* [count], owned array of borrowed texts */
    int count;
};

/* One option; exactly one of the three pointers is set. */
struct argument_option {
    const char *name;           /* "--out" */
    bool *flag;                 /* set to true */
    const char **text;          /* set to the next word, or to what stands behind "--out=" (borrowed from argv) */
    struct argument_list *list; /* the word is appended */
};

/* Local. Reads the words by the table (ended by a row without name). What is no option goes to `rest` (the INPUT.yaml,
 * the DIRs). Unknown options (with the nearest name), values that are missing or given twice are problems (EXIT_INPUT),
 * all of them at once. */
void arguments_parse(int argc, char **argv, const struct argument_option *options, struct argument_list *rest,
                     struct problems *problems);

/* Local. The only one of `rest`, as the input file of `command`; a problem (EXIT_INPUT), and NULL, if there is none or
 * there are more. */
const char *arguments_input(const struct argument_list *rest, const char *command, struct problems *problems);

/* Local. Frees the array and empties the list. */
void arguments_free(struct argument_list *list);

/* Collective on comm. The bytes of the input file and a zero behind them, the same on every rank (memory_free). NULL
 * with problems (EXIT_INPUT) on every rank if it cannot be read. */
char *arguments_read(MPI_Comm comm, const char *path, long *length, struct problems *problems);

/* Local. Sets the limit of train/stop from --wall HH:MM:SS (from now) or --stop-at, seconds since the epoch or a local
 * date and time, 2026-11-22T04:00:00; either may be NULL. Problems (EXIT_INPUT) if it cannot be understood or both are
 * given. */
void arguments_limit(const char *wall, const char *stop_at, struct problems *problems);

#endif
