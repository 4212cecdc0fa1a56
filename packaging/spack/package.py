# Spack recipe of eigentrain. A repository of your own: spack repo create mine && cp package.py mine/packages/eigentrain/ &&
# spack repo add mine && spack install eigentrain
from spack.package import *


class Eigentrain(MakefilePackage):
    """Training dynamics of deep networks on many MPI ranks: singular subspaces, Hessian outliers, and theory beside them."""

    maintainers("eigentrain")
    license("BSD-3-Clause")

    version("main", branch="main")

    depends_on("c", type="build")
    depends_on("gmake", type="build")
    depends_on("pkgconfig", type="build")
    depends_on("mpi")
    depends_on("blas")
    depends_on("lapack")
    depends_on("scalapack")
    depends_on("petsc@3.18: +mpi+double~complex~int64")
    depends_on("slepc@3.18:")
    depends_on("hdf5@1.10: +mpi+hl")
    depends_on("libyaml")
    depends_on("zlib-api")
    depends_on("random123")
    depends_on("python@3.9:", type="run")
    depends_on("py-h5py", type="run")
    depends_on("py-numpy", type="run")
    depends_on("py-matplotlib", type="run")
    depends_on("py-jinja2", type="run")
    depends_on("py-pyyaml", type="run")

    @property
    def variables(self):
        """What pkg-config does not know of these packages."""
        spec = self.spec
        return [
            "INSTALL=0",
            f"MPICC={spec['mpi'].mpicc}",
            f"PETSC_DIR={spec['petsc'].prefix}",
            f"SLEPC_DIR={spec['slepc'].prefix}",
            f"SCALAPACK_LIBS={spec['scalapack'].libs.ld_flags}",
            f"BLAS_LIBS={(spec['lapack'].libs + spec['blas'].libs).ld_flags}",
            f"BLAS_CFLAGS={spec['blas'].headers.include_flags}",
            f"HDF5_CFLAGS={spec['hdf5'].headers.include_flags}",
            f"HDF5_LIBS={spec['hdf5'].libs.ld_flags}",
            f"YAML_CFLAGS={spec['libyaml'].headers.include_flags}",
            f"YAML_LIBS={spec['libyaml'].libs.ld_flags}",
            f"ZLIB_LIBS={spec['zlib-api'].libs.ld_flags}",
            f"RANDOM123_CFLAGS={spec['random123'].headers.include_flags}",
        ]

    def build(self, spec, prefix):
        make("all", *self.variables)

    def install(self, spec, prefix):
        make("install", f"PREFIX={prefix}", *self.variables)
