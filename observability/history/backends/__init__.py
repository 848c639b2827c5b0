"""Where the history's rows lie: a DuckDB file, or a DuckLake of several hosts."""
