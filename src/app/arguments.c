#include "app/arguments.h"

#include "base/memory.h"
#include "base/spec.h"
#include "train/stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static void append(struct argument_list *list, const char *text)
{
    list->text = memory_grow(list->text, (size_t)list->count, (size_t)list->count + 1, sizeof *list->text);
    list->text[list->count++] = text;
}

/* The option that a word begins with, "--out" or "--out=DIR", or NULL. */
static const struct argument_option *find(const struct argument_option *options, const char *word)
{
    const size_t length = strcspn(word, "=");
    for (; options->name; options++)
        if (strlen(options->name) == length && strncmp(options->name, word, length) == 0) return options;
    return NULL;
}

/* Says what is meant instead; returns whether the option that is meant takes the next word. */
static bool refuse(const char *word, const struct argument_option *options, struct problems *problems)
{
    enum { MOST = 16 };
    const char *names[MOST];
    int count = 0;
    for (; count < MOST && options[count].name; count++) names[count] = options[count].name;
    char *name = memory_text("%.*s", (int)strcspn(word, "="), word);
    const char *near = spec_nearest(name, names, count), *value = word + strlen(name);
    const bool takes_value = near && !find(options, near)->flag;
    if (near)
        problems_add(problems, EXIT_INPUT, "there is no option %s (did you mean %s%s?)", word, near,
                     takes_value ? value : "");
    else
        problems_add(problems, EXIT_INPUT, "there is no option %s (`eigentrain help` lists those there are)", word);
    const bool takes_next = takes_value && !*value;
    memory_free(name);
    return takes_next;
}

/* Takes one option's value from its own word or the next; returns the number of further words it took. */
static int take(const struct argument_option *option, int argc, char **argv, struct problems *problems)
{
    const char *equals = strchr(argv[0], '='), *value = equals ? equals + 1 : argc > 1 ? argv[1] : "";
    if (option->flag) {
        if (equals) problems_add(problems, EXIT_INPUT, "%s takes no value", option->name);
        *option->flag = true;
        return 0;
    }
    if (!*value)
        problems_add(problems, EXIT_INPUT, "%s needs a value", option->name);
    else if (option->list)
        append(option->list, value);
    else if (*option->text)
        problems_add(problems, EXIT_INPUT, "%s is given twice", option->name);
    else
        *option->text = value;
    return !equals && argc > 1;
}

void arguments_parse(int argc, char **argv, const struct argument_option *options, struct argument_list *rest,
                     struct problems *problems)
{
    for (int i = 0; i < argc; i++) {
        const struct argument_option *option = find(options, argv[i]);
        if (option)
            i += take(option, argc - i, argv + i, problems);
        else if (argv[i][0] == '-' && argv[i][1])
            i += refuse(argv[i], options, problems);
        else
            append(rest, argv[i]);
    }
}

const char *arguments_input(const struct argument_list *rest, const char *command, struct problems *problems)
{
    if (rest->count == 1) return rest->text[0];
    if (rest->count > 1)
        problems_add(problems, EXIT_INPUT, "one input file at a time, not both %s and %s", rest->text[0],
                     rest->text[1]);
    else if (problems->count == 0)
        problems_add(problems, EXIT_INPUT, "%s needs an input file: eigentrain %s INPUT.yaml", command, command);
    return NULL;
}

void arguments_free(struct argument_list *list)
{
    memory_free(list->text);
    *list = (struct argument_list){0};
}

/* Root only. The bytes of the input file. */
static char *slurp(const char *path, long *length, struct problems *problems)
{
    struct stat about;
    errno = 0;
    FILE *file = stat(path, &about) == 0 && S_ISDIR(about.st_mode) ? (errno = EISDIR, NULL) : fopen(path, "rb");
    if (!file) {
        problems_add(problems, EXIT_INPUT, "%s: %s", path, strerror(errno));
        return NULL;
    }
    const long most = 16L << 20;
    char *text = NEW(char, most + 1);
    *length = (long)fread(text, 1, (size_t)most + 1, file);
    if (ferror(file)) problems_add(problems, EXIT_INPUT, "%s: %s", path, strerror(errno));
    if (*length > most) problems_add(problems, EXIT_INPUT, "%s: larger than 16 MiB: not an input file", path);
    fclose(file);
    return text;
}

char *arguments_read(MPI_Comm comm, const char *path, long *length, struct problems *problems)
{
    int rank;
    char *text = NULL;
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) text = slurp(path, length, problems);
    if (!problems_none(problems, comm)) {
        memory_free(text);
        return NULL;
    }
    MPI_Bcast(length, 1, MPI_LONG, 0, comm);
    if (rank != 0) text = NEW(char, *length + 1);
    MPI_Bcast(text, to_int(*length), MPI_CHAR, 0, comm);
    return text;
}

/* Seconds of HH:MM:SS, or −1. */
static double read_wall(const char *text)
{
    int hours, minutes, seconds, end = 0;
    if (sscanf(text, "%d:%2d:%2d%n", &hours, &minutes, &seconds, &end) != 3 || text[end]) return -1;
    if (hours < 0 || minutes < 0 || minutes > 59 || seconds < 0 || seconds > 59) return -1;
    return 3600.0 * hours + 60.0 * minutes + seconds;
}

/* Seconds since the epoch, or −1. */
static double read_time(const char *text)
{
    char *end;
    const double epoch = strtod(text, &end);
    if (!*end && epoch > 0) return epoch;
    struct tm local = {.tm_isdst = -1};
    end = strptime(text, "%Y-%m-%dT%H:%M:%S", &local);
    return end && !*end ? (double)mktime(&local) : -1;
}

void arguments_limit(const char *wall, const char *stop_at, struct problems *problems)
{
    const double length = wall ? read_wall(wall) : 0, end = stop_at ? read_time(stop_at) : 0;
    if (wall && stop_at) problems_add(problems, EXIT_INPUT, "--wall and --stop-at both set the end: give one of them");
    if (length < 0) problems_add(problems, EXIT_INPUT, "--wall %s: expected a time HH:MM:SS, like 01:30:00", wall);
    if (end < 0)
        problems_add(problems, EXIT_INPUT, "--stop-at %s: expected seconds since 1970 or a local time like %s", stop_at,
                     "2026-11-22T04:00:00");
    if (wall) stop_set_limit((double)time(NULL) + length);
    if (stop_at) stop_set_limit(end);
}
