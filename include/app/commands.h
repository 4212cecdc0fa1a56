/* commands: what a user can type behind `eigentrain`. Each gets the arguments after its name and returns the exit code.
 */
#ifndef EIGENTRAIN_APP_COMMANDS_H
#define EIGENTRAIN_APP_COMMANDS_H

/* Collective on MPI_COMM_WORLD. `eigentrain run`: trains one network (run.c). */
int command_run(int argc, char **argv);

/* Collective on MPI_COMM_WORLD. `eigentrain sweep`: many runs in one allocation, or one member of them (sweep.c). */
int command_sweep(int argc, char **argv);

/* Collective on MPI_COMM_WORLD. `eigentrain plan`: what a run would need (plan.c). */
int command_plan(int argc, char **argv);

/* Collective on MPI_COMM_WORLD. `eigentrain laws`: conservation laws of a small network (laws.c). */
int command_laws(int argc, char **argv);

/* Collective on MPI_COMM_WORLD; rank 0 acts. `eigentrain status`: where runs and sweeps stand (status.c). */
int command_status(int argc, char **argv);

/* Collective on MPI_COMM_WORLD. `eigentrain verify`: whether every file of a run is whole (verify.c). */
int command_verify(int argc, char **argv);

#endif
