/* lock: a file that says that somebody works in a directory. The lock is the kernel's, so that it ends with its
 * process, however that ends; what the file holds is only for people. */
#ifndef EIGENTRAIN_TRAIN_LOCK_H
#define EIGENTRAIN_TRAIN_LOCK_H

#include "base/error.h"

#include <stdbool.h>

struct lock;

/* Local. Takes the lock `path`, creating the file; waits up to `patience` seconds for it. NULL with a problem
 * (EXIT_ENVIRONMENT) that says who holds it, or what the system refuses. A file system without locks is warned of and
 * gives an empty lock. */
struct lock *lock_take(const char *path, double patience, struct problems *problems);

/* Local. Gives it back, removes the file, and sets *lock to NULL. */
void lock_drop(struct lock **lock);

/* Local. Whether somebody holds the lock at this moment. */
bool lock_held(const char *path);

#endif
