/* balance_declare: the names of what the probe `balance` measures, in metrics.h5. */
#include "balance_private.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

#define LJ  "Le and Jegelka, ICLR 2022 (arXiv 2201.11968)"
#define JT  "Ji and Telgarsky, ICLR 2019 (arXiv 1810.02032), lemma 2"
#define MPG "Marcotte, Gribonval and Peyre (arXiv 2508.07370) and predecessors"

static const struct quantity table[BALANCE_QUANTITIES] = {
    [BALANCE_NORM] = {"frobenius_norm", "1", "Frobenius norm", "sqrt(sum_ij W_ij^2)", NULL, {"layer"}, false},
    [BALANCE_RATIO] = {"spectral_ratio", "1", "spectral ratio", "sigma_1(W_l) / |W_l|_F", JT, {"layer"}, false},
    [BALANCE_GAP] = {"spectral_gap",
                     "1",
                     "second singular value over the first",
                     "sigma_2 / sigma_1; 0 for a vector",
                     NULL,
                     {"layer"},
                     false},
    [BALANCE_STABLE_RANK] = {"stable_rank", "1", "stable rank", "|W|_F^2 / sigma_1^2", NULL, {"layer"}, false},
    [BALANCE_DEFECT] = {"rank_defect",
                        "1",
                        "squared distance from rank one",
                        "delta_l = |W_l - sigma_1 u v^T|_F^2 = |W_l|_F^2 - sigma_1^2",
                        JT,
                        {"layer"},
                        false},
    [BALANCE_DEFECT_BOUND] =
        {"rank_defect_bound",
         "1",
         "bound on the rank defect, for any weights of a linear head",
         "D_l = sum_(l <= j < L) (|T_j|_2 + tr T_j) + delta_L, T_j = W_j W_j^T - W_(j+1)^T W_(j+1)",
         JT ", in a form that holds for any weights",
         {"layer"},
         false},
    [BALANCE_RANK1] = {"rank1_distance",
                       "1",
                       "distance of the normalised matrix from rank one",
                       "|W / |W|_F - u v^T|_F = sqrt(2 - 2 spectral_ratio)",
                       JT,
                       {"layer"},
                       false},
    [BALANCE_BLOCK_RATIO] =
        {"stable_block_ratio",
         "1",
         "spectral ratio of the stably activated block",
         "spectral_ratio of W_l with the rows, and columns, of neurons that were open on all samples "
         "at every look so far",
         LJ,
         {"layer"},
         false},
    [BALANCE_ON] = {"always_on",
                    "1",
                    "neurons whose gates are open on all samples",
                    "now; at every look since the first",
                    LJ,
                    {"layer", "since"},
                    false},
    [BALANCE_OFF] = {"always_off",
                     "1",
                     "neurons whose gates are closed on all samples",
                     "now; at every look since the first",
                     LJ,
                     {"layer", "since"},
                     false},
    [BALANCE_FLIPS] = {"gate_flips",
                       "1",
                       "gates that differ from the look before",
                       "sum over neurons and samples",
                       LJ,
                       {"layer"},
                       false},
    [BALANCE_ALL_FLIPS] =
        {"all_gate_flips", "1", "gate flips so far", "sum of the flips of all looks", LJ, {"layer"}, false},
    [BALANCE_LAW] = {"law",
                     "1",
                     "what the gradient flow conserves of S",
                     "3 all of it, 2 the diagonal and entries of neurons with equal gates, 1 nothing, but the ledger "
                     "holds, 0 nothing is known",
                     LJ,
                     {"interface"},
                     true},
    [BALANCE_DRIFT] = {"invariance_drift",
                       "1",
                       "largest change of an entry of S since the start",
                       "max |S(t) - S(0)|, S_k = W_(k+1)^T W_(k+1) - W_k W_k^T - b_k b_k^T; all entries; the diagonal; "
                       "between neurons that were always open; between two neurons that always had the same gates",
                       LJ,
                       {"interface", "set"},
                       false},
    [BALANCE_DRIFT_NORM] = {"invariance_drift_norm",
                            "1",
                            "Frobenius norm of the same change",
                            "|S(t) - S(0)|_F",
                            LJ,
                            {"interface", "set"},
                            false},
    [BALANCE_DRIFT_BOUND] = {"drift_bound",
                             "1",
                             "bound on the Frobenius norm of the change under gradient descent",
                             "sum over steps and over the layers of S of eta^2 |g|_F^2",
                             JT,
                             {"interface"},
                             false},
    [BALANCE_DECAYED_DRIFT] = {"decayed_drift",
                               "1",
                               "largest change of an entry beside weight decay",
                               "max |S(t) - exp(-2 omega t) S(0)|",
                               MPG,
                               {"interface"},
                               false},
    [BALANCE_RATE] = {"invariance_rate",
                      "1",
                      "largest rate of change of an entry of S under the gradient flow",
                      "max |M + M^T|, M = W_(k+1)^T g_(k+1) - g_k W_k^T - g_b b_k^T",
                      LJ,
                      {"interface"},
                      false},
    [BALANCE_RATE_RESIDUAL] = {"rate_residual",
                               "1",
                               "difference of that rate from its sum over the samples",
                               "max |M + M^T - M' - M'^T|, M' = Delta (G o Z)^T - (G o Delta) Z^T, 0 in linear layers",
                               LJ,
                               {"interface"},
                               false},
    [BALANCE_LEDGER] = {"ledger_residual",
                        "1",
                        "difference of S from its ledger",
                        "max |S - R|, R <- (1 - eta omega)^2 R - eta (1 - eta omega) (M + M^T) + eta^2 (g_(k+1)^T "
                        "g_(k+1) - g_k g_k^T - g_b g_b^T) at every step",
                        LJ,
                        {"interface"},
                        false},
    [BALANCE_MOMENTUM] =
        {"momentum_law_residual",
         "1",
         "what momentum conserves at zero",
         "max |A|, A = C - C^T, C = W_(k+1)^T v_(k+1) - v_k W_k^T: A(t) = beta^t A(0), and A(0) = 0 at "
         "rest",
         MPG,
         {"interface"},
         false},
    [BALANCE_LAMBDA] = {"lambda_fit", "1", "scalar nearest to S", "tr S / n", MPG, {"interface"}, false},
    [BALANCE_RELAXED] = {"relaxed_defect",
                         "1",
                         "distance of S from a multiple of the identity",
                         "|S - lambda_fit I|_F",
                         MPG,
                         {"interface"},
                         false},
    [BALANCE_ALIGNMENT] =
        {"alignment", "1", "alignment of neighbouring layers", "<v_(k+1), u_k>^2", JT, {"interface"}, false},
    [BALANCE_ALIGNMENT_BOUND] = {"alignment_bound",
                                 "1",
                                 "bound on the alignment, for any weights of a linear head",
                                 "(sigma_1(W_(k+1))^2 - |T_k|_2 - delta_k) / sigma_1(W_k)^2",
                                 JT ", in a form that holds for any weights",
                                 {"interface"},
                                 false},
    [BALANCE_ALIGNMENT_FLOW] = {"alignment_bound_flow",
                                "1",
                                "bound on the alignment, for the gradient flow",
                                "1 - (D + |W_(k+1)(0)|_2^2 + |W_k(0)|_2^2) / |W_(k+1)|_2^2; vacuous below 0",
                                JT,
                                {"interface"},
                                false},
    [BALANCE_JT] = {"jt_constant",
                    "1",
                    "constant D of the start",
                    "D = max_k |W_k(0)|_F^2 - |W_L(0)|_F^2 + sum_k |T_k(0)|_2 over the linear head",
                    JT,
                    {NULL},
                    false},
    [BALANCE_SPREAD] = {"norm_spread",
                        "1",
                        "largest change of a difference of squared norms",
                        "max_(j,k) of the change of |W_j|_F^2 - |W_k|_F^2 since the start, over the linear head",
                        JT,
                        {NULL},
                        false},
    [BALANCE_DIRECTION] = {"direction_error",
                           "1",
                           "distance of the linear map from the known direction",
                           "1 - <w, u> / |w|, w = (W_L ... W_1)^T",
                           JT,
                           {NULL},
                           false},
    [BALANCE_VECTOR_DIRECTION] = {"vector_direction_error",
                                  "1",
                                  "distance of the first right singular vector from the known direction",
                                  "1 - |<v_1, u>|",
                                  JT,
                                  {NULL},
                                  false},
    [BALANCE_DIRECTION_CHANGE] = {"direction_change",
                                  "1",
                                  "turn of the parameters since the last measurement",
                                  "1 - <theta, theta'> / (|theta| |theta'|)",
                                  LJ,
                                  {NULL},
                                  false},
    [BALANCE_MARGIN] =
        {"margin_normalised", "1", "normalised margin", "min_i y_i f(x_i) / prod_k |W_k|_F", JT, {NULL}, false},
    [BALANCE_BUDGET] = {"step_budget", "1", "what the steps have cost", "sum_t eta_t^2 |g_t|^2", JT, {NULL}, false},
    [BALANCE_COLUMN_SUMS] = {"column_sum_drift",
                             "1",
                             "largest change of a column sum of the last layer",
                             "max |1^T W_L(t) - 1^T W_L(0)| and of the sum of b_L",
                             MPG,
                             {NULL},
                             false},
    [BALANCE_NEURON] = {"law_bias_neuron",
                        "1",
                        "diagonal of S: what each neuron conserves",
                        "|outgoing weights|^2 - |incoming weights|^2 - b^2",
                        MPG,
                        {"interface", "neuron"},
                        false},
    [BALANCE_NEURON_WEIGHTS] = {"law_neuron",
                                "1",
                                "the same without the bias",
                                "|outgoing weights|^2 - |incoming weights|^2",
                                MPG,
                                {"interface", "neuron"},
                                false},
    [BALANCE_CLASS] = {"gate_class",
                       "1",
                       "neurons that had the same gates at every look",
                       "0 always open, 1 never open, 2 and more: classes of neurons with equal gates",
                       LJ,
                       {"layer", "neuron"},
                       false},
    [BALANCE_MATRIX] = {"drift_matrix",
                        "1",
                        "change of S since the start",
                        "S(t) - S(0)",
                        LJ,
                        {"interface", "neuron", "partner"},
                        false},
    [BALANCE_LAYER_FLAG] = {"layer_flag",
                            "1",
                            "why values of a layer are missing: the sum of 1 the matrix is zero, 2 its two leading "
                            "singular values are equal, 4 no bound: not in a linear head of two layers or more, 8 no "
                            "gates, 16 no neuron is stably activated",
                            NULL,
                            NULL,
                            {"layer"},
                            true},
    [BALANCE_LAW_FLAG] = {"interface_flag",
                          "1",
                          "why values of an interface are missing: the sum of 1 no ledger (updates are not those of "
                          "gradient descent, or none is wanted), 2 no sums over samples (see `ledger`), 4 no stably "
                          "activated neuron, 8 no two neurons with the same gates, 16 no law of momentum, 32 no bound "
                          "on the alignment, 64 no alignment",
                          NULL,
                          NULL,
                          {"interface"},
                          true},
    [BALANCE_FLAG] = {"flag",
                      "1",
                      "why values are missing: the sum of 1 no linear head of two layers or more, 2 no direction is "
                      "known, or the network is not linear, 4 no margin (not one output with two labels, or a layer is "
                      "zero), 8 the first measurement, 16 column sums are not conserved",
                      NULL,
                      NULL,
                      {NULL},
                      true},
};

