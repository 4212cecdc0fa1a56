/* loss: squared errors of all, of the observed and of measured entries, softmax cross-entropy; their derivatives. */
#ifndef EIGENTRAIN_NET_LOSS_H
#define EIGENTRAIN_NET_LOSS_H

#include "base/spec.h"
#include "dist/dmat.h"
#include "net/dataset.h"

#include <stdint.h>

/* f_i are the outputs for sample i, the columns of F; Y, M and the measurements are the dataset's.
 *   mse            ℓ = (1/2s) Σ ‖f_i − y_i‖²
 *   masked_mse     ℓ = (1/2s) ‖M ∘ (F − Y)‖_F²
 *   sensing        ℓ = (1/2s) Σ_k (⟨A_k, F⟩ − y_k)²
 *   cross_entropy  ℓ = −(1/s) Σ_i Σ_c y_ic log softmax(f_i)_c
 *   logistic       ℓ = (1/s) Σ_i Σ_c log(1 + e^{f_ic}) − y_ic f_ic
 *   exponential    ℓ = (1/s) Σ_i Σ_c e^{−σ_ic f_ic},  σ = 1 where y > 0, else −1
 * A target of logistic below 0 counts as 0, one above 1 as 1: the two classes of an output may be called 1 and −1, or 1
 * and 0, in both of the last two losses, and for ±1 the former is log(1 + e^{−y f}). */
enum loss_kind { LOSS_MSE, LOSS_CROSS_ENTROPY, LOSS_MASKED_MSE, LOSS_SENSING, LOSS_LOGISTIC, LOSS_EXPONENTIAL };

/* s = 1 (sum), number of samples (samples), number of ones in M (observed), or number of terms (mean: outputs × samples
 * for mse, logistic, exponential and, whatever the mask, for masked_mse; measurements for sensing; samples for
 * cross-entropy). */
enum loss_reduction { LOSS_SUM, LOSS_MEAN, LOSS_SAMPLES, LOSS_OBSERVED };

struct loss {
    enum loss_kind kind;
    enum loss_reduction reduction;
};

/* Local. From `loss` of the input. */
struct loss loss_of(const struct spec *spec);

/* Local. What it is, for the descriptions of series: "1/(2s) sum_i |f(x_i) - y_i|^2". */
const char *loss_formula(const struct loss *loss);

/* Local. 1/s for `outputs` outputs and `samples` samples, all of them observed, none measured. */
double loss_scale(const struct loss *loss, int64_t outputs, int64_t samples);

/* Local. 1/s on a dataset (0 if s = 0: nothing is observed). */
double loss_scale_on(const struct loss *loss, const struct dataset *set);

/* Local. Whether samples are right or wrong, so that accuracy makes sense: with one-hot targets (`classes`), and for
 * the only output of a loss of signs. */
bool loss_classifies(const struct loss *loss, bool classes, int64_t outputs);

/* Collective on the grid. For the outputs F (K × N) of columns j0 … j0 + N − 1 of a dataset: overwrites F by D =
 * ∂ℓ/∂F and returns this rank's part of ℓ of these columns (parts add up over all ranks). Measurements take all columns
 * at once. */
double loss_derivative_on(const struct loss *loss, const struct dataset *set, int64_t j0, struct dmat *F);

/* Collective on the grid. As above without derivative (F untouched), and this rank's part of the number of samples
 * that are right in *correct: whose largest output is where the largest target is (ties: the lowest index); of a single
 * output of the logistic or exponential loss, whose output is positive where the target is and only there. */
double loss_value_on(const struct loss *loss, const struct dataset *set, int64_t j0, const struct dmat *F,
                     double *correct);

/* Collective on the grid. This rank's part of Σ (f − y)² over the entries of these columns that the loss does not see:
 * those that are not observed; with measurements, all. */
double loss_unseen_on(const struct dataset *set, int64_t j0, const struct dmat *F);

/* Collective on the column communicator. The work of loss_derivative_on without a dataset: targets Y, none masked; D is
 * `scale` times the derivative of the sum-loss. */
double loss_derivative(const struct loss *loss, double scale, struct dmat *F, const struct dmat *Y);

/* Collective on the column communicator. The same for loss_value_on. */
double loss_value(const struct loss *loss, double scale, const struct dmat *F, const struct dmat *Y, double *correct);

#endif
