"""`thermodrift up` of a test: begun, heard, and looked at from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]  # it publishes no types

from tests import ROOT
from tests.flows.makers import environment_of


class Up:
    """A `thermodrift up` of a test."""

    def __init__(self, home: Path, *words: object, **environment: str) -> None:
        self.home, self.told = home, home.parent / "told"
        with self.told.open("wb") as told:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "thermodrift", "--home", str(home), "up", "--json"]
                + [str(each) for each in words],
                cwd=ROOT,
                env=environment_of(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=told,
                text=True,
            )

    def document(self) -> dict[str, Any]:
        """What it prints once all is up."""
        assert self.process.stdout is not None
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            line = self.process.stdout.readline()
            assert line, self.told.read_text()
            lines.append(line)
        document: dict[str, Any] = json.loads("".join(lines))
        return document

    def family(self) -> list[psutil.Process]:
        """What it started, and what that started."""
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children


def word(told: dict[str, Any]) -> str:
    """What a box's server asks for."""
    return Path(told["auth"]).read_text().strip()
