/* memory: allocation that cannot fail silently, and checked narrowing. */
#ifndef EIGENTRAIN_BASE_MEMORY_H
#define EIGENTRAIN_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* Local, after MPI_Init. Large blocks go back to the system when they are freed. MPI's network libraries switch that
 * off (they like to keep memory registered), and then holes remain: writing 8 MiB matrices one after another grew to
 * 180 MiB [run]. */
void memory_start(void);

/* Local. `count` elements of `size` bytes, zeroed, aligned to 64 bytes; count may be 0. Ends the program with a
 * message that says how much was asked for when there is no memory. Free with memory_free. */
void *memory_new(size_t count, size_t size);

/* Local. Grows `old` (from memory_new, or NULL) from `count` to `more` elements; the new ones are zero. */
void *memory_grow(void *old, size_t count, size_t more, size_t size);

/* Local. Frees what memory_new gave; NULL is allowed. */
void memory_free(void *memory);

/* Local. Gives the pages of an array that is not read again back to the system before it is freed, as far as the system
 * takes them. */
void memory_forget(void *memory, size_t bytes);

/* Local. printf into a new string (memory_free). */
char *memory_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Local. High-water mark of this process's resident memory, in bytes (VmHWM); 0 where the system does not say. */
int64_t memory_peak(void);

/* Local. Resident memory of this process now, in bytes, after what is free has been given back to the system where it
 * can be; 0 where the system does not say. */
int64_t memory_resident(void);

/* Local. ScaLAPACK, BLAS and MPI count in 32 bits: narrows, and ends with a message when `value` does not fit. */
int to_int(int64_t value);

#define NEW(type, count) ((type *)memory_new((size_t)(count), sizeof(type)))

#endif
