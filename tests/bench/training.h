/* training: an input, and what a step of training of it works on, for the benchmark programs. */
#ifndef EIGENTRAIN_TESTS_BENCH_TRAINING_H
#define EIGENTRAIN_TESTS_BENCH_TRAINING_H

#include "base/error.h"
#include "base/memory.h"
#include "base/spec.h"
#include "net/backprop.h"
#include "train/batches.h"
#include "train/low_rank.h"
#include "train/optimizer.h"

#include <stdio.h>

struct training {
    struct data *data;
    struct batches *batches;
    struct model *model;
    struct backprop *backprop;
    struct params *gradient;
    struct optimizer *optimizer;
    double loss;
    int64_t steps; /* made */
};

/* Local. Columns at a time that the input asks for; 0: all. */
static inline int64_t training_chunk(const struct spec *spec)
{
    return spec_is(spec, "train.microbatch", "all") ? 0 : spec_int(spec, "train.microbatch");
}

/* Collective on the grid. False with problems if it cannot be. */
static inline bool training_create(struct training *t, const struct grid *grid, const struct spec *spec,
                                   struct problems *problems)
{
    const struct loss loss = loss_of(spec);
    t->data = data_create(grid, spec, problems);
    if (!t->data) return false;
    const struct dataset *train = t->data->train;
    t->model = model_is_low_rank(spec) ? low_rank_create(grid, spec, train, &loss, problems)
                                       : model_create(grid, spec, train->features, train->outputs, problems);
    if (t->model) t->batches = batches_create(train, t->model, spec, problems);
    if (!t->batches) return false;
    t->backprop = backprop_create(t->model, &loss, batches_columns(t->batches), training_chunk(spec));
    t->gradient = params_create(t->model);
    t->optimizer = optimizer_create(t->model, spec);
    return true;
}

/* Collective on the grid. */
static inline void training_destroy(struct training *t)
{
    optimizer_destroy(&t->optimizer);
    params_destroy(&t->gradient);
    backprop_destroy(&t->backprop);
    batches_destroy(&t->batches);
    model_destroy(&t->model);
    data_destroy(&t->data);
}

/* Collective on the grid. As trainer.c does it: one sum a step, of the loss, the squared norm and three wishes to stop.
 */
static inline void training_step(struct training *t)
{
    const struct dataset *batch = batches_at(t->batches, t->steps++);
    double sums[5] = {backprop_gradient(t->backprop, t->model, batch, t->gradient)};
    for (int64_t i = 0; i < t->gradient->size; i++) sums[1] += t->gradient->local[i] * t->gradient->local[i];
    grid_sum(t->model->grid, sums, 5);
    t->loss = sums[0];
    optimizer_step(t->optimizer, t->model, t->gradient, 1e-6);
}

/* Several steps in one measurement. */
struct training_steps {
    struct training training;
    int times;
};

/* Collective on the grid. For bench_time; the context is a struct training_steps. */
static inline void training_run(void *context)
{
    struct training_steps *s = context;
    for (int i = 0; i < s->times; i++) training_step(&s->training);
}

/* Collective on MPI_COMM_WORLD. Says what is wrong with the input, and ends the program. */
static inline int training_refuse(const struct problems *problems)
{
    problems_print(problems);
    MPI_Abort(MPI_COMM_WORLD, EXIT_INPUT);
    return EXIT_INPUT;
}

/* Local. The input file that argv[1] names, with the changes KEY=VALUE behind it, `more` first; NULL with problems. */
static inline struct spec *training_input(int argc, char **argv, int changes, const char *const *more,
                                          struct problems *problems)
{
    enum { LONGEST = 1 << 16, MOST = 64 };
    const char *sets[MOST];
    int count = 0;
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    if (!file || argc + changes > MOST) {
        problems_add(problems, EXIT_INPUT, "%s INPUT [KEY=VALUE]…: no such input", argv[0]);
        return NULL;
    }
    char *text = NEW(char, LONGEST);
    const size_t length = fread(text, 1, LONGEST, file);
    fclose(file);
    for (int i = 0; i < changes; i++) sets[count++] = more[i];
    for (int i = 2; i < argc; i++) sets[count++] = argv[i];
    struct spec *spec = spec_read(text, length, argv[1], count, sets, problems);
    memory_free(text);
    return spec;
}

#endif
