/* matrix_problem: low-rank targets with the identity as input: known whole, in part, or by measurements. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/dataset.h"
#include "net/sensing.h"

#include <math.h>

struct problem {
    int64_t rows, cols, rank, least; /* least = min(rows, cols) */
    bool spread, diagonal, given;
    int64_t observed;     /* entries; 0: all */
    int64_t measurements; /* 0: none */
    uint64_t seed;
};

static struct problem problem_of(const struct spec *spec)
{
    struct problem p = {.rows = spec_int(spec, "data.rows"),
                        .cols = spec_int(spec, "data.cols"),
                        .rank = spec_int(spec, "data.rank"),
                        .spread = spec_is(spec, "data.spectrum", "spread"),
                        .diagonal = spec_is(spec, "data.spectrum", "diagonal"),
                        .given = spec_is(spec, "data.spectrum", "given"),
                        .seed = (uint64_t)spec_int(spec, "run.seed")};
    p.least = p.rows < p.cols ? p.rows : p.cols;
    if (spec_is(spec, "data.kind", "matrix_completion"))
        p.observed = llround(spec_real(spec, "data.observed") * ((double)p.rows * (double)p.cols));
    if (spec_is(spec, "data.kind", "matrix_sensing")) p.measurements = spec_int(spec, "data.measurements");
    return p;
}

bool matrix_problem_fits(const struct spec *spec, struct problems *problems)
{
    const struct problem p = problem_of(spec);
    const bool rank = p.rank <= p.least, spread = !p.spread || 2 * p.rank <= p.least;
    const bool none = spec_is(spec, "data.kind", "matrix_completion") && p.observed == 0;
    const bool listed = !p.given || spec_count(spec, "data.singular_values") == p.rank;
    if (!listed)
        spec_problem(spec, problems, "data.singular_values", "has %d values for a target of rank %lld",
                     spec_count(spec, "data.singular_values"), (long long)p.rank);
    if (!rank)
        spec_problem(spec, problems, "data.rank", "is %lld, larger than the %lld × %lld matrix allows",
                     (long long)p.rank, (long long)p.rows, (long long)p.cols);
    else if (!spread)
        spec_problem(spec, problems, "data.rank",
                     "is %lld, but spread over the larger half of %lld singular values there are at most %lld",
                     (long long)p.rank, (long long)p.least, (long long)(p.least / 2));
    if (none)
        spec_problem(spec, problems, "data.observed", "is %g, less than half an entry of a %lld × %lld matrix",
                     spec_real(spec, "data.observed"), (long long)p.rows, (long long)p.cols);
    return rank && spread && !none && listed;
}

/* ---------------------------------------------------------------- the target */

/* Y ← Σ_i σ_i u_i v_iᵀ, summed in the order of i on every rank. The vectors are small beside the matrix: each rank gets
 * them whole. */
static void add_triplets(const struct linop *A, const struct triplets *T, struct dmat *Y)
{
    double *u = NEW(double, A->m), *v = NEW(double, A->n);
    for (int k = 0; k < T->rank; k++) {
        for (int64_t i = 0; i < A->m; i++) u[i] = 0;
        for (int64_t j = 0; j < A->n; j++) v[j] = 0;
        for (int i = 0; i < A->mloc; i++) u[A->row_index(A, i)] = T->left[i + (int64_t)k * A->mloc];
        for (int j = 0; j < A->nloc; j++) v[A->col_index(A, j)] = T->right[j + (int64_t)k * A->nloc];
        MPI_Allreduce(MPI_IN_PLACE, u, to_int(A->m), MPI_DOUBLE, MPI_SUM, A->comm);
        MPI_Allreduce(MPI_IN_PLACE, v, to_int(A->n), MPI_DOUBLE, MPI_SUM, A->comm);
        for (int jl = 0; jl < Y->nloc; jl++)
            for (int il = 0; il < Y->mloc; il++)
                Y->local[il + (int64_t)jl * Y->lld] += T->sigma[k] * u[dmat_row(Y, il)] * v[dmat_col(Y, jl)];
    }
    memory_free(v);
    memory_free(u);
}

