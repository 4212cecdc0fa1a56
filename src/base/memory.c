#include "base/memory.h"
#include "base/error.h"

#include <limits.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGNMENT = 64 }; /* a cache line, and the widest vector register */

/* Of the usual processors. DGEMM runs some per cent faster where a matrix takes few entries of the page table; Linux
 * often gives such pages only to those who ask. */
static const size_t HUGE_PAGE = (size_t)1 << 21;

void memory_start(void)
{
#ifdef __GLIBC__
    enum { LARGE = 1 << 17 };
    mallopt(M_MMAP_MAX, 1 << 16);
    mallopt(M_MMAP_THRESHOLD, LARGE);
    mallopt(M_TRIM_THRESHOLD, 8 * LARGE);
#endif
}

static _Noreturn void out_of_memory(size_t count, size_t size)
{
    error_end(EXIT_ENVIRONMENT,
              "out of memory: wanted %.4g MiB more (%zu elements of %zu bytes), where at most %.4g MiB were in use; "
              "take more ranks or nodes, or a smaller problem",
              (double)count * (double)size / 1048576, count, size, (double)memory_peak() / 1048576);
}

void *memory_new(size_t count, size_t size)
{
    size_t bytes, rounded;

    if (__builtin_mul_overflow(count, size, &bytes) || __builtin_add_overflow(bytes, ALIGNMENT - 1, &rounded))
        out_of_memory(count, size);
    rounded -= rounded % ALIGNMENT;
    if (rounded == 0) rounded = ALIGNMENT;
    const bool large = rounded >= 2 * HUGE_PAGE;
    void *memory = aligned_alloc(large ? HUGE_PAGE : ALIGNMENT, rounded);
    if (!memory) out_of_memory(count, size);
#ifdef MADV_HUGEPAGE
    if (large) madvise(memory, rounded / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return memset(memory, 0, rounded);
}

void *memory_grow(void *old, size_t count, size_t more, size_t size)
{
    ensure(more >= count);
    void *memory = memory_new(more, size);
    if (old) memcpy(memory, old, count * size);
    memory_free(old);
    return memory;
}

void memory_free(void *memory)
{
    free(memory);
}

void memory_forget(void *memory, size_t bytes)
{
#ifdef MADV_DONTNEED
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = ((uintptr_t)memory + page - 1) / page * page,
                    to = ((uintptr_t)memory + bytes) / page * page;
    if (to > from) madvise((void *)from, to - from, MADV_DONTNEED);
#endif
}

char *memory_text(const char *format, ...)
{
    va_list arguments, again;

    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    ensure(length >= 0);
    char *text = NEW(char, length + 1);
    vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

/* A line of the system's account of this process, "VmHWM: 1234 kB", in bytes. */
static int64_t account(const char *name)
{
    char line[256];
    long long kibibytes = 0;
    FILE *status = fopen("/proc/self/status", "r");

    if (!status) return 0;
    while (fgets(line, sizeof line, status))
        if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%lld kB", &kibibytes) == 1) break;
    fclose(status);
    return (int64_t)kibibytes * 1024;
}

int64_t memory_peak(void)
{
    return account("VmHWM:");
}

int64_t memory_resident(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
    return account("VmRSS:");
}

int to_int(int64_t value)
{
    if (value < INT_MIN || value > INT_MAX)
        error_end(EXIT_INPUT,
                  "%lld does not fit in the 32 bits with which MPI, BLAS and ScaLAPACK count; take more ranks or a "
                  "smaller problem",
                  (long long)value);
    return (int)value;
}
