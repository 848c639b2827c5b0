"""What import-linter cannot say: which files may touch the world, the environment, slow libraries.

The layers of rooms and packages, and the one adapter of each tool, are contracts in pyproject.toml
(`make lint`). Files are found, not listed: a new one must be clean until it is named here.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

ROOMS = ("observability", "power", "models", "flows")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

TOUCH_THE_WORLD = {
    "flows": "joins everything",
    "models.cli": "commands",
    "models.core.library_warnings": "collects what libraries warn of",
    "models.core.user_code": "imports a class that a user's pipeline file names",
    "models.inbox.group_writer": "a thread",
    "models.inbox.inbox": "SQLite",
    "models.inbox.reader": "SQLite, and a lock between threads",
    "models.inbox.sqlite_file": "SQLite, and a lock of the operating system",
    "models.inbox.tables": "SQLite",
    "models.persistence": "files, and a thread with a deep stack for the pickler",
    "models.prediction_log": "Parquet files",
    "models.registry": "files of models",
    "models.serving.fake_inbox": "a lock, for threads",
    "models.stream": "files of streams",
    "observability.cli": "commands",
    "observability.core.atomic_file": "files",
    "observability.core.cli_output": "standard output",
    "observability.core.file_lock": "locks of the operating system",
    "observability.core.parent_watch": "processes",
    "observability.core.failpoints": "kills or delays the process for a test",
    "observability.core.toml_config": "files that people write",
    "observability.drift.evidently_adapter": "evidently, and its page",
    "observability.history": "files, DuckDB, PostgreSQL",
    "observability.metrics.prometheus": "prometheus-client, files, and a Pushgateway",
    "observability.metrics.samples": "files that are replaced",
    "observability.story.past": "the history, and a clock for how long it was open",
    "power.cli": "commands",
    "power.devices": "drivers, processes and files",
    "power.forecast.device_state_file": "a file per device",
    "power.monitoring": "a thread, and its clock",
    "power.policy.override_by_hand": "a file, the history, and a random name for its row",
    "power.policy.override_file": "a file",
}
"""Packages and modules that may touch clock, disk, log or chance, each with what it touches."""

CLEAN_WITHIN = {
    "models.stream.batches",
    "models.stream.intake_health",
    "models.stream.parsing",
    "models.stream.schema_inference",
    "observability.history.errors",
    "observability.history.records",
    "observability.history.retention",
    "observability.history.schema",
    "power.devices.device",
}
"""What is clean within a package that is not."""

LIBRARIES = {
    "observability": {"numpy", "pydantic"},
    "power": {"numpy", "pydantic"},
    "models": {
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "river",
        "scipy",
        "sklearn",
        "threadpoolctl",
    },
}
"""The libraries that clean files of a room may use."""

WORLDLY = {
    *("asyncio", "fcntl", "glob", "importlib", "io", "logging", "multiprocessing", "os", "random"),
    *("secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys"),
    *("tempfile", "threading", "time", "urllib", "uuid"),
}
"""Parts of the standard library that touch the world: no policy needs one."""

WORLDLY_CALLS = {
    *("open", "print", "input", "now", "utcnow", "today"),
    *("read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir", "touch"),
    *("exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "stat", "resolve", "cwd", "home"),
}
"""Calls that read a clock or the disk, whatever they are called on."""

UNSEEDED = re.compile(r"np\.random\.(?!default_rng\(\w|Generator\b)\w+")
"""Chance of numpy's that nobody seeded; the type of a generator that is handed in is none."""

SLOW = {
    *("duckdb", "evidently", "numpy", "pandas", "prefect", "pyarrow", "pynvml"),
    *("rich", "river", "scipy", "sklearn"),
}
"""Libraries that take longer to import than a command line may take to answer."""

ENVIRONMENT = {"environ", "environb", "getenv", "putenv", "unsetenv"}
READS_ENVIRONMENT = {"flows.config.prefect_env", "flows.config.settings"}
SETS_ENVIRONMENT = {"observability.drift.evidently_adapter": "turns off evidently's telemetry"}

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if path.name != "__init__.py"
}
SOURCES = {**FILES, "thermodrift": ROOT / "thermodrift.py"}


@cache
def parse(module: str) -> ast.Module:
    """The syntax tree of a module of the house."""
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def top(module: str) -> str:
    """The name of the room or the library in a dotted name."""
    return module.partition(".")[0]


def lies_in(module: str, places: set[str]) -> bool:
    """Whether a module is one of these places, or lies within one."""
    return any(f"{module}.".startswith(f"{place}.") for place in places)


def clean_files() -> list[str]:
    """The modules that may not touch the world."""
    return [
        module
        for module in FILES
        if lies_in(module, CLEAN_WITHIN) or not lies_in(module, set(TOUCH_THE_WORLD))
    ]