/* Few triplets, by Krylov iteration. */
static void take_leading(const struct problem *p, const struct dmat *gaussian, struct dmat *Y,
                         struct problems *problems)
{
    struct linop *A = linop_of_matrix(gaussian);
    struct triplets *T = triplets_create(A, to_int(p->rank));
    const struct krylov_options options = {.tolerance = MATRIX_PROBLEM_TOLERANCE,
                                           .max_products = 1000000,
                                           .seed = p->seed,
                                           .stream = RANDOM_KRYLOV + RANDOM_DATA};
    krylov_svd(A, &options, T);
    if (T->converged < T->rank)
        problems_add(problems, EXIT_ENVIRONMENT, "the leading %lld singular triplets of the target did not converge",
                     (long long)p->rank);
    else
        add_triplets(A, T, Y);
    triplets_destroy(&T);
    linop_destroy(&A);
}

/* From the middle of the spectrum, too: all triplets are needed. */
static void take_spread(const struct problem *p, const struct dmat *gaussian, struct dmat *Y)
{
    struct dmat *U = dmat_create(Y->grid, p->rows, p->least), *Vt = dmat_create(Y->grid, p->least, p->cols);
    double *sigma = NEW(double, p->least), *taken = NEW(double, p->least);
    factor_svd(gaussian, U, sigma, Vt);
    for (int64_t i = 0; i < p->rank; i++) {
        const int64_t number = i * p->least / (2 * p->rank);
        taken[number] = sigma[number];
    }
    for (int jl = 0; jl < U->nloc; jl++)
        for (int il = 0; il < U->mloc; il++) U->local[il + (int64_t)jl * U->lld] *= taken[dmat_col(U, jl)];
    dmat_gemm('N', 'N', 1, U, Vt, 0, Y);
    memory_free(taken);
    memory_free(sigma);
    dmat_destroy(&Vt);
    dmat_destroy(&U);
}

static struct dmat *orthonormal_factor(const struct problem *p, const struct grid *grid, int64_t n, uint64_t stream)
{
    struct dmat *A = dmat_create(grid, n, p->rank);
    if (p->diagonal) {
        dmat_identity(A, 1);
    } else {
        random_fill_normal(A, p->seed, stream);
        factor_orthonormal(A);
    }
    return A;
}

struct factors *matrix_problem_factors(const struct grid *grid, const struct spec *spec)
{
    const struct problem p = problem_of(spec);
    if (!p.given && !p.diagonal) return NULL;
    struct factors *f = NEW(struct factors, 1);
    f->rank = to_int(p.rank);
    f->U = orthonormal_factor(&p, grid, p.rows, RANDOM_DATA + 8);
    f->V = orthonormal_factor(&p, grid, p.cols, RANDOM_DATA + 9);
    f->s = NEW(double, p.rank);
    for (int k = 0; k < f->rank; k++)
        f->s[k] = p.given ? spec_real_at(spec, "data.singular_values", k) : (double)(f->rank - k);
    return f;
}

void factors_destroy(struct factors **factors)
{
    if (!*factors) return;
    dmat_destroy(&(*factors)->U);
    dmat_destroy(&(*factors)->V);
    memory_free((*factors)->s);
    memory_free(*factors);
    *factors = NULL;
}

/* Y ← U diag(s) Vᵀ; U is used up. */
static void multiply_factors(struct factors *f, struct dmat *Y)
{
    for (int jl = 0; jl < f->U->nloc; jl++)
        for (int il = 0; il < f->U->mloc; il++) f->U->local[il + (int64_t)jl * f->U->lld] *= f->s[dmat_col(f->U, jl)];
    dmat_gemm('N', 'T', 1, f->U, f->V, 0, Y);
}

