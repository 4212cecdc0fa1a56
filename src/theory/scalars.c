#include "theory/scalars.h"

#include "base/memory.h"

struct scalars {
    struct rho *rho; /* owned */
    int layers;      /* L */
    int64_t order;   /* d − q */
    double *rate;    /* [L] multiplier of the learning rate, 0 for frozen layers; owned */
    bool *trainable; /* [L] owned */
    double decay, momentum;
};

struct scalars *scalars_create(const struct parsimony *law, const struct model *large, const struct spec *spec,
                               double scale)
{
    struct scalars *s = NEW(struct scalars, 1);
    s->rho = rho_create(law, scale);
    s->layers = large->depth;
    s->order = large->width[0] - law->q;
    s->rate = NEW(double, large->depth);
    s->trainable = NEW(bool, large->depth);
    for (int l = 0; l < large->depth; l++) {
        s->trainable[l] = large->layer[l].trainable;
        s->rate[l] = s->trainable[l] ? large->layer[l].lr_multiplier : 0;
    }
    s->decay = spec_real(spec, "train.weight_decay");
    s->momentum = spec_applies(spec, "train.momentum") ? spec_real(spec, "train.momentum") : 0;
    return s;
}

void scalars_destroy(struct scalars **scalars)
{
    if (!*scalars) return;
    rho_destroy(&(*scalars)->rho);
    memory_free((*scalars)->rate);
    memory_free((*scalars)->trainable);
    memory_free(*scalars);
    *scalars = NULL;
}

void scalars_advance(struct scalars *s, double lr)
{
    rho_step(s->rho, lr, s->rate, s->decay, s->momentum);
}

double scalars_rho(const struct scalars *s, int l)
{
    return l <= s->rho->layers ? s->rho->value[l - 1] : 0;
}

int64_t scalars_order(const struct scalars *s)
{
    return s->order;
}

double scalars_gap(const struct scalars *s)
{
    return s->rho->driven ? (double)s->order * rho_product_squared(s->rho) : 0;
}

double scalars_loss(const struct scalars *s)
{
    return s->rho->scale * scalars_gap(s) / 2;
}

double scalars_gradient(const struct scalars *s)
{
    double sum = 0;
    for (int l = 0; l < s->rho->layers; l++) {
        const double drive = rho_drive(s->rho, l);
        if (s->trainable[l]) sum += (double)s->order * drive * drive;
    }
    return sum;
}

void scalars_archive(struct scalars *s, struct archive *archive)
{
    rho_archive(s->rho, archive);
}
