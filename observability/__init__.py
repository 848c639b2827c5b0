"""The ground floor: what happened, and has the world changed?

Judges here are pure (`drift`, `worth`); doors touch one tool each (`reports` evidently, `history`
duckdb). This room imports no other room.
"""
