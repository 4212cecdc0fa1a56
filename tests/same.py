"""Whether two runs have the same numbers, bit for bit."""
import h5py

MACHINE = ("timing", "provenance")  # groups that say when and where a run was made


def datasets(path):
    """{name: bytes} of everything in a file that does not depend on when and where it was made."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset) and name.split("/")[0] not in MACHINE:
            found[name] = (item.shape, item[()].tobytes() if item.shape is not None else b"")
    with h5py.File(path, "r") as file:
        file.visititems(take)
    return found


def file_differences(left, right):
    """Names of the datasets that are in one file only or differ."""
    a, b = datasets(left), datasets(right)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def assert_same(left, right):
    """Metrics and all snapshots of the run `left` are, bit for bit, those of `right`, which may have more snapshots."""
    files = ["metrics.h5", *sorted(f"snapshots/{path.name}" for path in left.glob("snapshots/*.h5"))]
    different = {name: file_differences(left / name, right / name) for name in files}
    assert not any(different.values()), {name: names for name, names in different.items() if names}
