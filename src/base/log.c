#include "base/log.h"
#include "base/timer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Seconds between progress lines of a batch log: soon at first, so that one sees that it runs. */
#define FIRST_INTERVAL 2.0
#define LAST_INTERVAL  60.0

static struct {
    bool speaks;       /* this process is the root */
    bool quiet;        /* nothing but warnings on the terminal */
    bool terminal;     /* a person watches standard output */
    bool line_pending; /* the terminal's cursor stands behind a progress line */
    FILE *copy;        /* run.log, and in memory what is said before there is one; owned, or NULL */
    char *early;       /* what was said before; owned while `copy` is in memory */
    size_t early_size;
    double due, interval;
} journal;

/* Open MPI gives the ranks a pseudo-terminal even when mpirun's own output is a file; that one has no width. */
static bool is_terminal(void)
{
    struct winsize window = {0};

    return isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
}

void log_start(bool root, bool quiet)
{
    journal.speaks = root;
    journal.quiet = quiet;
    journal.terminal = is_terminal();
    journal.interval = FIRST_INTERVAL;
    journal.due = timer_now() + FIRST_INTERVAL;
    if (root && !journal.copy) journal.copy = open_memstream(&journal.early, &journal.early_size);
}

bool log_copy_to(const char *path)
{
    if (!journal.speaks) return true;
    if (journal.copy) fclose(journal.copy);
    journal.copy = path ? fopen(path, "a") : NULL;
    if (journal.copy && journal.early) fputs(journal.early, journal.copy);
    free(journal.early);
    journal.early = NULL;
    return journal.copy || !path;
}

/* One line to `stream` (NULL: nowhere). The copy and a batch log are flushed at once: they must tell of a crash. */
static void write_line(FILE *stream, const char *mark, const char *format, va_list arguments)
{
    va_list again;

    if (!stream) return;
    va_copy(again, arguments);
    fputs(mark, stream);
    vfprintf(stream, format, again);
    fputc('\n', stream);
    fflush(stream);
    va_end(again);
}

static void leave_progress_line(void)
{
    if (!journal.line_pending) return;
    fputs("\r\033[K", stdout);
    fflush(stdout);
    journal.line_pending = false;
}

void log_say(const char *format, ...)
{
    va_list arguments;

    if (!journal.speaks) return;
    leave_progress_line();
    va_start(arguments, format);
    write_line(journal.quiet ? NULL : stdout, "", format, arguments);
    write_line(journal.copy, "", format, arguments);
    va_end(arguments);
}

void log_warn(const char *format, ...)
{
    va_list arguments;

    if (!journal.speaks) return;
    leave_progress_line();
    va_start(arguments, format);
    write_line(stderr, "warning: ", format, arguments);
    write_line(journal.copy, "warning: ", format, arguments);
    va_end(arguments);
}

static bool progress_is_due(bool last)
{
    double now = timer_now();

    if (!last && now < journal.due) return false;
    journal.interval = journal.interval * 1.5 < LAST_INTERVAL ? journal.interval * 1.5 : LAST_INTERVAL;
    journal.due = now + journal.interval;
    return true;
}

static void overwrite_line(bool last, const char *format, va_list arguments)
{
    va_list again;

    va_copy(again, arguments);
    fputs("\r\033[K", stdout);
    vfprintf(stdout, format, again);
    if (last) fputc('\n', stdout);
    fflush(stdout);
    journal.line_pending = !last;
    va_end(again);
}

void log_progress(bool last, const char *format, ...)
{
    va_list arguments;
    bool due = journal.speaks && progress_is_due(last);

    if (!journal.speaks) return;
    va_start(arguments, format);
    if (journal.terminal && !journal.quiet) overwrite_line(last, format, arguments);
    if (due && !journal.terminal && !journal.quiet) write_line(stdout, "", format, arguments);
    if (due) write_line(journal.copy, "", format, arguments);
    va_end(arguments);
}
