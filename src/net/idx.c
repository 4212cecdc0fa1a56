/* idx: images and labels in Yann LeCun's IDX format, plain or gzipped (zlib). */
#include "base/memory.h"
#include "net/dataset.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

struct idx {
    gzFile images, labels;
    char *images_path, *labels_path; /* owned */
    int64_t samples, pixels, classes, delivered;
    unsigned char *buffer; /* [pixels], owned */
};

/* IDX numbers are big-endian; type 8 is unsigned bytes. */
static const uint32_t MAGIC_IMAGES = 0x00000803, MAGIC_LABELS = 0x00000801;

/* zlib's word for what went wrong, without the path that it puts before it. */
static const char *reason(gzFile file, const char *path)
{
    int code;
    const char *why = gzerror(file, &code);
    const size_t length = strlen(path);
    if (code == Z_BUF_ERROR) return "the file ends too early (truncated?)";
    return strncmp(why, path, length) == 0 && why[length] == ':' ? why + length + 2 : why;
}

static bool read_exactly(gzFile file, const char *path, void *bytes, unsigned count, struct problems *problems)
{
    const int got = gzread(file, bytes, count);
    if (got == (int)count) return true;
    int code = Z_BUF_ERROR;
    if (got < 0) gzerror(file, &code);
    problems_add(problems, EXIT_INPUT, "%s: %s%s", path, code == Z_BUF_ERROR ? "" : "damaged: ",
                 got < 0 ? reason(file, path) : "the file ends too early (truncated?)");
    return false;
}

/* Behind the last sample: only now has zlib seen the checksum. */
static bool ends_here(gzFile file, const char *path, int64_t samples, struct problems *problems)
{
    char byte;
    int code;
    const int got = gzread(file, &byte, 1);
    gzerror(file, &code);
    if (got == 0 && code == Z_OK) return true;
    if (got > 0)
        problems_add(problems, EXIT_INPUT, "%s: there is more in the file than the %lld samples that it announces",
                     path, (long long)samples);
    else
        problems_add(problems, EXIT_INPUT, "%s: %s%s", path,
                     code == Z_BUF_ERROR ? "" : "damaged: ", reason(file, path));
    return false;
}

/* Whether a file of this size, compressed by at most deflate's 1032 : 1, can hold so many bytes. */
static bool can_hold(const char *path, int64_t bytes)
{
    struct stat about;
    return stat(path, &about) != 0 || !S_ISREG(about.st_mode) || (double)about.st_size * 1032 >= (double)bytes;
}

static bool read_number(gzFile file, const char *path, uint32_t *number, struct problems *problems)
{
    unsigned char b[4];
    if (!read_exactly(file, path, b, 4, problems)) return false;
    *number = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
    return true;
}

static gzFile open_idx(const struct spec *spec, const char *path, uint32_t magic, struct problems *problems)
{
    struct stat about;
    const bool shipped = spec_is(spec, "data.kind", "fashion_mnist");
    gzFile file = NULL;
    errno = 0;
    if (stat(path, &about) == 0 && S_ISDIR(about.st_mode)) errno = EISDIR;
    if (errno == 0) file = gzopen(path, "rb");
    if (!file) {
        problems_add(problems, shipped && errno == ENOENT ? EXIT_ENVIRONMENT : EXIT_INPUT, "%s: %s%s", path,
                     strerror(errno ? errno : ENOMEM),
                     shipped
                         ? " (the images come with Debian's package dataset-fashion-mnist; data.path names the folder)"
                         : "");
        return NULL;
    }
    gzbuffer(file, 1 << 17);
    uint32_t number;
    if (!read_number(file, path, &number, problems)) {
        gzclose(file);
        return NULL;
    }
    if (number != magic) {
        problems_add(problems, EXIT_INPUT, "%s: not an IDX file of %s: it begins with 0x%08x instead of 0x%08x", path,
                     magic == MAGIC_IMAGES ? "images" : "labels", number, magic);
        gzclose(file);
        return NULL;
    }
    return file;
}

