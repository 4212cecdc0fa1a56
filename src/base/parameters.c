/* The one table of parameters: every key of the input file. Its order is the order of `eigentrain keys` and of
 * resolved.yaml. To add a key, add a row here and read it where it is used. */
#include "base/spec.h"

#include <float.h>
#include <math.h>

#define ANY              -DBL_MAX, DBL_MAX, false
#define AT_LEAST(a)      (a), DBL_MAX, false
#define ABOVE(a)         (a), DBL_MAX, true
#define BETWEEN(a, b)    (a), (b), false
#define NO_BOUNDS        0, 0, false
#define ONE              false
#define LIST             true
#define PHYSICS          false
#define CONTROL          true
#define ACTIVATION_WORDS "linear|relu|leaky_relu|tanh|elu|gelu|silu"

/* clang-format off */
const struct parameter parameter_table[] = {
    {"run.name", PARAMETER_TEXT, ONE, "run", NO_BOUNDS, NULL, NULL, NULL, CONTROL, "name of the run; the default run directory is runs/NAME"},
    {"run.seed", PARAMETER_INT, ONE, "1", BETWEEN(0, 9007199254740992.0), NULL, NULL, NULL, PHYSICS, "seed of all random numbers"},

    {"grid.rows", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", NULL, "processes", CONTROL, "process rows; rows × cols is the number of ranks"},
    {"grid.cols", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", NULL, "processes", CONTROL, "process columns"},
    {"grid.block", PARAMETER_INT, ONE, "64", BETWEEN(1, 4096), NULL, NULL, "rows and columns", CONTROL, "block size of the block-cyclic distribution"},
    {"grid.gemm", PARAMETER_CHOICE, ONE, "panel", NO_BOUNDS, "panel|pdgemm", NULL, NULL, CONTROL, "route of distributed products: gather panels and multiply locally, or PBLAS"},

    {"data.kind", PARAMETER_CHOICE, ONE, NULL, NO_BOUNDS, "fashion_mnist|idx|hdf5|gaussian|gaussian_mixture|xor_mixture|binary_mixture|orthogonal_classes|low_rank_matrix|matrix_completion|matrix_sensing", NULL, NULL, PHYSICS, "where inputs and targets come from"},
    {"data.path", PARAMETER_TEXT, ONE, "/usr/share/datasets/fashion-mnist", NO_BOUNDS, NULL, "kind=fashion_mnist", NULL, CONTROL, "folder with the four gzipped IDX files (Debian: dataset-fashion-mnist)"},
    {"data.train_images", PARAMETER_TEXT, ONE, NULL, NO_BOUNDS, NULL, "kind=idx", NULL, CONTROL, "IDX file of training images, plain or gzipped"},
    {"data.train_labels", PARAMETER_TEXT, ONE, NULL, NO_BOUNDS, NULL, "kind=idx", NULL, CONTROL, "IDX file of training labels"},
    {"data.test_images", PARAMETER_TEXT, ONE, "none", NO_BOUNDS, NULL, "kind=idx", NULL, CONTROL, "IDX file of test images"},
    {"data.test_labels", PARAMETER_TEXT, ONE, "none", NO_BOUNDS, NULL, "kind=idx", NULL, CONTROL, "IDX file of test labels"},
    {"data.classes", PARAMETER_INT, ONE, "10", BETWEEN(1, 1048576), NULL, "kind=fashion_mnist|idx", "classes", PHYSICS, "number of classes; labels are 0 … classes − 1"},
    {"data.classes", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=orthogonal_classes", "classes", PHYSICS, "number of classes K, one after another in the samples"},
    {"data.classes", PARAMETER_INT, ONE, NULL, BETWEEN(2, 1048576), NULL, "kind=gaussian_mixture", "classes", PHYSICS, "number of classes k; the mean of class b is the b-th unit vector"},
    {"data.per_class", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=orthogonal_classes", "samples", PHYSICS, "samples n of each class; the K·n inputs are orthonormal, so they are at most as many as features"},
    {"data.file", PARAMETER_TEXT, ONE, NULL, NO_BOUNDS, NULL, "kind=hdf5", NULL, CONTROL, "HDF5 file with datasets X (features × samples) and Y (outputs × samples); X_test and Y_test if there are any; without X the input is the identity; with a mask M of zeros and ones (outputs × samples; M_test) only those entries of Y are observed"},
    {"data.targets", PARAMETER_CHOICE, ONE, "values", NO_BOUNDS, "values|classes", "kind=hdf5", NULL, PHYSICS, "whether Y holds values or one-hot classes (accuracy is reported)"},
    {"data.features", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=gaussian|gaussian_mixture|xor_mixture|binary_mixture|orthogonal_classes", "1", PHYSICS, "entries of an input"},
    {"data.lambda", PARAMETER_REAL, ONE, NULL, ABOVE(0), "infinite", "kind=gaussian_mixture|xor_mixture|binary_mixture", "1", PHYSICS, "inverse variance λ of a cluster: inputs are its mean plus N(0, I/λ); infinite: the means themselves"},
    {"data.weights", PARAMETER_REAL, LIST, "equal", ABOVE(0), "equal", "kind=gaussian_mixture", "1", PHYSICS, "relative probabilities of the classes, one a class"},
    {"data.counts", PARAMETER_CHOICE, ONE, "random", NO_BOUNDS, "random|equal", "kind=gaussian_mixture|xor_mixture|binary_mixture", NULL, PHYSICS, "clusters of the training and test samples: random; or, equally often, one after another (fresh samples of train.online are always random)"},
    {"data.outputs", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=gaussian", "1", PHYSICS, "entries of a target, or number of classes"},
    {"data.targets", PARAMETER_CHOICE, ONE, "values", NO_BOUNDS, "values|classes", "kind=gaussian", NULL, PHYSICS, "standard normal targets, or uniformly random one-hot classes"},
    {"data.rows", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=low_rank_matrix|matrix_completion|matrix_sensing", "1", PHYSICS, "rows of the target matrix"},
    {"data.cols", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=low_rank_matrix|matrix_completion|matrix_sensing", "1", PHYSICS, "columns of the target matrix; the input is the identity"},
    {"data.rank", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=low_rank_matrix|matrix_completion|matrix_sensing", "1", PHYSICS, "rank r of the target: so many singular triplets of a standard Gaussian matrix (see `spectrum`)"},
    {"data.spectrum", PARAMETER_CHOICE, ONE, "leading", NO_BOUNDS, "leading|spread|diagonal|given", "kind=low_rank_matrix|matrix_completion|matrix_sensing", NULL, PHYSICS, "which triplets: the leading ones; or number 0, d/2r, 2d/2r, … of d = min(rows, cols), rounded down; or, instead of a Gaussian matrix, one with r, r − 1, …, 1 on its diagonal; or given: `singular_values` between Haar-random singular vectors, for which nothing of the target's size is needed"},
    {"data.singular_values", PARAMETER_REAL, LIST, NULL, ABOVE(0), NULL, "spectrum=given", "1", PHYSICS, "the r singular values of the target"},
    {"data.observed", PARAMETER_REAL, ONE, NULL, 0, 1, true, NULL, "kind=matrix_completion", "1", PHYSICS, "fraction p of the target's entries that are observed: exactly round(p·rows·cols) of them, drawn without replacement"},
    {"data.measurements", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=matrix_sensing", "measurements", PHYSICS, "number m of measurements ⟨A_k, Φ⟩ of the target, A_k with standard normal entries"},
    {"data.train", PARAMETER_INT, ONE, "all", AT_LEAST(1), "all", "kind=fashion_mnist|idx", "samples", PHYSICS, "training samples, in file order"},
    {"data.train", PARAMETER_INT, ONE, NULL, BETWEEN(1, 2147483647), NULL, "kind=gaussian|gaussian_mixture|xor_mixture|binary_mixture", "samples", PHYSICS, "training samples"},
    {"data.test", PARAMETER_INT, ONE, "all", AT_LEAST(0), "all", "kind=fashion_mnist|idx", "samples", PHYSICS, "held-out samples, in file order"},
    {"data.test", PARAMETER_INT, ONE, "0", BETWEEN(0, 2147483647), NULL, "kind=gaussian|gaussian_mixture|xor_mixture|binary_mixture", "samples", PHYSICS, "held-out samples"},
    {"data.noise", PARAMETER_REAL, ONE, "0", AT_LEAST(0), NULL, "kind=orthogonal_classes", "1", PHYSICS, "Frobenius norm of a Gaussian matrix that is added to the inputs"},
    {"data.centre", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, "kind=fashion_mnist|idx|hdf5|gaussian", NULL, PHYSICS, "subtract the training inputs' mean from all inputs"},
    {"data.whiten", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, "kind=fashion_mnist|idx|hdf5|gaussian", NULL, PHYSICS, "replace X by the orthogonal factor U Vᵀ of its thin SVD, so that X Xᵀ = I; the test inputs get the same linear map"},
    {"data.whiten_floor", PARAMETER_REAL, ONE, "1e-5", BETWEEN(1e-7, 1), NULL, "whiten=true", "1", PHYSICS, "singular directions of X below this fraction of the largest are set to zero instead of being blown up"},
    {"data.scale", PARAMETER_REAL, ONE, "1", ABOVE(0), NULL, "kind=gaussian", "1", PHYSICS, "factor of all inputs, after centring and whitening"},

    {"model.widths", PARAMETER_INT, LIST, "auto", BETWEEN(1, 2147483647), "auto", NULL, "1", PHYSICS, "all widths n_0 … n_L; auto: n_0 and n_L from the data, `width` in between"},
    {"model.width", PARAMETER_INT, ONE, "auto", BETWEEN(1, 2147483647), "auto", NULL, "1", PHYSICS, "width of every hidden layer, with `depth`; not together with `widths`"},
    {"model.depth", PARAMETER_INT, ONE, "auto", BETWEEN(1, 1000000), "auto", NULL, "layers", PHYSICS, "number of weight matrices; not together with `widths`"},
    {"model.activation", PARAMETER_CHOICE, ONE, "gelu", NO_BOUNDS, ACTIVATION_WORDS, NULL, NULL, PHYSICS, "entrywise, after every layer but the last"},
    {"model.linear_head", PARAMETER_INT, ONE, "0", AT_LEAST(0), NULL, NULL, "layers", PHYSICS, "so many last layers without activation (the last never has one)"},
    {"model.bias", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, NULL, NULL, PHYSICS, "a bias in every layer, started at zero"},
    {"model.output_scale", PARAMETER_REAL, ONE, "1", ABOVE(0), NULL, NULL, "1", PHYSICS, "factor α of the outputs: f(X) = α W_L a_{L−1}"},
    {"model.residual", PARAMETER_CHOICE, ONE, "none", NO_BOUNDS, "none|pairs|scaled", NULL, NULL, PHYSICS, "pairs: x + B φ(A x) for layers (2,3), (4,5), …; scaled: x + φ(W x)/depth for square layers"},
    {"model.trainable", PARAMETER_INT, LIST, "all", BETWEEN(1, 1000000), "all", NULL, "layers", PHYSICS, "the layers that are trained, counted from 1; the others are frozen"},
    {"model.lr_multiplier", PARAMETER_REAL, LIST, "1", AT_LEAST(0), NULL, NULL, "1", PHYSICS, "factor of the learning rate, one for all layers or one a layer"},
    {"model.parametrization", PARAMETER_CHOICE, ONE, "full", NO_BOUNDS, "full|compressed", NULL, NULL, PHYSICS, "compressed: train the small network of the law of parsimony in place of the large one, exact by the theorem; what is reported is the large network's"},
    {"model.rank", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", "parametrization=compressed", "1", PHYSICS, "rank r of the target: the small network has widths of at most 2r; auto: data.rank, or the number of outputs if that is smaller than half the width"},
    {"model.init.kind", PARAMETER_CHOICE, ONE, "orthogonal", NO_BOUNDS, "orthogonal|householder|identity|gaussian|uniform|file", NULL, NULL, PHYSICS, "start of the weights; householder: orthogonal, a product of random reflections, which takes no memory in a compressed run; identity: ones on the diagonal"},
    {"model.init.reflections", PARAMETER_INT, ONE, "16", BETWEEN(1, 100000), NULL, "kind=householder", "reflections", PHYSICS, "Householder reflections in each orthogonal matrix, with random signs between them"},
    {"model.init.scale", PARAMETER_REAL, LIST, "1", ABOVE(0), NULL, "kind=orthogonal|householder|identity|gaussian|uniform", "1", PHYSICS, "scale ε, one for all layers or one a layer"},
    {"model.init.gain", PARAMETER_CHOICE, ONE, "fan_in", NO_BOUNDS, "none|fan_in|orthogonal", "kind=gaussian|uniform", NULL, PHYSICS, "standard deviation of an entry: ε; ε/√n_in; or so that the Frobenius norm is that of `orthogonal` in expectation"},
    {"model.init.file", PARAMETER_TEXT, ONE, NULL, NO_BOUNDS, NULL, "kind=file", NULL, CONTROL, "HDF5 file with datasets W1 … WL, and b1 … bL with biases; a snapshot is one"},

    {"loss.kind", PARAMETER_CHOICE, ONE, "mse", NO_BOUNDS, "mse|masked_mse|sensing|cross_entropy|logistic", NULL, NULL, PHYSICS, "½ squared error of all entries, of the observed ones, or of the measurements; softmax cross-entropy; or log(1 + e^f) − y f of every output, y between 0 and 1"},
    {"loss.reduction", PARAMETER_CHOICE, ONE, "mean", NO_BOUNDS, "sum|mean|samples", "kind=mse|cross_entropy|logistic", NULL, PHYSICS, "divide the sum by 1; by the number of terms (outputs × samples for mse and logistic, samples for cross_entropy); by the number of samples"},
    {"loss.reduction", PARAMETER_CHOICE, ONE, "mean", NO_BOUNDS, "sum|mean|samples|observed", "kind=masked_mse", NULL, PHYSICS, "divide the sum by 1; by all entries, outputs × samples, whatever the mask; by the number of samples; by the number of observed entries"},
    {"loss.reduction", PARAMETER_CHOICE, ONE, "mean", NO_BOUNDS, "sum|mean", "kind=sensing", NULL, PHYSICS, "divide the sum by 1, or by the number of measurements"},

    {"train.optimizer", PARAMETER_CHOICE, ONE, "gd", NO_BOUNDS, "gd|sgd|momentum|adam|rmsprop", NULL, NULL, PHYSICS, "update rule; gd takes the full batch, sgd needs `batch`"},
    {"train.lr", PARAMETER_REAL, ONE, "0.1", ABOVE(0), NULL, NULL, "1", PHYSICS, "learning rate η"},
    {"train.weight_decay", PARAMETER_REAL, ONE, "0", AT_LEAST(0), NULL, NULL, "1", PHYSICS, "decoupled weight decay λ: W ← (1 − ηλ) W − η·direction, weights and biases"},
    {"train.momentum", PARAMETER_REAL, ONE, "0.9", BETWEEN(0, 0.999999999), NULL, "optimizer=momentum", "1", PHYSICS, "μ in v ← μ v + g"},
    {"train.beta1", PARAMETER_REAL, ONE, "0.9", BETWEEN(0, 0.999999999), NULL, "optimizer=adam", "1", PHYSICS, "decay of the first moment"},
    {"train.beta2", PARAMETER_REAL, ONE, "0.999", BETWEEN(0, 0.999999999), NULL, "optimizer=adam|rmsprop", "1", PHYSICS, "decay of the second moment"},
    {"train.epsilon", PARAMETER_REAL, ONE, "1e-8", ABOVE(0), NULL, "optimizer=adam|rmsprop", "1", PHYSICS, "ε in g/(√v + ε)"},
    {"train.schedule.kind", PARAMETER_CHOICE, ONE, "constant", NO_BOUNDS, "constant|cosine|step", NULL, NULL, PHYSICS, "how the learning rate changes"},
    {"train.schedule.final", PARAMETER_REAL, ONE, "0", AT_LEAST(0), NULL, "kind=cosine", "1", PHYSICS, "learning rate at the end"},
    {"train.schedule.length", PARAMETER_INT, ONE, "steps", AT_LEAST(1), "steps", "kind=cosine", "steps", PHYSICS, "steps until the final rate; default train.steps"},
    {"train.schedule.warmup", PARAMETER_INT, ONE, "0", AT_LEAST(0), NULL, "kind=cosine", "steps", PHYSICS, "steps of linear increase at the start"},
    {"train.schedule.milestones", PARAMETER_INT, LIST, NULL, AT_LEAST(0), NULL, "kind=step", "steps", PHYSICS, "steps at which the rate is multiplied by `factor`"},
    {"train.schedule.factor", PARAMETER_REAL, ONE, "0.1", ABOVE(0), NULL, "kind=step", "1", PHYSICS, "factor at each milestone"},
    {"train.batch", PARAMETER_INT, ONE, "full", AT_LEAST(1), "full", NULL, "samples", PHYSICS, "samples a step, drawn without replacement in each epoch (the incomplete last batch is left out)"},
    {"train.online", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, NULL, NULL, PHYSICS, "each step draws `batch` fresh samples from the generator (data.kind: gaussian or a mixture) instead of a batch of the training set"},
    {"train.microbatch", PARAMETER_INT, ONE, "all", AT_LEAST(1), "all", NULL, "samples", CONTROL, "samples processed at a time, to bound memory; rounded up to a multiple of block × process columns"},
    {"train.compress", PARAMETER_BOOL, ONE, "true", NO_BOUNDS, NULL, NULL, NULL, PHYSICS, "train a linear network with squared loss on the d × d factor R of X = R Q (same trajectory, fewer columns) where it applies"},
    {"train.steps", PARAMETER_INT, ONE, "100", AT_LEAST(0), NULL, NULL, "steps", CONTROL, "number of updates"},
    {"train.tolerance", PARAMETER_REAL, ONE, "0", AT_LEAST(0), NULL, NULL, "loss", PHYSICS, "stop when the training loss falls below; 0: never"},
    {"train.evaluate_every", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", NULL, "steps", CONTROL, "steps between evaluations of accuracy and test loss; auto: a fiftieth of the steps"},

    {"probes[].kind", PARAMETER_CHOICE, ONE, NULL, NO_BOUNDS, "spectrum|subspace|invariant|collapse|mixture", NULL, NULL, PHYSICS, "what is measured"},
    {"probes[].name", PARAMETER_TEXT, ONE, "auto", NO_BOUNDS, NULL, NULL, NULL, PHYSICS, "its group in metrics.h5; auto: the kind, and what it is `of` unless that is weights"},
    {"probes[].every", PARAMETER_INT, ONE, "10", AT_LEAST(1), NULL, NULL, "steps", PHYSICS, "steps between measurements; the last step is always measured"},
    {"probes[].of", PARAMETER_CHOICE, ONE, "weights", NO_BOUNDS, "weights|gradient|update|product", "kind=spectrum", NULL, PHYSICS, "matrices: W_l; gradient by W_l; last change of W_l; end-to-end product W_L … W_1"},
    {"probes[].of", PARAMETER_CHOICE, ONE, "weights", NO_BOUNDS, "weights|gradient|update", "kind=subspace", NULL, PHYSICS, "matrices whose singular subspaces are followed"},
    {"probes[].rank", PARAMETER_INT, ONE, "10", AT_LEAST(1), "full", "kind=spectrum", "1", PHYSICS, "leading singular values, by Krylov iteration; full: all of them"},
    {"probes[].rank", PARAMETER_INT, ONE, "5", AT_LEAST(1), NULL, "kind=subspace", "1", PHYSICS, "dimension k of the leading singular subspaces"},
    {"probes[].rank", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", "kind=invariant", "1", PHYSICS, "rank r of the target; auto: data.rank, or the number of outputs if that is smaller than the width"},
    {"probes[].case", PARAMETER_CHOICE, ONE, "auto", NO_BOUNDS, "auto|square|outputs|gradient", "kind=invariant", NULL, PHYSICS, "which statement of the law: square layers and target; few outputs; or, for any loss, subspaces from the first gradient"},
    {"probes[].full", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, "kind=invariant", NULL, PHYSICS, "also measure how many singular values equal rho, and the angles of the singular vectors (full SVD of every layer)"},
    {"probes[].full", PARAMETER_BOOL, ONE, "false", NO_BOUNDS, NULL, "kind=collapse", NULL, PHYSICS, "also measure the range of the middle singular values (full spectrum of every layer) and the distance of a linear network from the solution of minimum norm"},
    {"probes[].reference", PARAMETER_INT, ONE, "0", AT_LEAST(0), NULL, "kind=subspace", "steps", PHYSICS, "angles are taken to the first measurement at or after this step whose subspaces are well defined"},
    {"probes[].tolerance", PARAMETER_REAL, ONE, "1e-10", BETWEEN(1e-15, 0.1), NULL, "kind=spectrum|subspace", "1", PHYSICS, "residual of a singular triplet relative to the largest singular value"},
    {"probes[].max_products", PARAMETER_INT, ONE, "20000", AT_LEAST(10), NULL, "kind=spectrum|subspace", "products", PHYSICS, "products with a matrix after which an iteration gives up; what has not converged is NaN and counted"},

    {"twins[].kind", PARAMETER_CHOICE, ONE, NULL, NO_BOUNDS, "compressed|narrow", NULL, NULL, PHYSICS, "a small network trained in lockstep beside the large one: that of the law of parsimony, or a random one of small width"},
    {"twins[].name", PARAMETER_TEXT, ONE, "auto", NO_BOUNDS, NULL, NULL, NULL, PHYSICS, "its group in metrics.h5; auto: the kind"},
    {"twins[].every", PARAMETER_INT, ONE, "1", AT_LEAST(1), NULL, NULL, "steps", PHYSICS, "steps between comparisons with the large network; the last step is always compared"},
    {"twins[].rank", PARAMETER_INT, ONE, "auto", AT_LEAST(1), "auto", NULL, "1", PHYSICS, "r: the twin has widths of about 2r; auto: data.rank, or the number of outputs if that is smaller than the width"},
    {"twins[].width", PARAMETER_INT, ONE, "auto", BETWEEN(1, 2147483647), "auto", "kind=narrow", "1", PHYSICS, "width of its hidden layers; auto: 2 × rank"},
    {"twins[].basis", PARAMETER_CHOICE, ONE, "law", NO_BOUNDS, "law|target", "kind=compressed", NULL, PHYSICS, "outer factors: the law's moving subspaces, beside as many layers as the network has; target: its leading 2 × rank singular vectors take the place of the first and the last layer"},
    {"twins[].case", PARAMETER_CHOICE, ONE, "auto", NO_BOUNDS, "auto|square|outputs|gradient", "basis=law", NULL, PHYSICS, "which statement of the law: square layers and target; few outputs; or, for any loss, subspaces from the first gradient"},
    {"twins[].outer_lr", PARAMETER_REAL, ONE, "0", AT_LEAST(0), NULL, "kind=compressed", "1", PHYSICS, "factor of the learning rate for the outer factors; 0: they are frozen"},
    {"twins[].tolerance", PARAMETER_REAL, ONE, "auto", AT_LEAST(0), "auto", NULL, "loss", PHYSICS, "train the twin no further when its loss falls below, and note when the large network's does; auto: train.tolerance"},

    {"snapshot.every", PARAMETER_INT, ONE, "never", AT_LEAST(1), "never|end", NULL, "steps", CONTROL, "steps between snapshots; end: only the last step"},
    {"snapshot.weights", PARAMETER_BOOL, ONE, "true", NO_BOUNDS, NULL, NULL, NULL, CONTROL, "snapshots hold the weights and biases"},
    {"snapshot.vectors", PARAMETER_BOOL, ONE, "true", NO_BOUNDS, NULL, NULL, NULL, CONTROL, "snapshots hold the singular vectors that the probes measured last"},

    {"checkpoint.every", PARAMETER_INT, ONE, "never", AT_LEAST(1), "never", NULL, "steps", CONTROL, "steps between checkpoints"},
    {"checkpoint.minutes", PARAMETER_REAL, ONE, "30", ABOVE(0), "never", NULL, "minutes", CONTROL, "wall-clock time after which a checkpoint is written in any case"},
    {"checkpoint.end", PARAMETER_BOOL, ONE, "true", NO_BOUNDS, NULL, NULL, NULL, CONTROL, "write one when the last step is reached, so that a finished run can be prolonged (more train.steps and --resume)"},
    {"checkpoint.keep", PARAMETER_INT, ONE, "2", BETWEEN(1, 1000), NULL, NULL, "checkpoints", CONTROL, "the newest so many stay"},

    {NULL, PARAMETER_INT, ONE, NULL, NO_BOUNDS, NULL, NULL, NULL, false, NULL},
};
/* clang-format on */
