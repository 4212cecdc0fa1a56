"""Every shipped input runs, and what it writes can be read by the tools that users have."""
from pathlib import Path
import warnings

import h5py
import numpy as np
import pytest
import xarray

ROOT = Path(__file__).resolve().parent.parent
INPUTS = [path for path in sorted((ROOT / "inputs").rglob("*.yaml"))
          if "\nsweep:" not in path.read_text(encoding="utf-8")  # tests/test_sweep.py runs the sweeps
          and "kind: hdf5" not in path.read_text(encoding="utf-8")]  # tests/test_density.py makes the file


SLOW = {"classes_fashion.yaml", "curvature_fashion.yaml", "density_fashion.yaml", "density_operators.yaml",
        "gurari_fashion.yaml", "kgmm_below.yaml", "kgmm_ten.yaml"}  # a measurement takes ten seconds, and there are two


@pytest.mark.parametrize("path", [pytest.param(path, marks=[pytest.mark.slow] * (path.name in SLOW)) for path in INPUTS],
                         ids=lambda path: str(path.relative_to(ROOT / "inputs")))
def test_shipped_input_runs(path, run):
    finished = run(path, ranks=2, args=["--set", "train.steps=3", "--set", "snapshot.every=end"])
    assert finished.returncode == 0, finished.stderr
    check_metrics(finished.dir / "metrics.h5")
    snapshots = list((finished.dir / "snapshots").iterdir())
    assert [s.name for s in snapshots] == ["step_000000003.h5"]
    open_with_xarray(snapshots[0])


def check_metrics(path):
    open_with_xarray(path)
    with h5py.File(path) as file:
        assert file.attrs["format"] == "eigentrain metrics"
        assert list(file["train/step"]) == [0, 1, 2, 3]
        assert np.all(np.isfinite(file["train/loss"]))
        provenance = file["provenance"].attrs
        for name in ("input", "resolved", "version", "git", "compiler", "flags", "mpi", "mpi-io", "blas_kernel", "ranks",
                     "grid", "threads", "host", "start", "petsc", "slepc", "hdf5"):
            assert str(provenance[name]), name
        assert provenance["mpi-io"] == "romio321"


def open_with_xarray(path):
    """Every group opens without a warning and without dimensions that had to be made up."""
    with h5py.File(path) as file:
        groups = [name for name, item in file.items() if isinstance(item, h5py.Group)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for group in [None, *groups]:
            with xarray.open_dataset(path, group=group, engine="h5netcdf") as dataset:
                assert not [d for d in dataset.dims if str(d).startswith("phony")]
                for name, variable in dataset.data_vars.items():
                    assert variable.attrs.get("long_name"), f"{group}/{name} has no long_name"


def test_all_ranks_see_the_fast_kernel(run, monkeypatch):
    """Started by mpirun or plainly: the BLAS kernel of the CPU, not OpenBLAS's fallback, and one thread a core."""
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)  # conftest.py has set it
    text = "data: {kind: gaussian, features: 3, outputs: 2, train: 4}\nmodel: {depth: 1}\ntrain: {steps: 1}\n"
    flags = set(Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split())
    for ranks in (1, 2):
        with h5py.File(run(text, ranks=ranks).dir / "metrics.h5") as file:
            kernel = str(file["provenance"].attrs["blas_kernel"]).lower()
        if "avx512bw" in flags:
            assert kernel in ("skylakex", "cooperlake", "sapphirerapids"), kernel
        elif "avx2" in flags:
            assert kernel in ("haswell", "zen", "excavator"), kernel
