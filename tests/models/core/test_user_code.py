"""A factory is found beside the pipeline file, else installed, and never hides another module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from models.core import user_code
from models.persistence import serialization
from observability.core.errors import BadConfiguration


@pytest.fixture(autouse=True)
def forget_modules(tmp_path: Path) -> Iterator[None]:
    """Modules that a test loads from its own folder are gone after it."""
    yield
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def make_module(folder: Path, name: str = "own_forest", text: str | None = None) -> Path:
    """A file beside the pipeline file, with a class and a constant."""
    file = folder / f"{name}.py"
    file.write_text(text or "class Forest:\n    depth = 3\nSIZE = 4\nNOTHING = None\n")
    return file


def test_a_factory_beside_the_pipeline_file_is_found(tmp_path: Path) -> None:
    """Both the pipeline file and its folder say where to look."""
    make_module(tmp_path)
    found = user_code.find("own_forest:Forest", tmp_path / "elec2.toml")
    assert 3 == found().depth
    assert found is user_code.find("own_forest:Forest", tmp_path)


def test_a_module_is_loaded_once(tmp_path: Path) -> None:
    """A second look-up answers the same class, so that pickles of it are of one class."""
    file = make_module(tmp_path)
    first = user_code.find("own_forest:Forest", tmp_path)
    file.write_text("class Forest:\n    depth = 9\n")
    assert first is user_code.find("own_forest:Forest", tmp_path)


def test_pickles_of_a_found_class_load_again(tmp_path: Path) -> None:
    """The module stands under its plain name, where unpickling looks for it."""
    make_module(tmp_path)
    content = serialization.dumps(user_code.find("own_forest:Forest", tmp_path)())
    del sys.modules["own_forest"]
    with pytest.raises(serialization.CannotLoad, match="own_forest"):
        serialization.loads(content)
    found = user_code.find("own_forest:Forest", tmp_path)
    assert found is type(serialization.loads(content))


def test_the_folder_does_not_come_onto_the_path(tmp_path: Path) -> None:
    """Other files beside the pipeline file cannot hide anything."""
    before = list(sys.path)
    make_module(tmp_path)
    user_code.find("own_forest:Forest", tmp_path)
    assert before == sys.path


def test_an_installed_module_is_found() -> None:
    """Without a file beside, the environment's packages are looked through, dotted names too."""
    from sklearn.tree import DecisionTreeClassifier

    assert DecisionTreeClassifier is user_code.find("sklearn.tree:DecisionTreeClassifier", None)


def test_a_missing_file_falls_back_to_an_installed_module(tmp_path: Path) -> None:
    """The folder is looked at first, and is not the only place."""
    from sklearn.tree import DecisionTreeClassifier

    found = user_code.find("sklearn.tree:DecisionTreeClassifier", tmp_path)
    assert DecisionTreeClassifier is found


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("models", "a part of thermodrift"),
        ("benchmarks", "a part of thermodrift"),
        ("colorsys", "a module of Python itself"),
        ("pytest", "already imported"),
        ("made_in_memory", "already imported"),
    ],
)
def test_a_file_that_would_hide_a_module_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, owner: str
) -> None:
    """Rooms, Python's own modules and imported ones keep their names."""
    monkeypatch.setitem(sys.modules, "made_in_memory", ModuleType("made_in_memory"))
    make_module(tmp_path, name)
    before = sys.modules.get(name)
    with pytest.raises(BadConfiguration, match=f"would hide .*{owner}"):
        user_code.find(f"{name}:Forest", tmp_path)
    assert before is sys.modules.get(name)


def test_an_installed_module_that_nobody_imported_is_not_hidden_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever imports it later must get the installed one."""
    installed, beside = tmp_path / "installed", tmp_path / "beside"
    for folder in (installed, beside):
        folder.mkdir()
        make_module(folder, "twice_there")
    monkeypatch.syspath_prepend(installed)
    with pytest.raises(BadConfiguration, match="would hide an installed module"):
        user_code.find("twice_there:Forest", beside)


def test_a_file_that_is_on_the_path_itself_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started from the pipeline's folder, the file is what an import would find anyway."""
    make_module(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert 3 == user_code.find("own_forest:Forest", tmp_path)().depth


def test_a_module_of_the_same_name_from_another_folder_is_refused(tmp_path: Path) -> None:
    """Two pipelines in one process cannot share a name: their pickles could not be told apart."""
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        make_module(folder)
    user_code.find("own_forest:Forest", tmp_path / "a")
    with pytest.raises(BadConfiguration, match="already imported"):
        user_code.find("own_forest:Forest", tmp_path / "b")


@pytest.mark.parametrize(
    "spec", ["own_forest", "own_forest:", ":Forest", "../x:Forest", "a b:c", "a:b:c", "a..b:c", ""]
)
def test_another_form_is_refused(spec: str, tmp_path: Path) -> None:
    """A spec is module, colon, name; never a path."""
    with pytest.raises(BadConfiguration, match="module:factory") as caught:
        user_code.find(spec, tmp_path)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("beside", [True, False])
def test_a_missing_module_says_where_it_was_looked_for(tmp_path: Path, beside: bool) -> None:
    """The message names the folder if there was one, and the environment."""
    with pytest.raises(BadConfiguration, match="no module 'no_such_forest' is installed") as caught:
        user_code.find("no_such_forest:Forest", tmp_path if beside else None)
    assert beside == (str(tmp_path) in str(caught.value))


def test_a_missing_name_is_refused(tmp_path: Path) -> None:
    """The message names the module's file and what was wanted of it."""
    file = make_module(tmp_path)
    with pytest.raises(BadConfiguration, match="has no 'Wood'") as caught:
        user_code.find("own_forest:Wood", tmp_path)
    assert str(file) in str(caught.value)


def test_what_cannot_be_called_is_refused(tmp_path: Path) -> None:
    """A constant makes no model."""
    make_module(tmp_path)
    with pytest.raises(BadConfiguration, match=r"'SIZE' must be a function or class.*came: int"):
        user_code.find("own_forest:SIZE", tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("def (", "SyntaxError"),
        ("import no_such_library", "no_such_library"),
    ],
)
def test_a_module_that_fails_on_import_is_refused_and_forgotten(
    tmp_path: Path, text: str, reason: str
) -> None:
    """The cause is in the message, and no half of the module stays behind."""
    make_module(tmp_path, "broken_forest", text)
    with pytest.raises(BadConfiguration, match=reason) as caught:
        user_code.find("broken_forest:Forest", tmp_path)
    assert "broken_forest" not in sys.modules
    assert caught.value.__cause__ is not None


def test_an_interrupt_during_import_is_no_mistake_of_the_file(tmp_path: Path) -> None:
    """Ctrl-C goes on its way, and the half-loaded module is forgotten."""
    make_module(tmp_path, "slow_forest", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        user_code.find("slow_forest:Forest", tmp_path)
    assert "slow_forest" not in sys.modules


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise ValueError('no licence')", "no licence"),
        ("import no_such_library", "no_such_library"),
    ],
)
def test_an_installed_module_that_fails_on_import_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    """That a package is there and broken is told from its not being there."""
    make_module(tmp_path, "broken_package", text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadConfiguration, match=f"importing broken_package failed.*{reason}"):
        user_code.find("broken_package:Forest", None)
