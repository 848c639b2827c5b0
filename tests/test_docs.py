"""What the documents show is so: their commands are run, their files written, their links followed.

How a page says what is tried (the comments do not show where Markdown is rendered):

- ``<!-- tried -->`` before a ``console`` block: its ``$`` lines (continued by ``>``) are run one
  after the other, and must end with 0, or with 75 after ``<!-- tried: 75 -->``. What the block
  shows as output must come in that order; ``…`` stands for anything, spaces and line ends are one,
  and a figure may be off by a twentieth, since machines differ in the last bits.
- ``<!-- file: NAME -->`` before a ``toml`` or ``python`` block: it is that file, for what follows.

All pages are gone through in one folder, in the order of `PAGES`.
"""

from __future__ import annotations

import ast
import math
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import thermodrift
from flows.config import pipeline, reference
from models.batch import evaluation
from models.core import record_schema
from models.online import learner, online_model
from models.stream.source import Cursor, Stream
from observability.core import failpoints
from observability.core.errors import BadConfiguration, ThermodriftError, TryAgainLater
from observability.history.home_config import HomeFile
from tests import ROOT

PAGES = (
    *("README.md", "docs/configuration.md", "docs/operations.md", "docs/history.md"),
    *("docs/gate.md", "docs/models.md"),
)
MARKDOWN = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
)
RECORDS = 3_000
INSTEAD = {"make demo": "thermodrift --home .thermodrift-demo run examples/elec2.toml --limit 9000"}
"""`make demo` without its setting up, and on the part of the stream that the page shows."""

BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]+?) -->\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.M | re.S
)
FIGURE = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: str
    line: int
    note: str
    kind: str
    text: str


def blocks_of(page: str) -> list[Block]:
    """Every fenced block of a page, with the comment that stands before it."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, found.start("kind")) + 1,
            found["note"] or "",
            found["kind"],
            found["text"],
        )
        for found in BLOCK.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


class Step(NamedTuple):
    """A command of a page, and what the page shows of its output."""

    where: str
    command: str
    exit_code: int
    shown: str


def steps_of(block: Block) -> list[Step]:
    """The commands of a tried block, in order."""
    if block.kind != "console" or not block.note.startswith("tried"):
        return []
    steps: list[Step] = []
    _, _, code = block.note.partition(": ")
    for number, line in enumerate(block.text.splitlines(), start=block.line + 1):
        if line.startswith("$ "):
            steps.append(Step(f"{block.page}:{number}", line[2:], int(code or 0), ""))
            continue
        assert steps, f"{block.page}:{number}: a tried block begins with a command"
        last = steps.pop()
        if line.startswith("> ") and not last.shown:
            steps.append(last._replace(command=f"{last.command}\n{line[2:]}"))
        else:
            steps.append(last._replace(shown=f"{last.shown}{line}\n"))
    return steps


STEPS = [step for block in BLOCKS for step in steps_of(block)]
FILES = {
    block.note.removeprefix("file: "): block.text
    for block in BLOCKS
    if block.note.startswith("file: ")
}


def fits(shown: str, said: str) -> bool:
    """Whether the output is what the page shows, up to `…`, white space and the last bits."""
    if not shown.strip():
        return True
    figures = FIGURE.findall(shown)
    literal = FIGURE.sub("\0", re.sub(r"\s+", " ", shown.strip()))
    form = "".join(
        {"\0": r"(\d[\d,]*(?:\.\d+)?)", "…": ".*?", " ": r"\s*"}.get(each, re.escape(each))
        for each in literal
    )
    found = re.search(form, re.sub(r"\s+", " ", said), re.S)
    return found is not None and all(
        math.isclose(_number(mine), _number(theirs), rel_tol=0.05, abs_tol=0.02)
        for mine, theirs in zip(figures, found.groups(), strict=True)
    )


def _number(figure: str) -> float:
    return float(figure.replace(",", ""))


def make_prices(records: int = RECORDS) -> str:
    """A made stream as CSV: hour, demand and region, and a price that follows them."""
    chance = random.Random(1)
    lines = ["hour,demand,region,price"]
    for index in range(records):
        hour = (index / 2) % 24
        demand = 50 + 20 * math.sin(hour / 24 * math.tau) + chance.gauss(0, 3)
        region = chance.choice(["north", "south"])
        price = 2 * (demand - 20) + (5 if region == "north" else 0) + chance.gauss(0, 2)
        lines.append(f"{hour},{demand:.2f},{region},{price:.2f}")
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a reader of the pages works in: their files, the examples, a stream."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "prices.csv").write_text(make_prices())
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


EARS = """
import os, sys

