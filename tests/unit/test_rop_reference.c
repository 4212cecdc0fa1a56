/* ranks: 1 2 4 6 */
/* Curvature products of the reference case of the specification: its dense matrices against the table there. */
#include "dist/factor.h"
#include "grids.h"
#include "products.h"

/* Leading and, from the end, trailing eigenvalues of a symmetric matrix: those of a positive definite shift of it. */
static void check_values(const struct grid *grid, struct rop *rop, enum rop_kind kind, struct rop_part row,
                         struct rop_part col, const double *first, int count, const double *last, int trailing,
                         double tolerance)
{
    struct linop *A = rop_operator(rop, kind, row, col, 0);
    double *full = dense(grid, A), *sigma = NEW(double, A->m < A->n ? A->m : A->n);
    const bool square = row.layer == col.layer && row.unit == col.unit;
    const double shift = square ? 10 : 0;

    for (int64_t i = 0; square && i < A->m; i++) {
        for (int64_t j = 0; j < i; j++) assert_close(full[i + j * A->m], full[j + i * A->m], 1e-13);
        full[i + i * A->m] += shift;
    }
    factor_local_singular_values((int)A->m, (int)A->n, full, sigma);
    for (int i = 0; i < count; i++) assert_close(sigma[i] - shift, first[i], tolerance);
    for (int i = 0; i < trailing; i++) assert_close(sigma[A->m - 1 - i] - shift, last[i], tolerance);
    memory_free(sigma);
    memory_free(full);
    linop_destroy(&A);
}

#define LEADING(kind, row, col, ...)                                                                                   \
    check_values(grid, rop, kind, row, col, (const double[]){__VA_ARGS__},                                             \
                 (int)(sizeof(double[]){__VA_ARGS__} / sizeof(double)), NULL, 0, 1e-9)

static void check_traces(const struct grid *grid, struct rop *rop)
{
    static const double trace[] = {-0.331569882456, 5.982602560356, 8.822048280563, 6.583724287926,
                                   -0.331569882456 - 5.982602560356};
    static const double square[] = {20.2877163687182, 5.26338788667358, 16.3974825329366};
    static const double form[] = {1.90505127322, 2.55334688319, 3.24453991296};
    double v[74], product[74], norm = 0;

    for (int i = 0; i < 74; i++) v[i] = ref_unit(650, (uint64_t)i);
    for (int kind = 0; kind < ROP_KINDS; kind++) {
        struct linop *A = rop_operator(rop, (enum rop_kind)kind, ROP_ALL, ROP_ALL, 0);
        double *full = dense(grid, A), sum = 0;
        for (int i = 0; i < 74; i++) sum += full[i + i * 74];
        assert_close(sum, trace[kind], 1e-11);
        if (kind < 3) assert_close(dot((int64_t)74 * 74, full, full), square[kind], 1e-11);
        multiply(grid, A, false, v, product);
        if (kind < 3) assert_close(dot(74, v, product), form[kind], 1e-10);
        if (kind == 0) norm = sqrt(dot(74, product, product));
        memory_free(full);
        linop_destroy(&A);
    }
    assert_close(norm, 4.01347190816, 1e-10);
    assert_close(rop_trace_g(rop), trace[2], 1e-12);
}

static void check_gradient_form(const struct grid *grid, struct rop *rop, const struct model *model)
{
    struct params *g = params_create(model);
    struct linop *H = rop_operator(rop, ROP_HESSIAN, ROP_ALL, ROP_ALL, 0);
    double *product = NEW(double, g->size), sum = 0;

    rop_gradient(rop, g);
    const double square = params_dot(g, g);
    assert_close(sqrt(square), 1.49610293517437, 1e-12);
    H->apply(H, g->local, product);
    for (int64_t i = 0; i < g->size; i++) sum += g->local[i] * product[i];
    grid_sum(grid, &sum, 1);
    assert_close(sum / square, 1.1862997234755, 1e-9);
    memory_free(product);
    linop_destroy(&H);
    params_destroy(&g);
}

