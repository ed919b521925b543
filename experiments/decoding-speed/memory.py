"""Does translating a long file take more memory than a short one?

    python experiments/decoding-speed/memory.py RUN [--lines 1000000]

Translates 10,000 lines and `--lines` lines (the beginnings of test sentences of Multi30k, greedy search) with
`seq2seq translate`, and prints the peak memory of both processes and their ratio. Ends with 1 where it is above 1.2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data" / "multi30k"
BOUND = 1.2


def peak_memory(run: Path, source: Path, lines: int) -> int:
    """Bytes that `seq2seq translate` had resident at most. Counts the lines that come out."""
    code = "from seq2seq.cli import main; main()"
    command = [sys.executable, "-c", code, "translate", str(run), str(source), "--beam-size", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        found = sum(1 for _ in process.stdout)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or found != lines:
        sys.exit(f"exit code {process.returncode}, {found:,} lines came out of {lines:,}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--lines", type=int, default=1_000_000)
    arguments = parser.parse_args()
    sentences = (DATA / "test_2016_flickr.lc.norm.tok.en").read_text(encoding="utf-8").split("\n")[:-1]
    starts = [" ".join(sentence.split()[: 1 + number % 6]) for number, sentence in enumerate(sentences)]
    peaks = []
    for lines in (10_000, arguments.lines):
        with tempfile.NamedTemporaryFile("w", suffix=".en", encoding="utf-8") as file:
            file.writelines(f"{starts[i % len(starts)]}\n" for i in range(lines))
            file.flush()
            peaks.append(peak_memory(arguments.run, Path(file.name), lines))
        print(f"{lines:,} lines: {peaks[-1] / 1e6:,.0f} MB", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"ratio {ratio:.2f}")
    sys.exit(ratio > BOUND)


if __name__ == "__main__":
    main()
