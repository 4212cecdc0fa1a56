/* curvature_declare: what the probe `curvature` puts into the record. */
#include "curvature_private.h"

#include "base/memory.h"

#include <stdio.h>

static const char SONG[] = "Song, Ahn and Yun, ICLR 2025 (arXiv 2405.16002)";
static const char GURARI[] = "Gur-Ari, Roberts and Dyer (arXiv 1812.04754)";
static const char COHEN[] = "Cohen et al., ICLR 2021 (arXiv 2103.00065)";
static const char BGHJ[] = "Ben Arous, Gheissari, Huang and Jagannath, ICLR 2024 (arXiv 2310.03010)";
static const char THEORY[] = "Ben Arous, Gheissari, Huang and Jagannath (arXiv 2502.15655)";

bool curvature_is_sharpness(const struct curvature *s)
{
    return s->full && s->matrix == ROP_HESSIAN && s->of != CURVATURE_TEST && s->which != CURVATURE_SMALLEST;
}

bool curvature_lists(int64_t size)
{
    return size <= 4096;
}

static int count(struct record_group *g, const char *name, const char *long_name)
{
    return record_quantity(g, &(struct quantity){.name = name, .units = "1", .integer = true, .long_name = long_name});
}

static void declare_solve(struct curvature *s, struct record_group *g)
{
    if (s->cross)
        s->q_value = record_number(g, "block_singular_value", "index", NULL, "leading singular values of the block",
                                   "B v = sigma u", NULL);
    else
        s->q_value =
            record_number(g, "curvature_eigenvalue", "index", NULL,
                          "eigenvalues from the outermost inwards; NaN where not converged", "B v = theta v", NULL);
    s->q_residual = record_number(
        g, "curvature_residual", "index", NULL, "residual, measured after the solve",
        s->cross ? "sqrt(|B v - sigma u|^2 + |B^T u - sigma v|^2) / sigma_1" : "|B v - theta v| / max |theta|", NULL);
    s->q_products = count(g, "curvature_products", "products with the matrix that the solve took");
    s->q_converged = count(g, "eigen_converged", "pairs that are converged");
    s->q_flag = count(g, "flag", "0 fine, 1 no gap below the eigenspace: it is not defined, 2 not converged");
    s->q_loss = record_number(g, "loss", NULL, NULL, "loss of the data that the matrix is of, without weight decay",
                              NULL, NULL);
}

static void declare_space(struct curvature *s, struct record_group *g)
{
    s->q_orthogonality = record_number(g, "eigen_orthogonality", NULL, NULL,
                                       "deviation of the eigenvectors from orthonormality", "max |V^T V - I|", NULL);
    s->q_gap = record_number(g, "eigen_gap", NULL, NULL,
                             "gap below the eigenspace, as far as the solver's last check saw what is below",
                             "(theta_k - theta_{k+1}) / max |theta|", NULL);
    s->q_overlap = record_number(g, "subspace_overlap", NULL, NULL, "overlap of E_k with E_k of the measurement before",
                                 "|V(t)^T V(t')|_F^2 / k", GURARI);
    s->q_reference = record_number(g, "reference_overlap", NULL, NULL, "overlap of E_k with E_k of the reference step",
                                   "|V(t)^T V(t')|_F^2 / k", GURARI);
}

static void declare_gradients(struct curvature *s, struct record_group *g)
{
    s->q_rayleigh = record_number(g, "rayleigh_gradient", NULL, NULL, "Rayleigh quotient of the gradient of these data",
                                  "g^T B g / |g|^2", NULL);
    s->q_share = record_number(g, "gradient_top_share", NULL, NULL,
                               "squared share of the gradient of these data in E_k", "|P_k g|^2 / |g|^2", GURARI);
    s->q_full =
        record_number(g, "chi_k_full", NULL, NULL, "share of the gradient of these data in E_k", "|P_k g| / |g|", SONG);
    s->q_batch = record_number(g, "chi_k_batch", NULL, NULL, "share of the gradient of the step's data in E_k",
                               "|P_k g| / |g|", SONG);
    s->q_update =
        record_number(g, "chi_k_update", NULL, NULL, "share of the last update in E_k", "|P_k u| / |u|", SONG);
    if (s->full && (s->matrix == ROP_G || s->matrix == ROP_G_CENTRED))
        s->q_trace = record_number(g, "trace_exact", NULL, NULL, "trace of the matrix", "tr B", NULL);
    if (!curvature_is_sharpness(s)) return;
    s->q_sharpness = record_number(g, "sharpness", NULL, NULL, "largest eigenvalue of the loss's Hessian",
                                   "theta_1 with weight decay", COHEN);
    s->q_threshold = record_number(g, "stability_threshold", NULL, NULL,
                                   "sharpness at which descent with this learning rate is marginally stable",
                                   "(2 - eta lambda) c / eta + lambda, lambda the decay; c = 1, 1 + mu with the heavy "
                                   "ball, (1 + mu)/(1 + 2 mu) with "
                                   "Nesterov's momentum",
                                   COHEN);
    s->q_ratio = record_number(g, "stability_ratio", NULL, NULL, "sharpness over that threshold", NULL, COHEN);
    s->q_increase = record_number(
        g, "loss_increase_share", NULL, NULL,
        "share of the updates since the last measurement that made the loss of the step's data rise", NULL, COHEN);
}

