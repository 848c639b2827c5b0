"""The frame round the rooms: the lock, the bounds, the commands that the documents name."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = ("Linux", "Darwin")

PIN = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;]+)"
    r"(?: ; (?P<marker>[^\\\n]+?))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)
INDEX = re.compile(
    # Written so that this file does not name one itself.
    r"(?:index-url|find-links|trusted-host)[=\s]+\S*(?:://|/)"
    r"|https?://\S+(?:/simple\b|\.whl\b|\.tar\.gz\b)"
    r"|pypi\.(?:org|python)|pythonhosted\."
)


class Pin(NamedTuple):
    """One line of the lock: an exact version, for the environments that the marker allows."""

    name: str
    version: Version
    marker: Marker | None


def pins() -> list[Pin]:
    """Every pin of the lock."""
    return [
        Pin(
            canonicalize_name(found["name"]),
            Version(found["version"]),
            Marker(found["marker"]) if found["marker"] else None,
        )
        for found in PIN.finditer(LOCK)
    ]


def environment(python: str, system: str) -> dict[str, str]:
    """An environment that the project promises to run in, as markers see it."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system.lower(),
        "platform_system": system,
        "platform_machine": "arm64" if system == "Darwin" else "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "extra": "",
    }


def pins_in(there: dict[str, str]) -> dict[str, list[Version]]:
    """The versions that would be installed there, by name."""
    found: dict[str, list[Version]] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(there):
            found.setdefault(pin.name, []).append(pin.version)
    return found


def asked_for() -> list[Requirement]:
    """What pyproject.toml asks for: to run, with each extra, and to build."""
    project = PROJECT["project"]
    return [
        Requirement(line)
        for line in (
            *project["dependencies"],
            *(line for extra in project["optional-dependencies"].values() for line in extra),
            *PROJECT["build-system"]["requires"],
        )
    ]


def text_files() -> list[Path]:
    """The project's own text files, without environments, caches and homes."""
    places = [ROOT, ROOT / ".ci", ROOT / ".github" / "workflows"]
    folders = [path for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._"]
    found = [path for place in places if place.is_dir() for path in place.iterdir()]
    found += [path for folder in folders for path in folder.rglob("*")]
    written = {".py", ".md", ".toml", ".lock", ".yaml", ".yml", ".cfg", ".ini", ".txt", ""}
    return sorted({path for path in found if path.is_file() and path.suffix in written})


def test_the_lock_holds_nothing_but_exact_versions_with_hashes() -> None:
    """Whoever installs gets the bytes that were tried, from whatever index they use."""
    assert "" == PIN.sub("", LOCK)
    assert len(pins()) > 100


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_lock_names_one_version_in_each_environment(python: str, system: str) -> None:
    """Two pins of one name would stop the installation on that Python."""
    twice = {
        name: found
        for name, found in pins_in(environment(python, system)).items()
        if len(found) > 1
    }
    assert {} == twice


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_lock_keeps_the_bounds_in_each_environment(python: str, system: str) -> None:
    """The bounds of pyproject.toml and the tried versions tell one story."""
    there = environment(python, system)
    locked = pins_in(there)
    for wanted in asked_for():
        if wanted.marker is not None and not wanted.marker.evaluate(there):
            continue
        versions = locked.get(canonicalize_name(wanted.name), [])
        assert [True] == [wanted.specifier.contains(each) for each in versions], f"{wanted}"


@pytest.mark.parametrize("wanted", asked_for(), ids=str)
def test_every_dependency_has_a_bound_below_and_above(wanted: Requirement) -> None:
    """An unbounded dependency breaks an installation on a day that nobody chose."""
    operators = {each.operator for each in wanted.specifier}
    assert {">=", "<"} <= operators


def test_the_project_admits_the_pythons_that_are_tried_and_no_other() -> None:
    """What is promised, what is locked and what is tried in CI are the same Pythons."""
    admitted = Requirement(f"thermodrift{PROJECT['project']['requires-python']}").specifier
    tried = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    minors = [f"3.{minor}" for minor in range(8, 20)]
    assert list(PYTHONS) == [minor for minor in minors if admitted.contains(minor)]
    assert set(PYTHONS) == set(re.findall(r'"(3\.\d+)"', tried))


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_names_a_package_index(path: Path) -> None:
    """Where packages come from is the business of whoever installs."""
    assert [] == INDEX.findall(path.read_text(encoding="utf-8", errors="replace"))


MIRROR = "https:" + "//mirror.example"


@pytest.mark.parametrize(
    "line",
    [
        "--index-url" + f" {MIRROR}/simple",
        "--find-links" + " /srv/wheels",
        f"a @ {MIRROR}/a-1.0-py3-none-any.whl",
        f"url = {MIRROR}/simple/",
    ],
)
def test_the_search_for_an_index_finds_one(line: str) -> None:
    """A search that finds nothing anywhere would prove nothing."""
    assert INDEX.search(line)


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_every_make_command_in_the_documents_exists(document: str) -> None:
    """A newcomer's first command works."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)\b(?=`|$| *#)", read(document), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert {"demo", "test"} <= named
    assert named <= targets


def test_ci_runs_what_the_laptop_runs() -> None:
    """There is one way to check this project, and CI has no other."""
    commands = [line for line in read(".ci/run").splitlines() if line.startswith("make ")]
    assert ["make lint", "make test", "make test-rest", "make bench"] == commands
    workflow = read(".github/workflows/ci.yml")
    assert all(command in workflow for command in commands)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    """A release without its notes cannot be made."""
    newest = re.search(r"^## \[?([0-9][^\]\s]*)", read("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert PROJECT["project"]["version"] == newest[1]


def test_the_licence_is_the_one_that_the_project_names() -> None:
    """The text that comes along is the licence that is promised."""
    assert "Apache-2.0" == PROJECT["project"]["license"]
    assert "Apache License\n" in read("LICENSE")
    assert "END OF TERMS AND CONDITIONS" in read("LICENSE")


def read(name: str) -> str:
    """A file of the project, by its path from the root."""
    return (ROOT / name).read_text(encoding="utf-8")
