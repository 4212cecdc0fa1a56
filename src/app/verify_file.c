#include "app/verify.h"

#include "base/memory.h"
#include "dist/h5.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t PIECE = (int64_t)1 << 20; /* steps read at a time */

static const char *const formats[VERIFY_KINDS] = {[VERIFY_METRICS] = "eigentrain metrics",
                                                  [VERIFY_PART] = "eigentrain metrics",
                                                  [VERIFY_SNAPSHOT] = "eigentrain snapshot",
                                                  [VERIFY_CHECKPOINT] = "eigentrain checkpoint",
                                                  [VERIFY_SWEEP] = "eigentrain sweep"};

/* ---------------------------------------------------------------- series */

/* The steps along which a series lies. */
struct axis {
    int64_t rows, first, last;
    char *wrong; /* owned, or NULL */
};

/* Looks at rows first … first + count − 1, the steps before them being known. */
static void look_at(struct axis *axis, const char *path, bool every, int64_t first, int64_t count, const int64_t *step)
{
    for (int64_t i = 0; i < count && !axis->wrong; i++) {
        const bool begins = first + i == 0;
        if (begins) axis->first = step[i];
        if (!begins && (step[i] <= axis->last || (every && step[i] != axis->last + 1)))
            axis->wrong = memory_text("%s is not in order: step %lld follows step %lld", path, (long long)step[i],
                                      (long long)axis->last);
        axis->last = step[i];
    }
}

/* The steps must increase, one by one if there is a row of every step. */
static struct axis look_along(struct h5 *file, const char *path, bool every)
{
    struct axis axis = {.rows = h5_rows(file, path), .first = -1, .last = -1};
    int64_t *step = NEW(int64_t, axis.rows < PIECE ? axis.rows : PIECE);
    for (int64_t first = 0; first < axis.rows && !axis.wrong; first += PIECE) {
        const int64_t count = axis.rows - first < PIECE ? axis.rows - first : PIECE;
        h5_read_ints(file, path, first, count, 1, step);
        look_at(&axis, path, every, first, count, step);
    }
    memory_free(step);
    return axis;
}

/* One group; what is wrong with it, or NULL (memory_free). */
static char *look_at_group(struct h5 *h5, const char *group, struct verify_file *file)
{
    static const char *const names[] = {"step", "evaluated_step"};
    const bool train = strcmp(group, "train") == 0;
    char *wrong = NULL;
    for (int i = 0; i < 2 && !wrong; i++) {
        char *path = memory_text("%s/%s", group, names[i]);
        const bool every = train && i == 0;
        if (h5_exists(h5, path, NULL)) {
            const struct axis axis = look_along(h5, path, every);
            wrong = axis.wrong;
            if (every && axis.rows > 0) {
                file->first = axis.first;
                file->last = axis.last;
                h5_read_reals(h5, "train/loss", axis.rows - 1, 1, 1, &file->loss);
            }
        }
        memory_free(path);
    }
    return wrong;
}

static char *look_at_series(struct h5 *h5, struct verify_file *file)
{
    char *wrong = NULL;
    int count;
    char **groups = h5_groups(h5, &count);
    for (int i = 0; i < count; i++) {
        if (!wrong) wrong = look_at_group(h5, groups[i], file);
        memory_free(groups[i]);
    }
    memory_free(groups);
    if (!wrong && file->first < 0) wrong = memory_text("there are no steps in it");
    if (!wrong && file->kind == VERIFY_METRICS && file->first > 0)
        wrong = memory_text("train/step begins with step %lld, not 0", (long long)file->first);
    return wrong;
}

/* ---------------------------------------------------------------- files */

static char *fact(struct h5 *h5, const char *name)
{
    return h5_exists(h5, "provenance", name) ? h5_get_text(h5, "provenance", name) : NULL;
}

/* What the bytes alone do not tell: whether the content is what the name says (memory_free), or NULL. */
static char *look_into(struct h5 *h5, struct verify_file *file)
{
    file->start = fact(h5, "start");
    file->input = fact(h5, "input");
    file->resolved = fact(h5, "resolved");
    if (file->kind == VERIFY_METRICS || file->kind == VERIFY_PART) return look_at_series(h5, file);
    if (file->kind == VERIFY_SWEEP) return NULL;
    const int64_t step = h5_get_int(h5, "", "step");
    return step == file->number ? NULL : memory_text("holds step %lld: it has the wrong name", (long long)step);
}

void verify_file(struct verify *verify, struct verify_file *file)
{
    struct problems problems = {0};
    char *wrong = NULL;
    file->first = file->last = -1;
    file->loss = NAN;
    struct h5 *h5 = h5_open(verify->comm, file->path, formats[file->kind], &problems);
    if (h5) {
        wrong = look_into(h5, file);
        h5_done(&h5, &problems);
    }
    file->broken = wrong || problems.count;
    const bool gone = problems.count && verify->root && access(file->path, F_OK) != 0 && errno == ENOENT;
    if (!gone) verify->files++;
    if (problems.count && !gone)
        verify_say_broken(verify, "%s", problems.text[0]);
    else if (wrong && !gone)
        verify_say_broken(verify, "%s: %s", file->path, wrong);
    memory_free(wrong);
    problems_clear(&problems);
}

void verify_file_clear(struct verify_file *file)
{
    memory_free(file->path);
    memory_free(file->start);
    memory_free(file->input);
    memory_free(file->resolved);
}
