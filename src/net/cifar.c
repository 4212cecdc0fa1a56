/* cifar: the binary version of CIFAR-10: data_batch_1.bin … data_batch_5.bin and test_batch.bin, records of one byte of
 * label and 3 × 32 × 32 bytes of pixels. */
#include "base/memory.h"
#include "net/dataset.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { PIXELS = 3072, RECORD = PIXELS + 1, CLASSES = 10, BATCHES = 5 };

struct cifar {
    int files, file;     /* number of them, the open one */
    char *path[BATCHES]; /* owned */
    int64_t left;        /* records of the open file that are still to come */
    int64_t records[BATCHES];
    FILE *stream;
    unsigned char buffer[RECORD];
};

static void cifar_close(struct source *source)
{
    struct cifar *c = source->state;
    if (!c) return;
    if (c->stream) fclose(c->stream);
    for (int i = 0; i < c->files; i++) memory_free(c->path[i]);
    memory_free(c);
    source->state = NULL;
}

/* Opens the file of the next record. */
static bool go_on(struct cifar *c, struct problems *problems)
{
    while (c->left == 0) {
        if (c->stream) fclose(c->stream);
        ensure(c->file + 1 < c->files);
        c->file++;
        c->left = c->records[c->file];
        c->stream = fopen(c->path[c->file], "rb");
        if (c->stream) continue;
        problems_add(problems, EXIT_INPUT, "%s: %s", c->path[c->file], strerror(errno));
        return false;
    }
    return true;
}

static bool cifar_next(struct source *source, int64_t count, double *x, double *y, struct problems *problems)
{
    struct cifar *c = source->state;
    memset(y, 0, (size_t)(count * CLASSES) * sizeof *y);
    for (int64_t i = 0; i < count; i++) {
        if (!go_on(c, problems)) return false;
        const char *path = c->path[c->file];
        if (fread(c->buffer, 1, RECORD, c->stream) != RECORD) {
            problems_add(problems, EXIT_INPUT, "%s: the file ends too early (truncated?)", path);
            return false;
        }
        const int label = c->buffer[0];
        if (label >= CLASSES) {
            problems_add(problems, EXIT_INPUT,
                         "%s: label %d of record %lld is not below %d: not the binary version of "
                         "CIFAR-10",
                         path, label, (long long)(c->records[c->file] - c->left), CLASSES);
            return false;
        }
        for (int p = 0; p < PIXELS; p++) x[i * PIXELS + p] = c->buffer[1 + p] / 255.0;
        y[i * CLASSES + label] = 1;
        c->left--;
    }
    return true;
}

/* Records in a file; 0 with a problem. */
static int64_t count_records(const char *path, struct problems *problems)
{
    struct stat about;
    if (stat(path, &about) != 0) {
        problems_add(problems, EXIT_INPUT,
                     "%s: %s (data.path is the folder of the binary version of CIFAR-10, cifar-10-batches-bin)", path,
                     strerror(errno));
        return 0;
    }
    if (!S_ISREG(about.st_mode) || about.st_size == 0 || about.st_size % RECORD != 0) {
        problems_add(problems, EXIT_INPUT,
                     "%s: %lld bytes are no records of %d bytes (a label and 3 × 32 × 32 pixels): damaged, or not the "
                     "binary version",
                     path, (long long)about.st_size, RECORD);
        return 0;
    }
    return about.st_size / RECORD;
}

bool source_open_cifar(struct source *source, const struct spec *spec, bool train, struct problems *problems)
{
    const int before = problems->count;
    struct cifar *c = NEW(struct cifar, 1);
    const char *folder = spec_text(spec, "data.path");
    *source = (struct source){.features = PIXELS,
                              .outputs = CLASSES,
                              .classification = true,
                              .state = c,
                              .next = cifar_next,
                              .close = cifar_close};
    c->files = train ? BATCHES : 1;
    c->file = -1;
    for (int i = 0; i < c->files; i++) {
        c->path[i] =
            train ? memory_text("%s/data_batch_%d.bin", folder, i + 1) : memory_text("%s/test_batch.bin", folder);
        c->records[i] = count_records(c->path[i], problems);
        source->samples += c->records[i];
    }
    if (problems->count == before) return true;
    cifar_close(source);
    return false;
}
