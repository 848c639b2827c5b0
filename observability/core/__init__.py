"""What all rooms share: decisions, errors, paths, files, the command line's output."""
