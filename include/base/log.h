/* log: what the person at the terminal, and later the reader of run.log, gets to see. Only the root speaks. */
#ifndef EIGENTRAIN_BASE_LOG_H
#define EIGENTRAIN_BASE_LOG_H

#include <stdbool.h>

/* Local. From now on only the process with root = true writes. Before this call nobody writes. */
void log_start(bool root, bool quiet);

/* Local (the root acts). Copies everything that was said since log_start, and is said from now on, to `path` as well,
 * appending; NULL ends that. Returns false if the file cannot be opened. */
bool log_copy_to(const char *path);

/* Local (the root acts). One line to standard output and to the copy. */
void log_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Local (the root acts). One line marked "warning:" to standard error and to the copy. */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Local (the root acts). On a terminal: overwrites the one progress line. In a batch log: prints the line when enough
 * time has passed since the last one (2 s at first, later more seldom), or when `last` is set. */
void log_progress(bool last, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
