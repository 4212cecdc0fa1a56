/* orthogonal_classes: classes of orthonormal samples. */
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"
#include "net/dataset.h"

bool orthogonal_classes_fit(const struct spec *spec, struct problems *problems)
{
    const int64_t features = spec_int(spec, "data.features"), classes = spec_int(spec, "data.classes");
    const int64_t per_class = spec_int(spec, "data.per_class");
    if (classes * per_class <= features) return true;
    spec_problem(spec, problems, "data.features",
                 "is %lld, too few for %lld × %lld orthonormal samples (data.classes × data.per_class)",
                 (long long)features, (long long)classes, (long long)per_class);
    return false;
}

static double membership(int64_t ig, int64_t jg, const void *context)
{
    const int64_t *per_class = context;
    return jg / *per_class == ig;
}

/* X ← X + noise · E/‖E‖_F. */
static void add_noise(struct dmat *X, double noise, uint64_t seed)
{
    struct dmat *E = dmat_create(X->grid, X->m, X->n);
    random_fill_normal(E, seed, RANDOM_DATA + 5);
    dmat_axpy(X, noise / dmat_norm(E), E);
    dmat_destroy(&E);
}

struct dataset *orthogonal_classes_create(const struct grid *grid, const struct spec *spec, struct problems *problems)
{
    if (!orthogonal_classes_fit(spec, problems)) return NULL;
    const int64_t per_class = spec_int(spec, "data.per_class");
    const uint64_t seed = (uint64_t)spec_int(spec, "run.seed");
    struct dataset *set = NEW(struct dataset, 1);
    set->features = spec_int(spec, "data.features");
    set->outputs = spec_int(spec, "data.classes");
    set->samples = set->outputs * per_class;
    set->classification = true;
    set->X = dmat_create(grid, set->features, set->samples);
    set->Y = dmat_create(grid, set->outputs, set->samples);
    random_fill_normal(set->X, seed, RANDOM_DATA);
    factor_orthonormal(set->X);
    if (spec_real(spec, "data.noise") > 0) add_noise(set->X, spec_real(spec, "data.noise"), seed);
    dmat_set(set->Y, membership, &per_class);
    return set;
}

int64_t orthogonal_classes_bytes(const struct grid *grid, const struct data_sizes *sizes)
{
    const int64_t factor = factor_orthonormal_bytes(grid, sizes->features, sizes->train);
    const int64_t noise = 8 * dmat_local_size(grid, sizes->features, sizes->train);
    return factor > noise ? factor : noise;
}
