/* stop: when a run has to end before it is done: signals, time limits, a file named stop. Each rank only notes what it
 * sees; the trainer lets all ranks agree (in the Allreduce of the step) and then all stop at the same step. */
#ifndef EIGENTRAIN_TRAIN_STOP_H
#define EIGENTRAIN_TRAIN_STOP_H

#include <stdbool.h>

/* Local. From now on SIGUSR1, SIGUSR2 and SIGTERM ask for a stop instead of ending the process, and SIGXFSZ (a
 * file-size limit) is an ordinary error of the write. To be called before MPI_Init, which takes a second in which a
 * signal may come. */
void stop_watch_signals(void);

/* Local. The run must have ended, its checkpoint written, at this time: seconds since the epoch (time(2)); 0: no limit.
 */
void stop_set_limit(double deadline);

/* Files whose appearance asks for a stop: DIR/stop of a run, and of the sweep that it belongs to. */
enum stop_file { STOP_FILE_RUN, STOP_FILE_SWEEP, STOP_FILES };

/* Local. Names one of them (copied), or forgets it with NULL. They are looked for at most once a second. */
void stop_set_file(enum stop_file which, const char *path);

/* Local. Whether this process sees a reason to stop. `needed` is the time in seconds until a checkpoint would be
 * complete if the next chance to stop were taken instead of this one. Limit and file are watched by processes with root
 * = true only. */
bool stop_wanted(bool root, double needed);

/* Local. The reason in words ("SIGUSR1", "time limit", "stop file"), for the log and status.json; NULL without one. */
const char *stop_reason(void);

#endif