def imports_of(tree: ast.AST) -> set[str]:
    """The top-level name of everything that is imported, lazily as well."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(top(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add(top(node.module or ""))
    return found - {"__future__"}


def names_called(tree: ast.AST) -> set[str]:
    """The last part of the name of everything that is called."""
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in functions
        if isinstance(each, (ast.Name, ast.Attribute))
    }


def environment_uses(tree: ast.AST) -> Iterator[tuple[int, bool]]:
    """Where the process's environment is touched: (line, whether it is only set)."""
    set_only = {
        id(target.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Subscript)
    } | {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"setdefault", "update"}
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            yield node.lineno, id(node) in set_only
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            if ENVIRONMENT & {alias.name for alias in node.names}:
                yield node.lineno, False
        elif isinstance(node, ast.keyword) and node.arg == "envvar":
            yield node.lineno, False


def slow_after(code: str) -> list[str]:
    """The slow libraries that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({SLOW!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_every_exception_names_what_is_there() -> None:
    """An exception for a file that is gone would wait for another one of its name."""
    packages = {".".join(each.split(".")[:depth]) for each in FILES for depth in (1, 2, 3, 4)}
    named = {*TOUCH_THE_WORLD, *CLEAN_WITHIN, *SETS_ENVIRONMENT, *READS_ENVIRONMENT}
    assert set() == named - packages


def test_policies_and_mathematics_touch_no_clock_no_disk_no_log_and_no_chance() -> None:
    """Time, randomness and readings are arguments, so the same facts give the same answer."""
    found = {
        module: touched
        for module in clean_files()
        if (
            touched := (imports_of(parse(module)) & WORLDLY)
            | (names_called(parse(module)) & WORLDLY_CALLS)
            | set(UNSEEDED.findall(ast.unparse(parse(module))))
        )
    }
    assert {} == found, "hand it in as an argument, or name the file in TOUCH_THE_WORLD"


def test_policies_and_mathematics_use_few_libraries() -> None:
    """A policy can be read, tried and replayed anywhere: it needs no tool."""
    found = {
        module: outside
        for module in clean_files()
        if (
            outside := imports_of(parse(module))
            - sys.stdlib_module_names
            - {*ROOMS}
            - LIBRARIES[top(module)]
        )
    }
    assert {} == found


def test_importing_the_command_line_imports_nothing_slow() -> None:
    """Not one slow library is loaded, however deep the import of it lies."""
    assert [] == slow_after("import thermodrift")


def test_asking_for_help_imports_nothing_slow_but_the_printer() -> None:
    """Help is printed by rich; nothing else is loaded for it."""
    assert [] == [each for each in slow_after(ASK_FOR_HELP) if each != "rich"]


ASK_FOR_HELP = """
import contextlib, io, sys, thermodrift
sys.argv = ["thermodrift", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    thermodrift.main()
"""


def test_only_the_settings_read_the_environment() -> None:
    """What the environment can change stands in one file."""
    found = {
        f"{module}:{line}"
        for module in set(SOURCES) - READS_ENVIRONMENT
        for line, set_only in environment_uses(parse(module))
        if not (set_only and module in SETS_ENVIRONMENT)
    }
    assert set() == found, "flows/config is where that belongs"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import os\nhome = os.environ['HOME']", [False]),
        ("import os\nhome = os.getenv('HOME')", [False]),
        ("from os import environ", [False]),
        ("import os\nos.environ['DO_NOT_TRACK'] = '1'", [True]),
        ("import os\nos.environ.setdefault('DO_NOT_TRACK', '1')", [True]),
        ("import os\nos.environ.get('HOME')", [False]),
        ("import os\nos.fsync(3)", []),
        ("typer.Option(envvar='HOME')", [False]),
    ],
)
def test_reading_the_environment_is_told_from_setting_it(code: str, expected: list[bool]) -> None:
    """The search finds each way of reading, and an exception for setting covers no reading."""
    assert expected == [set_only for _, set_only in environment_uses(ast.parse(code))]


def test_every_library_that_is_imported_is_asked_for_by_name() -> None:
    """What comes along with another library today may be gone with its next version."""
    asked = {
        canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]
    }
    distributions = packages_distributions()
    imported = {name for module in SOURCES for name in imports_of(parse(module))}
    unasked = {
        name
        for name in imported - sys.stdlib_module_names - {*ROOMS, "thermodrift"}
        if not asked & {canonicalize_name(each) for each in distributions.get(name, [])}
    }
    assert set() == unasked


def test_contracts_and_the_wheel_cover_every_room() -> None:
    """A room that import-linter does not know would have no walls."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {
        "benchmarks",
        "examples",
        "tests",
    }
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert packages == set(ROOMS)
    assert packages == set(PROJECT["tool"]["importlinter"]["root_packages"])
    assert packages | {"thermodrift.py"} == set(wheel["only-include"])


def test_a_folder_can_be_taken_in_at_a_glance() -> None:
    """Whoever looks for a rule reads a folder's list once: about a dozen entries, never twenty."""
    entries: dict[Path, int] = {}
    for path in {path for file in FILES.values() for path in (file, file.parent)}:
        entries[path.parent] = entries.get(path.parent, 0) + 1
    assert {} == {str(folder.relative_to(ROOT)): n for folder, n in entries.items() if n > 14}
