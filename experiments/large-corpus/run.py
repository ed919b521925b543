"""Does memory stay bounded as the corpus grows? Starts a training on synthetic pairs and watches it.

    python experiments/large-corpus/run.py --pairs 2000000 --store

Writes the corpus to a temporary folder (300 MB for two million pairs), trains `tiny` for a few steps on it, and prints
what it took (with `--store` it is written to results.json): seconds until the first step, peak resident memory of the
process (memory-mapped pages of the corpus included, though the system may take them back), and the size of the prepared
corpus.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "data" / "quickstart"


def write_corpus(folder: Path, pairs: int) -> None:
    """Sentences of the built-in corpus joined at random by twos: as many different pairs as one likes."""
    random = Random(1)
    sides = [(QUICKSTART / f"train.{side}").read_text(encoding="utf-8").splitlines() for side in ("en", "de")]
    with (
        (folder / "big.en").open("w", encoding="utf-8") as source,
        (folder / "big.de").open("w", encoding="utf-8") as target,
    ):
        for _ in range(pairs):
            first, second = random.randrange(len(sides[0])), random.randrange(len(sides[0]))
            source.write(f"{sides[0][first]} {sides[0][second]}\n")
            target.write(f"{sides[1][first]} {sides[1][second]}\n")


def watch_size(folder: Path, stop: threading.Event, largest: list[int]) -> None:
    while not stop.wait(0.5):
        size = sum(path.stat().st_size for path in folder.glob(".corpus/*") if path.is_file())
        largest[0] = max(largest[0], size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2_000_000)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--store", action="store_true", help="in results.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder, arguments.pairs)
        settings = [f"training.max_steps={arguments.steps}", "training.log_every=1"]
        command = [sys.executable, "-c", "from seq2seq.cli import main; main()", "train", "--preset", "tiny"]
        command += ["--source", str(folder / "big.en"), "--target", str(folder / "big.de")]
        command += ["--run-dir", str(folder / "run"), *(part for setting in settings for part in ("--set", setting))]
        started, first_step, stop, largest = time.perf_counter(), None, threading.Event(), [0]
        threading.Thread(target=watch_size, args=(folder / "run", stop, largest), daemon=True).start()
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            if line.startswith("step 1/") and first_step is None:
                first_step = time.perf_counter() - started
        if process.wait() != 0:
            sys.exit("training failed")
        stop.set()
    assert largest[0], "the prepared corpus was not seen"
    result = {
        "pairs": arguments.pairs,
        "seconds_until_first_step": round(first_step or 0.0, 1),
        "peak_resident_gigabytes": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, 2),
        "prepared_corpus_gigabytes": round(largest[0] / 1e9, 2),
    }
    print(json.dumps(result, indent=2))
    if arguments.store:
        (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
