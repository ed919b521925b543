"""Proof that a killed and resumed training ends as one that was not: `seq2seq verify-resume`.

A short training is run twice, by the command line and in processes of its own: once whole, once killed (SIGKILL, which
no program can catch) at random steps and resumed after each. Both must end with the same weights, optimizer, order of
batches, log and averaged model, to the bit.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from seq2seq.config import Config
from seq2seq.errors import OptionError, UserError
from seq2seq.recipe import dump_config
from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import MODEL, OPTIMIZER
from seq2seq.run_folder.files import file_hash, write_atomic
from seq2seq.training.state import TIMINGS
from seq2seq.version import __version__

# This program, not a folder of its name in the working directory, nor another version that is installed.
CODE = f"import sys; own = {str(Path(__file__).resolve().parents[1])!r}; own in sys.path or sys.path.insert(0, own)"
COMMAND = (sys.executable, "-P", "-c", f"{CODE}; from seq2seq.cli import main; main()", "train")
STEP = re.compile(r"step ([\d,]+)/")
MAX_SENTENCES = 20  # to validate on; what is proved does not depend on how many


class VerificationError(UserError):
    """A training that was to be compared failed."""


@dataclass
class Proof:
    """What verify-resume found. whole, resumed: hashes of each part of the two runs.

    kills: the steps seen last before each kill that interrupted the training.
    """

    steps: int
    seed: int
    whole: dict[str, str]
    resumed: dict[str, str]
    kills: list[int]
    environment: dict[str, Any] = field(default_factory=dict)
    version: str = __version__

    @property
    def identical(self) -> bool:
        return self.whole == self.resumed

    def differing(self) -> list[str]:
        return [name for name, value in self.whole.items() if self.resumed.get(name) != value]

    def as_json(self) -> dict[str, Any]:
        return {"identical": self.identical, **asdict(self)}


def shortened(config: Config, steps: int) -> Config:
    """The same training for so many steps, with a few checkpoints and validations in them, and no test at the end.

    All that the bits of a step depend on stays: model, data, batches, dropout, sampling, precision, threads.
    """
    often = max(1, steps // 6)
    training = {
        "max_steps": steps, "max_epochs": None, "max_minutes": None, "log_every": 1, "save_every": often,
        "validate_every": 2 * often, "max_validation_sentences": MAX_SENTENCES,
    }  # fmt: skip
    without_test = {"test_source": "", "test_target": "", "test_pairs": "", "test_split": ""}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "data": config.data.model_copy(update=without_test),
        }
    )


def verify_resume(
    config: Config, folder: Path, *, steps: int, kills: int, seed: int, tell: Callable[[str], None]
) -> Proof:
    """Trains twice below `folder`, as described above. tell: gets a line for each thing that is done.

    Raises OptionError for numbers that cannot be, VerificationError where a training fails, or ends before any kill.
    """
    if steps < 2:
        raise OptionError(f"--steps {steps}: at least 2, so that there is one to be killed at")
    if not 1 <= kills < steps:
        raise OptionError(f"--kills {kills}: between 1 and --steps - 1 = {steps - 1}")
    recipe = folder / "config.toml"
    write_atomic(recipe, dump_config(shortened(config, steps)).encode())
    began = time.monotonic()
    _train(recipe, folder / "whole")
    tell(f"trained {steps:,} steps without interruption in {time.monotonic() - began:.0f} s")
    one = Run.open(folder / "whole")
    last_seen = _interrupt(recipe, folder / "killed", one.checkpoints()[-1].step, steps, kills, seed, tell)
    began = time.monotonic()
    _train(recipe, folder / "killed")
    tell(f"resumed to the end in {time.monotonic() - began:.0f} s")
    other = Run.open(folder / "killed")
    environment = one.checkpoints()[-1].state().get("environment", {})
    return Proof(steps, seed, fingerprints(one), fingerprints(other), last_seen, environment)


def fingerprints(run: Run) -> dict[str, str]:
    """Hashes of everything that must be the same in two runs of one configuration, by name."""
    latest = run.latest_checkpoint()
    if latest is None:
        raise VerificationError(f"{run.path}: there is no checkpoint to compare")
    latest.verify()
    state = {name: value for name, value in latest.state().items() if name not in TIMINGS and name != "files"}
    return {
        "weights": file_hash(latest.path / MODEL),
        "optimizer": file_hash(latest.path / OPTIMIZER),
        "batch order": str(state.get("batches")),
        "state": _hash(_without_timings(state)),
        "log": _hash([_without_timings(record) for record in run.metrics()]),
        "final model": file_hash(run.path / MODEL),
    }


def describe(proof: Proof) -> str:
    """Both hashes of each part, and the verdict."""
    lines = [f"{'':13}{'whole':20}killed {len(proof.kills)} times and resumed"]
    for name, value in proof.whole.items():
        other = proof.resumed.get(name, "")
        lines.append(f"{name:13}{value[:16]:20}{other[:16]:20}{'same' if value == other else 'DIFFERS'}")
    if proof.identical:
        lines.append("Resuming is exact: bit for bit the same.")
    else:
        lines.append(f"Resuming is NOT exact: {', '.join(proof.differing())} differ.")
    return "\n".join(lines)


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_timings(inner) for name, inner in value.items() if name not in TIMINGS}
    return value


def _hash(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _interrupt(
    recipe: Path, folder: Path, end: int, steps: int, kills: int, seed: int, tell: Callable[[str], None]
) -> list[int]:
    """Kills a training that ends at step `end`, up to so many times; returns the last step that each kill saw.

    Raises VerificationError where none came in time.
    """
    generator = random.Random(seed)
    last_seen: list[int] = []
    for target in sorted(generator.sample(range(1, steps), kills)):
        step = _train_and_kill(recipe, folder, target, generator)
        left = Run(folder).latest_checkpoint()
        if step is None or (left is not None and left.step >= end):  # nothing was left to be interrupted
            break
        last_seen.append(step)
        saved = f"{left.step:,}" if left else "none"
        tell(f"kill {len(last_seen)} of {kills}: at step {step:,}, last checkpoint {saved}")
    longer = f"with more steps, such as --steps {2 * steps}, kills come in time"
    if not last_seen:
        raise VerificationError(f"nothing was interrupted: the training had ended before it was killed; {longer}")
    if len(last_seen) < kills:
        tell(f"only {len(last_seen)} of {kills} kills interrupted the training, which had ended by then; {longer}")
    return last_seen


def _train(recipe: Path, folder: Path) -> None:
    """Begins or goes on with the run in `folder`, to its end."""
    with _process(recipe, folder) as process:
        _, errors = process.communicate()
    if process.returncode:
        raise _failed(errors.splitlines(), process.returncode)


def _train_and_kill(recipe: Path, folder: Path, target: int, generator: random.Random) -> int | None:
    """The same, but kills it within a step after step `target`; returns the last step that it told of.

    None where it had ended by then.
    """
    with _process(recipe, folder) as process:
        assert process.stderr is not None
        reached, before, lines, killed = 0, time.monotonic(), [], False
        for line in process.stderr:  # to its end: what it told before it was killed may be read only afterwards
            lines.append(line)
            if found := STEP.match(line):
                now = time.monotonic()
                reached, pace, before = int(found[1].replace(",", "")), now - before, now
                if reached >= target and not killed:
                    time.sleep(generator.random() * min(pace, 1.0))  # anywhere within the next step, or in a save
                    process.kill()
                    killed = True
        process.wait()
    if process.returncode and not (killed and process.returncode == -signal.SIGKILL):
        raise _failed(lines, process.returncode)
    return reached if process.returncode else None


@contextlib.contextmanager
def _process(recipe: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains, and is killed at the end of the block if it has not ended by itself."""
    command = [*COMMAND, str(recipe), "--run-dir", str(folder), "--resume"]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        encoding="utf-8", errors="replace",
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()  # SIGKILL; nothing happens to one that has been waited for


def _failed(lines: Sequence[str], code: int) -> VerificationError:
    if code < 0:
        return VerificationError(f"the training was ended by {signal.Signals(-code).name}, not sent from here")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it gave no reason")
    return VerificationError(f"the training failed: {last.removeprefix('seq2seq: ')}")
