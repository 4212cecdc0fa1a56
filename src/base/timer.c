#include "base/timer.h"

#include <string.h>
#include <time.h>

static double clocks[TIMER_PARTS];

double timer_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double timer_add(enum timer_part part, double since)
{
    double now = timer_now();

    clocks[part] += now - since;
    return now;
}

double timer_seconds(enum timer_part part)
{
    return clocks[part];
}

void timer_set(const double seconds[TIMER_PARTS])
{
    for (int part = 0; part < TIMER_PARTS; part++) clocks[part] = seconds ? seconds[part] : 0;
}

const char *timer_name(enum timer_part part)
{
    static const char *const names[TIMER_PARTS] = {
        [TIMER_SETUP] = "setup",       [TIMER_GRADIENT] = "gradient", [TIMER_UPDATE] = "update",
        [TIMER_EVALUATE] = "evaluate", [TIMER_PROBES] = "probes",     [TIMER_OUTPUT] = "output",
    };

    return names[part];
}
