/* verify: the command that reads every file of a run or a sweep again. */
#include "app/verify.h"

#include "base/error.h"
#include "base/memory.h"

#include "app/arguments.h"
#include "app/commands.h"
#include "app/directory.h"
#include "train/lock.h"
#include "train/rundir.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---------------------------------------------------------------- the report */

static void say(const struct verify *verify, const char *format, va_list arguments)
{
    if (!verify->root) return;
    vprintf(format, arguments);
    putchar('\n');
    fflush(stdout); /* large files take their time */
}

void verify_say(const struct verify *verify, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(verify, format, arguments);
    va_end(arguments);
}

void verify_say_broken(struct verify *verify, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(verify, format, arguments);
    va_end(arguments);
    verify->broken++;
}

/* ---------------------------------------------------------------- a sweep */

/* Every line has the fields of the head, and a member that has begun has a folder. What is wrong, or NULL
 * (memory_free). */
static char *look_at_table(const char *dir, const char *table)
{
    const char *next = table;
    struct directory_names head = directory_fields(&next);
    char *wrong = NULL;
    int state = -1;
    for (int i = 0; i < head.count; i++)
        if (strcmp(head.name[i], "state") == 0) state = i;
    if (head.count < 3 || strcmp(head.name[1], "name") != 0 || state < 0)
        wrong = memory_text("is damaged: its first line is not that of a sweep");
    for (long long member = 1; *next && !wrong; member++) {
        struct directory_names line = directory_fields(&next);
        if (line.count != head.count || strtoll(line.name[0], NULL, 10) != member)
            wrong = memory_text("is damaged at member %lld", member);
        else if (strcmp(line.name[state], "waiting") != 0 && !directory_holds(dir, line.name[1]))
            wrong = memory_text("says that %s is %s, but there is no such folder", line.name[1], line.name[state]);
        directory_names_free(&line);
    }
    directory_names_free(&head);
    return wrong;
}

static void check_table(struct verify *verify, const char *dir)
{
    size_t length;
    char *table = rundir_read(dir, "members.csv", &length);
    char *wrong = table ? look_at_table(dir, table) : memory_text("is missing");
    verify->files++;
    if (wrong) verify_say_broken(verify, "%s/members.csv %s", dir, wrong);
    memory_free(wrong);
    memory_free(table);
}

/* Collective. Its own files. */
static void verify_sweep(struct verify *verify, const char *dir)
{
    struct verify_file file = {.path = memory_text("%s/sweep.h5", dir), .kind = VERIFY_SWEEP, .number = -1};
    char *lock = memory_text("%s/.members.lock", dir);
    /* A folder of runs has neither; one that lacks the other was not written to the end. */
    int wanted = directory_holds(dir, "sweep.h5") || (directory_holds(dir, "members.csv") && !lock_held(lock));
    MPI_Bcast(&wanted, 1, MPI_INT, 0, verify->comm);
    if (wanted && verify->root) check_table(verify, dir);
    if (wanted) verify_file(verify, &file);
    verify_file_clear(&file);
    memory_free(lock);
}

/* Collective. The members, by the root's list; those that have not begun have no folder. */
static void verify_members(struct verify *verify, const char *dir)
{
    struct directory_names members = {0};
    if (verify->root) members = directory_members(dir);
    MPI_Bcast(&members.count, 1, MPI_INT, 0, verify->comm);
    for (int i = 0; i < members.count; i++) {
        char *path = verify->root ? memory_text("%s/%s", dir, members.name[i]) : NULL;
        int length = path && directory_kind(path) == DIRECTORY_RUN ? to_int((int64_t)strlen(path)) : 0;
        MPI_Bcast(&length, 1, MPI_INT, 0, verify->comm);
        if (!verify->root) path = NEW(char, length + 1);
        MPI_Bcast(path, length, MPI_CHAR, 0, verify->comm);
        if (length) verify_run(verify, path);
        memory_free(path);
    }
    if (verify->root) directory_names_free(&members);
}

/* ---------------------------------------------------------------- the command */

/* Collective. Looks at a directory on the root; the others are told what it is. */
static void verify_directory(struct verify *verify, const char *dir, struct problems *problems)
{
    struct stat info;
    int kind = verify->root ? (int)directory_kind(dir) : 0;
    if (verify->root && kind == DIRECTORY_OTHER && stat(dir, &info) != 0)
        problems_add(problems, EXIT_INPUT, "%s: %s", dir, strerror(errno));
    else if (verify->root && kind == DIRECTORY_OTHER)
        problems_add(problems, EXIT_INPUT, "%s holds neither a run nor a sweep", dir);
    MPI_Bcast(&kind, 1, MPI_INT, 0, verify->comm);
    if (kind == DIRECTORY_RUN) verify_run(verify, dir);
    if (kind == DIRECTORY_SWEEP) verify_sweep(verify, dir);
    if (kind == DIRECTORY_SWEEP) verify_members(verify, dir);
}

int command_verify(int argc, char **argv)
{
    struct verify verify = {.comm = MPI_COMM_WORLD};
    struct problems problems = {0};
    struct argument_list paths = {0};
    int rank;
    MPI_Comm_rank(verify.comm, &rank);
    verify.root = rank == 0;
    arguments_parse(argc, argv, (struct argument_option[]){{0}}, &paths, &problems);
    if (paths.count == 0 && problems.count == 0)
        problems_add(&problems, EXIT_INPUT,
                     "verify needs the directory of a run or of a sweep: eigentrain verify DIR…");
    const int count = problems.count == 0 ? paths.count : 0;
    for (int i = 0; i < count; i++) verify_directory(&verify, paths.text[i], &problems);
    if (verify.files) verify_say(&verify, "%d files, %d broken", verify.files, verify.broken);
    int code = problems.code ? problems.code : verify.broken ? EXIT_ENVIRONMENT : EXIT_DONE;
    MPI_Bcast(&code, 1, MPI_INT, 0, verify.comm);
    if (verify.root) problems_print(&problems);
    problems_clear(&problems);
    arguments_free(&paths);
    return code;
}