static void reference_on(struct grid *grid)
{
    struct problem p = curv_ref(grid, "tanh", "cross_entropy");
    struct rop *rop = rop_create(p.model, &p.loss, 24, 0);
    const struct rop_part all = ROP_ALL, unit = {.layer = 1, .unit = 0, .weights_only = true};
    const struct rop_part next = {.layer = 1, .unit = 1, .weights_only = true};

    assert_close(rop_set(rop, p.model, p.data), 1.46905559801968, 1e-13);
    check_gradient_form(grid, rop, p.model);
    check_traces(grid, rop);
    check_values(grid, rop, ROP_HESSIAN, all, all,
                 (const double[]){1.735207202339, 1.571289092730, 1.223003606262, 1.000880224015}, 4,
                 (const double[]){-1.456893232946, -1.202824051894}, 2, 1e-9);
    LEADING(ROP_GGN, all, all, 1.547644638427, 1.240530744946, 0.680295915725, 0.573363026834);
    LEADING(ROP_G, all, all, 2.996183511017, 2.387465675988, 0.766755479670, 0.653126785016);
    LEADING(ROP_G_CENTRED, all, all, 2.394470095880, 1.244688956583, 0.737021822804);
    LEADING(ROP_HESSIAN, layer(1), layer(1), 1.263754059154, 0.791577766231);
    LEADING(ROP_HESSIAN, layer(2), layer(2), 0.488986258977, 0.305565485340);
    LEADING(ROP_HESSIAN, layer(3), layer(3), 0.496394620866, 0.421394170322);
    LEADING(ROP_HESSIAN, layer(2), layer(1), 0.991307116353, 0.694851163925);
    LEADING(ROP_HESSIAN, layer(3), layer(1), 0.678712167658, 0.494936822898);
    LEADING(ROP_HESSIAN, layer(3), layer(2), 1.141477550387, 0.670192498250);
    LEADING(ROP_GGN, layer(1), layer(1), 0.920658408043, 0.701052303533);
    LEADING(ROP_GGN, layer(2), layer(1), 0.468935987867, 0.414763783613);
    LEADING(ROP_G, layer(1), layer(1), 1.627898364538, 0.923422130291);
    LEADING(ROP_G, layer(3), layer(2), 1.189329648573, 0.572002607888);
    check_values(grid, rop, ROP_HESSIAN, unit, unit, (const double[]){0.1116364, 0.0063608}, 2, NULL, 0, 1e-7);
    check_values(grid, rop, ROP_HESSIAN, unit, next, (const double[]){0.17700353, 0.12888414}, 2, NULL, 0, 1e-7);
    rop_destroy(&rop);
    problem_destroy(&p);

    p = curv_ref(grid, "relu", "cross_entropy");
    rop = rop_create(p.model, &p.loss, 24, 0);
    assert_close(rop_set(rop, p.model, p.data), 1.31866995798592, 1e-13);
    LEADING(ROP_HESSIAN, all, all, 2.333041775618, 2.141837403193);
    rop_destroy(&rop);
    problem_destroy(&p);

    p = curv_ref(grid, "tanh", "mse");
    rop = rop_create(p.model, &p.loss, 24, 0);
    assert_close(rop_set(rop, p.model, p.data), 1.42955677732092, 1e-13);
    LEADING(ROP_HESSIAN, all, all, 4.887931429752);
    LEADING(ROP_GGN, all, all, 5.311227222301);
    LEADING(ROP_G, all, all, 9.450202794999);
    rop_destroy(&rop);
    problem_destroy(&p);
}

static void references(void **state)
{
    (void)state;
    on_every_grid(reference_on);
}

static const struct CMUnitTest rop_reference_tests[] = {
    cmocka_unit_test(references),
};

UNIT_MAIN(rop_reference_tests, NULL, NULL)
