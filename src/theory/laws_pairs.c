/* Skip connections: gradients of the network's outputs at random inputs span what the loss can see. */
#include "base/error.h"
#include "base/memory.h"
#include "dist/factor.h"
#include "dist/random.h"

#include "laws_private.h"

#include <string.h>

static const uint64_t SEED = 1; /* of inputs and combinations: any that are generic */

struct pass {
    double **x; /* [L + 1] x[l]: what comes out of layer l, the stream where a block ends */
    double **z; /* [L + 1] z[l] before the activation */
};

static struct pass pass_create(const struct laws_net *net)
{
    struct pass pass = {NEW(double *, net->depth + 1), NEW(double *, net->depth + 1)};
    for (int l = 0; l <= net->depth; l++) {
        pass.x[l] = NEW(double, net->width[l]);
        pass.z[l] = NEW(double, net->width[l]);
    }
    return pass;
}

static void pass_clear(const struct laws_net *net, struct pass *pass)
{
    for (int l = 0; l <= net->depth; l++) {
        memory_free(pass->x[l]);
        memory_free(pass->z[l]);
    }
    memory_free(pass->x);
    memory_free(pass->z);
}

/* Layers 2, 4, … below the last are the A of a block, those after them the B. */
static bool begins_block(const struct laws_net *net, int l)
{
    return l % 2 == 0 && l < net->depth;
}

static bool ends_block(const struct laws_net *net, int l)
{
    return l > 1 && l % 2 == 1 && l < net->depth;
}

static void forward(const struct laws_net *net, const double *theta, struct pass *pass)
{
    for (int l = 1; l <= net->depth; l++) {
        const int n = net->width[l];
        factor_local_product('N', 'N', n, 1, net->width[l - 1], theta + laws_weight(net, l), pass->x[l - 1],
                             pass->z[l]);
        for (int i = 0; i < n; i++) {
            if (laws_has_bias(net, l)) pass->z[l][i] += theta[laws_bias(net, l) + i];
            const double z = pass->z[l][i];
            pass->x[l][i] = begins_block(net, l) ? (z > 0 ? z : 0) : ends_block(net, l) ? pass->x[l - 2][i] + z : z;
        }
    }
}

/* gradient ← of the combination of outputs whose weights are in error[L]; error[l]: by x[l]. */
static void backward(const struct laws_net *net, const double *theta, const struct pass *pass, double **error,
                     double *gradient)
{
    for (int l = net->depth; l >= 1; l--) {
        const int n = net->width[l], below = net->width[l - 1];
        for (int i = 0; begins_block(net, l) && i < n; i++)
            if (!(pass->z[l][i] > 0)) error[l][i] = 0;
        for (int j = 0; j < below; j++)
            for (int i = 0; i < n; i++)
                gradient[laws_weight(net, l) + i + (int64_t)j * n] = error[l][i] * pass->x[l - 1][j];
        for (int i = 0; laws_has_bias(net, l) && i < n; i++) gradient[laws_bias(net, l) + i] = error[l][i];
        factor_local_product('T', 'N', below, 1, n, theta + laws_weight(net, l), error[l], error[l - 1]);
        for (int i = 0; begins_block(net, l) && i < below; i++) error[l - 1][i] += error[l + 1][i]; /* past the block */
    }
}

void laws_pairs_gradients(const struct laws_net *net, const double *theta, double *J)
{
    const int64_t parameters = laws_parameters(net), rows = laws_paths(net);
    const int inputs = net->width[0], outputs = net->width[net->depth];
    struct pass pass = pass_create(net), errors = pass_create(net);
    for (int64_t row = 0; row < rows; row++) {
        for (int i = 0; i < inputs; i++) pass.x[0][i] = random_normal(SEED, RANDOM_DATA, (uint64_t)(row * inputs + i));
        for (int i = 0; i < outputs; i++)
            errors.x[net->depth][i] = random_normal(SEED, RANDOM_DATA + 1, (uint64_t)(row * outputs + i));
        forward(net, theta, &pass);
        backward(net, theta, &pass, errors.x, J + row * parameters);
    }
    pass_clear(net, &errors);
    pass_clear(net, &pass);
}
