"""What all packages share: decisions, errors, paths, files, the output of the command line."""