def hear(event, words):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        where = words[0] if event == "socket.getaddrinfo" else words[1]
        host = where[0] if isinstance(where, tuple) else where
        with open({path!r}, "a") as heard:
            heard.write(f"{{host}}\\n")

sys.addaudithook(hear)
"""
"""Python reads this as sitecustomize.py in every process that starts: whom is it talking to?"""


@pytest.fixture(scope="module")
def ears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH; whatever is connected to or looked up is written to `heard`."""
    folder = tmp_path_factory.mktemp("ears")
    (folder / "sitecustomize.py").write_text(EARS.format(path=str(folder / "heard")))
    return folder


@pytest.fixture(scope="module")
def transcript(shop: Path, ears: Path) -> dict[str, tuple[int, str]]:
    """Exit code and output of every tried command, by its place; run in the pages' order."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith("THERMODRIFT_")
    }
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    # The width that the pages were written in.
    environment |= {"COLUMNS": "100", "TERM": "dumb", "PYTHONPATH": str(ears)}
    told = {}
    for step in STEPS:
        done = subprocess.run(
            ["bash", "-c", INSTEAD.get(step.command, step.command)],
            cwd=shop,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told[step.where] = (done.returncode, done.stdout)
    return told


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.where)
def test_a_command_of_the_pages_does_what_the_page_shows(
    step: Step, transcript: dict[str, tuple[int, str]]
) -> None:
    """Whoever types what stands there sees what stands there."""
    code, said = transcript[step.where]
    assert step.exit_code == code, said
    assert fits(step.shown, said), f"{step.where}: {step.command}\nsaid:\n{said}"


def test_the_end_of_the_demo_has_the_form_that_the_page_shows(
    transcript: dict[str, tuple[int, str]],
) -> None:
    """The figures are of a whole run, which takes too long here; every line else comes as shown."""
    (end,) = (each for each in BLOCKS if each.text.startswith("elec2: finished"))
    (demo,) = (transcript[step.where][1] for step in STEPS if step.command == "make demo")
    # No version of the past serves again in the part of the stream that is run here.
    whole = re.sub(r" \(\d+ of an archived version\)", "", end.text)
    assert whole != end.text
    lines = [FIGURE.sub("…", line) for line in whole.splitlines()[1:]]
    assert len(lines) > 6
    assert [] == [line for line in lines if not fits(line, demo)]


def test_nothing_is_sent_to_another_machine(
    transcript: dict[str, tuple[int, str]], ears: Path
) -> None:
    """Runs, checks and questions talk to Prefect's API on this machine, and to nobody else."""
    heard = set((ears / "heard").read_text().split())
    assert "127.0.0.1" in heard
    assert heard <= {"127.0.0.1", "::1", "localhost", "None"}


@pytest.mark.parametrize(
    ("shown", "said", "expected"),
    [
        ("ready", "all is ready now", True),
        ("ready", "all is steady", False),
        ("a … c", "a b\nb c", True),
        ("a … d", "a b c", False),
        ("loss 0.1375 on 800 rows", "loss 0.1399 on 801 rows", True),
        ("loss 0.1375 on 800 rows", "loss 0.2375 on 800 rows", False),
        ("1,000 promoted", "     1,000  promoted", True),
        ("1,000 promoted", "1,100 promoted", False),
        ("v000004000 sound", "v000008000 sound", False),
        ("one\n…\nthree", "one two\nthree", True),
        ("three\n…\none", "one two\nthree", False),
        ("", "anything", True),
    ],
)
def test_output_is_compared_by_words_and_about_by_figures(
    shown: str, said: str, expected: bool
) -> None:
    """A comparison that everything passes would prove nothing."""
    assert expected == fits(shown, said)


def test_the_pages_show_commands_and_files() -> None:
    """The convention is in use: a comment that was misspelt would try nothing."""
    assert {"README.md", "docs/operations.md"} <= {step.where.partition(":")[0] for step in STEPS}
    assert {"prices.toml", "my_models.py", "own.toml"} <= set(FILES)
    assert {"tried", "file"} >= {re.split(r"[: ]", each.note)[0] for each in BLOCKS if each.note}


