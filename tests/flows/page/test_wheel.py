"""What the pages are made of is in the wheel, beside the code that reads it."""

from __future__ import annotations

from hatchling.builders.wheel import WheelBuilder

from flows.page import rendering
from tests import ROOT


def test_templates_and_files_are_in_the_wheel() -> None:
    """Without them an installed service would answer each page with an error."""
    builder = WheelBuilder(str(ROOT))
    with builder.config.set_build_data({"artifacts": [], "force_include": {}}):
        packed = {file.distribution_path for file in builder.recurse_included_files()}
    needed = [
        str(path.relative_to(ROOT))
        for folder in ("templates", "static")
        for path in (rendering.HERE / folder).iterdir()
    ]
    assert len(needed) > 8
    assert set(needed) <= packed


def test_the_service_hands_out_no_other_file() -> None:
    """Plotly comes from its own distribution."""
    assert rendering.asset_path("plotly.min.js").is_file()
    assert {"page.css", "page.js"} == {path.name for path in rendering.STATIC.iterdir()}
