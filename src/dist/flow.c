#include "dist/flow.h"

#include "base/error.h"
#include "base/memory.h"

#include "krylov_private.h"

#include <math.h>
#include <petscts.h>

struct flow {
    enum flow_method method;
    void (*rate)(void *context, const double *y, double *dy);
    void *context;
    TS ts;
    Vec y;                /* over the caller's array */
    Vec from;             /* adaptive: where the step began; NULL otherwise */
    bool overflows, lost; /* adaptive: a rate of this trial was beyond all bounds; one of a step that was taken, too */
};

/* A rate like this, or none at all, comes of a step that is far too long: PETSc squares what it makes of it, and an
 * overflow there would be the end of the program. */
static const double FAR_TOO_LONG = 1e100;

/* A solution needs no more substeps than this in one call. */
static const int64_t MOST_STEPS = 1000000;

static PetscErrorCode evaluate(TS ts, PetscReal time, Vec y, Vec dy, void *context)
{
    struct flow *flow = context;
    const PetscScalar *from;
    PetscScalar *to;
    PetscInt size;
    (void)ts;
    (void)time;
    must(VecGetArrayRead(y, &from));
    must(VecGetArrayWrite(dy, &to));
    must(VecGetLocalSize(dy, &size));
    flow->rate(flow->context, from, to);
    for (PetscInt i = 0; flow->method == FLOW_ADAPTIVE && i < size; i++)
        if (!(fabs(to[i]) < FAR_TOO_LONG)) {
            to[i] = FAR_TOO_LONG;
            flow->overflows = true;
        }
    must(VecRestoreArrayWrite(dy, &to));
    must(VecRestoreArrayRead(y, &from));
    return 0;
}

/* PETSc takes a rejected step back by subtraction, which costs digits: all of them after a step that was far too long.
 * So the solution is kept where a step begins, and put back when its first stage comes again. */
static PetscErrorCode keep_solution(TS ts)
{
    struct flow *flow;
    Vec y;
    must(TSGetApplicationContext(ts, &flow));
    must(TSGetSolution(ts, &y));
    must(VecCopy(y, flow->from));
    flow->lost = flow->lost || flow->overflows; /* in the last trial of the step before */
    return 0;
}

static PetscErrorCode put_back(TS ts, PetscReal stage)
{
    struct flow *flow;
    PetscReal time;
    Vec y;
    must(TSGetApplicationContext(ts, &flow));
    must(TSGetTime(ts, &time));
    if (stage > time) return 0;
    must(TSGetSolution(ts, &y));
    must(VecCopy(flow->from, y));
    flow->overflows = false;
    return 0;
}

static void choose_method(struct flow *flow, double tolerance)
{
    TSAdapt adapt;
    must(TSSetType(flow->ts, TSRK));
    must(TSGetAdapt(flow->ts, &adapt));
    if (flow->method == FLOW_RK4) {
        must(TSRKSetType(flow->ts, TSRK4));
        must(TSAdaptSetType(adapt, TSADAPTNONE));
        must(TSSetExactFinalTime(flow->ts, TS_EXACTFINALTIME_STEPOVER));
        return;
    }
    must(TSRKSetType(flow->ts, TSRK5DP));
    must(TSAdaptSetType(adapt, TSADAPTBASIC));
    must(TSSetTolerances(flow->ts, tolerance, NULL, tolerance, NULL));
    must(TSSetExactFinalTime(flow->ts, TS_EXACTFINALTIME_MATCHSTEP));
    must(TSSetMaxStepRejections(flow->ts, 1000));
    must(TSSetErrorIfStepFails(flow->ts, PETSC_FALSE));
    must(VecDuplicate(flow->y, &flow->from));
    must(TSSetPreStep(flow->ts, keep_solution));
    must(TSSetPreStage(flow->ts, put_back));
}

struct flow *flow_create(MPI_Comm comm, int size, enum flow_method method, double tolerance,
                         void (*rate)(void *context, const double *y, double *dy), void *context)
{
    struct flow *flow = NEW(struct flow, 1);
    flow->method = method;
    flow->rate = rate;
    flow->context = context;
    must(VecCreateMPIWithArray(comm, 1, size, PETSC_DETERMINE, NULL, &flow->y));
    must(TSCreate(comm, &flow->ts));
    must(TSSetApplicationContext(flow->ts, flow));
    must(TSSetProblemType(flow->ts, TS_NONLINEAR));
    must(TSSetRHSFunction(flow->ts, NULL, evaluate, flow));
    choose_method(flow, tolerance);
    return flow;
}

void flow_destroy(struct flow **flow)
{
    if (!*flow) return;
    must(TSDestroy(&(*flow)->ts));
    must(VecDestroy(&(*flow)->y));
    must(VecDestroy(&(*flow)->from));
    memory_free(*flow);
    *flow = NULL;
}

bool flow_advance(struct flow *flow, double *y, double time, int64_t steps)
{
    const bool fixed = flow->method == FLOW_RK4;
    TSConvergedReason reason;
    MPI_Comm comm;
    ensure(time > 0 && steps > 0);
    flow->overflows = flow->lost = false;
    must(VecPlaceArray(flow->y, y));
    must(TSSetTime(flow->ts, 0));
    must(TSSetStepNumber(flow->ts, 0));
    must(TSSetTimeStep(flow->ts, time / (double)steps));
    must(TSSetMaxSteps(flow->ts, to_int(fixed ? steps : MOST_STEPS)));
    must(TSSetMaxTime(flow->ts, fixed ? 2 * time : time)); /* rk4: the number of steps ends it, not rounding */
    must(TSRestartStep(flow->ts));
    must(TSSolve(flow->ts, flow->y));
    must(TSGetConvergedReason(flow->ts, &reason));
    must(VecResetArray(flow->y));
    if (fixed) return true;
    bool lost = flow->lost || flow->overflows || reason != TS_CONVERGED_TIME;
    must(PetscObjectGetComm((PetscObject)flow->ts, &comm));
    MPI_Allreduce(MPI_IN_PLACE, &lost, 1, MPI_C_BOOL, MPI_LOR, comm);
    return !lost;
}

/* Stages and their rates; the pair's estimate of the error and, of ours, where the step began. */
int flow_vectors(enum flow_method method)
{
    return method == FLOW_RK4 ? 2 * 4 : 2 * 7 + 2;
}

void flow_rk4(MPI_Comm comm, int size, double *y, double time, int64_t steps,
              void (*rate)(void *context, const double *y, double *dy), void *context)
{
    struct flow *flow = flow_create(comm, size, FLOW_RK4, 0, rate, context);
    flow_advance(flow, y, time, steps);
    flow_destroy(&flow);
}
