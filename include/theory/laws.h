/* laws: what gradient flow conserves, and how much of the parameters that leaves open. φ(θ) is what the loss sees of
 * the parameters: the product of a linear network's layers, or the path-lifting of a ReLU network (one coordinate a
 * path from an input, or from a bias, to an output: the product of its weights). h(θ) are the known laws: S_k =
 * W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ of a linear network, ‖out‖² − ‖in‖² − b² of each hidden neuron of a ReLU network. Ranks
 * of their Jacobians and the criterion for an intrinsic metric ker dφ ∩ ker dh ⊂ ker dM, M = dφ dφᵀ (Marcotte,
 * Gribonval, Peyré, arXiv 2307.00144, 2405.12888, 2508.07370). For small networks: matrices here are whole in the
 * memory of each rank. */
#ifndef EIGENTRAIN_THEORY_LAWS_H
#define EIGENTRAIN_THEORY_LAWS_H

#include <stdbool.h>
#include <stdint.h>

/* A network. Its parameters θ lie one layer after the other: W_l (n_l × n_{l−1}, column-major), then b_l if there is
 * one. */
struct laws_net {
    int depth;        /* L ≥ 1 */
    const int *width; /* [L + 1] borrowed */
    const bool *bias; /* [L] borrowed; NULL: none */
    bool relu;        /* else linear, and then without bias */
    bool pairs;       /* skip connections x + B relu(A x) around layers (2, 3), (4, 5), …; then layer 1 is linear */
    const bool *trained; /* [L] borrowed; NULL: all. Only with pairs; θ holds all layers, the counts those trained */
};

struct laws_counts {
    int64_t parameters; /* dim θ */
    int64_t paths;      /* entries of φ; with pairs the number of gradients that were looked at */
    int phi, laws;      /* ranks of J_φ and J_h */
    int both;           /* of the two together */
    double criterion; /* max |dM·v| over an orthonormal basis v of ker dφ ∩ ker dh, 0 if that is {0}; NaN with pairs */
    int lie;          /* dimension of the Lie algebra of the fields ∇φ_i at θ; −1: not found (see laws_lie) */
};

/* Local. Number of parameters, and of entries of φ (of gradients, with pairs); −1 if that is beyond counting. */
int64_t laws_parameters(const struct laws_net *net);

/* Local. See laws_parameters. */
int64_t laws_paths(const struct laws_net *net);

/* Local. Whether the network is small enough for the functions below. */
bool laws_fit(const struct laws_net *net);

/* Local. All of the above at θ. Singular values below 1e-9 of the largest count as zero. */
struct laws_counts laws_count(const struct laws_net *net, const double *theta);

/* Local. What theory says of the number of independent laws at a generic θ: two linear layers q(2h + 1 − q)/2, q =
 * min(h, n_in + n_out); a ReLU network one for each hidden neuron; −1: nothing known (deeper linear networks, trained
 * layers around skip connections). */
int64_t laws_theory(const struct laws_net *net);

/* Local. φ(θ): phi[laws_paths(net)]; not with pairs. */
void laws_phi(const struct laws_net *net, const double *theta, double *phi);

/* Local. Dimension of the Lie algebra at θ: of two layers, whose fields are linear in θ, so that brackets are
 * commutators of matrices; of few inputs and outputs. Else −1. */
int laws_lie(const struct laws_net *net, const double *theta);

#endif
