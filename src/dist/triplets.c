/* triplets: what krylov finds and starts from again. */
#include "base/memory.h"
#include "dist/krylov.h"

struct triplets *triplets_create(const struct linop *A, int k)
{
    ensure(k >= 0 && k <= (A->m < A->n ? A->m : A->n));
    struct triplets *T = NEW(struct triplets, 1);
    T->rank = k;
    T->m = A->m;
    T->n = A->n;
    T->mloc = A->mloc;
    T->nloc = A->nloc;
    T->sigma = NEW(double, k);
    T->residual = NEW(double, k);
    T->left = NEW(double, (int64_t)k * A->mloc);
    T->right = NEW(double, (int64_t)k * A->nloc);
    T->row = NEW(int64_t, A->mloc);
    T->col = NEW(int64_t, A->nloc);
    for (int i = 0; i < A->mloc; i++) T->row[i] = A->row_index(A, i);
    for (int j = 0; j < A->nloc; j++) T->col[j] = A->col_index(A, j);
    return T;
}

void triplets_destroy(struct triplets **T)
{
    if (!*T) return;
    memory_free((*T)->sigma);
    memory_free((*T)->residual);
    memory_free((*T)->left);
    memory_free((*T)->right);
    memory_free((*T)->row);
    memory_free((*T)->col);
    memory_free(*T);
    *T = NULL;
}

void triplets_archive(struct triplets **triplets, const struct linop *A, int k, const char *name,
                      struct archive *archive)
{
    archive_enter(archive, name);
    const bool there = archive_flag(archive, "there", *triplets != NULL);
    if (!there) triplets_destroy(triplets);
    if (there && !*triplets) *triplets = triplets_create(A, k);
    struct triplets *T = *triplets;
    if (T) {
        int64_t converged = T->converged;
        T->filled = archive_flag(archive, "filled", T->filled);
        archive_int(archive, "converged", &converged);
        archive_int(archive, "products", &T->products);
        archive_reals(archive, "sigma", T->rank, T->sigma);
        archive_reals(archive, "residual", T->rank, T->residual);
        archive_vectors(archive, "left", T->m, T->rank, T->mloc, T->row, T->left);
        archive_vectors(archive, "right", T->n, T->rank, T->nloc, T->col, T->right);
        T->converged = to_int(converged);
    }
    archive_leave(archive);
}
