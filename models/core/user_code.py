"""Loads the user's own model: a factory that the pipeline file names as ``module:factory``.

The module is a file beside the pipeline file, or else an installed one. It is loaded under its
plain name, so that pickles of its classes load again in any process that called `find` first.
The file's folder is never added to `sys.path`, so no file there can hide a module of thermodrift.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from observability.core.errors import BadConfiguration

ROOMS = frozenset(
    {"observability", "power", "models", "flows", "tests", "benchmarks", "examples", "thermodrift"}
)


def find(spec: str, beside: Path | None) -> Callable[..., Any]:
    """The factory that `spec` names as ``module:factory``; MODULE.py beside the pipeline file wins.

    `beside` is the pipeline file or its folder; None looks among installed modules only.
    Raises BadConfiguration for a spec of another form, a module that is missing, hides another one
    or fails on import, and a name that is absent or cannot be called.
    """
    module_name, colon, factory_name = spec.partition(":")
    names = [*module_name.split("."), factory_name]
    if not colon or not all(name.isidentifier() for name in names):
        raise BadConfiguration(
            f"a model of your own is named 'module:factory', as in 'my_models:make_forest'; "
            f"came: {spec!r}"
        )
    module = _module(module_name, spec, beside)
    factory = getattr(module, factory_name, None)
    if factory is None:
        raise BadConfiguration(
            f"{spec!r}: the module {module_name!r} ({_origin(module) or 'built in'}) has no "
            f"{factory_name!r}; name a function or class that it defines"
        )
    if not callable(factory):
        raise BadConfiguration(
            f"{spec!r}: {factory_name!r} must be a function or class that returns a model; "
            f"came: {type(factory).__name__}"
        )
    found: Callable[..., Any] = factory
    return found


def _module(name: str, spec: str, beside: Path | None) -> ModuleType:
    file = None
    if beside is not None and "." not in name:
        folder = beside if beside.is_dir() else beside.parent
        file = (folder / f"{name}.py").resolve()
    if file is None or not file.is_file():
        return _installed(name, spec, beside)
    loaded = sys.modules.get(name)
    if loaded is not None and _origin(loaded) == file:
        return loaded
    _refuse_hiding(name, spec, file)
    plan = importlib.util.spec_from_file_location(name, file)
    if plan is None or plan.loader is None:  # pragma: no cover - a .py file always has a loader
        raise BadConfiguration(f"{spec!r}: {file} is not a Python file")
    module = importlib.util.module_from_spec(plan)
    sys.modules[name] = module
    try:
        plan.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise _broken(spec, str(file), error) from error
        raise
    return module


def _refuse_hiding(name: str, spec: str, file: Path) -> None:
    """Raise BadConfiguration for a file whose plain name belongs to another module already."""
    if name in ROOMS:
        owner = "a part of thermodrift"
    elif name in sys.stdlib_module_names:
        owner = "a module of Python itself"
    elif name in sys.modules:
        owner = f"a module that is already imported ({_origin(sys.modules[name]) or 'built in'})"
    else:
        installed = importlib.util.find_spec(name)
        origin = file if installed is None else Path(installed.origin or name).resolve()
        if origin == file:
            return
        owner = f"an installed module ({origin})"
    raise BadConfiguration(
        f"{spec!r}: {file} would hide {owner} of the same name; rename the file, and the model "
        f"in the pipeline file with it"
    )


def _installed(name: str, spec: str, beside: Path | None) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(spec, name, error) from error
        places = "" if beside is None else f"no {name}.py lies beside {beside}, and "
        raise BadConfiguration(
            f"{spec!r}: {places}no module {name!r} is installed in {sys.prefix}; "
            f"correct the name, or install the package into that environment"
        ) from error
    except (Exception, SystemExit) as error:
        raise _broken(spec, name, error) from error


def _broken(spec: str, where: str, error: BaseException) -> BadConfiguration:
    return BadConfiguration(
        f"{spec!r}: importing {where} failed with {type(error).__name__}: {error}; "
        f"correct the module so that 'import' works on its own"
    )


def _origin(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file).resolve()
