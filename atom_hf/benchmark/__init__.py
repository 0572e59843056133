"""The cost of the flag: time and memory of a training step."""
