/* curvature_remainder: the Hessian less the Gauss-Newton matrix, by a product with each. */
#include "curvature_private.h"

#include "base/memory.h"

struct context {
    struct linop *hessian, *ggn; /* owned */
};

/* out ← (H − GGN) in, or its transpose. */
static void subtract(const struct linop *A, bool adjoint, const double *in, double *out)
{
    const struct context *c = A->context;
    const int count = adjoint ? A->nloc : A->mloc;
    double *ggn = NEW(double, count);
    (adjoint ? c->hessian->apply_adjoint : c->hessian->apply)(c->hessian, in, out);
    (adjoint ? c->ggn->apply_adjoint : c->ggn->apply)(c->ggn, in, ggn);
    for (int i = 0; i < count; i++) out[i] -= ggn[i];
    memory_free(ggn);
}

static void apply(const struct linop *A, const double *x, double *y)
{
    subtract(A, false, x, y);
}

static void apply_adjoint(const struct linop *A, const double *y, double *x)
{
    subtract(A, true, y, x);
}

static int64_t row_index(const struct linop *A, int il)
{
    const struct linop *hessian = ((struct context *)A->context)->hessian;
    return hessian->row_index(hessian, il);
}

static int64_t col_index(const struct linop *A, int jl)
{
    const struct linop *hessian = ((struct context *)A->context)->hessian;
    return hessian->col_index(hessian, jl);
}

static void destroy(struct linop *A)
{
    struct context *c = A->context;
    linop_destroy(&c->ggn);
    linop_destroy(&c->hessian);
    memory_free(c);
}

struct linop *curvature_remainder(struct rop *rop, struct rop_part row, struct rop_part col)
{
    struct context *c = NEW(struct context, 1);
    c->hessian = rop_operator(rop, ROP_HESSIAN, row, col, 0);
    c->ggn = rop_operator(rop, ROP_GGN, row, col, 0);
    struct linop *A = NEW(struct linop, 1);
    *A = (struct linop){.comm = c->hessian->comm,
                        .m = c->hessian->m,
                        .n = c->hessian->n,
                        .mloc = c->hessian->mloc,
                        .nloc = c->hessian->nloc,
                        .context = c,
                        .apply = apply,
                        .apply_adjoint = apply_adjoint,
                        .row_index = row_index,
                        .col_index = col_index,
                        .destroy = destroy};
    return A;
}
