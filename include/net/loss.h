/* loss: squared error and softmax cross-entropy, their derivative by the outputs. */
#ifndef EIGENTRAIN_NET_LOSS_H
#define EIGENTRAIN_NET_LOSS_H

#include "base/spec.h"
#include "dist/dmat.h"

#include <stdint.h>

/* mse: ℓ = (1/2s) Σ ‖f_i − y_i‖²;  cross_entropy: ℓ = −(1/s) Σ_i Σ_c y_ic log softmax(f_i)_c. */
enum loss_kind { LOSS_MSE, LOSS_CROSS_ENTROPY };

/* s = 1 (sum), number of samples (samples), or number of terms (mean: outputs × samples for mse, samples for
 * cross-entropy). */
enum loss_reduction { LOSS_SUM, LOSS_MEAN, LOSS_SAMPLES };

struct loss {
    enum loss_kind kind;
    enum loss_reduction reduction;
};

/* Local. From `loss` of the input. */
struct loss loss_of(const struct spec *spec);

/* Local. 1/s for `outputs` outputs and `samples` samples. */
double loss_scale(const struct loss *loss, int64_t outputs, int64_t samples);

/* Collective on the column communicator. For a chunk of columns F (K × N, the outputs) and Y: overwrites F by D = scale
 * · ∂(sum loss)/∂F and returns this rank's part of scale · (sum loss) (parts add up over all ranks to the loss of the
 * chunk). */
double loss_derivative(const struct loss *loss, double scale, struct dmat *F, const struct dmat *Y);

/* Collective on the column communicator. As above without derivative (F untouched), and this rank's part of the number
 * of samples whose largest output is where the largest target is (ties: the lowest index) in *correct. */
double loss_value(const struct loss *loss, double scale, const struct dmat *F, const struct dmat *Y, double *correct);

#endif
