/* launch: the environment that the libraries read before main() or MPI_Init, made right from inside the program.
 *
 * OpenBLAS picks its kernels when it is loaded and falls back to a four times slower one on CPUs that it does not know;
 * Open MPI's default MPI-IO corrupts strided collective writes (4.1.4). Both are chosen by environment variables, so
 * the program sets them and executes itself again, once, before MPI_Init. A setting of the user's wins. */
#ifndef EIGENTRAIN_BASE_LAUNCH_H
#define EIGENTRAIN_BASE_LAUNCH_H

/* Local, before MPI_Init. Sets OPENBLAS_CORETYPE, OPENBLAS_NUM_THREADS, OMPI_MCA_io where the user has not, and
 * re-executes the program if one of them was needed. Returns when all is right (always in the second pass). */
void launch_prepare(char **argv);

/* Local, after MPI_Init. Ends the program (EXIT_ENVIRONMENT) if srun started several tasks and each of them is a world
 * of one rank: an MPI that srun could not reach. Where Open MPI would fail in MPI_Init for that reason, launch_prepare
 * does. */
void launch_check_world(int size);

/* Local. Threads that BLAS uses in this process. */
int launch_threads(void);

/* Local. Sets their number, if BLAS is OpenBLAS. */
void launch_set_threads(int threads);

#endif
