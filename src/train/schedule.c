#include "train/schedule.h"

#include <math.h>

static double cosine(const struct spec *spec, double lr, int64_t step)
{
    const double warmup = (double)spec_int(spec, "train.schedule.warmup"),
                 final = spec_real(spec, "train.schedule.final");
    const double length = spec_is(spec, "train.schedule.length", "steps")
                              ? (double)spec_int(spec, "train.steps")
                              : (double)spec_int(spec, "train.schedule.length");
    const double at = (double)step;
    if (at < warmup) return lr * (at + 1) / warmup;
    if (at >= length) return final;
    return final + (lr - final) * 0.5 * (1 + cos(M_PI * at / length));
}

double schedule_rate(const struct spec *spec, int64_t step)
{
    double lr = spec_real(spec, "train.lr");
    if (spec_is(spec, "train.schedule.kind", "cosine")) return cosine(spec, lr, step);
    if (spec_is(spec, "train.schedule.kind", "step"))
        for (int i = 0; i < spec_count(spec, "train.schedule.milestones"); i++)
            if (spec_int_at(spec, "train.schedule.milestones", i) <= step)
                lr *= spec_real(spec, "train.schedule.factor");
    return lr;
}
