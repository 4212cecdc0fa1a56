/* What the loss sees of the parameters, and its derivatives. */
#include "base/error.h"
#include "base/memory.h"

#include "laws_private.h"

#include <string.h>

/* ---------------------------------------------------------------- where parameters are */

bool laws_has_bias(const struct laws_net *net, int l)
{
    return net->bias && net->bias[l - 1];
}

int64_t laws_weight(const struct laws_net *net, int l)
{
    int64_t at = 0;
    for (int k = 1; k < l; k++)
        at += (int64_t)net->width[k] * net->width[k - 1] + (laws_has_bias(net, k) ? net->width[k] : 0);
    return at;
}

int64_t laws_bias(const struct laws_net *net, int l)
{
    return laws_weight(net, l) + (int64_t)net->width[l] * net->width[l - 1];
}

int64_t laws_parameters(const struct laws_net *net)
{
    return laws_weight(net, net->depth + 1);
}

/* ---------------------------------------------------------------- paths */

/* Paths from layer `from` on to the outputs. */
static int64_t paths_from(const struct laws_net *net, int from)
{
    int64_t count = 1;
    for (int l = from; l <= net->depth; l++) {
        count *= net->width[l];
        if (count > INT32_MAX) return -1;
    }
    return count;
}

int64_t laws_paths(const struct laws_net *net)
{
    if (net->pairs) return 60 * laws_parameters(net);
    if (!net->relu) return (int64_t)net->width[0] * net->width[net->depth];
    int64_t count = paths_from(net, 0);
    for (int l = 1; count >= 0 && l <= net->depth; l++) {
        const int64_t more = laws_has_bias(net, l) ? paths_from(net, l) : 0;
        count = more < 0 ? -1 : count + more;
    }
    return count;
}

/* The parameters on path `number` of those that begin at layer `from` (0: an input, l: the bias of layer l). Returns
 * how many. */
static int on_path(const struct laws_net *net, int from, int64_t number, int64_t *parameter)
{
    int count = 0, node = (int)(number % net->width[from]);
    if (from > 0) parameter[count++] = laws_bias(net, from) + node;
    number /= net->width[from];
    for (int l = from + 1; l <= net->depth; l++) {
        const int next = (int)(number % net->width[l]);
        number /= net->width[l];
        parameter[count++] = laws_weight(net, l) + next + (int64_t)node * net->width[l];
        node = next;
    }
    return count;
}

/* Calls each(context, row, parameters of the path, their number) for all paths. */
static void for_paths(const struct laws_net *net,
                      void (*each)(void *context, int64_t row, const int64_t *parameter, int count), void *context)
{
    int64_t *parameter = NEW(int64_t, net->depth + 1), row = 0;
    for (int from = 0; from <= net->depth; from++) {
        if (from > 0 && !laws_has_bias(net, from)) continue;
        const int64_t count = paths_from(net, from);
        for (int64_t number = 0; number < count; number++) {
            const int factors = on_path(net, from, number, parameter);
            each(context, row++, parameter, factors);
        }
    }
    memory_free(parameter);
}

struct lifting {
    const double *theta;         /* of values, or ... */
    const double complex *point; /* ... of derivatives */
    double *phi;
    double complex *J;
    int64_t parameters;
};

static void take_value(void *context, int64_t row, const int64_t *parameter, int count)
{
    const struct lifting *lifting = context;
    double product = 1;
    for (int i = 0; i < count; i++) product *= lifting->theta[parameter[i]];
    lifting->phi[row] = product;
}

/* The derivative by each factor is the product of the others. */
static void take_derivatives(void *context, int64_t row, const int64_t *parameter, int count)
{
    const struct lifting *lifting = context;
    for (int i = 0; i < count; i++) {
        double complex product = 1;
        for (int k = 0; k < count; k++)
            if (k != i) product *= lifting->point[parameter[k]];
        lifting->J[row * lifting->parameters + parameter[i]] = product;
    }
}

