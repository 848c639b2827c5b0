"""A thread that monitors live devices during a run, and the thermal trace of a fit."""