static void declare_weights(struct curvature *s, struct record_group *g, const struct model *model)
{
    s->q_weights =
        record_number(g, "alignment_weights", NULL, NULL, "share of the weights in E_k", "|P_k W| / |W|", BGHJ);
    if (s->full) {
        record_dimension(g, "layer", model->depth, "layer, 1 is the first");
        s->q_layers = record_number(g, "alignment_layer", "layer", NULL, "share of a layer's weights alone in E_k",
                                    "|P_k W_l| / |W_l|", BGHJ);
        return;
    }
    const int64_t rows = model->width[s->row.layer], columns = model->width[s->row.layer - 1];
    if (curvature_lists(rows)) record_dimension(g, "row", rows, "row of the layer's matrix");
    if (s->row.unit >= 0) {
        record_dimension(g, "leading", 2, "1: of the first eigenvector, 2: of all k");
        if (curvature_lists(rows))
            s->q_leading = record_number(g, "alignment_outlier", "row", "leading",
                                         "share of a row in the leading eigenvectors of the unit's block; NaN for rows "
                                         "shorter than 1e-6",
                                         "|P x| / |x|", BGHJ);
        return;
    }
    if (curvature_lists(rows))
        s->q_rows = record_number(g, "alignment_row", "row", NULL, "share of a row, zeros elsewhere, in E_k",
                                  "|P_k e_a x_a^T| / |x_a|", BGHJ);
    if (!curvature_lists(columns)) return;
    record_dimension(g, "column", columns, "column of the layer's matrix");
    s->q_columns = record_number(g, "alignment_column", "column", NULL, "share of a column, zeros elsewhere, in E_k",
                                 "|P_k x_b e_b^T| / |x_b|", BGHJ);
}

static void declare_means(struct curvature *s, struct record_group *g, const struct setting *setting)
{
    record_dimension(g, "class", setting->model->width[setting->model->depth], "class");
    s->q_mean = record_number(g, "alignment_class_mean", "class", NULL,
                              "share of a class mean of the layer's inputs in E_k, of the most that k vectors can hold",
                              "sqrt(sum_i |V_i m|^2 / min(k, rows)) / |m|, V_i the rows of eigenvector i", BGHJ);
    s->q_mean_share = record_number(g, "class_mean_share", "index", NULL,
                                    "squared share of the eigenvector whose rows are in the span of the class means",
                                    "|V_i Q|_F^2, Q an orthonormal basis of the span", BGHJ);
    s->q_mean_random = record_number(g, "class_mean_random", NULL, NULL, "class_mean_share of a random vector",
                                     "dimension of the span / inputs of the layer", NULL);
}

static void declare_outliers(struct curvature *s, struct record_group *g)
{
    record_dimension(g, "span", 2, "1: of the means, 2: of means and rows of the weights");
    s->q_projection = record_number(g, "outlier_projection", "index", "span",
                                    "squared share of the eigenvector in the span", "|P v|^2", BGHJ);
    if (!s->theory) return;
    s->q_edge = record_number(g, "bulk_edge_theory", NULL, NULL,
                              "upper end of the bulk at these weights in the limit of high dimension, with ridge_shift",
                              NULL, THEORY);
    s->q_outlier = record_number(g, "outlier_theory", "index", NULL,
                                 "outliers at these weights in that limit, with ridge_shift", NULL, THEORY);
    s->q_projection_theory = record_number(g, "outlier_projection_theory", "index", "span",
                                           "outlier_projection at these weights in that limit", "|P v|^2", THEORY);
    s->q_leading_theory = record_number(g, "alignment_outlier_theory", "row", "leading",
                                        "alignment_outlier at these weights in that limit", "|P x| / |x|", THEORY);
    s->q_outlier_count = count(g, "outlier_count", "eigenvalues above bulk_edge_theory (1 + 2 d^(-2/3))");
}

static void text(struct record_group *g, const char *name, const char *format, double value)
{
    char *words = memory_text(format, value);
    record_group_text(g, name, words);
    memory_free(words);
}

void curvature_declare(struct curvature *s, struct probe *probe, const struct setting *setting, struct record *record)
{
    static const char *const matrices[] = {"hessian", "ggn", "g", "g_centred", "remainder"};
    static const char *const sets[] = {"train", "test", "batch"};
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "eigenvalues of a curvature matrix, and what lies in its eigenspace");
    const double outputs = (double)setting->model->width[setting->model->depth];
    record_group_text(g, "kind", "curvature");
    record_group_text(g, "of", sets[s->of]);
    record_group_text(g, "operator", matrices[s->matrix]);
    text(g, "ridge_shift", "%.17g", s->ridge);
    text(g, "random_share", "%.17g", (double)s->rank / (double)(s->size > 0 ? s->size : 1));
    if (s->samples > 0) {
        text(g, "samples", "%.0f", (double)s->samples);
        text(g, "phi", "%.17g", (double)s->samples / (double)setting->model->width[0]);
        text(g, "loss_scale", "%.17g", (double)s->samples * loss_scale(setting->loss, (int64_t)outputs, s->samples));
    }
    record_dimension(g, "index", s->count,
                     s->which == CURVATURE_BOTH ? "number; the k largest, then the k smallest"
                                                : "number, 1 is the first");
    declare_solve(s, g);
    if (s->cross) return;
    declare_space(s, g);
    declare_gradients(s, g);
    declare_weights(s, g, setting->model);
    if (s->means) declare_means(s, g, setting);
    if (s->mixture) declare_outliers(s, g);
}
