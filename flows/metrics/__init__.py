"""The figures of a home for Prometheus: gathered from its files, and handed on when a run ends."""