static void idx_close(struct source *source)
{
    struct idx *idx = source->state;
    if (!idx) return;
    if (idx->images) gzclose(idx->images);
    if (idx->labels) gzclose(idx->labels);
    memory_free(idx->images_path);
    memory_free(idx->labels_path);
    memory_free(idx->buffer);
    memory_free(idx);
    source->state = NULL;
}

static bool idx_next(struct source *source, int64_t count, double *x, double *y, struct problems *problems)
{
    struct idx *idx = source->state;
    memset(y, 0, (size_t)(count * idx->classes) * sizeof *y);
    for (int64_t i = 0; i < count; i++, idx->delivered++) {
        unsigned char label;
        if (!read_exactly(idx->images, idx->images_path, idx->buffer, (unsigned)idx->pixels, problems)) return false;
        if (!read_exactly(idx->labels, idx->labels_path, &label, 1, problems)) return false;
        if (label >= idx->classes) {
            problems_add(problems, EXIT_INPUT, "%s: label %d of sample %lld is not below data.classes = %lld",
                         idx->labels_path, label, (long long)idx->delivered, (long long)idx->classes);
            return false;
        }
        for (int64_t p = 0; p < idx->pixels; p++) x[i * idx->pixels + p] = idx->buffer[p] / 255.0;
        y[i * idx->classes + label] = 1;
    }
    if (idx->delivered < idx->samples) return true;
    return ends_here(idx->images, idx->images_path, idx->samples, problems) &&
           ends_here(idx->labels, idx->labels_path, idx->samples, problems);
}

static void choose_paths(struct idx *idx, const struct spec *spec, bool train)
{
    if (spec_is(spec, "data.kind", "fashion_mnist")) {
        const char *folder = spec_text(spec, "data.path"), *part = train ? "train" : "t10k";
        idx->images_path = memory_text("%s/%s-images-idx3-ubyte.gz", folder, part);
        idx->labels_path = memory_text("%s/%s-labels-idx1-ubyte.gz", folder, part);
        return;
    }
    idx->images_path = memory_text("%s", spec_text(spec, train ? "data.train_images" : "data.test_images"));
    idx->labels_path = memory_text("%s", spec_text(spec, train ? "data.train_labels" : "data.test_labels"));
}

bool source_open_idx(struct source *source, const struct spec *spec, bool train, struct problems *problems)
{
    struct idx *idx = NEW(struct idx, 1);
    uint32_t images = 0, rows = 0, cols = 0, labels = 0;
    *source = (struct source){.state = idx, .next = idx_next, .close = idx_close, .classification = true};
    choose_paths(idx, spec, train);
    idx->images = open_idx(spec, idx->images_path, MAGIC_IMAGES, problems);
    idx->labels = open_idx(spec, idx->labels_path, MAGIC_LABELS, problems);
    bool good = idx->images && idx->labels && read_number(idx->images, idx->images_path, &images, problems) &&
                read_number(idx->images, idx->images_path, &rows, problems) &&
                read_number(idx->images, idx->images_path, &cols, problems) &&
                read_number(idx->labels, idx->labels_path, &labels, problems);
    if (good && images != labels) {
        problems_add(problems, EXIT_INPUT, "%s has %u images, but %s has %u labels", idx->images_path, images,
                     idx->labels_path, labels);
        good = false;
    }
    idx->pixels = (int64_t)rows * cols;
    if (good && (images == 0 || idx->pixels == 0 || idx->pixels > 1 << 24)) {
        problems_add(problems, EXIT_INPUT, "%s: %u images of %u × %u pixels: no images that can be used",
                     idx->images_path, images, rows, cols);
        good = false;
    }
    if (good && !can_hold(idx->images_path, images * idx->pixels)) {
        problems_add(problems, EXIT_INPUT,
                     "%s: too small for the %u images of %u × %u pixels it announces (truncated?)", idx->images_path,
                     images, rows, cols);
        good = false;
    }
    idx->samples = images;
    idx->classes = spec_int(spec, "data.classes");
    idx->buffer = NEW(unsigned char, good ? idx->pixels : 0);
    source->features = idx->pixels;
    source->outputs = idx->classes;
    source->samples = images;
    if (!good) idx_close(source);
    return good;
}
