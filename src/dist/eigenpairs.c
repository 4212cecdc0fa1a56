/* eigenpairs: what krylov_eigen finds and starts from again. */
#include "base/memory.h"
#include "dist/krylov.h"

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
    E->vectors = NEW(double, (int64_t)k * A->nloc);
    E->inner = NEW(double, A->nloc);
    E->index = NEW(int64_t, A->nloc);
    for (int i = 0; i < A->nloc; i++) E->index[i] = A->row_index(A, i);
    return E;
}

void eigenpairs_destroy(struct eigenpairs **E)
{
    if (!*E) return;
    memory_free((*E)->lambda);
    memory_free((*E)->residual);
    memory_free((*E)->vectors);
    memory_free((*E)->inner);
    memory_free((*E)->index);
    memory_free(*E);
    *E = NULL;
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
        int64_t converged = E->converged;
        E->filled = archive_flag(archive, "filled", E->filled);
        archive_int(archive, "converged", &converged);
        archive_int(archive, "products", &E->products);
        archive_real(archive, "scale", &E->scale);
        archive_real(archive, "next", &E->next);
        archive_reals(archive, "lambda", E->rank, E->lambda);
        archive_reals(archive, "residual", E->rank, E->residual);
        archive_vectors(archive, "vectors", E->n, E->rank, E->nloc, E->index, E->vectors);
        archive_vectors(archive, "inner", E->n, 1, E->nloc, E->index, E->inner);
        E->converged = to_int(converged);
    }
    archive_leave(archive);
}
