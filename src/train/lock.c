#include "train/lock.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/timer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct lock {
    char *path; /* owned */
    int fd;
};

/* Open-file-description locks: unlike plain POSIX locks they are not lost when a library opens and closes the same
 * file. */
static struct flock whole_file(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET};
}

static bool is_same_file(int fd, const char *path)
{
    struct stat here, there;
    return fstat(fd, &here) == 0 && stat(path, &there) == 0 && here.st_ino == there.st_ino &&
           here.st_dev == there.st_dev;
}

/* Whether the lock is ours now. *busy: somebody else has it (or had it, and has removed the file since). */
static bool try_lock(int fd, const char *path, bool *busy)
{
    struct flock request = whole_file(F_WRLCK);
    *busy = false;
    if (fcntl(fd, F_OFD_SETLK, &request) == 0) {
        *busy = !is_same_file(fd, path);
        return !*busy;
    }
    *busy = errno == EAGAIN || errno == EACCES;
    return false;
}

/* For people, and for the message of who comes second. */
static void sign(int fd)
{
    char host[256] = "", text[400];
    const char *job = getenv("SLURM_JOB_ID");
    gethostname(host, sizeof host - 1);
    const int length =
        snprintf(text, sizeof text, "process %ld on %s%s%s", (long)getpid(), host, job ? ", job " : "", job ? job : "");
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length) errno = 0; /* only words */
}

static void refuse(const char *path, struct problems *problems)
{
    char text[400] = "";
    FILE *file = fopen(path, "re");
    if (file && !fgets(text, sizeof text, file)) text[0] = '\0';
    if (file) fclose(file);
    const int folder = (int)(strrchr(path, '/') - path);
    problems_add(problems, EXIT_ENVIRONMENT, "%.*s is in use by %s: wait until it has ended, or choose another --out",
                 folder, path, text[0] ? text : "another process");
}

struct lock *lock_take(const char *path, double patience, struct problems *problems)
{
    const double until = timer_now() + patience;
    for (;;) {
        bool busy;
        const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (fd < 0) {
            problems_add(problems, EXIT_ENVIRONMENT, "%s: %s", path, strerror(errno));
            return NULL;
        }
        const bool ours = try_lock(fd, path, &busy);
        if (!ours && !busy)
            log_warn("%s: this file system has no locks (%s): see to it yourself that no second process works here",
                     path, strerror(errno));
        if (ours || !busy) {
            struct lock *lock = NEW(struct lock, 1);
            lock->path = memory_text("%s", path);
            lock->fd = fd;
            sign(fd);
            return lock;
        }
        close(fd);
        if (timer_now() >= until) break;
        nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
    }
    refuse(path, problems);
    return NULL;
}

void lock_drop(struct lock **lock)
{
    if (!*lock) return;
    unlink((*lock)->path); /* while it is ours: who waits sees that the file is another one, and begins anew */
    close((*lock)->fd);
    memory_free((*lock)->path);
    memory_free(*lock);
    *lock = NULL;
}

bool lock_held(const char *path)
{
    struct flock request = whole_file(F_WRLCK);
    const int fd = open(path, O_RDONLY | O_CLOEXEC); /* it may be somebody else's */
    if (fd < 0) return false;
    const bool held = fcntl(fd, F_OFD_GETLK, &request) == 0 && request.l_type != F_UNLCK;
    close(fd);
    return held;
}
