"""Model versions on disk, the pointer to the champion, and checkpoints of unfinished fits."""
