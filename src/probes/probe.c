#include "probes/probe.h"

#include "base/memory.h"
#include "base/timer.h"

#include <stdio.h>
#include <string.h>

/* All kinds of probe. To add one: write src/probes/NAME.c with its table, list it here, add its keys to parameters.c.
 */
extern const struct probe_kind probe_spectrum, probe_subspace, probe_invariant, probe_collapse, probe_mixture,
    probe_curvature, probe_blocks, probe_density, probe_classes, probe_flow, probe_pruning, probe_balance;
static const struct probe_kind *const kinds[] = {&probe_spectrum, &probe_subspace,  &probe_invariant, &probe_collapse,
                                                 &probe_mixture,  &probe_curvature, &probe_blocks,    &probe_density,
                                                 &probe_classes,  &probe_flow,      &probe_pruning,   &probe_balance};

static const char *const of_words[] = {"weights", "gradient", "update", "product"};

enum probe_of probe_of(const char *word)
{
    for (int i = 0; i < 4; i++)
        if (strcmp(word, of_words[i]) == 0) return (enum probe_of)i;
    bug("a probe cannot be of '%s'", word);
}

const char *probe_of_word(enum probe_of of)
{
    return of_words[of];
}

double probe_bulk(enum probe_of of)
{
    return of == PROBE_OF_WEIGHTS ? 0.5 : 0;
}

const struct dmat *probe_matrix(const struct moment *moment, enum probe_of of, int l, struct dmat **owned)
{
    *owned = NULL;
    if (of == PROBE_OF_WEIGHTS) return moment->model->params->W[l - 1];
    if (of == PROBE_OF_GRADIENT) return moment->gradient->W[l - 1];
    ensure(of == PROBE_OF_UPDATE);
    if (!moment->previous) return NULL;
    const struct dmat *W = moment->model->params->W[l - 1];
    *owned = dmat_create(W->grid, W->m, W->n);
    dmat_copy(*owned, W);
    dmat_axpy(*owned, -1, moment->previous->W[l - 1]);
    return *owned;
}

void probe_write_triplets(const struct triplets *T, struct h5 *file, const char *group, int l)
{
    char path[256], index[64];
    const char *dims[1] = {index};
    const int64_t size = T->rank;
    snprintf(index, sizeof index, "index_%d", l);
    h5_group(file, group);
    snprintf(path, sizeof path, "%s/%s", group, index);
    h5_dimension(file, path, T->rank, NULL, &(struct h5_about){.units = "1", .long_name = "singular value"});
    snprintf(path, sizeof path, "%s/singular_value_%d", group, l);
    h5_write_reals(file, path, 1, dims, &size, T->sigma,
                   &(struct h5_about){.units = "1", .long_name = "singular value, NaN if not converged"});
    snprintf(path, sizeof path, "%s/left_%d", group, l);
    h5_write_vectors(file, path, NULL, index, T->m, T->rank, T->mloc, T->row, T->left,
                     &(struct h5_about){.units = "1", .long_name = "left singular vectors, one a column"});
    snprintf(path, sizeof path, "%s/right_%d", group, l);
    h5_write_vectors(file, path, NULL, index, T->n, T->rank, T->nloc, T->col, T->right,
                     &(struct h5_about){.units = "1", .long_name = "right singular vectors, one a column"});
}

static const struct probe_kind *kind_called(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(name, kinds[i]->name) == 0) return kinds[i];
    bug("no probe is called '%s'", name);
}

/* The group in metrics.h5: the given name, or the kind and what it is of, unless that is the usual thing. */
static char *group_name(const struct spec *spec, const char *key)
{
    char path[128];
    snprintf(path, sizeof path, "%s.name", key);
    if (!spec_is(spec, path, "auto")) return memory_text("%s", spec_text(spec, path));
    snprintf(path, sizeof path, "%s.kind", key);
    const char *kind = spec_text(spec, path);
    snprintf(path, sizeof path, "%s.of", key);
    if (!spec_applies(spec, path) || spec_is(spec, path, "weights") || spec_is(spec, path, "train"))
        return memory_text("%s", kind);
    return memory_text("%s_%s", kind, spec_text(spec, path));
}

