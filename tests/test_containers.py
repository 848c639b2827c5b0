"""The container image and its compose file: what can be said of them without a container engine."""

from __future__ import annotations

import re
from typing import Any

import yaml  # type: ignore[import-untyped]  # it publishes no types

from flows.stack import manifest
from tests import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: each for name, each in COMPOSE["services"].items() if "build" in each}


def test_nothing_runs_as_root() -> None:
    """The last user of the image is a number that is not 0, which Kubernetes can check."""
    assert ["10001"] == re.findall(r"^USER (.+)$", DOCKERFILE, re.M)


def test_the_image_has_what_the_lock_says() -> None:
    """Versions and hashes come from requirements.lock, and images are named by version."""
    assert "--require-hashes" in DOCKERFILE
    assert DOCKERFILE.count("--no-deps") == 2
    tags = [*re.findall(r"^FROM (\S+)", DOCKERFILE, re.M), COMPOSE["services"]["database"]["image"]]
    assert [] == [tag for tag in tags if ":" not in tag or tag.endswith(":latest")]


def test_the_image_has_every_room() -> None:
    """What the wheel is built from is copied."""
    copied = set(re.findall(r"^COPY (\w+) \1$", DOCKERFILE, re.M))
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"benchmarks", "examples", "tests"} == copied


def test_containers_have_no_rights_that_they_do_not_need() -> None:
    """Read-only, without a capability, and never with more than they were started with."""
    for name, service in OURS.items():
        rights = (service["read_only"], service["cap_drop"], service["security_opt"])
        assert (True, ["ALL"], ["no-new-privileges:true"]) == rights, name


def test_the_server_is_reached_from_this_host_alone_and_asks_for_a_word() -> None:
    """No word stands in the file, and without one nothing starts."""
    server = COMPOSE["services"]["server"]
    assert ["127.0.0.1:4200:4200"] == server["ports"]
    assert "${PREFECT_AUTH:?" in server["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert [] == re.findall(r"PASSWORD: (?!\$\{)\S+", text)


def test_there_is_a_worker_for_each_pool() -> None:
    """With the limits that one machine has."""
    workers = {
        service["command"][service["command"].index("--pool") + 1]: int(service["command"][-1])
        for service in OURS.values()
        if "worker" in service["command"]
    }
    assert dict(manifest.LIMITS) == workers
