"""Helpers that tests of several modules share. No test imports another."""

import os

# One thread: sums are then added up in the same order in every process, and two runs can be compared to the bit.
os.environ["OMP_NUM_THREADS"] = "1"

import torch

torch.set_num_threads(1)