/* ---------------------------------------------------------------- products */

/* C (m × n) ← A B, column-major. */
static void multiply(int m, int n, int k, const double complex *A, const double complex *B, double complex *C)
{
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            double complex sum = 0;
            for (int p = 0; p < k; p++) sum += A[i + (int64_t)p * m] * B[p + (int64_t)j * k];
            C[i + (int64_t)j * m] = sum;
        }
}

static double complex *unit(int n)
{
    double complex *one = NEW(double complex, (int64_t)n *n);
    for (int i = 0; i < n; i++) one[i + (int64_t)i * n] = 1;
    return one;
}

/* below[k] = W_k … W_1 (n_k × n_0), above[k] = W_L … W_{k+1} (n_L × n_k), k = 0 … L. */
static void partial_products(const struct laws_net *net, const double complex *theta, double complex **below,
                             double complex **above)
{
    const int L = net->depth, *n = net->width;
    below[0] = unit(n[0]);
    above[L] = unit(n[L]);
    for (int l = 1; l <= L; l++) {
        below[l] = NEW(double complex, (int64_t)n[l] * n[0]);
        multiply(n[l], n[0], n[l - 1], theta + laws_weight(net, l), below[l - 1], below[l]);
    }
    for (int l = L; l >= 1; l--) {
        above[l - 1] = NEW(double complex, (int64_t)n[L] * n[l - 1]);
        multiply(n[L], n[l - 1], n[l], above[l], theta + laws_weight(net, l), above[l - 1]);
    }
}

static void product_jacobian(const struct laws_net *net, const double complex *theta, double complex *J)
{
    const int L = net->depth, *n = net->width, outputs = n[L], inputs = n[0];
    const int64_t parameters = laws_parameters(net);
    double complex **below = NEW(double complex *, L + 1), **above = NEW(double complex *, L + 1);
    partial_products(net, theta, below, above);
    for (int l = 1; l <= L; l++)
        for (int b = 0; b < n[l - 1]; b++)
            for (int a = 0; a < n[l]; a++) {
                const int64_t column = laws_weight(net, l) + a + (int64_t)b * n[l];
                for (int j = 0; j < inputs; j++)
                    for (int i = 0; i < outputs; i++)
                        J[(i + (int64_t)j * outputs) * parameters + column] =
                            above[l][i + (int64_t)a * outputs] * below[l - 1][b + (int64_t)j * n[l - 1]];
            }
    for (int l = 0; l <= L; l++) {
        memory_free(below[l]);
        memory_free(above[l]);
    }
    memory_free(above);
    memory_free(below);
}

/* ---------------------------------------------------------------- both */

void laws_phi_jacobian(const struct laws_net *net, const double complex *theta, double complex *J)
{
    struct lifting lifting = {.point = theta, .J = J, .parameters = laws_parameters(net)};
    memset(J, 0, (size_t)laws_paths(net) * (size_t)lifting.parameters * sizeof *J);
    if (net->relu)
        for_paths(net, take_derivatives, &lifting);
    else
        product_jacobian(net, theta, J);
}

void laws_phi(const struct laws_net *net, const double *theta, double *phi)
{
    ensure(!net->pairs);
    if (net->relu) {
        for_paths(net, take_value, &(struct lifting){.theta = theta, .phi = phi});
        return;
    }
    const int L = net->depth;
    const int64_t parameters = laws_parameters(net), entries = laws_paths(net);
    double complex *at = NEW(double complex, parameters);
    double complex **below = NEW(double complex *, L + 1), **above = NEW(double complex *, L + 1);
    for (int64_t i = 0; i < parameters; i++) at[i] = theta[i];
    partial_products(net, at, below, above);
    for (int64_t i = 0; i < entries; i++) phi[i] = creal(below[L][i]);
    for (int l = 0; l <= L; l++) {
        memory_free(below[l]);
        memory_free(above[l]);
    }
    memory_free(above);
    memory_free(below);
    memory_free(at);
}