def test_the_demo_is_what_the_makefile_runs() -> None:
    """What stands in for `make demo` is its command on a shorter stream."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    command, _, limit = INSTEAD["make demo"].partition(" --limit ")
    assert int(limit) > 8_000
    assert f"\t$(VENV)/bin/{command}\n" in makefile


@pytest.mark.parametrize(
    "block",
    [each for page in MARKDOWN for each in blocks_of(str(page.relative_to(ROOT)))],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_toml_on_a_page_is_a_pipeline_or_a_part_of_one(block: Block, tmp_path: Path) -> None:
    """A table that is copied from a page is taken by the pipeline's file, or by the home's."""
    if block.kind != "toml":
        return
    given = tomllib.loads(block.text)
    if set(given) <= set(HomeFile.model_fields):
        HomeFile.model_validate(given)
        return
    path = tmp_path / "page.toml"
    path.write_text(block.text if "pipeline" in given else f"{FILES['prices.toml']}\n{block.text}")
    assert "prices" == pipeline.read(path).name


def test_models_of_ones_own_learn(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factories on the page make models that learn, online and in batch, from that stream."""
    monkeypatch.setitem(sys.modules, "my_models", None)
    monkeypatch.delitem(sys.modules, "my_models")
    path = shop / "prices-own.toml"
    path.write_text(FILES["prices.toml"] + FILES["own.toml"])
    file = pipeline.read(path)
    stream = Stream(file.beside("prices.csv"), "regression", file.pipeline.stream)
    records = stream.read(Cursor(), 600).labelled()
    members = online_model.build(file.pipeline.online, stream.schema, beside=file.folder)
    loop = learner.Learner(members, "regression", file.pipeline.blend)
    loop.learn(records.rows, records.labels, None)
    assert 600 == len(records.rows)
    own = members.members["my_models:bagged_trees"]
    assert "BaggingRegressor" in set(own.model.steps)
    assert 0 == own.non_finite_count
    fought = evaluation.evaluate(
        record_schema.frame(records.table, stream.schema),
        records.labels,
        recipe=file.pipeline.batch,
        schema=stream.schema,
        clock=lambda: 0.0,
        beside=file.folder,
    )
    assert "ExtraTreesRegressor" == type(fought.model.estimator).__name__
    assert 5 == fought.model.estimator.min_samples_leaf
    assert fought.comparison.challenger_loss < fought.comparison.baseline_loss / 2


