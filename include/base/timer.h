/* timer: where the time goes. A fixed set of named clocks, each accumulating wall-clock seconds. */
#ifndef EIGENTRAIN_BASE_TIMER_H
#define EIGENTRAIN_BASE_TIMER_H

enum timer_part { TIMER_SETUP, TIMER_GRADIENT, TIMER_UPDATE, TIMER_EVALUATE, TIMER_PROBES, TIMER_OUTPUT, TIMER_PARTS };

/* Local. Seconds of the monotonic clock. */
double timer_now(void);

/* Local. Adds the seconds since `since` to a part and returns the current time, so that calls can be chained. */
double timer_add(enum timer_part part, double since);

/* Local. Accumulated seconds of a part. */
double timer_seconds(enum timer_part part);

/* Local. Sets all clocks, to what an earlier part of the run has spent, or to zero with NULL. */
void timer_set(const double seconds[TIMER_PARTS]);

/* Local. Its name ("gradient"). */
const char *timer_name(enum timer_part part);

#endif
