"""`atom-hf predict` reads a large file in bounded memory: measured in a process of its own."""

import csv
import json
import subprocess
import sys

import pytest

from atom_hf import AtomConfig, attach_atoms
from helpers.models import make_tokenizer, tiny, verse
from helpers.paths import environment

ROWS = 100_000

MOST = 16
"""MiB that the second half of the rows may add to what the process itself holds."""

# What the process holds in memory of its own (not what it maps from the disk), as rows are written.
MEASURE = """
import json, re, sys
from atom_hf.cli.main import main
from atom_hf.utils.records import RecordFile

held, real = [], RecordFile._append

def append(self, file, text):
    real(self, file, text)
    with open("/proc/self/status") as status:
        held.append(int(re.search(r"RssAnon:\\s+(\\d+)", status.read())[1]) / 1024)

RecordFile._append = append
status = main(sys.argv[1:])
print(json.dumps([status, held]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.promise("`predict` reads a file of any length in bounded memory.", "a csv file of 100,000 rows")
def test_a_file_of_100_000_rows_is_read_in_bounded_memory(tmp_path):
    model = attach_atoms(
        tiny("bert", num_hidden_layers=1, hidden_size=8).eval(), AtomConfig(layer=-1), make_tokenizer()
    )
    model.save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    words = verse(1)[0]["text"].split()
    with (tmp_path / "large.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        # Short, to be quick, and each with a number of its own, so that no reader keeps them as few values.
        writer.writerows((f"{i} {words[i % len(words)]} {words[i // 2 % len(words)]}", i % 2) for i in range(ROWS))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, "predict", "--model", "model", "--file", "large.csv", "--batch_size", "256"],
        cwd=tmp_path,
        env={**environment(), "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    status, held = json.loads(run.stdout.splitlines()[-1])
    assert status == 0 and f"predicted {ROWS:,} texts" in run.stdout
    with (tmp_path / "predictions.jsonl").open(encoding="utf-8") as file:
        assert sum(1 for _ in file) == ROWS
    half = len(held) // 2
    # The records are several times as large as what may be added.
    assert (tmp_path / "predictions.jsonl").stat().st_size > 2 * MOST * 2**20
    assert max(held[half:]) - max(held[: half // 2]) < MOST, held
    print(f"{held[0]:.0f} MiB after the first rows, at most {max(held):.0f} MiB")
