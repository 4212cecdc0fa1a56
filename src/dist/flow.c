#include "dist/flow.h"

#include "base/error.h"
#include "base/memory.h"

#include "krylov_private.h"

#include <petscts.h>

struct right_side {
    void (*rate)(void *context, const double *y, double *dy);
    void *context;
};

static PetscErrorCode evaluate(TS ts, PetscReal time, Vec y, Vec dy, void *context)
{
    const struct right_side *side = context;
    const PetscScalar *from;
    PetscScalar *to;
    (void)ts;
    (void)time;
    must(VecGetArrayRead(y, &from));
    must(VecGetArrayWrite(dy, &to));
    side->rate(side->context, from, to);
    must(VecRestoreArrayWrite(dy, &to));
    must(VecRestoreArrayRead(y, &from));
    return 0;
}

void flow_rk4(MPI_Comm comm, int size, double *y, double time, int64_t steps,
              void (*rate)(void *context, const double *y, double *dy), void *context)
{
    struct right_side side = {rate, context};
    TSAdapt adapt;
    TS ts;
    Vec v;
    must(VecCreateMPIWithArray(comm, 1, size, PETSC_DETERMINE, y, &v));
    must(TSCreate(comm, &ts));
    must(TSSetProblemType(ts, TS_NONLINEAR));
    must(TSSetType(ts, TSRK));
    must(TSRKSetType(ts, TSRK4));
    must(TSGetAdapt(ts, &adapt));
    must(TSAdaptSetType(adapt, TSADAPTNONE));
    must(TSSetRHSFunction(ts, NULL, evaluate, &side));
    must(TSSetTime(ts, 0));
    must(TSSetTimeStep(ts, time / (double)steps));
    must(TSSetMaxSteps(ts, to_int(steps)));
    must(TSSetMaxTime(ts, 2 * time)); /* the number of steps ends it, not rounding */
    must(TSSetExactFinalTime(ts, TS_EXACTFINALTIME_STEPOVER));
    must(TSSolve(ts, v));
    must(TSDestroy(&ts));
    must(VecDestroy(&v));
}
