#!/usr/bin/env python3
"""What a compiler does not check: python tests/lint.py --flags '<compiler flags>', from the root of the repository.

The rules of the house (floors, one library per room, contract comments, README files, no leftover marks), then
clang-format, cppcheck and clang-tidy. Prints `file:line: text` for each finding and `lint: N problems` at the end; exit
code 1 if there are any. The slow tools' answers are kept in build/lint-cache under a hash of all that they depend on.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
import functools
import hashlib
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

CACHE = Path("build/lint-cache")
PROCESSES = 2
TOOL_TIMEOUT = 300  # seconds for one file; nothing may hang

FLOORS = ("base", "dist", "net", "theory", "probes", "train", "app")
FOLDERS = ("src", "include", "inputs", "jobscripts", "postprocess", "tests")

# One library, one room: what (in an #include or in the code), where it may be. Private headers belong to their room.
LIBRARY_ROOMS = (
    ("HDF5", r"hdf5(_hl)?\.h", ("src/dist/h5*.[ch]",)),
    ("PETSc and SLEPc", r"(petsc|slepc)\w*\.h", ("src/dist/krylov*.[ch]", "src/dist/flow*.[ch]")),
    ("libyaml", r"yaml\.h", ("src/base/spec*.[ch]",)),
    ("Random123", r"Random123/.*", ("src/dist/random.c",)),
    ("zlib", r"zlib\.h", ("src/net/idx*.[ch]",)),
    ("BLAS and LAPACK", r"(cblas|f77blas|lapack|lapacke|mkl\w*)\.h", ()),
)
DENSE_ROOMS = tuple(f"src/dist/{room}*.c" for room in ("grid", "dmat", "gemm", "factor", "linop", "krylov", "basis"))
SYMBOL_ROOMS = (
    # Nothing of our own ends with an underscore: that is how Fortran's names look from C.
    ("the Fortran routine", r"\b[a-z][a-z0-9_]*[a-z0-9]_(?=\s*\()", (*DENSE_ROOMS, "src/dist/fortran.h")),
    ("the BLACS routine", r"\bC(?:blacs_\w+|sys2blacs_\w+|free_blacs_\w+|p?[sdciz]\w+2do?)(?=\s*\()",
     (*DENSE_ROOMS, "src/dist/fortran.h")),
    ("the BLAS routine", r"\b(?:cblas|LAPACKE)_\w+", DENSE_ROOMS),
    ("", r"\bMPI_COMM_WORLD\b", ("src/app/*", "src/base/*")),
)
CONTRACT = re.compile(r"\b(Collective|Root only|Local)\b")
# Written in two pieces, so that this file passes its own test.
MARKS = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]([^>"]+)[>"]', re.M)


# ---------------------------------------------------------------- sources
def sources(*patterns):
    return sorted(path for pattern in patterns for path in Path().glob(pattern))


@functools.lru_cache(maxsize=None)
def text_of(path):
    return path.read_text(encoding="utf-8", errors="replace")


def line_of(text, position):
    return text.count("\n", 0, position) + 1


TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def blanked(text, strings):
    """The text without comments (and strings), every other character at its place."""
    def blank(match):
        token = match[0]
        return token if token[0] in "\"'" and not strings else re.sub(r"[^\n]", " ", token)
    return TOKEN.sub(blank, text)


def includes(path):
    """[(line, what)] of a file."""
    text = blanked(text_of(path), strings=False)
    return [(line_of(text, match.start(1)), match[1]) for match in INCLUDE.finditer(text)]


# ---------------------------------------------------------------- rules of the house
def check_floors(path):
    floor = path.parts[1]
    if floor not in FLOORS:
        yield path, 1, f"{floor} is not a floor ({', '.join(FLOORS)})"
        return
    for line, what in includes(path):
        other = what.split("/")[0]
        if "/" in what and other in FLOORS and FLOORS.index(other) > FLOORS.index(floor):
            yield path, line, f"floor {floor} may not use {what}: floor {other} is above it"


def check_rooms(path):
    for line, what in includes(path):
        for library, pattern, rooms in LIBRARY_ROOMS:
            if re.fullmatch(pattern, what) and not in_room(path, rooms):
                yield path, line, f"{what}: {library} may be used only in {', '.join(rooms) or 'fortran.h'}"
    code = blanked(text_of(path), strings=True)
    for kind, pattern, rooms in SYMBOL_ROOMS:
        for match in re.finditer(pattern, code) if not in_room(path, rooms) else ():
            what = f"{kind} {match[0]}".strip()
            yield path, line_of(code, match.start()), f"{what} may be used only in {', '.join(rooms)}"


def in_room(path, rooms):
    return any(fnmatch(path.as_posix(), room) for room in rooms)


def check_contracts(path):
    """Every prototype, and every commented function pointer of a struct, says who has to call it."""
    for line, statement, comment in statements(text_of(path)):
        if statement.split("{")[0].find("(") < 0:
            continue
        name = re.search(r"(\w+)\s*\(", statement)[1]
        if not CONTRACT.search(comment):
            yield path, line, f"{name}: the comment must say Collective, Root only or Local"
    for line, name, comment in function_pointers(text_of(path)):
        if comment and not CONTRACT.search(comment):
            yield path, line, f"{name}: the comment must say Collective, Root only or Local"


# What a header consists of, at its outermost level.
PIECE = re.compile(r"(?P<comment>/\*.*?\*/)|(?P<directive>^[ \t]*#(?:\\\n|[^\n])*)|(?P<blank>\n[ \t]*\n)"
                   r"|(?P<end>;)|(?P<open>\{)|(?P<close>\})|(?P<space>\s)|(?P<code>.)", re.S | re.M)


def statements(text):
    """[(line, code, comment above)] of the declarations of a header. A comment holds until the next blank line."""
    comment, code, start, depth = "", "", 0, 0
    for piece in PIECE.finditer(text):
        kind = piece.lastgroup
        depth += (kind == "open") - (kind == "close")
        if kind == "comment" and not code:
            comment = piece[0]
        elif kind == "blank" and depth == 0:
            comment = ""
        elif kind in ("open", "close", "code", "end", "space") and (code or kind != "space"):
            start = start if code else piece.start()
            code += piece[0]
            # A struct ends with its semicolon, a function body with its brace.
            body = kind == "close" and "(" in code.split("{")[0]
            if depth == 0 and (kind == "end" or body):
                yield line_of(text, start), without_attributes(code), comment
                code = ""


def without_attributes(code):
    return re.sub(r"__attribute__\s*\(\(.*?\)\)(?=\s*[;{]|\s*__|$)", "", code, flags=re.S)


POINTER = re.compile(r"^[ \t]+\w[^;{}/#]*?\(\*(\w+)\)\s*\([^;{}]*?\);(?:[ \t]*(/\*.*?\*/))?", re.S | re.M)


def function_pointers(text):
    """[(line, name, comment)] of the members of structs that are function pointers; the comment is above or behind."""
    for match in POINTER.finditer(text):
        above = re.search(r"\n[ \t]*(/\*(?:(?!\*/).)*\*/)[ \t]*\n$", text[:match.start()], re.S)
        yield line_of(text, match.start()), match[1], match[2] or (above[1] if above else "")


def check_marks(path):
    for match in MARKS.finditer(text_of(path)):
        yield path, line_of(text_of(path), match.start()), f"{match[0]}: do it now or write it into an issue"


def check_readmes():
    for folder in FOLDERS:
        if not Path(folder, "README.md").is_file():
            yield Path(folder), 1, "the folder has no README.md"


def house_rules():
    for path in sources("src/**/*.[ch]", "include/**/*.h"):
        yield from check_floors(path)
        yield from check_rooms(path)
    for path in sources("include/**/*.h"):
        yield from check_contracts(path)
    for path in sources("*.md", "Makefile", *(f"{folder}/**/*" for folder in FOLDERS)):
        if path.is_file() and path.suffix in (".c", ".h", ".py", ".md", ".yaml", ".sh", ""):
            yield from check_marks(path)
    yield from check_readmes()


# ---------------------------------------------------------------- tools
def check_format(paths):
    code, output = run_tool(["clang-format", "--dry-run", "-Werror", *map(str, paths)])
    # One finding a line is enough; clang-format reports every gap between two tokens.
    places = set(re.findall(r"^(\S+?):(\d+):\d+: error:", output, re.M))
    for path, line in places:
        yield Path(path), int(line), "not formatted as .clang-format says (make format)"
    if code and not places:
        yield Path(".clang-format"), 1, f"clang-format failed: {output.strip()}"


def run_tool(command):
    """(exit code, output)"""
    result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace", timeout=TOOL_TIMEOUT, check=False)
    return result.returncode, result.stdout


def cppcheck_command(path, flags, no_return):
    # Of the flags only the project's own: cppcheck knows the C library, and does not need the rest.
    own = [flag for flag in flags if flag.startswith("-D") or flag == "-Iinclude"]
    return ["cppcheck", "--quiet", "--std=c11", "--enable=warning,performance,portability", "--inline-suppr",
            "--error-exitcode=1", "--suppress=missingInclude", "--suppress=missingIncludeSystem",
            "--suppress=unmatchedSuppression", "--suppress=preprocessorErrorDirective", f"--library={no_return}",
            "--template={file}:{line}:{column}: {severity}: {message} [{id}]", *own, f"-I{path.parent}", str(path)]


def write_no_return():
    """Tells cppcheck, which overlooks _Noreturn, what does not return: else it suspects the code after each `ensure`."""
    code = "\n".join(map(text_of, sources("src/**/*.[ch]", "include/**/*.h")))
    names = ",".join(sorted(set(re.findall(r"_Noreturn\b[^;{}()]*?(\w+)\s*\(", code))))
    text = (f'<?xml version="1.0"?>\n<def format="2"><function name="{names}"><noreturn>true</noreturn>'
            '<arg nr="variadic"/></function></def>\n')
    path = CACHE / f"noreturn-{hashlib.sha256(text.encode()).hexdigest()[:8]}.cfg"  # the name enters the fingerprints
    write_atomically(path, text)
    return path


def clang_tidy_command(path, flags):
    # The Makefile gives these to build.c alone.
    facts = [f'-DEIGENTRAIN_{fact}=""' for fact in ("VERSION", "GIT", "FLAGS")]
    # The analyser's own limit, 225000 nodes a function, makes a long function take ten seconds instead of two.
    depth = ["-Xclang", "-analyzer-config", "-Xclang", "max-nodes=20000"]
    return ["clang-tidy", "--quiet", str(path), "--", *flags, f"-I{path.parent}", *facts, *depth]


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def analyse(job):
    """Findings of one tool on one file, from the cache if nothing that they depend on has changed."""
    command, path = job
    cached = CACHE / f"{fingerprint(command, path)}.json"
    try:
        return json.loads(cached.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    pattern = r"^([^\s:][^:\n]*):(\d+):\d+: (?:fatal )?(?:error|warning|performance|portability): (.*)$"
    code, output = run_tool(command)
    findings = [(relative(file), int(line), text) for file, line, text in re.findall(pattern, output, re.M)]
    if code and not findings:
        return [(str(path), 1, f"{command[0]} failed: {output.strip()[-500:]}")]
    write_atomically(cached, json.dumps(findings))
    return findings


def relative(file):
    return os.path.relpath(file) if os.path.isabs(file) else file


def fingerprint(command, path):
    digest = hashlib.sha256("\0".join([tool_version(command[0]), *command]).encode())
    for part in sorted(reached(path) | {Path(".clang-tidy")}):
        digest.update(part.read_bytes() if part.is_file() else b"")
    return digest.hexdigest()[:32]


@functools.lru_cache(maxsize=None)
def tool_version(tool):
    return run_tool([tool, "--version"])[1]


def reached(path):
    """The file and all files of the project that it includes, directly or not."""
    found, waiting = set(), [path]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            folders = (Path("include"), Path("src"), file.parent)
            candidates = (folder / what for _, what in includes(file) for folder in folders)
            waiting += [candidate for candidate in candidates if candidate.is_file()]
    return found


def compiler_flags(text):
    """What matters to an analyser: the standard, definitions and include folders, those of the MPI wrapper included."""
    words = shlex.split(text)
    wrapper = os.environ.get("MPICC", "mpicc")
    try:
        words += shlex.split(run_tool([wrapper, "-show"])[1])
    except OSError:
        pass  # the flags given may be complete
    kept = []
    for word, following in zip(words, words[1:] + [""]):
        if word == "-isystem":
            kept += [word, following]
        elif re.match(r"-(std=|D|I.)", word):
            # Folders outside of the project are not ours to judge.
            kept += ["-isystem", word[2:]] if word.startswith("-I/") else [word]
    return kept


def tool_findings(flags):
    units = sources("src/**/*.c")
    no_return = write_no_return()
    yield from check_format(sources("src/**/*.[ch]", "include/**/*.h", "tests/**/*.[ch]"))
    jobs = [(clang_tidy_command(path, flags), path) for path in units]
    jobs += [(cppcheck_command(path, flags, no_return), path) for path in units + sources("tests/**/*.c")]
    with ThreadPoolExecutor(PROCESSES) as pool:
        for findings in pool.map(analyse, jobs):
            for file, line, text in findings:
                yield Path(file), line, text


def main():
    parser = argparse.ArgumentParser(description="Checks the rules of the house, the format, and for likely bugs.")
    parser.add_argument("--flags", default="-std=c11 -D_GNU_SOURCE -Iinclude", help="flags of the compiler")
    options = parser.parse_args()
    # The same header is met from many files.
    findings = set(house_rules())
    try:
        findings |= set(tool_findings(compiler_flags(options.flags)))
    except FileNotFoundError as error:
        findings.add((Path("lint"), 1, f"{error.filename} is not installed"))
    except subprocess.TimeoutExpired as error:
        findings.add((Path("lint"), 1, f"no answer within {TOOL_TIMEOUT} s: {shlex.join(error.cmd)}"))
    for path, line, text in sorted(findings):
        print(f"{path}:{line}: {text}")
    print(f"lint: {len(findings)} problems")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
