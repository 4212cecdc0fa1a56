/* balance_private: what the files of the probe `balance` share. balance.c ties them together; balance_declare.c names
 * the quantities; balance_laws.c follows the matrices that training conserves; balance_gates.c the gates of ReLU
 * layers; balance_layers.c measures single layers, their alignment, and the bounds on both. */
#ifndef EIGENTRAIN_PROBES_BALANCE_PRIVATE_H
#define EIGENTRAIN_PROBES_BALANCE_PRIVATE_H

#include "dist/krylov.h"
#include "probes/probe.h"

/* The quantities, in the order of the table in balance_declare.c. */
enum balance_quantity {
    /* one a layer */
    BALANCE_NORM,
    BALANCE_RATIO,
    BALANCE_GAP,
    BALANCE_STABLE_RANK,
    BALANCE_DEFECT,
    BALANCE_DEFECT_BOUND,
    BALANCE_RANK1,
    BALANCE_BLOCK_RATIO,
    BALANCE_ON,
    BALANCE_OFF,
    BALANCE_FLIPS,
    BALANCE_ALL_FLIPS,
    /* one a law */
    BALANCE_LAW,
    BALANCE_DRIFT,
    BALANCE_DRIFT_NORM,
    BALANCE_DRIFT_BOUND,
    BALANCE_DECAYED_DRIFT,
    BALANCE_RATE,
    BALANCE_RATE_RESIDUAL,
    BALANCE_LEDGER,
    BALANCE_MOMENTUM,
    BALANCE_LAMBDA,
    BALANCE_RELAXED,
    BALANCE_ALIGNMENT,
    BALANCE_ALIGNMENT_BOUND,
    BALANCE_ALIGNMENT_FLOW,
    /* one a step */
    BALANCE_JT,
    BALANCE_SPREAD,
    BALANCE_DIRECTION,
    BALANCE_VECTOR_DIRECTION,
    BALANCE_DIRECTION_CHANGE,
    BALANCE_MARGIN,
    BALANCE_BUDGET,
    BALANCE_COLUMN_SUMS,
    /* one a neuron, of narrow networks */
    BALANCE_NEURON,
    BALANCE_NEURON_WEIGHTS,
    BALANCE_CLASS,
    BALANCE_MATRIX,
    /* why a value is missing */
    BALANCE_LAYER_FLAG,
    BALANCE_LAW_FLAG,
    BALANCE_FLAG,
    BALANCE_QUANTITIES
};

/* Sums of these say why. */
enum balance_layer_flag { LAYER_ZERO = 1, LAYER_TIED = 2, LAYER_NOT_HEAD = 4, LAYER_NO_GATES = 8, LAYER_NO_BLOCK = 16 };
enum balance_law_flag {
    LAW_NO_LEDGER = 1,
    LAW_NO_SAMPLES = 2,
    LAW_NO_STABLE = 4,
    LAW_NO_PAIRS = 8,
    LAW_NO_MOMENTUM = 16,
    LAW_NO_BOUND = 32,
    LAW_NO_ALIGNMENT = 64
};
enum balance_flag {
    FLAG_NO_HEAD = 1,
    FLAG_NO_DIRECTION = 2,
    FLAG_NO_MARGIN = 4,
    FLAG_FIRST = 8,
    FLAG_NO_COLUMN_LAW = 16
};

/* Sets of entries of a law's matrix. */
enum balance_set { SET_FULL, SET_DIAGONAL, SET_STABLE, SET_PAIRS, SETS };

/* Neurons are listed one by one, and matrices entry by entry, in networks whose hidden layers are that narrow; matrices
 * with a side up to the last size are solved whole, others by Krylov iteration. */
enum { BALANCE_NEURONS = 1024, BALANCE_ENTRIES = 64, BALANCE_WHOLE = 128 };

/* ---- gates */

/* The gates of one layer over all samples, 1 where the activation's argument is positive. What is known of its neurons
 * is the same on every rank. */
struct gates {
    int layer;            /* l; 0: this layer has none */
    int64_t n, samples;   /* neurons, samples */
    int mloc, words;      /* local neurons; words of 64 bits for this rank's samples */
    uint64_t *bits;       /* [mloc × words] of the last look, row by row; owned */
    int64_t *on;          /* [n] samples with an open gate, at the last look; owned */
    bool *always, *never; /* [n] open, closed, on all samples at every look so far; owned */
    uint64_t *history;    /* [n] hash of the gates of all looks: equal for neurons that always had the same; owned */
    double flips;         /* gates that differ from the look before; NaN at the first one */
    double all_flips;     /* their sum */
};

