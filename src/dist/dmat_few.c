/* Products of a matrix with a few columns that every rank holds whole. */
#include "base/memory.h"
#include "dist/dmat.h"

#include "fortran.h"

/* My rows (or columns) of a matrix B that is whole here: part[count × r] ← the rows of B with the global indices of A's
 * local rows (or columns). */
static double *my_rows(const struct dmat *A, bool of_rows, int r, const double *B)
{
    const int count = of_rows ? A->mloc : A->nloc;
    const int64_t length = of_rows ? A->m : A->n;
    double *part = NEW(double, (int64_t)count *r);
    for (int i = 0; i < count; i++) {
        const int64_t at = of_rows ? dmat_row(A, i) : dmat_col(A, i);
        for (int k = 0; k < r; k++) part[i + (int64_t)k * count] = B[at + k * length];
    }
    return part;
}

/* C ← my part of op(A) B, 0 elsewhere. */
static void multiply_few(char ta, const struct dmat *A, int r, const double *B, double *C)
{
    const bool plain = ta == 'N';
    const int64_t length = plain ? A->m : A->n;
    const int m = plain ? A->mloc : A->nloc, k = plain ? A->nloc : A->mloc;
    const double one = 1, zero = 0;
    double *from = my_rows(A, !plain, r, B), *product = NEW(double, (int64_t)m *r);
    if (m > 0 && k > 0) dgemm_(&ta, "N", &m, &r, &k, &one, A->local, &A->lld, from, &k, &zero, product, &m);
    for (int64_t i = 0; i < length * r; i++) C[i] = 0;
    for (int i = 0; i < m; i++)
        for (int j = 0; j < r; j++)
            C[(plain ? dmat_row(A, i) : dmat_col(A, i)) + j * length] = product[i + (int64_t)j * m];
    memory_free(product);
    memory_free(from);
}

void dmat_times_few(const struct dmat *A, int r, const double *X, const double *Y, double *both)
{
    multiply_few('N', A, r, X, both);
    multiply_few('T', A, r, Y, both + A->m * r);
    grid_sum(A->grid, both, to_int((A->m + A->n) * r));
}

void dmat_outer(struct dmat *A, int r, const double *X, const double *Y)
{
    const double one = 1, zero = 0;
    double *left = my_rows(A, true, r, X), *right = my_rows(A, false, r, Y);
    if (A->mloc > 0 && A->nloc > 0)
        dgemm_("N", "T", &A->mloc, &A->nloc, &r, &one, left, &A->mloc, right, &A->nloc, &zero, A->local, &A->lld);
    memory_free(right);
    memory_free(left);
}
