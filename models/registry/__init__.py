"""Model versions on disk, the champion's pointer, and checkpoints of unfinished fits."""