/* ---- laws */

enum law_kind {
    LAW_NONE,   /* nothing is known of how the matrix changes */
    LAW_CURVED, /* only the ledger holds */
    LAW_GATED,  /* the gradient flow conserves the diagonal, and entries of neurons with equal gates */
    LAW_FULL    /* it conserves the whole matrix */
};

/* sign · W_lᵀ W_l, or sign · (W_l W_lᵀ + b_l b_lᵀ). */
struct term {
    int layer, sign;
    bool outer;
};

/* A sum of such terms, n × n: S_k = W_{k+1}ᵀ W_{k+1} − W_k W_kᵀ − b_k b_kᵀ, or the stream of a residual network. */
struct law {
    enum law_kind kind;
    int below; /* k; 0: the stream */
    int64_t n;
    int count;         /* of its terms */
    struct term *term; /* [count] owned */
    bool keeps_ledger;
    struct dmat *start;    /* S at the first step; owned */
    struct dmat *ledger;   /* S as the ledger says it is; owned, or NULL */
    struct dmat *rate;     /* M of this step, summed over the samples; owned, or NULL */
    struct triplets *norm; /* warm start of its spectral norm; owned, or NULL */
};

/* What is measured of a law's matrix S. */
struct law_state {
    struct dmat *S; /* owned */
    double norm;    /* ‖T_k‖₂ of a law between two layers of the head, T_k = −S_k − b_k b_kᵀ; else NaN */
    double drift, drift_norm; /* of all entries */
};

/* ---- layers */

/* The leading singular triplet of W_l. */
struct leading {
    double norm2;       /* ‖W‖_F² */
    double sigma, next; /* σ_1, σ_2 */
    double defect;      /* δ = ‖W − σ_1 u vᵀ‖_F² */
    bool alone;         /* σ_1 > σ_2: u and v are defined */
    double *u, *v;      /* [m], [n] the same on every rank; owned */
    struct triplets *T; /* warm start of large matrices; owned, or NULL */
};

/* ---- the probe */

enum balance_ledger { LEDGER_NONE, LEDGER_GRADIENT, LEDGER_SAMPLES };

/* Deviations from theorems, the largest so far; −DBL_MAX before there is one. */
enum balance_worst {
    WORST_DEFECT,
    WORST_ALIGNMENT,
    WORST_FLOW_DEFECT,
    WORST_FLOW_ALIGNMENT,
    WORST_LEDGER,
    WORST_RATE,
    WORST_DRIFT,
    WORST_FLOW_DRIFT,
    WORST_MOMENTUM,
    WORST_COLUMN_SUMS,
    WORSTS
};

struct balance {
    int depth;                 /* L */
    int head;                  /* its first layer; layers head … L are linear, without biases below the last */
    int count;                 /* of the laws: L − 1 pairs of neighbours, and the stream if there is one */
    struct law *law;           /* [count] law[k−1] is that of layers k and k + 1; owned */
    struct gates *gates;       /* [L] owned */
    struct leading *leading;   /* [L] owned */
    int64_t listed;            /* width of the widest hidden layer if neurons are listed, else 0 */
    int q[BALANCE_QUANTITIES]; /* in the record; −1: not declared */

    /* From the input. */
    struct loss loss;
    enum balance_ledger ledger;
    bool plain;        /* updates are W ← (1 − ηω) W − η g with the whole gradient */
    bool flows, heavy; /* gradient flow; heavy-ball momentum */
    bool column_law;   /* 1ᵀ W_L is conserved */
    bool every_step;   /* gates are looked at before every step, not only when they are measured */
    bool margins;      /* one output with labels of two signs */
    bool linear;       /* the whole network is a product of trained matrices */
    bool gated;        /* some layer has gates */
    double decay;      /* ω */
    double *direction; /* [n_0] of unit length; owned, or NULL */

