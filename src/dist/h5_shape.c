/* h5_shape: the shape of a matrix that the user brings, from the head of its file. */
#include "h5_private.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* Rows and columns of a dataset of numbers with one (n: 1 × n) or two dimensions, or a problem (one rank). */
static void measure(const char *path, const char *name, int64_t shape[2], struct problems *problems)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const hid_t file =
        access(path, R_OK) == 0 && H5Fis_hdf5(path) > 0 ? H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT) : H5I_INVALID_HID;
    if (file < 0) {
        problems_add(problems, EXIT_INPUT, "%s: %s", path,
                     access(path, R_OK) != 0 ? (errno == ENOENT ? "no such file" : strerror(errno))
                                             : "not an HDF5 file");
        return;
    }
    const hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
    const hid_t space = dataset >= 0 ? H5Dget_space(dataset) : H5I_INVALID_HID;
    const int ndims = space >= 0 ? H5Sget_simple_extent_ndims(space) : 0;
    hsize_t dims[2] = {1, 1};
    if (dataset < 0)
        problems_add(problems, EXIT_INPUT, "%s: no dataset %s", path, name);
    else if (ndims != 1 && ndims != 2)
        problems_add(problems, EXIT_INPUT, "%s: dataset %s has %d dimensions; a matrix has 2, a vector 1", path, name,
                     ndims);
    else
        H5Sget_simple_extent_dims(space, dims + 2 - ndims, NULL);
    shape[0] = (int64_t)dims[0];
    shape[1] = (int64_t)dims[1];
    if (space >= 0) H5Sclose(space);
    if (dataset >= 0) H5Dclose(dataset);
    H5Fclose(file);
}

bool h5_shape(MPI_Comm comm, const char *path, const char *name, int64_t shape[2], struct problems *problems)
{
    int rank;
    struct problems own = {0};
    MPI_Comm_rank(comm, &rank);
    if (rank == 0) measure(path, name, shape, &own);
    const bool ok = problems_join(&own, comm, problems);
    MPI_Bcast(shape, 2, MPI_INT64_T, 0, comm);
    return ok;
}
