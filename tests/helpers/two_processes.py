"""Two processes of one group that stay: they import once, and not once for each test that runs over processes."""

import importlib.util
import io
import multiprocessing
import os
import random
import sys
import traceback
from functools import cache
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

SECONDS = 300


class TwoProcesses:
    """Called with a function of a test module and its arguments: what it returns in each process, [of rank 0, of rank 1].

    The processes join in a gloo group, under the variables that torchrun sets, when they are first needed. A call that
    fails in one of them ends both, since the other may wait for it: the next call starts new ones.
    """

    def __init__(self, make_folder):
        self.make_folder, self.processes, self.ends = make_folder, [], []

    def __call__(self, function, *arguments):
        if not self.processes:
            self.start()
        for end in self.ends:
            end.send((function.__code__.co_filename, function.__name__, arguments))
        answers, waiting = {}, list(self.ends)
        while waiting:
            ready = wait(waiting, timeout=SECONDS)
            if not ready:
                self.stop()
                raise AssertionError(f"{function.__name__} was not done after {SECONDS} s")
            for end in ready:
                try:
                    done, answer = torch.load(io.BytesIO(end.recv_bytes()), weights_only=False)
                except EOFError:
                    done, answer = False, "the process has ended"
                if not done:
                    rank = self.ends.index(end)
                    self.stop()
                    raise AssertionError(f"{function.__name__} on process {rank}:\n{answer}")
                answers[end] = answer
                waiting.remove(end)
        return [answers[end] for end in self.ends]

    def start(self):
        # A file as the meeting point: no port that another process could take first.
        meet = f"file://{self.make_folder() / 'meet'}"
        context = multiprocessing.get_context("spawn")
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, rank, meet))
            process.start()
            theirs.close()
            self.processes.append(process)
            self.ends.append(ours)

    def stop(self):
        for process in self.processes:
            process.kill()
        for process, end in zip(self.processes, self.ends, strict=True):
            process.join()
            end.close()
        self.processes, self.ends = [], []


def serve(connection, rank, meet):
    """What each process does: it runs what it is told until nobody is there to tell it."""
    where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in where.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")  # Accelerate asks for them, and the group is there
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2)
    while True:
        try:
            file, name, arguments = connection.recv()
        except EOFError:
            return
        start_anew()
        try:
            answer = True, getattr(module_of(file), name)(*arguments)
        except BaseException:
            answer = False, traceback.format_exc()
        buffer = io.BytesIO()
        torch.save(answer, buffer)
        connection.send_bytes(buffer.getvalue())


def start_anew():
    """No call finds what another has left behind."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


@cache
def module_of(file):
    """A test module by its file, since pytest names modules in its own way."""
    name = f"on_two_processes.{Path(file).parent.name}.{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
