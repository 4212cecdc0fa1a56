#include "base/build.h"

#include "base/launch.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <gnu/libc-version.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_FACTS = 32 };
static struct build_fact facts[MOST_FACTS + 1];

const char *build_version(void)
{
    return EIGENTRAIN_VERSION;
}

const char *build_git(void)
{
    return EIGENTRAIN_GIT;
}

void build_add(const char *name, const char *format, ...)
{
    char value[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(value, sizeof value, format, arguments);
    va_end(arguments);
    int i = 0;
    while (facts[i].name && strcmp(facts[i].name, name) != 0) i++;
    if (i == MOST_FACTS) return;
    if (!facts[i].name) facts[i].name = memory_text("%s", name);
    memory_free((void *)facts[i].value);
    facts[i].value = memory_text("%s", value);
}

static const char *openblas_text(const char *function)
{
    char *(*text)(void);
    *(void **)&text = dlsym(RTLD_DEFAULT, function);
    return text ? text() : "unknown (not OpenBLAS)";
}

/* "model name" of the first CPU. */
static void add_cpu(void)
{
    char line[512];
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file) return;
    while (fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        colon[strcspn(colon, "\n")] = '\0';
        build_add("cpu", "%s", colon + 2);
        break;
    }
    fclose(file);
}

static void add_mpi(void)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, "\n,")] = '\0';
    build_add("mpi", "%s", text);
    const char *io = getenv("OMPI_MCA_io");
    build_add("mpi-io", "%s", io ? io : "default");
}

const struct build_fact *build_facts(void)
{
    static bool filled = false;
    if (filled) return facts;
    filled = true;
    build_add("version", "%s", build_version());
    build_add("git", "%s", build_git());
    build_add("compiler", "%s %s",
#if defined(__clang__)
              "clang",
#else
              "gcc",
#endif
              __VERSION__);
    build_add("flags", "%s", EIGENTRAIN_FLAGS);
    build_add("libc", "glibc %s", gnu_get_libc_version());
    add_mpi();
    build_add("blas", "%s", openblas_text("openblas_get_config"));
    build_add("blas kernel", "%s", openblas_text("openblas_get_corename"));
    build_add("blas threads per rank", "%d", launch_threads());
    add_cpu();
    return facts;
}
