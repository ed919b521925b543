"""What the runner and the measured processes share: settings, places, records. Standard library only.

Each measurement is a process of its own that reads its settings from a JSON file and writes one record to another.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PREPARED = HERE / "prepared"  # tokenizer, encoded corpus, runs, logs; not under version control
RECIPE = ROOT / "experiments" / "multi30k-en-de" / "lowercase.toml"  # names the files of the corpus and their sums

PAD, UNK, BOS, EOS = 0, 1, 2, 3

MEASURED, NOT_INSTALLED, FAILED = "measured", "not installed", "failed"
Record = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """One measurement: what is trained, for how long, how.

    steps are timed; warmup_steps come before them and are not. batch_tokens: padded target tokens of a batch, at most.
    parts: measure where the time goes instead of how fast it goes.
    """

    name: str = ""
    variant: str = ""  # of a peer that has several: the implementation of attention
    precision: str = "fp32"  # or "bf16"
    parts: bool = False
    steps: int = 100
    warmup_steps: int = 20
    threads: int = 1
    batch_tokens: int = 4096
    vocab_size: int = 10_000
    num_layers: int = 4  # of the encoder, and of the decoder
    d_model: int = 128
    d_ff: int = 256
    num_heads: int = 4
    dropout: float = 0.3
    dropout_everywhere: bool = False  # on attention weights and inside the feed-forward network too
    label_smoothing: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.98
    peak_rate: float = 1e-3
    seed: int = 1

    @property
    def total_steps(self) -> int:
        return self.warmup_steps + self.steps

    @property
    def rate_warmup(self) -> int:
        """Updates over which the learning rate rises: 400, or half of so short a run."""
        return max(1, min(400, self.total_steps // 2))

    @property
    def rate_scale(self) -> float:
        """The factor before equation 3 of Vaswani et al. 2017 that gives `peak_rate` at its peak."""
        return self.peak_rate * math.sqrt(self.d_model * self.rate_warmup)

    def learning_rate(self, step: int) -> float:
        """Equation 3 of Vaswani et al. 2017, scaled; updates count from 1."""
        return self.peak_rate * min(step / self.rate_warmup, math.sqrt(self.rate_warmup / step))

    @property
    def tokenizer_path(self) -> Path:
        return PREPARED / f"bpe-{self.vocab_size}.model"

    @property
    def corpus_path(self) -> Path:
        return PREPARED / f"corpus-{self.vocab_size}.npz"

    def pieces_path(self, split: str) -> Path:
        """Text files of pieces with spaces between, without their last suffix, `.source` or `.target`."""
        return PREPARED / f"{split}-{self.vocab_size}"

    @property
    def run_dir(self) -> Path:
        """Where a system that writes something may write it."""
        return PREPARED / "runs" / (f"{self.name}-parts" if self.parts else self.name)


def peak_memory_bytes() -> int:
    """The most memory that this program ever had resident.

    Linux counts `ru_maxrss` on from the process that started it; VmHWM begins anew with the program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_child(measure: Callable[[Settings], Record]) -> None:
    """The main function of a measured process: `SCRIPT SETTINGS.json RECORD.json`.

    measure: takes the measurement.
    """
    settings = Settings(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    record = {"status": MEASURED, **measure(settings)}
    Path(sys.argv[2]).write_text(json.dumps(record), encoding="utf-8")


def write_settings(settings: Settings, path: Path) -> None:
    path.write_text(json.dumps(asdict(settings)), encoding="utf-8")
