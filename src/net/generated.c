/* generated: data from the generator, a function of (seed, global index). */
#include "base/memory.h"
#include "dist/krylov.h"
#include "dist/random.h"
#include "net/dataset.h"

struct draw {
    uint64_t seed, stream;
    uint64_t first; /* sample of the stream that is column 0 */
    int64_t rows;
};

/* Unsigned: the index of an endless stream may come round. */
static double normal(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    return random_normal(draw->seed, draw->stream, (uint64_t)ig + (draw->first + (uint64_t)jg) * (uint64_t)draw->rows);
}

static double one_hot(int64_t ig, int64_t jg, const void *context)
{
    const struct draw *draw = context;
    return random_below(draw->seed, draw->stream, draw->first + (uint64_t)jg, draw->rows) == ig;
}

static void draw_samples(struct dataset *set, uint64_t seed, uint64_t stream, uint64_t first)
{
    dmat_set(set->X, normal, &(struct draw){seed, stream, first, set->features});
    dmat_set(set->Y, set->classification ? one_hot : normal, &(struct draw){seed, stream + 1, first, set->outputs});
}

struct dataset *generated_gaussian(const struct grid *grid, const struct spec *spec, bool train)
{
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed"), stream = RANDOM_DATA + (train ? 0 : 2);
    struct dataset *set = NEW(struct dataset, 1);
    set->features = spec_int(spec, "data.features");
    set->outputs = spec_int(spec, "data.outputs");
    set->samples = spec_int(spec, train ? "data.train" : "data.test");
    set->classification = spec_is(spec, "data.targets", "classes");
    set->X = dmat_create(grid, set->features, set->samples);
    set->Y = dmat_create(grid, set->outputs, set->samples);
    draw_samples(set, seed, stream, 0);
    return set;
}

void generated_fresh(struct dataset *set, uint64_t seed, uint64_t first)
{
    draw_samples(set, seed, RANDOM_ONLINE, first);
}

/* Y ← Σ_i σ_i u_i v_iᵀ, summed in the order of i on every rank. The vectors are small beside the matrix: each rank gets
 * them whole. */
static void assemble(const struct linop *A, const struct triplets *T, struct dmat *Y)
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

bool generated_rank_fits(const struct spec *spec, struct problems *problems)
{
    const int64_t rows = spec_int(spec, "data.rows"), cols = spec_int(spec, "data.cols");
    const int64_t rank = spec_int(spec, "data.rank");
    if (rank <= rows && rank <= cols) return true;
    spec_problem(spec, problems, "data.rank", "is %lld, larger than the %lld × %lld matrix allows", (long long)rank,
                 (long long)rows, (long long)cols);
    return false;
}

struct dataset *generated_low_rank_matrix(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    const int64_t rows = spec_int(spec, "data.rows"), cols = spec_int(spec, "data.cols");
    const int64_t rank = spec_int(spec, "data.rank");
    if (!generated_rank_fits(spec, problems)) return NULL;
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    struct dataset *set = NEW(struct dataset, 1);
    set->features = set->samples = cols;
    set->outputs = rows;
    set->Y = dmat_create(grid, rows, cols);
    struct dmat *gaussian = dmat_create(grid, rows, cols);
    random_fill_normal(gaussian, seed, RANDOM_DATA + 1);
    struct linop *A = linop_of_matrix(gaussian);
    struct triplets *T = triplets_create(A, to_int(rank));
    const struct krylov_options options = {
        .tolerance = 1e-13, .max_products = 1000000, .seed = seed, .stream = RANDOM_KRYLOV + RANDOM_DATA};
    krylov_svd(A, &options, T);
    if (T->converged < T->rank)
        problems_add(problems, EXIT_ENVIRONMENT, "the leading %lld singular triplets of the target did not converge",
                     (long long)rank);
    else
        assemble(A, T, set->Y);
    triplets_destroy(&T);
    linop_destroy(&A);
    dmat_destroy(&gaussian);
    return set;
}