    /* Since the first step; part of the checkpoints. */
    int64_t first;  /* that step; −1: there was none yet */
    int64_t looked; /* step of the last look at the gates */
    int64_t steps;  /* updates followed */
    double first_time, first_loss;
    double loss_at_zero; /* the loss of a network whose outputs are 0 */
    double *start;       /* [2 L] ‖W_l‖_F², then σ_1(W_l), of the first step; owned */
    double jt;           /* D */
    double budget;       /* Σ η² ‖g‖² */
    double *squares;     /* [L] Σ η² ‖g_l‖², the layer's learning rate; owned */
    double *columns;     /* [n_{L−1} + 1] 1ᵀ W_L and Σ b_L of the first step; owned */
    struct params *last; /* parameters at the last measurement; owned */
    bool has_last;
    double worst[WORSTS];
};

/* Local. Declares the group and its quantities; fills s->q. */
void balance_declare(struct probe *probe, const struct setting *setting, struct record *record);

/* Local. One value of a quantity that is declared, at a flat index; does nothing for one that is not. */
void balance_put(const struct probe *probe, enum balance_quantity which, int64_t index, double value);

/* Local. The same for integers. */
void balance_put_int(const struct probe *probe, enum balance_quantity which, int64_t index, int64_t value);

/* Local. A deviation from a theorem: the largest stays, and so does a NaN. */
void balance_note(struct balance *s, enum balance_worst which, double value);

/* ---- balance_laws.c */

/* Local. The laws of a network, without their matrices. */
void laws_find(struct balance *s, const struct model *model, bool pairs);

/* Local. Frees them. */
void laws_free(struct balance *s);

/* Collective on the grid. The first step: keeps the matrices. */
void laws_begin(struct balance *s, const struct model *model);

/* Collective on the grid. An update has been made with this gradient, and these are the new weights: brings the ledgers
 * up to date. */
void laws_follow(struct balance *s, const struct model *model, const struct params *gradient, double lr);

/* Collective on the grid. M of all laws that need it, from the samples that the gradient was taken on. */
void laws_look(struct balance *s, const struct moment *moment);

/* Collective on the grid. Measures all laws; state[count] is the caller's, its matrices are to be freed. `flag` [count]
 * gets what is missing. */
void laws_measure(const struct probe *probe, const struct moment *moment, struct law_state *state, int *flag);

/* Collective on the grid. Saves or restores their matrices. */
void laws_archive(struct balance *s, const struct model *model, struct archive *archive);

/* ---- balance_gates.c */

/* Local. The layers with gates; room for what is known of them. */
void gates_create(struct balance *s, const struct model *model, int64_t samples);

/* Local. Frees it. */
void gates_destroy(struct balance *s);

/* Collective on the grid. Looks at the gates of all layers on all samples; with margin not NULL also finds min_i y_i
 * f(x_i) of the only output, y_i = 1 where the target is positive, else −1. */
void gates_look(struct balance *s, const struct moment *moment, double *margin);

/* Local. Whether neuron i of layer l has been open on all samples at every look so far; true in layers without gates.
 */
bool gates_stable(const struct balance *s, int l, int64_t i);

/* Collective on the grid. Puts counts, flips and classes; adds to the layers' flags. */
void gates_measure(const struct probe *probe, const struct moment *moment, int *flag);

/* Collective on the grid. Saves or restores what is known of the gates. */
void gates_archive(struct balance *s, const struct grid *grid, struct archive *archive);

/* ---- balance_layers.c */

/* Collective on the grid. The leading triplets of all layers. */
void layers_solve(const struct probe *probe, const struct model *model);

/* Collective on the grid. ‖A‖₂ of a symmetric matrix; *T is a warm start. */
double layers_norm(const struct probe *probe, const struct dmat *A, struct triplets **T);

/* Collective on the grid. Puts the spectral ratios of the blocks of layers with gates whose neurons have always been
 * open; adds to the layers' flags. */
void layers_blocks(const struct probe *probe, const struct model *model, int *flag);

/* Local. The first step: keeps what bounds refer to. */
void layers_begin(struct balance *s, const struct law_state *state);

/* Local. Puts what concerns single layers, the bounds on their defects, and the alignment of neighbours with its
 * bounds. `flag` [L], `law_flag` [count], `missing` (one) get what is missing. */
void layers_measure(const struct probe *probe, const struct law_state *state, int *flag, int *law_flag, int *missing);

/* Collective on the grid. How far the network as a linear map, and its first singular vector, are from the direction
 * that is known. */
void layers_direction(const struct probe *probe, const struct model *model, int *missing);

/* Local. Frees what layers_solve has made. */
void layers_free(struct balance *s);

#endif
