/* What reduction.c (how the small network is made) and reduction_output.c (what is recorded and written) share. */
#ifndef EIGENTRAIN_TRAIN_REDUCTION_PRIVATE_H
#define EIGENTRAIN_TRAIN_REDUCTION_PRIVATE_H

#include "theory/parsimony.h"
#include "theory/scalars.h"
#include "train/reduction.h"

struct reduction {
    struct model *large;     /* the large network, without parameters; owned */
    struct parsimony *law;   /* owned */
    struct scalars *scalars; /* owned */
    double small_loss;       /* of the current step */
    double orthogonality;    /* ‖VᵀV − I‖_F of the worst basis, at the start */
    double missed;           /* relative difference of the target's norm and of what the bases hold of it */

    struct record_group *group; /* borrowed from the record */
    int q_loss, q_gap, q_rho, q_rest, q_value, q_product, q_copies, q_balance, q_order;
};

#endif
