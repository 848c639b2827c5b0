"""One open pipeline: its state, its unit of work, its clocks, signals and progress."""
