/* h5_list: what is in a file that this program wrote, for a reader that does not know it beforehand. */
#include "h5_private.h"

#include "base/memory.h"

#include <string.h>

struct list {
    char *text; /* [length] the names, each with its final zero; owned */
    size_t length;
    int count;
};

static herr_t add_group(hid_t root, const char *name, const H5L_info_t *link, void *context)
{
    struct list *list = context;
    H5O_info_t info;
    if (H5Oget_info_by_name(root, name, &info, H5P_DEFAULT) < 0) return -1;
    if (info.type != H5O_TYPE_GROUP) return 0;
    const size_t bytes = strlen(name) + 1;
    list->text = memory_grow(list->text, list->length, list->length + bytes, 1);
    memcpy(list->text + list->length, name, bytes);
    list->length += bytes;
    list->count++;
    return 0;
}

char **h5_groups(struct h5 *file, int *count)
{
    struct list list = {0};
    *count = 0;
    if (file->broken) return NULL;
    if (h5_acting(file))
        h5_check(file, H5Literate(file->id, H5_INDEX_NAME, H5_ITER_INC, NULL, add_group, &list) >= 0, "list", "groups");
    if (h5_agreed(file)) {
        int numbers[2] = {to_int((int64_t)list.length), list.count};
        MPI_Bcast(numbers, 2, MPI_INT, 0, file->comm);
        if (file->rank != 0) list.text = NEW(char, numbers[0]);
        MPI_Bcast(list.text, numbers[0], MPI_CHAR, 0, file->comm);
        *count = numbers[1];
    }
    char **names = NEW(char *, *count);
    const char *next = list.text;
    for (int i = 0; i < *count; i++) {
        ensure(next);
        names[i] = memory_text("%s", next);
        next += strlen(next) + 1;
    }
    memory_free(list.text);
    return names;
}
