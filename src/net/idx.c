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
    unsigned char *number; /* [all samples in the file] of a sample's class, or LEFT_OUT; owned; NULL: all are taken */
    int64_t next;          /* sample in the file, with `number` */
    bool signs;            /* one output, 1 or −1 */
};

enum { LABELS = 256, LEFT_OUT = 255 };

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
    memory_free(idx->number);
    memory_free(idx);
    source->state = NULL;
}

/* The image and the class number of the next sample that is taken. */
static bool read_chosen(struct idx *idx, unsigned char *number, struct problems *problems)
{
    do {
        if (!read_exactly(idx->images, idx->images_path, idx->buffer, (unsigned)idx->pixels, problems)) return false;
        *number = idx->number[idx->next++];
    } while (*number == LEFT_OUT);
    return true;
}

static bool next_chosen(struct source *source, int64_t count, double *x, double *y, struct problems *problems)
{
    struct idx *idx = source->state;
    memset(y, 0, (size_t)(count * source->outputs) * sizeof *y);
    for (int64_t i = 0; i < count; i++) {
        unsigned char number;
        if (!read_chosen(idx, &number, problems)) return false;
        for (int64_t p = 0; p < idx->pixels; p++) x[i * idx->pixels + p] = idx->buffer[p] / 255.0;
        if (idx->signs)
            y[i] = number == 0 ? 1 : -1;
        else
            y[i * source->outputs + number] = 1;
    }
    return true;
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

/* The numbers of the chosen classes, by label. */
static bool number_classes(const struct idx *idx, const struct spec *spec, unsigned char number[LABELS],
                           struct problems *problems)
{
    const bool all = spec_is(spec, "data.only", "all");
    const int count =
        all ? (int)(idx->classes < LABELS - 1 ? idx->classes : LABELS - 1) : spec_count(spec, "data.only");
    const int before = problems->count;
    memset(number, LEFT_OUT, LABELS);
    for (int i = 0; i < count; i++) {
        const int64_t label = all ? i : spec_int_at(spec, "data.only", i);
        if (label >= idx->classes)
            spec_problem(spec, problems, "data.only", "there is no class %lld: data.classes is %lld", (long long)label,
                         (long long)idx->classes);
        else if (number[label] != LEFT_OUT)
            spec_problem(spec, problems, "data.only", "class %lld is there twice", (long long)label);
        else
            number[label] = (unsigned char)i;
    }
    if (idx->signs && count != 2)
        spec_problem(spec, problems, "data.targets", "signs are of two classes: name them, data.only: [0, 1]");
    return problems->count == before;
}

/* Reads all labels. The samples that are taken are those of the chosen classes, of each as many as wanted. */
static bool choose_samples(struct source *source, const struct spec *spec, bool train, struct problems *problems)
{
    struct idx *idx = source->state;
    const bool limited = train && !spec_is(spec, "data.per_class", "all");
    const int64_t most = limited ? spec_int(spec, "data.per_class") : idx->samples;
    unsigned char number[LABELS];
    int64_t taken[LABELS] = {0};
    if (!number_classes(idx, spec, number, problems)) return false;
    idx->number = NEW(unsigned char, idx->samples);
    if (!read_exactly(idx->labels, idx->labels_path, idx->number, (unsigned)idx->samples, problems)) return false;
    source->samples = 0;
    for (int64_t i = 0; i < idx->samples; i++) {
        const unsigned char n = number[idx->number[i]];
        idx->number[i] = n != LEFT_OUT && taken[n] < most ? n : LEFT_OUT;
        if (idx->number[i] == LEFT_OUT) continue;
        taken[n]++;
        source->samples++;
    }
    for (int label = 0; label < LABELS; label++)
        if (number[label] != LEFT_OUT && taken[number[label]] < (limited ? most : 1)) {
            problems_add(problems, EXIT_INPUT, "%s has %lld samples of class %d, not %lld", idx->labels_path,
                         (long long)taken[number[label]], label, (long long)(limited ? most : 1));
            return false;
        }
    source->next = next_chosen;
    source->classification = !idx->signs;
    if (!spec_is(spec, "data.only", "all")) source->outputs = spec_count(spec, "data.only");
    if (idx->signs) source->outputs = 1;
    return true;
}

static bool chooses(const struct spec *spec)
{
    return !spec_is(spec, "data.only", "all") || !spec_is(spec, "data.per_class", "all") ||
           spec_is(spec, "data.targets", "signs");
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
    idx->signs = spec_is(spec, "data.targets", "signs");
    good = good && (!chooses(spec) || choose_samples(source, spec, train, problems));
    if (!good) idx_close(source);
    return good;
}
