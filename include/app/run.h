/* run: the command that trains one network. */
#ifndef EIGENTRAIN_APP_RUN_H
#define EIGENTRAIN_APP_RUN_H

/* Collective on MPI_COMM_WORLD. `eigentrain run` with the arguments after the word run; returns the exit code. */
int run_command(int argc, char **argv);

#endif
