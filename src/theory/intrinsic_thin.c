/* The reduced dynamics of a balanced Z of rank r by its factors: Z = U S Vᵀ, S = U_s diag(σ) V_sᵀ. With c = K(σ, 0) and
 * D = diag(c/σ), which stays bounded as σ → 0,
 *     U' = −(GV V_s − U U_s G_r) D U_sᵀ,  V' = −(GᵀU U_s − V V_s G_rᵀ) D V_sᵀ,  S' = −U_s (K ∘ G_r) V_sᵀ,
 * G_r = U_sᵀ UᵀGV V_s. The rank stays r, and nothing is divided by a small number. The factors are few columns: every
 * rank holds them whole and does the same with them; Z and G are distributed. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/flow.h"

#include "intrinsic_private.h"

#include <math.h>
#include <string.h>

/* The state: U [m × r], V [n × r], S [r × r], one after the other. */
struct factors_at {
    double *U, *V, *S;
};

static struct factors_at factors_in(const struct intrinsic *x, double *y)
{
    return (struct factors_at){y, y + x->Z->m * x->rank, y + (x->Z->m + x->Z->n) * x->rank};
}

static int64_t state_size(const struct intrinsic *x)
{
    return (x->Z->m + x->Z->n + x->rank) * x->rank;
}

/* ---------------------------------------------------------------- life */

void intrinsic_thin_start(struct intrinsic *x, const struct dmat *A, const double *sigma, const struct dmat *Bt)
{
    x->state = NEW(double, state_size(x));
    const struct factors_at f = factors_in(x, x->state);
    struct dmat *B = dmat_create(Bt->grid, Bt->n, Bt->m);
    dmat_transpose(Bt, B);
    struct dmat *left = dmat_columns(A, 0, x->rank), *right = dmat_columns(B, 0, x->rank);
    dmat_gather(left, f.U, -1);
    dmat_gather(right, f.V, -1);
    for (int i = 0; i < x->rank; i++) f.S[i + i * x->rank] = sigma[i];
    dmat_destroy(&right);
    dmat_destroy(&left);
    dmat_destroy(&B);
}

/* Z ← U S Vᵀ. */
static void multiply_out(struct intrinsic *x, const struct factors_at *f)
{
    double *US = NEW(double, x->Z->m * x->rank);
    factor_local_product('N', 'N', to_int(x->Z->m), x->rank, x->rank, f->U, f->S, US);
    dmat_outer(x->Z, x->rank, US, f->V);
    memory_free(US);
}

/* C (r × r) ← E diag(value^power) Eᵀ. */
static void power_of(int r, const double *E, const double *value, double power, double *C)
{
    double *scaled = NEW(double, r *r);
    for (int j = 0; j < r; j++)
        for (int i = 0; i < r; i++) scaled[i + j * r] = pow(value[j], power) * E[i + j * r];
    factor_local_product('N', 'T', r, r, r, scaled, E, C);
    memory_free(scaled);
}

/* Q (n × r) ← Q (QᵀQ)^{−1/2}, the nearest orthonormal columns; S ← S with (QᵀQ)^{1/2} on that side. After a step QᵀQ is
 * next to the identity, and nothing is lost by forming it. */
static void straighten(int n, int r, double *Q, char side, double *S)
{
    double *copy = NEW(double, (int64_t)n *r), *value = NEW(double, r), *E = NEW(double, r *r),
           *gram = NEW(double, r *r), *product = NEW(double, r *r);
    memcpy(copy, Q, (size_t)n * (size_t)r * sizeof *copy);
    factor_local_product('T', 'N', r, r, n, Q, Q, gram);
    factor_local_eigenpairs(r, gram, value, E);
    power_of(r, E, value, -0.5, gram);
    factor_local_product('N', 'N', n, r, r, copy, gram, Q);
    power_of(r, E, value, 0.5, gram);
    if (side == 'L')
        factor_local_product('N', 'N', r, r, r, gram, S, product);
    else
        factor_local_product('N', 'N', r, r, r, S, gram, product);
    memcpy(S, product, (size_t)r * (size_t)r * sizeof *S);
    memory_free(product);
    memory_free(gram);
    memory_free(E);
    memory_free(value);
    memory_free(copy);
}

/* ---------------------------------------------------------------- the rate */

/* Small matrices of one evaluation, r × r. */
struct small {
    int r;
    double *left, *right_t;  /* U_s, V_sᵀ; `left` owns all of them */
    double *G;               /* G_r */
    double *metric, *scaled; /* K, and work space */
    double *D;               /* [r] c/σ */
};

static struct small small_create(int r)
{
    enum { MATRICES = 5 };
    double *all = NEW(double, MATRICES *r *r + r);
    return (struct small){r, all, all + r * r, all + 2 * r * r, all + 3 * r * r, all + 4 * r * r, all + 5 * r * r};
}

