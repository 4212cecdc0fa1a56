/* bench_messages INPUT [KEY=VALUE]…: what the ranks receive in a step of training, counted call by call, beside what
 * `plan` says. The functions of MPI below take the place of the library's in this program, in ScaLAPACK and in the
 * BLACS; they count and hand on. Prints one JSON object.
 *
 * A message is counted where it is received, with its bytes. A collective call counts as the messages, one after the
 * other, of the usual algorithm, and with the bytes that a rank receives in it, among p ranks:
 *     allgather, alltoall      p − 1 messages, what the others have for me
 *     broadcast, reduce        ⌈log₂ p⌉ messages, (p − 1)/p of the buffer on average of the ranks
 *     allreduce                of up to 10 kB ⌈log₂ p⌉ messages of the whole buffer; else twice as many,
 *                              2 (p − 1)/p of the buffer */
#include "app/estimate.h"
#include "dist/krylov.h"
#include "net/layout.h"

#include "bench.h"
#include "training.h"

#include <math.h>

enum { STEPS = 2, SHORT_ALLREDUCE = 10000 };

/* ---------------------------------------------------------------- counting */

static struct {
    bool on;
    double messages, bytes; /* of collective calls, received by this rank */
    double *to;             /* [2 ranks] messages and bytes sent to each rank; owned */
} counted;

static int size_of(MPI_Comm comm)
{
    int size;
    PMPI_Comm_size(comm, &size);
    return size;
}

static double bytes_of(double count, MPI_Datatype type)
{
    int size;
    PMPI_Type_size(type, &size);
    return count * size;
}

static void count_sent(double count, MPI_Datatype type, int to, MPI_Comm comm)
{
    if (!counted.on || to == MPI_PROC_NULL) return;
    MPI_Group group, world;
    int rank;
    PMPI_Comm_group(comm, &group);
    PMPI_Comm_group(MPI_COMM_WORLD, &world);
    PMPI_Group_translate_ranks(group, 1, &to, world, &rank);
    PMPI_Group_free(&group);
    PMPI_Group_free(&world);
    counted.to[2 * rank]++;
    counted.to[2 * rank + 1] += bytes_of(count, type);
}

static void count_received(double messages, double bytes)
{
    if (!counted.on) return;
    counted.messages += messages;
    counted.bytes += bytes;
}

/* Along a tree. */
static void count_tree(double bytes, MPI_Comm comm)
{
    const int p = size_of(comm);
    count_received(ceil(log2(p)), bytes * (p - 1) / p);
}

/* What the others have for me, in parts of `count`. */
static void count_parts(const int *count, MPI_Datatype type, MPI_Comm comm)
{
    int me;
    double sum = 0;
    PMPI_Comm_rank(comm, &me);
    for (int q = 0; q < size_of(comm); q++) sum += q == me ? 0 : count[q];
    count_received(size_of(comm) - 1, bytes_of(sum, type));
}

/* ---------------------------------------------------------------- in the place of MPI's functions */

int MPI_Send(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    count_sent(count, type, to, comm);
    return PMPI_Send(buffer, count, type, to, tag, comm);
}

int MPI_Ssend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    count_sent(count, type, to, comm);
    return PMPI_Ssend(buffer, count, type, to, tag, comm);
}

int MPI_Rsend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm)
{
    count_sent(count, type, to, comm);
    return PMPI_Rsend(buffer, count, type, to, tag, comm);
}

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    count_sent(count, type, to, comm);
    return PMPI_Isend(buffer, count, type, to, tag, comm, request);
}

int MPI_Sendrecv(const void *out, int count, MPI_Datatype type, int to, int tag, void *in, int most, MPI_Datatype other,
                 int from, int from_tag, MPI_Comm comm, MPI_Status *status)
{
    count_sent(count, type, to, comm);
    return PMPI_Sendrecv(out, count, type, to, tag, in, most, other, from, from_tag, comm, status);
}

int MPI_Bcast(void *buffer, int count, MPI_Datatype type, int root, MPI_Comm comm)
{
    count_tree(bytes_of(count, type), comm);
    return PMPI_Bcast(buffer, count, type, root, comm);
}

int MPI_Reduce(const void *out, void *in, int count, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm)
{
    count_tree(bytes_of(count, type), comm);
    return PMPI_Reduce(out, in, count, type, op, root, comm);
}

