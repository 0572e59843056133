"""What the flag costs: time and memory of a training step."""
