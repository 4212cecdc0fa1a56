/* krylov_space: the Krylov space of a symmetric operator B = ±A, in a BV of SLEPc, with an account of all its products.
 * Private to the room krylov. */
#ifndef EIGENTRAIN_DIST_KRYLOV_SPACE_H
#define EIGENTRAIN_DIST_KRYLOV_SPACE_H

#include "dist/linop.h"

#include <slepcbv.h>

#include <stdbool.h>
#include <stdint.h>

struct space {
    const struct linop *A; /* borrowed */
    double sign;
    uint64_t seed, stream; /* of random vectors */
    int room;              /* columns of V */
    int count;             /* basis vectors whose products are in H */
    int round;             /* random vectors taken so far */
    BV V;                  /* [nloc × room] the basis, then the next vector; owned */
    Vec x, y;              /* [nloc] work vectors; owned */
    double *H;     /* [room × room] column j: components of B v_j along V, row j + 1 the next vector's; owned */
    double length; /* longest B v_j that was seen */
    bool broken;   /* a product was not finite */
    int64_t products;
};

/* Collective on A->comm. An empty one, with room for so many vectors; its A, sign, seed, stream and room are given. */
void space_create(struct space *s);

/* Collective on A->comm. Frees the work vectors; and the basis. */
void space_destroy_work(struct space *s);

/* Collective on A->comm. Columns from `first` on are not used any more: their memory is free for others. */
void space_forget(struct space *s, int first);

/* Collective on A->comm. See there. */
void space_destroy_basis(struct space *s);

/* Local. Entry of H. */
double *space_entry(const struct space *s, int i, int j);

/* Collective on the communicator of x. Its length. */
double space_norm(Vec x);

/* Collective on A->comm. Column j ← it with length 1. */
void space_normalize(const struct space *s, int j);

/* Collective on A->comm. A Vec over `local` [nloc], which stays the caller's. */
Vec space_vector_over(const struct linop *A, const double *local);

/* Collective on A->comm. along[count] ← Vᵀ x for `count` columns from `first` on. */
void space_components(const struct space *s, int first, int count, Vec x, double *along);

/* Collective on A->comm. x ← V along, likewise. */
void space_combine(const struct space *s, int first, int count, double *along, Vec x);

/* Collective on A->comm. x ← a random vector of length about 1, by global index; each round has numbers of its own. */
void space_random(const struct space *s, int round, Vec x);

/* Collective on A->comm. The next basis vector ← a random one, orthogonal to the basis. */
void space_random_next(struct space *s);

/* Collective on A->comm. y ← B x. */
void space_multiply(struct space *s, Vec x, Vec y);

/* Collective on A->comm. One product: the next vector joins the basis, and what is left of B times it is the next one;
 * a random one where the space is exhausted. Sets `broken` where the product is not finite. */
void space_expand(struct space *s);

/* Collective on A->comm. Eigenpairs of the projection on the n basis vectors from `from` on, descending: theta [n] and
 * Z [n × n], the same on every rank. */
void space_ritz(const struct space *s, int from, double *theta, double *Z);

/* Collective on A->comm. The first `to` columns of V ← V Z, with Z of `from` rows. H is left as it is. */
void space_rotate(const struct space *s, int from, double *Z, int to);

/* Local. H ← diag(theta) of the first `count` vectors, which are Ritz vectors now. */
void space_set_diagonal(struct space *s, int count, const double *theta);

/* Collective on A->comm. y ← V' (H − theta) z for `count` numbers z: (B − theta) V z as it was measured. */
void space_recall(const struct space *s, const double *z, double theta, Vec y);

#endif
