"""The lowest room: what happened, and has the data changed?

Its policies are pure (`drift`, `worth`, `scheduler_health`), and each adapter uses one
tool (`evidently_adapter`, `history.backends`). It imports no other room.
"""
