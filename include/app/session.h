/* session: one run from its checked input to its exit code, on any communicator: what `run` does once and `sweep` for
 * each member. */
#ifndef EIGENTRAIN_APP_SESSION_H
#define EIGENTRAIN_APP_SESSION_H

#include "base/error.h"
#include "base/spec.h"

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>

struct session {
    const char *out;   /* the run directory; NULL: runs/NAME; borrowed */
    const char *input; /* [length] bytes of the input file; borrowed */
    size_t length;
    bool overwrite, resume;
};

/* Collective on comm; krylov_start has been called. Creates grid and trainer, makes or resumes the run directory,
 * trains. Returns the exit code; problems on every rank of comm. Everything that can be wrong with the input is found
 * before anything is written. */
int session_run(MPI_Comm comm, const struct spec *spec, const struct session *session, struct problems *problems);

#endif
