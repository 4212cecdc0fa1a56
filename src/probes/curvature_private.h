/* curvature_private: the parts of the probe `curvature`. */
#ifndef EIGENTRAIN_PROBES_CURVATURE_PRIVATE_H
#define EIGENTRAIN_PROBES_CURVATURE_PRIVATE_H

#include "net/mixture.h"
#include "net/rop.h"
#include "probes/probe.h"

enum curvature_which { CURVATURE_LARGEST, CURVATURE_SMALLEST, CURVATURE_MAGNITUDE, CURVATURE_BOTH };
enum curvature_of { CURVATURE_TRAIN, CURVATURE_TEST, CURVATURE_BATCH };

/* Why numbers of the eigenspace E_k are missing. */
enum curvature_flag { CURVATURE_FINE, CURVATURE_NO_GAP, CURVATURE_NOT_CONVERGED };

/* How often the loss of the step's data was higher than at the step before. */
struct rises {
    double loss; /* at the last step that was looked at; NaN before the first */
    int64_t updates, rises;
    bool measured; /* that step was looked at by a measurement: its update will show the same loss again */
};

struct curvature {
    enum rop_kind matrix;
    enum curvature_which which;
    enum curvature_of of;
    struct rop_part row, col; /* the same, unless `cross` */
    bool full, cross;         /* the whole matrix; a block off the diagonal */
    int rank, count;          /* k, and the number of values reported */
    int64_t size;             /* rows or columns of the matrix, the lesser number */
    int64_t samples;          /* that it is a mean over; 0: not known (`plan`) */
    struct krylov_options options;
    bool track;
    int64_t reference; /* step */
    double ridge;      /* on the diagonal of the Hessian */
    double decay;      /* of the weights, whatever the matrix */
    double limit;      /* of ηh, at which descent is marginally stable; NaN: not known for the optimizer */

    struct rop *rop;           /* owned; NULL for `plan` */
    struct linop *A;           /* owned; likewise */
    struct eigenpairs *end[2]; /* largest and smallest; owned, NULL if not wanted or not measured yet */
    struct triplets *triplets; /* of a block off the diagonal; likewise */
    enum curvature_flag flag;  /* of the last measurement */
    double *merged;            /* [nloc × k] E_k of the largest in magnitude; owned, NULL: it is that of an end */
    double *merged_value;      /* [2k] with residuals; owned, likewise */
    double *fixed;             /* [nloc × k] E_k at the reference; owned, NULL before there is one */
    struct rises rises;        /* of the loss since the last measurement */
    struct mixture *mixture;   /* whose means live in the space of the block; owned, or NULL */
    bool theory;               /* of bulk and outliers */
    bool means;                /* of classes are followed */

    /* in the record */
    int q_value, q_residual, q_products, q_converged, q_orthogonality, q_gap, q_flag, q_loss;
    int q_rayleigh, q_share, q_full, q_batch, q_update, q_overlap, q_reference;
    int q_sharpness, q_threshold, q_ratio, q_increase, q_trace;
    int q_mean, q_mean_share, q_mean_random;
    int q_weights, q_layers, q_rows, q_columns, q_leading;
    int q_edge, q_outlier, q_outlier_count, q_projection, q_projection_theory, q_leading_theory;
};

/* Local. Whether the quantity of the largest eigenvalue of the training loss belongs to the probe. */
bool curvature_is_sharpness(const struct curvature *s);

/* Local. Rows of the layer of a block, or columns, that are recorded one by one: not those of very wide layers. */
bool curvature_lists(int64_t size);

/* Local. Declares the probe's quantities, curvature_declare.c. */
void curvature_declare(struct curvature *s, struct probe *probe, const struct setting *setting, struct record *record);

/* ---- curvature_space.c */

/* Collective on the grid. Solves for the wanted pairs and puts them into the record; decides whether E_k is defined. */
void curvature_solve(struct curvature *s, struct probe *probe, const struct moment *moment);

/* Collective on the grid. The same for the singular values of a block off the diagonal. */
void curvature_solve_cross(struct curvature *s, struct probe *probe);

/* Local. After the ends have changed: E_k of the largest in magnitude. */
void curvature_merge(struct curvature *s);

/* Local. The vectors of E_k, column after column [nloc × k]. */
const double *curvature_vectors(const struct curvature *s);

/* Local. The k leading values, NaN where not converged. */
const double *curvature_values(const struct curvature *s);

/* Collective on the grid. Shares of the gradients and of the last update in E_k. */
void curvature_gradients(struct curvature *s, struct probe *probe, const struct moment *moment);

/* ---- curvature_means.c */

/* Local. Whether the means of classes in what the block's layer gets are followed. */
bool curvature_has_means(const struct curvature *s, const struct setting *setting);

/* Collective on the grid. How the eigenvectors of the block lie to the class means of `set`. */
void curvature_means(const struct curvature *s, const struct probe *probe, const struct moment *moment,
                     const struct dataset *set);

/* ---- curvature_weights.c */

/* Collective on the grid. Shares of the weights in E_k: layers, or the rows and columns of the block's layer. The
 * matrix is a mean over `samples`. */
void curvature_weights(struct curvature *s, struct probe *probe, const struct moment *moment, int64_t samples);

/* Local. Whether a block is that of a unit of the first layer, where the means of a mixture live. */
bool curvature_sees_means(const struct curvature *s, const struct spec *spec);

/* Local. Whether theory/mixtures knows the bulk and the outliers of this block. */
bool curvature_has_theory(const struct curvature *s, const struct setting *setting);

#endif
