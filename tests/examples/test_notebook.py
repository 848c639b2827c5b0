"""The notebook of the examples runs as it stands, and shows tables and the page."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests import ROOT
from tests.flows.page.makers import make_told

NOTEBOOK = ROOT / "examples" / "history.ipynb"


def shown(notebook: Any) -> list[str]:
    """The HTML of each cell that has some, in order."""
    return [
        output["data"]["text/html"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]


def test_the_notebook_is_stored_without_what_it_showed() -> None:
    """Its answers belong to a home, and a diff of them says nothing."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [] == [cell for cell in notebook.cells if cell.get("outputs")]


@pytest.mark.slow
def test_the_notebook_runs_and_its_objects_show_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a real kernel, on the home of a real run: every cell, without an error."""
    for name in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"):
        # Nothing of the user's own is read, and nothing is left there.
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    told = make_told(tmp_path / "pipeline")
    shutil.copytree(told.home, tmp_path / ".thermodrift-demo")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    views, page, *tables = shown(notebook)
    assert "<td>champion_periods</td>" in views
    assert page.startswith("<iframe srcdoc=")
    assert "Is what we serve good now?" in page
    assert len(tables) == 3
    assert all("<table" in each for each in tables)
