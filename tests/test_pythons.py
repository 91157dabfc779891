"""The code is valid for every Python that is supported: its syntax, and what it imports of the standard library.

Each Python that this machine has checks for itself; CI has 3.11.2, 3.12 and 3.13.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])

CHECK = """
import importlib, json, sys, warnings
warnings.simplefilter("error")  # a deprecated escape is a SyntaxWarning
asked, wrong = json.load(sys.stdin), []
for file in asked["files"]:
    try:
        compile(open(file, encoding="utf-8").read(), file, "exec")
    except (SyntaxError, Warning) as error:
        wrong.append(f"{file}: {error}")
warnings.simplefilter("ignore")
for module, names in asked["names"].items():
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        wrong.append(f"{module}: {error}")
        continue
    for name in names:
        try:
            hasattr(loaded, name) or importlib.import_module(f"{module}.{name}")
        except ImportError:
            wrong.append(f"{module} has no {name}")
print(json.dumps([list(sys.version_info[:3]), wrong]))
"""


def standard_library() -> dict[str, list[str]]:
    """The modules of the standard library that the package uses, and the names of each that it imports or reads."""
    used: dict[str, set[str]] = {}
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        modules: dict[str, str] = {}  # by the name that they have in the file
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules |= {alias.asname or alias.name: alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                used.setdefault(node.module, set()).update(alias.name for alias in node.names)
        for module in modules.values():
            used.setdefault(module, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
                used[modules[node.value.id]].add(node.attr)
    known = sys.stdlib_module_names - {"__future__", "resource", "fcntl", "signal"}
    return {module: sorted(names) for module, names in used.items() if module.partition(".")[0] in known}


def pythons() -> list[str]:
    """The interpreters of this machine, each once."""
    found = ["/usr/bin/python3", *(shutil.which(f"python3.{minor}") or "" for minor in (11, 12, 13))]
    found += map(str, Path("~/.pyenv/versions").expanduser().glob("3.1[123].*/bin/python"))
    found += map(str, Path("/root/.pyenv/versions").glob("3.1[123].*/bin/python"))
    return list(dict.fromkeys(path for path in found if path and Path(path).exists() and "shims" not in path))


@pytest.mark.parametrize("python", pythons())
def test_syntax_and_standard_library(python: str) -> None:
    asked = {"files": list(map(str, FILES)), "names": standard_library()}
    assert len(asked["names"]) > 30
    done = subprocess.run([python, "-c", CHECK], input=json.dumps(asked), capture_output=True, text=True, check=True)
    version, wrong = json.loads(done.stdout)
    if version < [3, 11]:
        pytest.skip(f"{python} is {version}")
    assert wrong == [], version


# what Windows lacks of the standard library
POSIX_MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "posix"}
POSIX_NAMES = {
    *(
        "fork",
        "nice",
        "getuid",
        "geteuid",
        "getpgid",
        "killpg",
        "setsid",
        "pread",
        "preadv",
        "uname",
        "statvfs",
        "kill",
    ),
    *("sched_getaffinity", "sched_setaffinity", "mkfifo", "chown", "wait3", "wait4"),
}


def posix_only(source: str) -> list[str]:
    """Imports and calls that fail on Windows, unless a `try` or `hasattr(os, NAME)` of the same file guards them."""
    tree = ast.parse(source)
    guarded = {id(node) for outer in ast.walk(tree) if isinstance(outer, ast.Try) for node in ast.walk(outer)}
    asked = set(re.findall(r'hasattr\(os, "(\w+)"\)', source))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in guarded:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [name for name in names if name in POSIX_MODULES]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            found += [f"os.{node.attr}"] if node.attr in POSIX_NAMES - asked else []
    return found


def test_the_check_of_posix_knows_wrong_ones() -> None:
    assert posix_only("import fcntl, os\nos.nice(3)") == ["fcntl", "os.nice"]
    assert posix_only('try:\n    import fcntl\nexcept ImportError:\n    pass\nif hasattr(os, "nice"): os.nice(3)') == []


def test_nothing_in_the_package_needs_posix() -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in (ROOT / "src").rglob("*.py")
        if (found := posix_only(path.read_text(encoding="utf-8")))
    }
    assert wrong == {}
