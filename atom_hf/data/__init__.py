"""Data sets: from what `--dataset` names to rows, and from rows to model inputs."""