void balance_declare(struct probe *probe, const struct setting *setting, struct record *record)
{
    struct balance *s = probe->state;
    struct record_group *g = probe->group =
        record_group(record, probe->name, "step", "what training conserves, and the rank and alignment of the layers");
    record_group_text(g, "kind", "balance");
    record_group_text(g, "stream", s->count >= setting->model->depth ? "true" : "false");
    record_dimension(g, "layer", s->depth, "layer, 1 is the first");
    record_dimension(g, "since", 2, "1 at this step, 2 at every look since the first");
    if (s->count > 0)
        record_dimension(g, "interface", s->count,
                         "k lies between layers k and k + 1; the one after the last of these is the residual stream");
    record_dimension(g, "set", SETS, "entries: 1 all, 2 diagonal, 3 both always open, 4 pairs with the same gates");
    if (s->listed > 0) record_dimension(g, "neuron", s->listed, "neuron of the layer, of that below the interface");
    if (s->listed > 0) record_dimension(g, "partner", s->listed, "the other neuron");
    for (int i = 0; i < BALANCE_QUANTITIES; i++) {
        const bool law = table[i].dims[0] && strcmp(table[i].dims[0], "interface") == 0;
        const bool listed = i >= BALANCE_NEURON && i <= BALANCE_MATRIX;
        const bool many = s->listed == 0 || (i == BALANCE_MATRIX && s->listed > BALANCE_ENTRIES);
        const bool left_out = (law && s->count == 0) || (listed && many);
        s->q[i] = left_out ? -1 : record_quantity(g, &table[i]);
    }
}

void balance_put(const struct probe *probe, enum balance_quantity which, int64_t index, double value)
{
    const struct balance *s = probe->state;
    if (s->q[which] >= 0) record_put_at(probe->group, s->q[which], index, value);
}

void balance_put_int(const struct probe *probe, enum balance_quantity which, int64_t index, int64_t value)
{
    const struct balance *s = probe->state;
    if (s->q[which] >= 0) record_put_int_at(probe->group, s->q[which], index, value);
}

void balance_note(struct balance *s, enum balance_worst which, double value)
{
    double *worst = &s->worst[which];
    if (!isnan(*worst) && !(value <= *worst)) *worst = value;
}