static bool name_is_free(const struct probes *probes, const char *name)
{
    static const char *const reserved[] = {"train", "checks", "timing", "provenance"};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcmp(name, reserved[i]) == 0) return false;
    for (int i = 0; i < probes->count; i++)
        if (strcmp(name, probes->probe[i].name) == 0) return false;
    return name[0] != '\0' &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(name);
}

struct probes *probes_create(const struct setting *setting, struct record *record, struct problems *problems)
{
    const struct spec *spec = setting->spec;
    struct probes *probes = NEW(struct probes, 1);
    const int count = spec_count(spec, "probes");
    probes->probe = NEW(struct probe, count);
    for (int i = 0; i < count; i++) {
        char key[64], path[128];
        snprintf(key, sizeof key, "probes[%d]", i);
        char *name = group_name(spec, key);
        if (!name_is_free(probes, name)) {
            snprintf(path, sizeof path, "%s.name", key);
            spec_problem(spec, problems, path,
                         "'%s' is taken or not allowed: give each probe a name of its own, of letters, digits, _ and -",
                         name);
            memory_free(name);
            continue;
        }
        struct probe *probe = &probes->probe[probes->count++];
        snprintf(path, sizeof path, "%s.kind", key);
        probe->kind = kind_called(spec_text(spec, path));
        probe->name = name;
        probe->key = memory_text("%s", key);
        probe->seed = (uint64_t)spec_int(spec, "run.seed");
        snprintf(path, sizeof path, "%s.every", key);
        probe->every = spec_int(spec, path);
        snprintf(path, sizeof path, "%s.start", key);
        probe->start = spec_int(spec, path);
        probe->kind->create(probe, setting, record, problems);
    }
    if (!problems_none(problems, setting->model->grid->comm)) probes_destroy(&probes);
    return probes;
}

void probes_destroy(struct probes **probes)
{
    if (!*probes) return;
    for (int i = 0; i < (*probes)->count; i++) {
        struct probe *probe = &(*probes)->probe[i];
        if (probe->state) probe->kind->destroy(probe);
        memory_free(probe->name);
        memory_free(probe->key);
    }
    memory_free((*probes)->probe);
    memory_free(*probes);
    *probes = NULL;
}

bool probe_due(const struct probe *probe, int64_t step, bool last)
{
    return last || (step >= probe->start && (step - probe->start) % probe->every == 0);
}

bool probes_need_previous(const struct probes *probes, int64_t step, bool last)
{
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].needs_previous && probe_due(&probes->probe[i], step, last)) return true;
    return false;
}

void probes_measure(struct probes *probes, const struct moment *moment, bool last, struct record *record)
{
    for (int i = 0; i < probes->count; i++) {
        struct probe *probe = &probes->probe[i];
        if (probe->kind->look) probe->kind->look(probe, moment);
        if (!probe_due(probe, moment->step, last)) continue;
        record_row(probe->group, moment->step, moment->time);
        probe->kind->measure(probe, moment, record);
    }
}

void probes_advance(struct probes *probes, double lr, double loss)
{
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].kind->advance) probes->probe[i].kind->advance(&probes->probe[i], lr, loss);
}

void probes_follow(struct probes *probes, const struct model *model, const struct params *gradient, double lr)
{
    const double since = timer_now();
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].kind->follow) probes->probe[i].kind->follow(&probes->probe[i], model, gradient, lr);
    timer_add(TIMER_PROBES, since);
}

void probes_check(const struct probes *probes, struct record *record)
{
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].kind->check) probes->probe[i].kind->check(&probes->probe[i], record);
}

void probes_archive(struct probes *probes, const struct model *model, struct archive *archive)
{
    archive_enter(archive, "probes");
    for (int i = 0; i < probes->count; i++) {
        struct probe *probe = &probes->probe[i];
        archive_enter(archive, probe->name);
        if (probe->kind->archive) probe->kind->archive(probe, model, archive);
        archive_leave(archive);
    }
    archive_leave(archive);
}

void probes_snapshot(const struct probes *probes, struct h5 *file)
{
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].kind->snapshot) probes->probe[i].kind->snapshot(&probes->probe[i], file);
}

void probes_summary(const struct probes *probes, const struct record *record)
{
    for (int i = 0; i < probes->count; i++)
        if (probes->probe[i].kind->summary) probes->probe[i].kind->summary(&probes->probe[i], record);
}
