"""The walls of the house: what each kind of file may import, and what it must not do.

import-linter (in pyproject.toml) holds the rooms apart. Here stand the rules that it cannot say:
what a *kind* of file may do. Files are found, not listed: a new one fails until `HOUSE` says what
it is.
"""

from __future__ import annotations

import ast
import json
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

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("observability", "power", "models", "flows")

HOUSE: dict[str, dict[str, str]] = {
    "ground": {
        # Open to every file: of the whole house in observability, else of its own room.
        "observability": "decision errors history_errors log_names records",
        "models": "example factory guard pickling spelling",
    },
    "sill": {
        # Open to doors and desks, in the same way: what they share, such as disk and console.
        "observability": "console durable faults places toml",
        "power": "twin",
        "models": "seal",
    },
    "pure": {
        "observability": "bill clock drift keeping migrations worth",
        "power": "account admission cap device energy forecast gate picture plant policies thermal",
        "models": "cells charset columns formats holdout inference intake intake_health promotion"
        " ranges survey times",
    },
    "maths": {
        "models": "baseline batch blend challenge guarded learner metrics novelty online"
        " prequential recipes row_digest scoring threshold warned",
    },
    "part": {
        # One step of a door's work in a file of its own: `PART_OF` names the door.
        "observability": "duck home_file home_lock ledger_file ledger_lake ledger_steps"
        " prediction_view spool",
        "power": "child reader",
        "models": "compaction log_files parquet text text_file unpacking",
    },
    "door": {
        "observability": "history reports",
        "power": "leases limits memory nvml override replay sensors",
        "models": "checkpoint partials predictions store stream",
    },
    "desk": {
        "observability": "desk",
        "power": "desk gate_options override_desk simulate_desk",
        "models": "desk",
    },
    "flow": {
        # Joins the others, decides nothing; import-linter keeps the tools away from it.
        "flows": "admit attempts beginning board box claims clock coming_back configuration course"
        " cycle deployed deployments desk doctor drift_view embedded fitting follower"
        " fresh_database goodbye jobs learn looks metering overrides pipeline power_source"
        " progress reconcile rejects replay retrain retrain_rows server session settings"
        " settling shifts state status stopping stream_view summary template tethered turns untold"
        " upkeep vigil watch",
    },
}
"""Every file of every room by its kind; `docs/architecture.md` says what the kinds mean."""

KINDS = {
    f"{room}.{name}": kind
    for kind, rooms in HOUSE.items()
    for room, names in rooms.items()
    for name in names.split()
}

PART_OF = {
    "observability.history.backends.duckdb_connection": "observability.history.store",
    "observability.history.home_config": "observability.history.store",
    "observability.history.backends.lock": "observability.history.store",
    "observability.history.backends.duckdb_file": "observability.history.store",
    "observability.history.backends.ducklake": "observability.history.store",
    "observability.history.backends.migrator": "observability.history.store",
    "observability.history.backends.predictions_view": "observability.history.store",
    "observability.history.outbox": "observability.history.store",
    "power.devices.supervised_process": "power.devices.nvml",
    "power.devices.nvml_worker": "power.devices.nvml",
    "models.prediction_log.compaction": "models.prediction_log.prediction_log",
    "models.prediction_log.segments": "models.prediction_log.prediction_log",
    "models.stream.parquet_source": "models.stream.source",
    "models.stream.text_records": "models.stream.source",
    "models.stream.text_source": "models.stream.source",
    "models.stream.decompression": "models.stream.source",
}
"""A part is imported by its door, and by that door's other parts."""

PRINTS_KNOBS = "flows.config.reference"
"""Prints the knobs of every file that people write, those of parts too: it opens nothing."""

OPENS_TO = {
    "ground": {"ground"},
    "sill": {"ground", "sill"},
    "pure": {"ground", "pure"},
    "maths": {"ground", "pure", "maths"},
    "part": {"ground", "sill", "pure", "maths", "part"},
    "door": {"ground", "sill", "pure", "maths", "part"},
    "desk": {"ground", "sill", "pure", "maths", "door", "desk"},
}
"""The kinds that a kind may import."""

REACH = {kind: {"ground", "sill"} for kind in OPENS_TO} | {"desk": {"ground", "sill", "door"}}
"""The kinds that it may import from another room: a desk writes and asks history as well."""

CLEAN = {"pure", "ground"}
JUDGES_NEED = {"pydantic", "numpy"}
"""The libraries of pure files."""

WORLDLY = {
    *("asyncio", "fcntl", "glob", "importlib", "io", "logging", "multiprocessing", "os", "random"),
    *("secrets", "select", "shutil", "signal", "socket", "sqlite3", "subprocess", "sys"),
    *("tempfile", "threading", "time", "urllib", "uuid"),
}
"""Parts of the standard library that touch the world: no judge needs one."""