int MPI_Allreduce(const void *out, void *in, int count, MPI_Datatype type, MPI_Op op, MPI_Comm comm)
{
    const double bytes = bytes_of(count, type), p = size_of(comm), rounds = ceil(log2(p));
    if (bytes <= SHORT_ALLREDUCE)
        count_received(rounds, rounds * bytes);
    else
        count_received(2 * rounds, 2 * bytes * (p - 1) / p);
    return PMPI_Allreduce(out, in, count, type, op, comm);
}

int MPI_Allgather(const void *out, int count, MPI_Datatype type, void *in, int each, MPI_Datatype other, MPI_Comm comm)
{
    const double others = size_of(comm) - 1;
    count_received(others, others * bytes_of(each, other));
    return PMPI_Allgather(out, count, type, in, each, other, comm);
}

int MPI_Allgatherv(const void *out, int count, MPI_Datatype type, void *in, const int *each, const int *at,
                   MPI_Datatype other, MPI_Comm comm)
{
    count_parts(each, other, comm);
    return PMPI_Allgatherv(out, count, type, in, each, at, other, comm);
}

int MPI_Alltoall(const void *out, int count, MPI_Datatype type, void *in, int each, MPI_Datatype other, MPI_Comm comm)
{
    const double others = size_of(comm) - 1;
    count_received(others, others * bytes_of(each, other));
    return PMPI_Alltoall(out, count, type, in, each, other, comm);
}

int MPI_Alltoallv(const void *out, const int *count, const int *from, MPI_Datatype type, void *in, const int *each,
                  const int *at, MPI_Datatype other, MPI_Comm comm)
{
    count_parts(each, other, comm);
    return PMPI_Alltoallv(out, count, from, type, in, each, at, other, comm);
}

/* Messages and bytes that this rank has received since counting began; the end of it. */
static void finish(double received[2])
{
    const int size = size_of(MPI_COMM_WORLD);
    double *from = NEW(double, 2 * size);
    counted.on = false;
    PMPI_Alltoall(counted.to, 2, MPI_DOUBLE, from, 2, MPI_DOUBLE, MPI_COMM_WORLD);
    received[0] = counted.messages;
    received[1] = counted.bytes;
    for (int q = 0; q < size; q++)
        for (int i = 0; i < 2; i++) received[i] += from[2 * q + i];
    memory_free(from);
}

/* Of the rank that receives most, a step. */
static void measure(struct training *t, const struct estimate *e)
{
    const struct grid *grid = t->model->grid;
    double received[2];
    counted.to = NEW(double, 2 * grid->size);
    training_step(t); /* sizes work space, and the first messages between two ranks */
    counted.on = true;
    for (int i = 0; i < STEPS; i++) training_step(t);
    finish(received);
    memory_free(counted.to);
    for (int i = 0; i < 2; i++) received[i] /= STEPS;
    MPI_Allreduce(MPI_IN_PLACE, received, 2, MPI_DOUBLE, MPI_MAX, grid->comm);
    if (grid->rank == 0)
        printf("{\"ranks\": %d, \"grid\": \"%d x %d\", \"block\": %d, \"messages\": %.10g, \"bytes\": %.10g, "
               "\"modelled_messages\": %.10g, \"modelled_bytes\": %.10g}\n",
               grid->size, grid->nprow, grid->npcol, grid->block, received[0], received[1], e->step.messages,
               e->step.received);
}

int main(int argc, char **argv)
{
    bench_start(argc, argv);
    struct problems problems = {0};
    struct spec *spec = training_input(argc, argv, 0, NULL, &problems);
    struct grid *grid = spec ? layout_create(MPI_COMM_WORLD, spec, &problems) : NULL;
    krylov_start(MPI_COMM_WORLD);
    struct training t = {0};
    struct estimate *e = grid ? estimate_create(grid->comm, spec, grid->size, &problems) : NULL;
    if (!e || !training_create(&t, grid, spec, &problems)) return training_refuse(&problems);
    measure(&t, e);
    estimate_destroy(&e);
    training_destroy(&t);
    krylov_end();
    grid_destroy(&grid);
    spec_destroy(&spec);
    MPI_Finalize();
    return 0;
}
