#include "dist/archive.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

struct archive {
    struct h5 *file; /* owned */
    bool loading;
    char *group; /* the current one, "optimizer/state", "" at the top; owned */
};

static struct archive *archive_of(struct h5 *file, bool loading)
{
    if (!file) return NULL;
    struct archive *a = NEW(struct archive, 1);
    a->file = file;
    a->loading = loading;
    a->group = memory_text("%s", "");
    return a;
}

struct archive *archive_save(MPI_Comm comm, const char *path, const char *format, struct problems *problems)
{
    return archive_of(h5_create(comm, path, format, problems), false);
}

struct archive *archive_load(MPI_Comm comm, const char *path, const char *format, struct problems *problems)
{
    return archive_of(h5_open(comm, path, format, problems), true);
}

bool archive_end(struct archive **archive, struct problems *problems)
{
    struct archive *a = *archive;
    ensure(!*a->group); /* as many archive_leave as archive_enter */
    const bool ok = a->loading ? h5_done(&a->file, problems) : h5_commit(&a->file, problems);
    memory_free(a->group);
    memory_free(a);
    *archive = NULL;
    return ok;
}

bool archive_loading(const struct archive *archive)
{
    return archive->loading;
}

struct h5 *archive_file(struct archive *archive)
{
    return archive->file;
}

/* GROUP/name (memory_free). */
static char *inside(const struct archive *a, const char *name)
{
    return memory_text("%s%s%s", a->group, *a->group ? "/" : "", name);
}

void archive_enter(struct archive *archive, const char *name)
{
    char *group = inside(archive, name);
    memory_free(archive->group);
    archive->group = group;
    if (!archive->loading) h5_group(archive->file, group);
}

void archive_leave(struct archive *archive)
{
    char *slash = strrchr(archive->group, '/');
    ensure(*archive->group);
    *(slash ? slash : archive->group) = '\0';
}

void archive_int(struct archive *archive, const char *name, int64_t *value)
{
    if (archive->loading)
        *value = h5_get_int(archive->file, archive->group, name);
    else
        h5_attribute_int(archive->file, archive->group, name, *value);
}

void archive_real(struct archive *archive, const char *name, double *value)
{
    if (archive->loading)
        *value = h5_get_real(archive->file, archive->group, name);
    else
        h5_attribute_real(archive->file, archive->group, name, *value);
}

bool archive_flag(struct archive *archive, const char *name, bool there)
{
    int64_t value = there;
    archive_int(archive, name, &value);
    return value != 0;
}

void archive_reals(struct archive *archive, const char *name, int64_t count, double *values)
{
    char *path = inside(archive, name);
    if (archive->loading)
        h5_read_reals(archive->file, path, 0, count, 1, values);
    else
        h5_write_reals(archive->file, path, 1, NULL, &count, values, NULL);
    memory_free(path);
}

void archive_matrix(struct archive *archive, const char *name, struct dmat *A)
{
    char *path = inside(archive, name);
    if (archive->loading)
        h5_load_matrix(archive->file, path, A);
    else
        h5_write_matrix(archive->file, path, NULL, NULL, A, NULL);
    memory_free(path);
}

void archive_vectors(struct archive *archive, const char *name, int64_t m, int count, int mloc, const int64_t *global,
                     double *vectors)
{
    char *path = inside(archive, name);
    if (archive->loading)
        h5_load_vectors(archive->file, path, m, count, mloc, global, vectors);
    else
        h5_write_vectors(archive->file, path, NULL, NULL, m, count, mloc, global, vectors, NULL);
    memory_free(path);
}