WORLDLY_CALLS = {
    *("open", "print", "input", "now", "utcnow", "today"),
    *("read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "rmdir", "touch"),
    *("exists", "is_file", "is_dir", "iterdir", "glob", "rglob", "stat", "resolve", "cwd", "home"),
}
"""Calls that read a clock or the disk, whatever they are called on."""

LOADERS = {
    "models.core.user_code": "imports a class that a user's pipeline file names",
    "models.persistence.serialization": "needs a thread with a deeper stack, and changes nothing outside it",
}
"""Ground that must touch the interpreter, each with its reason."""

SLOW = {
    *("duckdb", "evidently", "numpy", "pandas", "prefect", "pyarrow", "pynvml"),
    *("rich", "river", "scipy", "sklearn"),
}
"""Libraries that take longer to import than a command line may take to answer."""

ENVIRONMENT = {"environ", "environb", "getenv", "putenv", "unsetenv"}
READS_ENVIRONMENT = "flows.config.settings"
SETS_ENVIRONMENT = {"observability.drift.evidently_adapter": "turns off evidently's telemetry"}


def house_files() -> dict[str, Path]:
    """Every module of every room by its dotted name, without the rooms' __init__."""
    return {
        f"{room}.{path.stem}": path
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        if path.name != "__init__.py"
    }


FILES = house_files()
SOURCES = {**FILES, "thermodrift": ROOT / "thermodrift.py"}


def files_of(*kinds: str) -> list[str]:
    """The modules of these kinds that exist."""
    return [module for module in FILES if KINDS.get(module) in kinds]


def imports_of(tree: ast.AST) -> set[str]:
    """Every imported module; `from room import file` counts as `room.file`. Lazy ones count too."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module in ROOMS:
                found.update(f"{module}.{alias.name}" for alias in node.names)
            else:
                found.add(module)
    return found - {"__future__"}


def eager(tree: ast.Module) -> ast.Module:
    """What runs when the module is imported: no bodies of functions, nothing for type checkers."""
    kept = [
        node
        for node in tree.body
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    ]
    return ast.Module(body=kept, type_ignores=[])


def libraries_of(tree: ast.AST) -> set[str]:
    """The first parts of the names of all imported modules."""
    return {top(name) for name in imports_of(tree)}


@cache
def parse(module: str) -> ast.Module:
    """The syntax tree of a module of the house, which nobody changes."""
    return ast.parse(SOURCES[module].read_text(encoding="utf-8"))


def top(module: str) -> str:
    """The distribution's or the room's name in a dotted name."""
    return module.partition(".")[0]


def is_ours(module: str) -> bool:
    """Whether an imported module is a room's."""
    return top(module) in ROOMS


def names_called(tree: ast.AST) -> Iterator[str]:
    """The last part of the name of everything that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.func.id
            elif isinstance(node.func, ast.Attribute):
                yield node.func.attr


def environment_uses(tree: ast.AST) -> list[tuple[int, bool]]:
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
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT:
            found.append((node.lineno, id(node) in set_only))
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            if ENVIRONMENT & {alias.name for alias in node.names}:
                found.append((node.lineno, False))
        elif isinstance(node, ast.keyword) and node.arg == "envvar":
            found.append((node.lineno, False))
    return found


def test_every_file_of_a_room_has_a_kind() -> None:
    """A new file says what it is, so that the rules of its kind are held."""
    nameless = [str(path.relative_to(ROOT)) for each, path in FILES.items() if each not in KINDS]
    assert [] == nameless, (
        "say in HOUSE in tests/test_rooms.py what kind of file each of these is "
        "(docs/architecture.md has the kinds)"
    )


def test_no_file_has_two_kinds() -> None:
    """A file is one thing, so no name stands twice in the table."""
    named = [
        f"{room}.{name}"
        for rooms in HOUSE.values()
        for room, names in rooms.items()
        for name in names.split()
    ]
    assert sorted(set(named)) == sorted(named)


def test_a_file_imports_only_the_kinds_that_are_open_to_its_kind() -> None:
    """Inside a room: desk, then door, then pure; of another room the open ground alone."""
    wrong = []
    for module in files_of(*OPENS_TO):
        kind = KINDS[module]
        for imported in sorted(filter(is_ours, imports_of(parse(module)))):
            its_kind = KINDS.get(imported, "of no kind")
            may = OPENS_TO if top(imported) == top(module) else REACH
            if its_kind not in OPENS_TO[kind] & may[kind]:
                wrong.append(f"{module} ({kind}) imports {imported} ({its_kind})")
    assert [] == wrong


def test_a_part_of_a_door_is_imported_behind_that_door_alone() -> None:
    """What is split off a door for length is still behind it."""
    assert [] == [
        f"{module} imports {part}, a part of {PART_OF[part]}"
        for module in FILES
        for part in sorted(imports_of(parse(module)) & PART_OF.keys())
        if PART_OF[part] not in (module, PART_OF.get(module)) and module != PRINTS_KNOBS
    ]


def test_every_part_names_its_door() -> None:
    """A part without a door would be open to nobody, or to everybody."""
    assert {module for module, kind in KINDS.items() if kind == "part"} == set(PART_OF)


def test_a_pure_file_imports_no_library_but_pydantic_and_numpy() -> None:
    """A judge can be read, tried and replayed anywhere: it needs no tool."""
    open_to_judges = {*sys.stdlib_module_names, *ROOMS, *JUDGES_NEED}
    assert [] == [
        f"{module} imports {library}"
        for module in files_of("pure")
        for library in sorted(libraries_of(parse(module)) - open_to_judges)
    ]


def test_what_is_pure_or_maths_touches_no_clock_no_disk_no_log_and_no_chance() -> None:
    """Time, randomness and readings are arguments: the same facts give the same answer.

    Maths draws its chance from a seed, so that the same records leave the same model.
    """
    wrong = []
    for module in files_of("pure", "ground", "maths"):
        if module in LOADERS:
            continue
        tree = parse(module)
        touched = libraries_of(tree) & WORLDLY | set(names_called(tree)) & WORLDLY_CALLS
        if KINDS[module] != "maths" and "np.random" in ast.unparse(tree):
            touched |= {"np.random"}
        wrong += [f"{module} touches {each}" for each in sorted(touched)]
    assert [] == wrong


def test_what_is_no_door_imports_no_tool() -> None:
    """Each tool has one door, and what lies below the doors knows none."""
    tools = {"duckdb", "evidently", "pynvml", "prefect", "filelock"}
    assert [] == [
        f"{module} imports {tool}"
        for module in files_of("pure", "maths", "ground")
        for tool in sorted(libraries_of(parse(module)) & tools)
    ]


def test_desks_and_what_all_share_import_slow_libraries_only_inside_functions() -> None:
    """`thermodrift --help` answers at once."""
    assert [] == [
        f"{module} imports {library} when it is imported"
        for module in ("thermodrift", "flows.cli.commands", *files_of("ground", "sill", "desk"))
        for library in sorted(libraries_of(eager(parse(module))) & SLOW)
    ]


def test_nobody_imports_the_front_desk_or_the_tests() -> None:
    """The front desk joins the rooms and is joined by none; tests are not part of the product."""
    assert [] == [
        f"{module} imports {imported}"
        for module in FILES
        for imported in sorted(libraries_of(parse(module)) & {"thermodrift", "tests"})
    ]


def test_the_front_desk_reaches_the_rooms_through_their_desks() -> None:
    """The front desk joins desks, with the ground, the sill and the settings to hand to them."""
    kinds = {"ground", "sill", "desk"}
    behind = {
        name
        for name in filter(is_ours, imports_of(parse("thermodrift")))
        if not (KINDS.get(name) in kinds or name in {READS_ENVIRONMENT, "flows.cli.commands"})
    }
    assert set() == behind


def test_importing_the_front_desk_imports_nothing_slow() -> None:
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


def slow_after(code: str) -> list[str]:
    """The slow libraries that a fresh interpreter has loaded after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({SLOW!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
    loaded: list[str] = json.loads(done.stdout)
    return loaded


def test_only_the_settings_read_the_environment() -> None:
    """What the environment can change stands in one file, flows/config/settings.py."""
    assert [] == [
        f"{module}:{line} touches the environment"
        for module in SOURCES
        if module != READS_ENVIRONMENT
        for line, set_only in environment_uses(parse(module))
        if not (set_only and module in SETS_ENVIRONMENT)
    ]


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


def test_every_file_says_what_it_is_for() -> None:
    """A newcomer knows from the first lines what a file is for."""
    folders = (*ROOMS, "tests", "benchmarks", "examples")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert [] == [
        str(path.relative_to(ROOT))
        for path in (*paths, ROOT / "thermodrift.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]


def test_every_imported_library_is_asked_for() -> None:
    """A library that comes along with another may leave with it, so pyproject.toml names ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {
        canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]
    }
    distributions = packages_distributions()
    imported = {name for module in SOURCES for name in libraries_of(parse(module))}
    libraries = imported - sys.stdlib_module_names - {*ROOMS, "thermodrift"}
    unasked = {
        name
        for name in libraries
        if not asked & {canonicalize_name(each) for each in distributions.get(name, [])}
    }
    assert set() == unasked


def test_the_contracts_of_the_rooms_cover_every_room() -> None:
    """A room that import-linter does not know would have no walls."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    beside = {"tests", "benchmarks"}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - beside
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert packages == set(ROOMS)
    assert packages == set(project["tool"]["importlinter"]["root_packages"])
    assert packages | {"thermodrift.py"} == set(wheel["only-include"])
