"""Programs of the postprocessing in this process, which spares the start of another one: most of it is Matplotlib's."""
from contextlib import redirect_stderr, redirect_stdout
import importlib
import io
from pathlib import Path
from subprocess import CompletedProcess
import sys
import warnings

POSTPROCESS = Path(__file__).resolve().parent.parent / "postprocess"
SILENT = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)  # Python does not show these


def draw_here(program, *arguments):
    """draw_here("plot", DIR, …): exit code and output, as of `python postprocess/plot.py DIR …`.

    A warning, of which the other process would tell on standard error, is an exception here.
    """
    if str(POSTPROCESS) not in sys.path:
        sys.path.insert(0, str(POSTPROCESS))
    main = importlib.import_module(program).main
    stdout, stderr, words = io.StringIO(), io.StringIO(), sys.argv
    with redirect_stdout(stdout), redirect_stderr(stderr), warnings.catch_warnings():
        warnings.simplefilter("error")
        for category in SILENT:
            warnings.simplefilter("ignore", category)
        sys.argv = [f"{program}.py", *map(str, arguments)]
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.argv = words
    return CompletedProcess([program, *arguments], code, stdout.getvalue(), stderr.getvalue())
