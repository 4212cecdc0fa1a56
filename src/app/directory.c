#include "app/directory.h"

#include "base/memory.h"
#include "train/rundir.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---------------------------------------------------------------- names */

void directory_names_add(struct directory_names *names, const char *name)
{
    const size_t count = (size_t)names->count;
    names->name = memory_grow(names->name, count, count + 1, sizeof *names->name);
    names->name[names->count++] = memory_text("%s", name);
}

void directory_names_free(struct directory_names *names)
{
    for (int i = 0; i < names->count; i++) memory_free(names->name[i]);
    memory_free(names->name);
    *names = (struct directory_names){0};
}

static bool has_name(const struct directory_names *names, const char *name)
{
    for (int i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0) return true;
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct directory_names directory_entries(const char *path)
{
    struct directory_names names = {0};
    DIR *folder = opendir(path);
    if (!folder) return names;
    for (const struct dirent *entry; (entry = readdir(folder));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            directory_names_add(&names, entry->d_name);
    closedir(folder);
    if (names.count) qsort(names.name, (size_t)names.count, sizeof *names.name, compare);
    return names;
}

/* ---------------------------------------------------------------- files */

bool directory_holds(const char *path, const char *name)
{
    struct stat info;
    char *file = memory_text("%s/%s", path, name);
    const bool there = stat(file, &info) == 0;
    memory_free(file);
    return there;
}

bool directory_is_live(const char *path)
{
    char *lock = memory_text("%s/%s", path, RUNDIR_LOCK);
    const bool held = lock_held(lock);
    memory_free(lock);
    return held;
}

/* ---------------------------------------------------------------- runs and sweeps */

static bool is_run(const char *path)
{
    return directory_holds(path, "resolved.yaml") || directory_holds(path, "input.yaml") ||
           directory_holds(path, "status.json");
}

/* "NAME.old-3": --overwrite has moved it aside. */
static bool is_aside(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && strncmp(dot, ".old-", 5) == 0 && dot[5] && dot[5 + strspn(dot + 5, "0123456789")] == '\0';
}

static void add_runs(const char *path, struct directory_names *members)
{
    struct directory_names entries = directory_entries(path);
    for (int i = 0; i < entries.count; i++) {
        char *inside = memory_text("%s/%s", path, entries.name[i]);
        if (!is_aside(entries.name[i]) && !has_name(members, entries.name[i]) && is_run(inside))
            directory_names_add(members, entries.name[i]);
        memory_free(inside);
    }
    directory_names_free(&entries);
}

/* One field, and moves *text behind it: to a comma, the end of the line or of the text (memory_free). */
static char *next_field(const char **text)
{
    const char *next = *text;
    char *field = NEW(char, strlen(next) + 1), *end = field;
    for (bool quoted = false; *next && (quoted || !strchr(",\r\n", *next)); next++) {
        if (*next == '"' && quoted && next[1] == '"')
            *end++ = *next++;
        else if (*next == '"')
            quoted = !quoted;
        else
            *end++ = *next;
    }
    *text = next;
    return field;
}

struct directory_names directory_fields(const char **text)
{
    struct directory_names fields = {0};
    bool more = **text != '\0';
    while (more) {
        char *field = next_field(text);
        directory_names_add(&fields, field);
        memory_free(field);
        more = **text == ',';
        *text += more;
    }
    *text += strspn(*text, "\r\n");
    return fields;
}

/* The names are the second fields of all lines but the head. */
static void add_listed(const char *path, struct directory_names *members)
{
    size_t length;
    char *table = rundir_read(path, "members.csv", &length);
    const char *next = table ? table : "";
    for (bool head = true; *next; head = false) {
        struct directory_names fields = directory_fields(&next);
        const char *name = fields.count > 1 && !head ? fields.name[1] : "";
        if (name[0] && !strchr(name, '/') && !has_name(members, name)) directory_names_add(members, name);
        directory_names_free(&fields);
    }
    memory_free(table);
}

struct directory_names directory_members(const char *path)
{
    struct directory_names members = {0};
    add_listed(path, &members);
    add_runs(path, &members);
    return members;
}

enum directory_kind directory_kind(const char *path)
{
    if (is_run(path)) return DIRECTORY_RUN;
    if (directory_holds(path, "members.csv") || directory_holds(path, "sweep.h5")) return DIRECTORY_SWEEP;
    struct directory_names members = {0};
    add_runs(path, &members);
    const bool some = members.count > 0;
    directory_names_free(&members);
    return some ? DIRECTORY_SWEEP : DIRECTORY_OTHER;
}