static void fill_target(const struct problem *p, const struct spec *spec, struct dmat *Y, struct problems *problems)
{
    struct factors *factors = matrix_problem_factors(Y->grid, spec);
    if (factors) {
        multiply_factors(factors, Y);
        factors_destroy(&factors);
        return;
    }
    struct dmat *gaussian = dmat_create(Y->grid, p->rows, p->cols);
    random_fill_normal(gaussian, p->seed, RANDOM_DATA + 1);
    if (p->spread)
        take_spread(p, gaussian, Y);
    else
        take_leading(p, gaussian, Y, problems);
    dmat_destroy(&gaussian);
}

/* ---------------------------------------------------------------- the mask */

/* A random key of every local element of A, in local order: the upper bits are random, the lower ones are the index, so
 * that no two keys are equal. */
static uint64_t *keys_of(const struct dmat *A, uint64_t seed)
{
    uint64_t *key = NEW(uint64_t, (int64_t)A->mloc * A->nloc), *next = key, low = 1;
    while (low < (uint64_t)A->m * (uint64_t)A->n) low *= 2;
    for (int jl = 0; jl < A->nloc; jl++)
        for (int il = 0; il < A->mloc; il++) {
            const uint64_t index = (uint64_t)(dmat_row(A, il) + dmat_col(A, jl) * A->m);
            *next++ = (random_bits(seed, RANDOM_DATA + 6, index) & ~(low - 1)) | index;
        }
    return key;
}

/* The bound up to which there are exactly `wanted` keys on all ranks together, by bisection. */
static uint64_t bound_of(const struct grid *grid, const uint64_t *key, int64_t count, int64_t wanted)
{
    uint64_t low = 0, high = UINT64_MAX;
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        int64_t below = 0;
        for (int64_t i = 0; i < count; i++) below += key[i] <= middle;
        double sum = (double)below;
        grid_sum(grid, &sum, 1);
        if (sum >= (double)wanted) high = middle;
        if (sum < (double)wanted) low = middle + 1;
        if (sum == (double)wanted) break;
    }
    return high;
}

/* The entries with the smallest keys: a uniformly random choice without replacement, a function of the seed alone, with
 * nothing gathered. */
static struct dmat *draw_mask(const struct problem *p, const struct grid *grid)
{
    struct dmat *M = dmat_create(grid, p->rows, p->cols);
    const int64_t count = (int64_t)M->mloc * M->nloc;
    uint64_t *key = keys_of(M, p->seed);
    const uint64_t bound = bound_of(grid, key, count, p->observed);
    for (int64_t i = 0; i < count; i++) M->local[i] = key[i] <= bound;
    memory_free(key);
    return M;
}

/* ---------------------------------------------------------------- the set */

struct dataset *matrix_problem_create(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    if (!matrix_problem_fits(spec, problems)) return NULL;
    const struct problem p = problem_of(spec);
    struct dataset *set = NEW(struct dataset, 1);
    set->features = set->samples = p.cols;
    set->outputs = p.rows;
    set->observed = p.observed;
    set->Y = dmat_create(grid, p.rows, p.cols);
    fill_target(&p, spec, set->Y, problems);
    if (p.observed > 0) set->M = draw_mask(&p, grid);
    if (p.measurements > 0) set->sensing = sensing_create(set->Y, p.measurements, p.seed);
    return set;
}

int64_t matrix_problem_bytes(const struct grid *grid, const struct spec *spec)
{
    const struct problem p = problem_of(spec);
    const int64_t mloc = (p.rows + grid->size - 1) / grid->size, nloc = (p.cols + grid->size - 1) / grid->size;
    if (p.diagonal || p.given)
        return 8 * (dmat_local_size(grid, p.rows, p.rank) + dmat_local_size(grid, p.cols, p.rank));
    const int64_t gaussian = 8 * dmat_local_size(grid, p.rows, p.cols);
    if (p.spread)
        return gaussian + 8 * (dmat_local_size(grid, p.rows, p.least) + dmat_local_size(grid, p.least, p.cols)) +
               factor_svd_bytes(grid, p.rows, p.cols);
    const int rank = to_int(p.rank);
    return gaussian + 8 * rank * (mloc + nloc) + krylov_bytes(p.least, rank, mloc, nloc);
}