@pytest.mark.parametrize(
    "block",
    [block for block in BLOCKS if block.kind == "python" and not block.note],
    ids=lambda block: f"{block.page}:{block.line}",
)
def test_python_on_a_page_runs(
    block: Block, shop: Path, transcript: dict[str, tuple[int, str]]
) -> None:
    """What is copied into a notebook works in the folder of the runs."""
    done = subprocess.run(
        [sys.executable, "-c", block.text], cwd=shop, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr


def test_the_page_of_the_knobs_is_printed_from_the_models() -> None:
    """Write it again with: thermodrift schema --markdown > docs/configuration.md."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert reference.markdown() == page


def test_the_command_prints_the_page_of_the_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    """`schema --markdown` prints that file to the byte, whatever the width of the terminal."""
    command = typer.main.get_command(thermodrift.app)
    command.main(["schema", "--markdown"], standalone_mode=False)
    assert reference.markdown() == capsys.readouterr().out


@pytest.mark.parametrize(
    ("knob", "allowed", "default"),
    [
        ("task", '`"classification"`, `"regression"`', "needed"),
        ("trace", "text", "left out"),
        ("holdout", "number, above 0, at most 0.9", "`0.2`"),
        ("sample", "whole number, at least 1, at most 100,000", "`1000`"),
        ("largest", "number, above 0, at most 1e+150", "`1e+100`"),
        ("column_false_alarms", "number, above 0, at most 0.2", "`0.01`"),
        ("error_votes", "`true`, `false`", "`true`"),
        ("params", "table", "`{}`"),
        ("ignore", "list of texts", "`[]`"),
        ("url", "text", "left out"),
        ("keep_days", "whole number, at least 1, at most 36,500", "left out"),
        ("predictions_file_rows", "whole number, at least 10,000, at most 10,000,000", "`1000000`"),
    ],
)
def test_a_knob_is_told_with_what_it_takes(knob: str, allowed: str, default: str) -> None:
    """Every kind of knob, its bounds and its default are in words on the page."""
    assert f"| `{knob}` | {allowed} | {default} | " in reference.markdown()


@pytest.mark.parametrize(
    ("table", "knobs"),
    [
        ("stream", 'ignore = ["hour"]\nnumbers = ["hour"]'),
        ("drift", "\n[drift]\nmin_rows = 500\nwindow = 400"),
        ("gate", "\n[gate]\npause_margin_c = 20\nresume_margin_c = 10"),
        ("gate", '\n[gate]\nsource = "trace"'),
    ],
)
def test_knobs_that_the_page_says_contradict_are_refused(
    table: str, knobs: str, tmp_path: Path
) -> None:
    """What the page says of knobs together, the pipeline file holds to."""
    path = tmp_path / "contradicts.toml"
    path.write_text(FILES["prices.toml"] + knobs)
    with pytest.raises(BadConfiguration, match=table):
        pipeline.read(path)


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command of a group by its words, without the groups in it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def test_the_page_of_the_commands_lists_every_command_and_no_other() -> None:
    """The table of commands is complete, and nothing in it was renamed or never built."""
    there = dict(commands(typer.main.get_command(thermodrift.app)))
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `thermodrift ([a-z ]+?)(?: \[?[A-Z]+\]?)?` \|", text, re.M)
    assert sorted(there) == sorted(listed)


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(path: Path) -> None:
    """In running text and in blocks: the command is there, and takes the options shown."""
    there = dict(commands(typer.main.get_command(thermodrift.app)))
    for line in re.findall(r"(?:`|^\$ )thermodrift ([^`\n]+)", path.read_text("utf-8"), re.M):
        words = re.sub(r"--home \S+ ", "", line).split()
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in there), None)
        groups = {each.partition(" ")[0] for each in there}
        assert name or words[0] in groups or words[0].startswith("-"), f"thermodrift {line}"
        if name:
            options = {option for each in there[name].params for option in each.opts}
            named = {word for word in words if re.fullmatch(r"--[a-z-]+", word)}
            assert named <= options, f"thermodrift {line}"


def test_the_exit_codes_of_the_page_are_those_of_the_errors() -> None:
    """A script that relies on the table relies on the codes of the errors."""
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    listed = [int(code) for code in re.findall(r"^\| (\d+) \|", text, re.M)]
    known = {each.exit_code for each in (ThermodriftError, TryAgainLater, BadConfiguration)}
    assert [0, 1, 2, 75, 78] == listed
    assert known <= set(listed)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    outside = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", outside, re.M)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(path: Path) -> None:
    """No page and no heading that is linked to was moved away."""
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{target} is linked to and is not there"
        assert not anchor or anchor in anchors(page), f"{target} is no heading of {page.name}"


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def test_every_test_that_is_named_exists() -> None:
    """A promise that names its test is tried by that test."""
    named = NAMED_TEST.findall((ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"))
    assert len(named) > 20
    for file, function in named:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        there = {each.name for each in tree.body if isinstance(each, ast.FunctionDef)}
        assert not function or function in there, f"{file} has no {function}"


def test_every_promise_names_a_test() -> None:
    """What nobody tries is not promised."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    promised, _, _ = text.partition("\n## What is not promised")
    without = [
        section.partition("\n")[0]
        for section in re.split(r"^## ", promised, flags=re.M)[1:]
        if not NAMED_TEST.search(section)
    ]
    assert [] == without


def test_every_fault_point_is_tried_by_a_test_that_is_named() -> None:
    """A new point that no row of the table covers is a moment that nobody has tried."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+)$", text.partition("\n## Fault points\n")[2], re.M)
    covered = [
        pattern
        for row in rows
        for pattern in re.findall(r"`([\w.*]+)`", row.partition(" | ")[0])
        if NAMED_TEST.search(row)
    ]
    untried = [
        point for point in failpoints.POINTS if not any(fnmatch(point, each) for each in covered)
    ]
    assert [] == untried
    assert all(any(fnmatch(point, each) for point in failpoints.POINTS) for each in covered)
