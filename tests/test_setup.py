"""`make setup`: pip brings uv, uv installs the lock, and pip does it all where uv cannot.

On a stand-in of an environment, whose python and uv write down what they were asked: nothing is
installed, and no network is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import ROOT

MIRROR = "https" + "://me:word@mirror.example/simple"
"""An address with a word in it that nobody must read."""

PYTHON = """#!/bin/sh
case "$*" in
  *"config get"*) sed -n "s,^${6}=,,p" "$STAND_IN/pip.conf" | grep . || exit 1 ;;
  *"-m pip"*) echo "pip $*" >>"$STAND_IN/asked" ;;
esac
"""
UV = """#!/bin/sh
if [ "$1" = --version ]; then echo "uv $UV_IS (of a test)"; exit; fi
echo "uv $*" >>"$STAND_IN/asked"
echo "$UV_DEFAULT_INDEX|$UV_EXTRA_INDEX_URL" >>"$STAND_IN/indexes"
if [ -n "$UV_FAILS" ]; then echo "error: no answer from $UV_DEFAULT_INDEX" >&2; exit 2; fi
"""


class Made(NamedTuple):
    """What became of a setup."""

    said: str
    asked: list[str]
    indexes: set[str]
    ready: bool


def locked_uv() -> str:
    """The version of uv that the lock names."""
    found = re.search(r"^uv==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def made(folder: Path, pip_conf: str = "", **environment: str) -> Made:
    """Run `make setup` where an environment is there already, and its tools are stand-ins."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("uv", UV)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    (folder / "pip.conf").write_text(pip_conf)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    ours = {"STAND_IN": str(folder), "UV_IS": locked_uv(), "HOME": str(folder)}
    done = subprocess.run(
        ["make", "setup"],
        cwd=folder,
        env={**clean, "XDG_CONFIG_HOME": str(folder / "config"), **ours, **environment},
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    asked, indexes = folder / "asked", folder / "indexes"
    return Made(
        done.stdout + done.stderr,
        asked.read_text().splitlines(),
        set(indexes.read_text().splitlines()) if indexes.exists() else set(),
        (folder / ".venv" / ".ready").exists(),
    )


def test_uv_installs_the_lock_with_its_hashes_and_then_the_project(tmp_path: Path) -> None:
    """pip is not asked where uv is there in the lock's version, and `uv pip check` has its say."""
    setup = made(tmp_path)
    lock, ours, check = setup.asked
    assert lock.startswith("uv pip install ")
    assert lock.endswith("--no-deps --require-hashes -r requirements.lock")
    assert ours.endswith("--no-deps --no-build-isolation -e .")
    assert check.startswith("uv pip check ")
    assert all("--python .venv/bin/python" in each for each in setup.asked)
    assert setup.ready


def test_pip_brings_the_very_uv_of_the_lock(tmp_path: Path) -> None:
    """By version and hashes, and nothing else: another uv that is there is not used."""
    first, *rest = made(tmp_path, UV_IS="0.1.0").asked
    assert first.startswith("pip ")
    assert first.endswith("--no-deps --require-hashes -r .venv/uv.txt")
    assert ["uv", "uv", "uv"] == [each.split()[0] for each in rest]
    head, *hashes = (tmp_path / ".venv" / "uv.txt").read_text().splitlines()
    assert f"uv=={locked_uv()} \\" == head
    assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", each) for each in hashes)
    assert (True, False) == (len(hashes) > 1, hashes[-1].endswith("\\"))


@pytest.mark.parametrize(
    ("pip_conf", "environment", "indexes"),
    [
        ("", {}, "|"),
        (f"global.index-url={MIRROR}\n", {}, f"{MIRROR}|"),
        (f"install.index-url={MIRROR}\nglobal.index-url=other\n", {}, f"{MIRROR}|"),
        (
            f"global.extra-index-url={MIRROR}\nglobal.extra-index-url=more\n",
            {},
            f"|{MIRROR} more",
        ),
        ("global.index-url=other\n", {"PIP_INDEX_URL": MIRROR}, f"{MIRROR}|"),
        (f"global.index-url={MIRROR}\n", {"UV_DEFAULT_INDEX": "mine"}, "mine|"),
    ],
)
def test_where_pip_is_told_to_look_uv_looks_too(
    tmp_path: Path, pip_conf: str, environment: dict[str, str], indexes: str
) -> None:
    """uv does not read pip's settings; a setting of its own goes before, and none is told."""
    setup = made(tmp_path, pip_conf, **environment)
    assert {indexes} == setup.indexes
    assert "mirror" not in setup.said


def test_a_file_of_uvs_own_goes_before_what_pip_is_told(tmp_path: Path) -> None:
    """Whoever configured uv meant it."""
    (tmp_path / "config" / "uv").mkdir(parents=True)
    (tmp_path / "config" / "uv" / "uv.toml").write_text('[[index]]\nurl = "mine"\n')
    assert {"|"} == made(tmp_path, f"global.index-url={MIRROR}\n").indexes


def test_pip_installs_all_where_uv_cannot_and_says_why(tmp_path: Path) -> None:
    """In uv's own words, without the address, which may have a password in it."""
    setup = made(tmp_path, f"global.index-url={MIRROR}\n", UV_FAILS="yes")
    tool, *others = [each for each in setup.asked if each.startswith("pip ")]
    assert tool.endswith("--no-deps --require-hashes -r requirements.lock")
    assert others[0].endswith("--no-deps --no-build-isolation -e .")
    assert others[1].endswith(" check")
    assert "error: no answer from (address)" in setup.said
    assert "pip installs it instead" in setup.said
    assert "mirror" not in setup.said
    assert setup.ready
