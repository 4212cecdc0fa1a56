#include "base/timer.h"

#include <string.h>
#include <time.h>

static double seconds[TIMER_PARTS];

double timer_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double timer_add(enum timer_part part, double since)
{
    double now = timer_now();

    seconds[part] += now - since;
    return now;
}

double timer_seconds(enum timer_part part)
{
    return seconds[part];
}

const char *timer_name(enum timer_part part)
{
    static const char *const names[TIMER_PARTS] = {
        [TIMER_SETUP] = "setup",       [TIMER_GRADIENT] = "gradient", [TIMER_UPDATE] = "update",
        [TIMER_EVALUATE] = "evaluate", [TIMER_PROBES] = "probes",     [TIMER_OUTPUT] = "output",
    };

    return names[part];
}