/* C ← ± op(A) diag(D) op(B). */
static void sandwich(const struct small *s, char ta, const double *A, char tb, const double *B, double sign, double *C)
{
    const int r = s->r;
    for (int j = 0; j < r; j++)
        for (int i = 0; i < r; i++) s->scaled[i + j * r] = sign * s->D[j] * (ta == 'N' ? A[i + j * r] : A[j + i * r]);
    factor_local_product('N', tb, r, r, r, s->scaled, B, C);
}

/* All of them, from S and UᵀGV (`core`). */
static void decompose(const struct intrinsic *x, const double *S, const double *core, const struct small *s)
{
    const int r = s->r;
    double *sigma = NEW(double, r), *sides = NEW(double, 2 * r), *copy = NEW(double, r *r);
    memcpy(copy, S, (size_t)r * (size_t)r * sizeof *copy);
    factor_local_svd(r, r, copy, sigma, s->left, s->right_t);
    intrinsic_metric(&x->law, x->Z->m, x->Z->n, r, sigma, s->metric, sides, sides + r);
    for (int i = 0; i < r; i++) s->D[i] = sides[i] > 0 ? sides[i] / sigma[i] : 0;
    factor_local_product('T', 'N', r, r, r, s->left, core, copy);
    factor_local_product('N', 'T', r, r, r, copy, s->right_t, s->G);
    memory_free(copy);
    memory_free(sides);
    memory_free(sigma);
}

/* dS ← −U_s (K ∘ G_r) V_sᵀ. */
static void middle_rate(const struct small *s, double *dS)
{
    const int r = s->r;
    double *product = NEW(double, r *r);
    for (int i = 0; i < r * r; i++) s->scaled[i] = -s->metric[i] * s->G[i];
    factor_local_product('N', 'N', r, r, r, s->left, s->scaled, product);
    factor_local_product('N', 'N', r, r, r, product, s->right_t, dS);
    memory_free(product);
}

/* dQ ← image·outer + Q·inner: one side of the factors. */
static void side_rate(int n, int r, const double *image, const double *outer, const double *Q, const double *inner,
                      double *dQ)
{
    double *more = NEW(double, (int64_t)n *r);
    factor_local_product('N', 'N', n, r, r, image, outer, dQ);
    factor_local_product('N', 'N', n, r, r, Q, inner, more);
    for (int64_t i = 0; i < (int64_t)n * r; i++) dQ[i] += more[i];
    memory_free(more);
}

/* The two sides, from GV and GᵀU. */
static void sides_rate(const struct intrinsic *x, const struct small *s, const double *GV, const double *GtU,
                       const struct factors_at *f, const struct factors_at *rate)
{
    const int r = s->r, m = to_int(x->Z->m), n = to_int(x->Z->n);
    double *outer = NEW(double, r *r), *inner = NEW(double, r *r), *product = NEW(double, r *r);
    sandwich(s, 'T', s->right_t, 'T', s->left, -1, outer);
    factor_local_product('N', 'N', r, r, r, s->left, s->G, product);
    sandwich(s, 'N', product, 'T', s->left, 1, inner);
    side_rate(m, r, GV, outer, f->U, inner, rate->U);
    sandwich(s, 'N', s->left, 'N', s->right_t, -1, outer);
    factor_local_product('T', 'T', r, r, r, s->right_t, s->G, product);
    sandwich(s, 'N', product, 'N', s->right_t, 1, inner);
    side_rate(n, r, GtU, outer, f->V, inner, rate->V);
    memory_free(product);
    memory_free(inner);
    memory_free(outer);
}

static void thin_rate(void *context, const double *y, double *dy)
{
    struct intrinsic *x = context;
    const int r = x->rank;
    const int64_t m = x->Z->m, n = x->Z->n;
    const struct factors_at f = factors_in(x, (double *)y), rate = factors_in(x, dy); /* f is read only */
    double *GV = NEW(double, (m + n) * r), *GtU = GV + m * r, *core = NEW(double, r *r);
    struct small s = small_create(r);
    multiply_out(x, &f);
    x->gradient(x->context, x->Z, x->G);
    dmat_times_few(x->G, r, f.V, f.U, GV);
    factor_local_product('T', 'N', r, r, to_int(m), f.U, GV, core);
    decompose(x, f.S, core, &s);
    sides_rate(x, &s, GV, GtU, &f, &rate);
    middle_rate(&s, rate.S);
    memory_free(s.left);
    memory_free(core);
    memory_free(GV);
}

void intrinsic_thin_advance(struct intrinsic *x, double time, int64_t steps)
{
    const struct factors_at f = factors_in(x, x->state);
    flow_rk4(x->Z->grid->comm, to_int(state_size(x)), x->state, time, steps, thin_rate, x);
    straighten(to_int(x->Z->m), x->rank, f.U, 'L', f.S);
    straighten(to_int(x->Z->n), x->rank, f.V, 'R', f.S);
    multiply_out(x, &f);
}

void intrinsic_thin_archive(struct intrinsic *x, struct archive *archive)
{
    archive_reals(archive, "factors", state_size(x), x->state);
}
