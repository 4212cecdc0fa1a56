#include "train/stop.h"

#include "base/memory.h"
#include "base/timer.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t received; /* the signal that came first, or 0 */

static struct {
    double deadline; /* seconds since the epoch; 0: none */
    bool late;
    struct {
        char *path; /* owned, or NULL */
        bool found;
    } file[STOP_FILES];
    double looked; /* when the files were looked for last */
} watch;

static const double LOOK_EVERY = 1; /* seconds; a stat on a parallel file system is not free */

static void note(int number)
{
    if (!received) received = number;
}

void stop_watch_signals(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN);
}

void stop_set_limit(double deadline)
{
    watch.deadline = deadline;
}

void stop_set_file(enum stop_file which, const char *path)
{
    memory_free(watch.file[which].path);
    watch.file[which].path = path ? memory_text("%s", path) : NULL;
    watch.file[which].found = false;
    watch.looked = 0;
}

static double clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void look_for_files(void)
{
    const double now = timer_now();
    if (now < watch.looked + LOOK_EVERY) return;
    watch.looked = now;
    for (int i = 0; i < STOP_FILES; i++)
        if (watch.file[i].path && access(watch.file[i].path, F_OK) == 0) watch.file[i].found = true;
}

static bool file_found(void)
{
    return watch.file[STOP_FILE_RUN].found || watch.file[STOP_FILE_SWEEP].found;
}

bool stop_wanted(bool root, double needed)
{
    if (root && watch.deadline > 0 && clock_now() + needed >= watch.deadline) watch.late = true;
    if (root) look_for_files();
    return received || watch.late || file_found();
}

const char *stop_reason(void)
{
    switch (received) {
    case SIGUSR1:
        return "SIGUSR1";
    case SIGUSR2:
        return "SIGUSR2";
    case SIGTERM:
        return "SIGTERM";
    default:
        return watch.late ? "time limit" : file_found() ? "stop file" : NULL;
    }
}
