#include "base/error.h"
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- problems */

static void append(struct problems *problems, char *text)
{
    problems->text = memory_grow(problems->text, (size_t)problems->count, (size_t)problems->count + 1, sizeof(char *));
    problems->text[problems->count++] = text;
}

void problems_add(struct problems *problems, int code, const char *format, ...)
{
    char *text;
    va_list arguments;

    va_start(arguments, format);
    int length = vasprintf(&text, format, arguments);
    va_end(arguments);
    ensure(length >= 0);
    if (problems->count == 0) problems->code = code;
    append(problems, text);
}

void problems_print(const struct problems *problems)
{
    for (int i = 0; i < problems->count; i++) fprintf(stderr, "eigentrain: %s\n", problems->text[i]);
}

void problems_clear(struct problems *problems)
{
    for (int i = 0; i < problems->count; i++) memory_free(problems->text[i]);
    memory_free(problems->text);
    *problems = (struct problems){0};
}

/* All texts in one piece of memory, each with its final zero. */
static char *pack(const struct problems *problems, int *bytes)
{
    size_t total = 0;

    for (int i = 0; i < problems->count; i++) total += strlen(problems->text[i]) + 1;
    char *packed = NEW(char, total), *end = packed;
    for (int i = 0; i < problems->count; i++) end = stpcpy(end, problems->text[i]) + 1;
    *bytes = to_int((int64_t)total);
    return packed;
}

static void unpack(struct problems *problems, const char *packed, int count, int code)
{
    problems_clear(problems);
    for (int i = 0; i < count; i++, packed += strlen(packed) + 1) append(problems, memory_text("%s", packed));
    problems->code = code;
}

bool problems_none(struct problems *problems, MPI_Comm comm)
{
    int rank, size, teller, head[3] = {0};
    char *packed = NULL;

    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    int mine = problems->count > 0 ? rank : size;
    MPI_Allreduce(&mine, &teller, 1, MPI_INT, MPI_MIN, comm);
    if (teller == size) return true;

    if (rank == teller) {
        packed = pack(problems, &head[2]);
        head[0] = problems->count;
        head[1] = problems->code;
    }
    MPI_Bcast(head, 3, MPI_INT, teller, comm);
    if (rank != teller) packed = NEW(char, head[2]);
    MPI_Bcast(packed, head[2], MPI_CHAR, teller, comm);
    if (rank != teller) unpack(problems, packed, head[0], head[1]);
    memory_free(packed);
    return false;
}

bool problems_join(struct problems *own, MPI_Comm comm, struct problems *problems)
{
    const bool none = problems_none(own, comm);

    for (int i = 0; i < own->count; i++) problems_add(problems, own->code, "%s", own->text[i]);
    problems_clear(own);
    return none;
}

/* ---------------------------------------------------------------- the end of all ranks */

static bool mpi_runs(void)
{
    int begun, ended;

    MPI_Initialized(&begun);
    MPI_Finalized(&ended);
    return begun && !ended;
}

/* Prints in one write, so that the messages of several ranks don't mix; allocates nothing, for memory may be out. */
static _Noreturn void end_all(int code, const char *what, const char *format, va_list arguments)
{
    char text[1024];
    int rank = 0;

    if (mpi_runs()) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    vsnprintf(text, sizeof text, format, arguments);
    fflush(stdout);
    fprintf(stderr, "eigentrain: rank %d: %s%s\n", rank, what, text);
    if (mpi_runs()) MPI_Abort(MPI_COMM_WORLD, code);
    exit(code);
}

void error_end(int code, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    end_all(code, "", format, arguments);
    // cppcheck-suppress va_end_missing
}

void bug_at(const char *file, int line, const char *format, ...)
{
    char what[256];
    va_list arguments;

    va_start(arguments, format);
    snprintf(what, sizeof what, "bug at %s:%d: ", file, line);
    end_all(EXIT_BUG, what, format, arguments);
    // cppcheck-suppress va_end_missing
}
