/* dataset: inputs X (d × N) and targets Y (K × N) on the grid, from one of the sources. */
#ifndef EIGENTRAIN_NET_DATASET_H
#define EIGENTRAIN_NET_DATASET_H

#include "base/error.h"
#include "base/spec.h"
#include "dist/dmat.h"

#include <stdbool.h>
#include <stdint.h>

struct sensing;

struct dataset {
    struct dmat *X;          /* d × N, owned; NULL if the input is the identity (then N = d) */
    struct dmat *Y;          /* K × N, owned: the whole target, also where it is not observed */
    struct dmat *M;          /* K × N, 1 where Y is observed and 0 elsewhere, or roots of weights; owned; NULL: all of
                                it is */
    struct sensing *sensing; /* what is known of Y in place of its entries (net/sensing.h), owned; NULL: the entries */
    int64_t features;        /* d */
    int64_t outputs;         /* K; where Y stands for a larger target (train/reduction.h), the larger one's */
    int64_t samples;         /* N: what the loss is divided by */
    int64_t observed;        /* number of entries of M that are not 0, if there is one */
    bool classification;     /* Y is one-hot: accuracy makes sense */
    double constant; /* sum-loss that no weight can change, left out by compression: ½‖Y(I − QᵀQ)‖_F² */
};

/* Both are NULL-able: test is NULL without held-out samples. */
struct data {
    struct dataset *train, *test;
};

/* How much data an input asks for. */
struct data_sizes {
    int64_t features, outputs; /* d, K */
    int64_t train, test;       /* samples; test 0: no held-out ones */
    bool classification;
    bool identity;        /* the input is the identity: there is no X */
    bool masked;          /* the training set has a mask */
    int64_t measurements; /* of the target; 0: its entries are known themselves */
};

/* A source delivers samples in chunks of columns to one rank. Files know how to do nothing else. */
struct source {
    int64_t features, outputs; /* d, K */
    int64_t samples;           /* available */
    bool classification;
    void *state; /* owned by the source */
    /* Root only. The next `count` samples: x[features × count], y[outputs × count], column-major; false with problems.
     */
    bool (*next)(struct source *source, int64_t count, double *x, double *y, struct problems *problems);
    void (*close)(struct source *source); /* Root only */
};

/* Collective on the grid. Loads what `data` of the input asks for, whitened if it says so (the test set by the training
 * set's map). NULL with problems on every rank (EXIT_INPUT or EXIT_ENVIRONMENT). */
struct data *data_create(const struct grid *grid, const struct spec *spec, struct problems *problems);

/* Collective on comm. How much data_create would load: from the input and the heads of files, no samples are read.
 * False with the problems that show in these, on every rank. */
bool data_measure(MPI_Comm comm, const struct spec *spec, struct data_sizes *sizes, struct problems *problems);

/* Local. Bytes of a set of `samples` samples on the rank with the largest share: X, Y, and for the training set mask or
 * measurements; the grid may be on paper only. */
int64_t data_set_bytes(const struct grid *grid, const struct data_sizes *sizes, int64_t samples, bool train);

/* Local. Bytes that data_create takes at its worst moment on the rank with the largest share, beside the sets that it
 * returns; the grid may be on paper only. */
int64_t data_bytes(const struct grid *grid, const struct spec *spec, const struct data_sizes *sizes);

/* Local. Frees both sets and sets *data to NULL. */
void data_destroy(struct data **data);

/* Collective on the grid. For a linear network with squared loss and full batch: replaces X = R Q by R and Y by Y Qᵀ,
 * which costs d columns a step instead of N, exactly (design: `constant` keeps the loss the same). A new dataset; does
 * nothing but return NULL if N ≤ d or X is the identity. `samples` stays N. All of Y must be observed (a bug
 * otherwise): what is masked or measured cannot be turned. */
struct dataset *dataset_compress(const struct dataset *full);

/* Local. Frees and sets to NULL. */
void dataset_destroy(struct dataset **dataset);

