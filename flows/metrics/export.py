"""Hands the figures of a home on, where its file asks for that: a textfile, or a Pushgateway.

It never fails a run: what went wrong is returned as a sentence, which the run's summary shows.
"""

from __future__ import annotations

import socket

from flows.metrics import home_metrics
from observability.core.errors import ThermodriftError
from observability.core.paths import Places
from observability.history import home_config


def export(places: Places, *, ends: bool) -> str:
    """Write the textfile, and push where a run ends; what went wrong, empty where nothing did."""
    try:
        config = home_config.read(places).metrics
        url = config.push if ends else None
        if config.textfile is None and url is None:
            return ""
        # prometheus-client is imported only where it is used: most runs export nothing.
        from observability.metrics import prometheus

        found = home_metrics.collect(places)
    except (OSError, ThermodriftError) as error:
        return f"no figures were handed on: {error}"
    troubles = []
    if config.textfile is not None:
        path = places.home / config.textfile
        try:
            prometheus.write_textfile(path, found)
        except OSError as error:
            troubles.append(f"metrics.textfile: {path} cannot be written: {error}")
    if url is not None:
        try:
            prometheus.push(url, config.instance or socket.gethostname(), found)
        except prometheus.PushFailed as error:
            troubles.append(str(error))
    return "; ".join(troubles)
