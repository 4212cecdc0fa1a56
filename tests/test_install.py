"""`make install`, and a build without pkg-config: what users of other systems do."""
import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from run import child_environment, execute

ROOT = Path(__file__).resolve().parent.parent
INPUT = "data: {kind: gaussian, features: 9, outputs: 3, train: 20}\nmodel: {width: 8, depth: 2}\ntrain: {steps: 4}\n" \
        "probes: [{kind: spectrum, every: 2, rank: 2}]\n"


def make(*words, timeout=900, **environment):
    done = subprocess.run(["make", "-C", str(ROOT), "INSTALL=0", *words], capture_output=True, text=True, timeout=timeout, check=False,
                          env={**os.environ, **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_install(eigentrain, mpirun, tmp_path):
    """What is installed stands by itself: program, inputs, figures."""
    make("install", f"BUILD={eigentrain.parent.absolute()}", f"PREFIX={tmp_path}/prefix")
    installed = tmp_path / "prefix"
    share = installed / "share" / "eigentrain"
    assert not list(share.rglob("__pycache__"))
    words = [*mpirun, "-n", "2", str(installed / "bin" / "eigentrain"), "run", str(share / "inputs" / "parsimony" / "dln_diag.yaml"),
             "--out", str(tmp_path / "out")]
    done = execute(words, 120, cwd=tmp_path, env=child_environment())
    assert done.returncode == 0, done.stderr
    done = execute([sys.executable, str(share / "postprocess" / "report.py"), str(tmp_path / "out")], 120, cwd=tmp_path)
    assert done.returncode == 0 and (tmp_path / "out" / "report.html").is_file(), done.stderr


# ---------------------------------------------------------------- a prefix made by hand
def asked(what, *packages):
    return subprocess.run(["pkg-config", what, *packages], capture_output=True, text=True, check=True).stdout.split()


def folder_of(package, holds):
    """Of an -I or -L of the package."""
    what = "--cflags" if holds.endswith(".h") else "--libs"
    folders = [Path(word[2:]) for word in asked(what, package) if word[:2] in ("-I", "-L")]
    folders += [Path(folder) for folder in ("/usr/include", "/usr/lib/x86_64-linux-gnu", "/usr/lib")]
    return next(folder for folder in folders if (folder / holds).exists())


@pytest.fixture
def prefix(tmp_path):
    """Folders as they lie on a cluster: PETSC_DIR and SLEPC_DIR with include and lib, the others in one lib."""
    if not shutil.which("pkg-config"):
        pytest.fail("pkg-config is not installed: where should the libraries be taken from?")
    for name, library in (("petsc", "libpetsc_real.so"), ("slepc", "libslepc_real.so")):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "include").symlink_to(folder_of(name, f"{name}.h"))
        (tmp_path / name / "lib" / f"lib{name}.so").symlink_to(folder_of(name, library) / library)
    (tmp_path / "lib").mkdir()
    for package, library, name in (("scalapack-openmpi", "libscalapack-openmpi.so", "libscalapack.so"),
                                   ("openblas", "libopenblas.so", "libblas_of_the_site.so"),
                                   ("hdf5-openmpi", "libhdf5.so", "libhdf5.so"), ("hdf5-openmpi", "libhdf5_hl.so", "libhdf5_hl.so")):
        (tmp_path / "lib" / name).symlink_to(folder_of(package, library) / library)
    (tmp_path / "hdf5").symlink_to(folder_of("hdf5-openmpi", "hdf5.h"))
    return tmp_path


@pytest.mark.slow
def test_build_without_pkg_config(prefix, mpirun):
    """By the variables that the README names; no pkg-config file is found."""
    build, lib = prefix / "build", prefix / "lib"
    said = make("all", f"BUILD={build}", "-j2", f"PETSC_DIR={prefix}/petsc", f"SLEPC_DIR={prefix}/slepc", f"SCALAPACK_LIBS=-L{lib} -lscalapack",
                f"BLAS_LIBS=-L{lib} -lblas_of_the_site", f"HDF5_CFLAGS=-I{prefix}/hdf5", f"HDF5_LIBS=-L{lib} -lhdf5", "YAML_LIBS=-lyaml",
                "ZLIB_LIBS=-lz", "CMOCKA_LIBS=-lcmocka", PKG_CONFIG_LIBDIR="/nonexistent", PKG_CONFIG_PATH="")
    assert "no pkg-config file" not in said
    (prefix / "input.yaml").write_text(INPUT, encoding="utf-8")
    words = [*mpirun, "-n", "2", str(build / "eigentrain"), "run", str(prefix / "input.yaml"), "--out", str(prefix / "out")]
    done = execute(words, 120, cwd=prefix, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert (prefix / "out" / "metrics.h5").is_file()


def test_missing_library_is_named(tmp_path):
    """A build on a system where something is not found says what, and which variable to set."""
    done = subprocess.run(["make", "-C", str(ROOT), "INSTALL=0", f"BUILD={tmp_path}/build", f"{tmp_path}/build/config.mk"], capture_output=True,
                          text=True, timeout=60, check=False, env={**os.environ, "PKG_CONFIG_LIBDIR": "/nonexistent", "PKG_CONFIG_PATH": ""})
    for library in ("PETSC", "SLEPC", "SCALAPACK", "HDF5", "BLAS", "YAML", "ZLIB"):
        assert f"no pkg-config file for {library}" in done.stderr and f"set {library}_CFLAGS and {library}_LIBS" in done.stderr, done.stderr