/* Root only. Opens the training or the test files of `data.kind: idx` or `fashion_mnist` (gzipped or plain IDX): pixels
 * / 255, one column an image, one-hot classes or signs, all classes or some (data.only, per_class, targets). False with
 * problems: EXIT_ENVIRONMENT for the missing fashion_mnist package, else EXIT_INPUT. */
bool source_open_idx(struct source *source, const struct spec *spec, bool train, struct problems *problems);

/* Root only. The same for `data.kind: cifar10`: its binary files, uncompressed. */
bool source_open_cifar(struct source *source, const struct spec *spec, bool train, struct problems *problems);

/* Local. Standard normal inputs; standard normal targets, or uniformly random classes; or one class after the other,
 * and inputs that are moved by the mean of their class (data.targets: clusters). */
struct dataset *generated_gaussian(const struct grid *grid, const struct spec *spec, bool train);

/* Local. X and Y of `set` ← samples first … first + N − 1 of an endless stream of samples like those of
 * generated_gaussian, but none of them; `set` has its sizes and says whether targets are classes. A function of (seed,
 * first), and a sample does not depend on the others that are asked for. */
void generated_fresh(struct dataset *set, uint64_t seed, uint64_t first);

/* Local. Whether rank, spectrum and observed fraction of a matrix problem are possible; else problems. */
bool matrix_problem_fits(const struct spec *spec, struct problems *problems);

/* Of its leading singular triplets, relative to the first value. */
#define MATRIX_PROBLEM_TOLERANCE 1e-13

/* Collective on the grid. Identity input and a target Y = Φ of rank r: singular triplets of a standard Gaussian matrix,
 * the leading ones, or number 0, d/2r, 2d/2r, … of d = min(rows, cols) (data.spectrum: spread); or by the factors
 * below.
 *   low_rank_matrix     Y itself
 *   matrix_completion   with a mask: round(p·rows·cols) entries drawn without replacement, the same on every grid
 *   matrix_sensing      with measurements ⟨A_k, Φ⟩ */
struct dataset *matrix_problem_create(const struct grid *grid, const struct spec *spec, struct problems *problems);

/* A target Φ = U diag(s) Vᵀ by its factors. */
struct factors {
    int rank;           /* r */
    struct dmat *U, *V; /* rows × r and cols × r, orthonormal columns; owned */
    double *s;          /* [r] owned */
};

/* Collective on the grid. The factors of a target that is defined by them, without anything of its own size:
 *   data.spectrum: given      random U and V of Gaussian matrices, s from data.singular_values
 *   data.spectrum: diagonal   unit vectors, s = r, r − 1, …, 1
 * NULL if it is not. The input has passed matrix_problem_fits. */
struct factors *matrix_problem_factors(const struct grid *grid, const struct spec *spec);

/* Local. Frees them and sets *factors to NULL. */
void factors_destroy(struct factors **factors);

/* Local. Bytes that this takes beside the set itself. */
int64_t matrix_problem_bytes(const struct grid *grid, const struct spec *spec);

/* Local. Whether there are enough features for orthonormal samples; else a problem. */
bool orthogonal_classes_fit(const struct spec *spec, struct problems *problems);

/* Collective on the grid. K classes of n samples each, one class after another, Y one-hot; X has Haar-orthonormal
 * columns (d × nK) plus, with data.noise, a Gaussian matrix of that Frobenius norm. */
struct dataset *orthogonal_classes_create(const struct grid *grid, const struct spec *spec, struct problems *problems);

/* Local. Bytes that this takes beside the set itself. */
int64_t orthogonal_classes_bytes(const struct grid *grid, const struct data_sizes *sizes);

/* Collective on the grid. Subtracts the training inputs' mean from both sets (data.centre). */
void whiten_centre(struct data *data);

/* Collective on the grid. X ← U Vᵀ of its thin SVD without the directions below `floor` times the largest
 * (data.whiten). */
void whiten_apply(struct data *data, double floor);

/* Collective on the grid. Length of the longest column, the same bits on every rank. */
double whiten_longest(const struct dmat *X);

/* Local. Bytes that whitening takes on the rank with the largest share, for d features. */
int64_t whiten_bytes(const struct grid *grid, int64_t d, int64_t train, int64_t test);

#endif
