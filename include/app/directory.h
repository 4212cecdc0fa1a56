/* directory: runs and sweeps seen from outside, by the commands that look at what others write. Reads only. */
#ifndef EIGENTRAIN_APP_DIRECTORY_H
#define EIGENTRAIN_APP_DIRECTORY_H

#include <stdbool.h>

enum directory_kind { DIRECTORY_OTHER, DIRECTORY_RUN, DIRECTORY_SWEEP };

/* Names of files or folders. Start from {0}. */
struct directory_names {
    char **name; /* [count], owned */
    int count;
};

/* Local. A run has an input.yaml, resolved.yaml or status.json; a sweep has a members.csv, sweep.h5 or folders that are
 * runs. */
enum directory_kind directory_kind(const char *path);

/* Local. All that is in a folder, alphabetically; nothing if it cannot be read. Free with directory_names_free. */
struct directory_names directory_entries(const char *path);

/* Local. The members of a sweep: those that its members.csv names, in that order, begun or not; then other folders that
 * are runs, but for those that --overwrite has moved aside. */
struct directory_names directory_members(const char *path);

/* Local. Appends a copy of the name. */
void directory_names_add(struct directory_names *names, const char *name);

/* Local. Frees the names and empties the list. */
void directory_names_free(struct directory_names *names);

/* Local. The fields of one line of a comma-separated table (RFC 4180), without their quotes, and moves *text to the
 * next line; none at the end of the text. */
struct directory_names directory_fields(const char **text);

/* Local. Whether there is a file or folder PATH/name. */
bool directory_holds(const char *path, const char *name);

/* Local. Whether a process is at work in the run's directory. */
bool directory_is_live(const char *path);

#endif
