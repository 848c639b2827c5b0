"""The page of a pipeline in a notebook: its report, in a frame of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from pathlib import Path

from flows.page import report
from flows.page.report import Report
from observability.core.paths import Places
from observability.story.values import Answer

HEIGHT_PX = 900


class Told:
    """What is told of a pipeline at a moment. A notebook shows it as the page."""

    def __init__(self, told: Report, now: datetime) -> None:
        self.report = told
        self._now = now

    @property
    def answers(self) -> tuple[Answer, ...]:
        """The ten answers, with their numbers and their SQL."""
        return self.report.story.answers

    def _repr_html_(self) -> str:
        """A frame, so that styles of the page and of the notebook do not meet."""
        page = escape(report.html([self.report], self._now))
        return (
            f'<iframe srcdoc="{page}" title="{escape(self.report.story.pipeline)}" width="100%" '
            f'height="{HEIGHT_PX}" sandbox="" style="border: 0"></iframe>'
        )


def tell(home: Path | str, pipeline: str, reach: str = "all") -> Told:
    """The story of a pipeline of `home`; `reach` is hour, day, week, month or all.

    Raises BadConfiguration for what is no pipeline there, and as `History.ask` does.
    """
    now = datetime.now(UTC)
    (found,) = report.collect(Places(Path(home).absolute()), [pipeline], now, reach)
    return Told(found, now)
