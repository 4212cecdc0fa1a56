/* eigenpairs: what krylov_eigen finds, and what it keeps of earlier solves to start the next one. */
#include "base/memory.h"
#include "dist/krylov.h"

#include "krylov_private.h"

#include <math.h>
#include <string.h>

enum { MOST_PAST = 7 };

/* From one degree to the next. */
static const double FALLING = 0.2;

static int past_of(int k)
{
    return k < MOST_PAST ? k : MOST_PAST;
}

int krylov_eigen_kept(int k, int64_t solves)
{
    return solves < past_of(k) ? k + (int)solves : k + past_of(k);
}

struct eigenpairs *eigenpairs_create(const struct linop *A, int k, bool smallest)
{
    ensure(A->m == A->n && A->mloc == A->nloc && k >= 0 && k <= A->n);
    struct eigenpairs *E = NEW(struct eigenpairs, 1);
    E->rank = k;
    E->smallest = smallest;
    E->n = A->n;
    E->nloc = A->nloc;
    E->lambda = NEW(double, k);
    E->residual = NEW(double, k);
    E->index = NEW(int64_t, A->nloc);
    for (int i = 0; i < A->nloc; i++) E->index[i] = A->row_index(A, i);
    return E;
}

static void forget(struct eigenpairs *E)
{
    for (int j = 0; j < MOST_PAST; j++) {
        memory_free(E->past[j]);
        E->past[j] = NULL;
    }
    E->known = 0;
}

void eigenpairs_destroy(struct eigenpairs **E)
{
    if (!*E) return;
    forget(*E);
    memory_free((*E)->lambda);
    memory_free((*E)->residual);
    memory_free((*E)->vectors);
    memory_free((*E)->index);
    memory_free(*E);
    *E = NULL;
}

/* The polynomial of degree q through the last q + 1 at equal distances: Σ_j (−1)^j C(q + 1, j + 1) past[j]. */
double eigenpairs_predict(const struct eigenpairs *E, double *x)
{
    double factor = 1;
    memset(x, 0, (size_t)E->nloc * sizeof *x);
    for (int j = 0; j <= E->order; j++) {
        factor *= (E->order + 1 - j) / (double)(j + 1);
        for (int i = 0; i < E->nloc; i++) x[i] += (j % 2 ? -factor : factor) * E->past[j][i];
    }
    return E->error;
}

/* Chooses the degree of the next polynomial by how far those of each degree would have been from x; next to the best if
 * that is the highest that the past could tell of, and the errors fall so fast that one more will be better. */
static void choose_degree(struct eigenpairs *E, const double *sum)
{
    int best = 0;
    for (int q = 1; q < E->known; q++)
        if (sum[q + 1] < sum[best + 1]) best = q;
    E->order = best;
    E->error = E->known > 0 ? sqrt(sum[best + 1] / sum[0]) : 1;
    const double factor = E->known > 0 ? sqrt(sum[best + 1] / sum[best]) : 1;
    if (best + 1 != E->known || best + 1 >= past_of(E->rank) || factor > FALLING) return;
    E->order++;
    E->error *= factor;
}

/* With differences of x and the past. */
static void judge_degrees(struct eigenpairs *E, MPI_Comm comm, const double *x)
{
    double sum[MOST_PAST + 1] = {0}, difference[MOST_PAST + 1];
    for (int i = 0; i < E->nloc; i++) {
        difference[0] = x[i];
        sum[0] += x[i] * x[i];
        for (int j = 0; j < E->known; j++) difference[j + 1] = E->past[j][i];
        for (int q = 1; q <= E->known; q++) {
            for (int j = 0; j <= E->known - q; j++) difference[j] -= difference[j + 1];
            sum[q] += difference[0] * difference[0];
        }
    }
    MPI_Allreduce(MPI_IN_PLACE, sum, MOST_PAST + 1, MPI_DOUBLE, MPI_SUM, comm);
    choose_degree(E, sum);
}

void eigenpairs_remember(struct eigenpairs *E, MPI_Comm comm, const double *x)
{
    const int most = past_of(E->rank);
    judge_degrees(E, comm, x);
    double *oldest = E->past[most - 1];
    if (!oldest) oldest = NEW(double, E->nloc);
    memmove(E->past + 1, E->past, (size_t)(most - 1) * sizeof *E->past);
    E->past[0] = memcpy(oldest, x, (size_t)E->nloc * sizeof *x);
    if (E->known < most) E->known++;
}

static void archive_int32(struct archive *archive, const char *name, int *value)
{
    int64_t wide = *value;
    archive_int(archive, name, &wide);
    *value = to_int(wide);
}

static void archive_vector_sets(struct eigenpairs *E, struct archive *archive)
{
    if (archive_loading(archive)) {
        memory_free(E->vectors);
        E->vectors = NEW(double, (int64_t)E->rank * E->nloc);
        const int known = E->known;
        forget(E);
        E->known = known;
        for (int j = 0; j < known; j++) E->past[j] = NEW(double, E->nloc);
    }
    archive_vectors(archive, "vectors", E->n, E->rank, E->nloc, E->index, E->vectors);
    for (int j = 0; j < E->known; j++) {
        char name[16] = {'p', 'a', 's', 't', '_', (char)('0' + j)};
        archive_vectors(archive, name, E->n, 1, E->nloc, E->index, E->past[j]);
    }
}

void eigenpairs_archive(struct eigenpairs **pairs, const struct linop *A, int k, bool smallest, const char *name,
                        struct archive *archive)
{
    archive_enter(archive, name);
    const bool there = archive_flag(archive, "there", *pairs != NULL);
    if (!there) eigenpairs_destroy(pairs);
    if (there && !*pairs) *pairs = eigenpairs_create(A, k, smallest);
    struct eigenpairs *E = *pairs;
    if (E) {
        E->filled = archive_flag(archive, "filled", E->filled);
        archive_int32(archive, "converged", &E->converged);
        archive_int32(archive, "known", &E->known);
        archive_int32(archive, "cut", &E->cut);
        archive_int32(archive, "order", &E->order);
        archive_int32(archive, "unseen", &E->unseen);
        archive_int(archive, "products", &E->products);
        archive_real(archive, "scale", &E->scale);
        archive_real(archive, "next", &E->next);
        archive_real(archive, "error", &E->error);
        archive_reals(archive, "lambda", E->rank, E->lambda);
        archive_reals(archive, "residual", E->rank, E->residual);
        if (archive_flag(archive, "solved", E->vectors != NULL)) archive_vector_sets(E, archive);
    }
    archive_leave(archive);
}
