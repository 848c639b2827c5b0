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
        " learning_health ranges survey times",
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
        "flows": "admit attempts beginning board box checkpoint_header claims clock coming_back"
        " configuration context course cycle deployed deployments desk doctor drift_view"
        " embedded fitting follower fresh_database goodbye jobs learn learn_stream looks"
        " metering overrides pipeline power_source progress reconcile rejects replay retrain"
        " retrain_rows run_record server session settings settling shifts state statistics"
        " status stopping stream_view summary template tethered turns unit_of_work untold"
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


def parse(module: str) -> ast.Module:
    """The syntax tree of a module of the house."""
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


@pytest.mark.parametrize("module", FILES)
def test_every_file_of_a_room_has_a_kind(module: str) -> None:
    """A new file says what it is, so that the rules of its kind are held."""
    assert module in KINDS, (
        f"{FILES[module].relative_to(ROOT)} is in no row of HOUSE in tests/test_rooms.py: "
        "say what kind of file it is (docs/architecture.md has the kinds)"
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


@pytest.mark.parametrize("module", [m for m in FILES if KINDS.get(m) in OPENS_TO])
def test_a_file_imports_only_the_kinds_that_are_open_to_its_kind(module: str) -> None:
    """Inside a room: desk, then door, then pure; of another room the open ground alone."""
    room, kind = top(module), KINDS[module]
    for imported in sorted(filter(is_ours, imports_of(parse(module)))):
        its_kind = KINDS.get(imported, "of no kind")
        assert its_kind in OPENS_TO[kind], f"{module} ({kind}) imports {imported} ({its_kind})"
        if top(imported) != room:
            assert its_kind in REACH[kind], f"{module} reaches into {imported} ({its_kind})"


@pytest.mark.parametrize(("part", "door"), PART_OF.items())
def test_a_part_of_a_door_is_imported_behind_that_door_alone(part: str, door: str) -> None:
    """What is split off a door for length is still behind it."""
    importers = {module for module in FILES if part in imports_of(parse(module))} - {PRINTS_KNOBS}
    assert importers <= {door, *(each for each, its in PART_OF.items() if its == door)}


def test_every_part_names_its_door() -> None:
    """A part without a door would be open to nobody, or to everybody."""
    assert {module for module, kind in KINDS.items() if kind == "part"} == set(PART_OF)


@pytest.mark.parametrize("module", files_of("pure"))
def test_a_pure_file_imports_no_library_but_pydantic_and_numpy(module: str) -> None:
    """A judge can be read, tried and replayed anywhere: it needs no tool."""
    outside = {top(name) for name in imports_of(parse(module)) if not is_ours(name)}
    assert outside - sys.stdlib_module_names <= JUDGES_NEED


@pytest.mark.parametrize("module", [m for m in files_of(*CLEAN) if m not in LOADERS])
def test_a_pure_file_touches_no_clock_no_disk_no_log_and_no_chance(module: str) -> None:
    """Time, randomness and readings are arguments, so the same facts give the same answer."""
    tree = parse(module)
    assert set() == {top(name) for name in imports_of(tree)} & WORLDLY
    assert set() == set(names_called(tree)) & WORLDLY_CALLS
    assert "np.random" not in ast.unparse(tree)


@pytest.mark.parametrize("module", files_of("maths"))
def test_maths_touches_no_clock_no_disk_and_no_log(module: str) -> None:
    """The same records in the same order leave the same model, so nothing else may enter."""
    tree = parse(module)
    assert set() == {top(name) for name in imports_of(tree)} & WORLDLY
    assert set() == set(names_called(tree)) & WORLDLY_CALLS


@pytest.mark.parametrize("module", files_of("pure", "maths", "ground"))
def test_what_is_no_door_imports_no_tool(module: str) -> None:
    """Each tool has one door, and what lies below the doors knows none."""
    tools = {"duckdb", "evidently", "pynvml", "prefect", "filelock"}
    assert set() == {top(name) for name in imports_of(parse(module))} & tools


@pytest.mark.parametrize(
    "module",
    ["thermodrift", "flows.cli.commands", *files_of("ground", "sill", "desk")],
)
def test_desks_and_what_all_share_import_slow_libraries_only_inside_functions(module: str) -> None:
    """`thermodrift --help` answers at once."""
    assert set() == {top(name) for name in imports_of(eager(parse(module)))} & SLOW


@pytest.mark.parametrize("module", FILES)
def test_nobody_imports_the_front_desk_or_the_tests(module: str) -> None:
    """The front desk joins the rooms and is joined by none; tests are not part of the product."""
    assert set() == {top(name) for name in imports_of(parse(module))} & {"thermodrift", "tests"}


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


@pytest.mark.parametrize("module", [m for m in SOURCES if m != READS_ENVIRONMENT])
def test_only_the_settings_read_the_environment(module: str) -> None:
    """What the environment can change stands in one file."""
    uses = environment_uses(parse(module))
    if module in SETS_ENVIRONMENT:
        uses = [(line, set_only) for line, set_only in uses if not set_only]
    assert [] == uses, (
        f"{module} touches the environment; flows/config/settings.py is where that belongs"
    )


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


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=str(path.relative_to(ROOT)))
        for folder in (*ROOMS, "tests", "benchmarks", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    + [pytest.param(ROOT / "thermodrift.py", id="thermodrift.py")],
)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    """A newcomer knows from the first lines what a file is for."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def test_every_imported_library_is_asked_for() -> None:
    """A library that comes along with another may leave with it, so pyproject.toml names ours."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = {
        canonicalize_name(Requirement(line).name) for line in project["project"]["dependencies"]
    }
    distributions = packages_distributions()
    imported = {top(name) for module in SOURCES for name in imports_of(parse(module))}
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
