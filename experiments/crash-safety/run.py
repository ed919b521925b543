"""Does anything get lost? Kills trainings at random moments, fills their disks, and compares what they end with.

    python experiments/crash-safety/run.py [--kills 200] [--during-saves 50] [--full-disks 20]

A short training (validation, checkpoints, averaging, subword sampling and dropout included) is run once without
interruption. Then others are killed with SIGKILL, some within a save, resumed, killed again, until they come to their
end, where weights, optimizer, order of batches, log and final model must be those of the first, to the bit. On a disk
that is too small a training must end with one line that names a file, keep sound checkpoints, and, with space, come to
the same end. Last, what checkpoints and checks cost of the time of training with the preset `tiny`. Writes
results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seq2seq.run import Run
from seq2seq.run_folder.files import RunError, write_atomic
from seq2seq.runtime import describe_hardware
from seq2seq.verifying import fingerprints

HERE = Path(__file__).parent
QUICKSTART = HERE.parents[1] / "data" / "quickstart"
COMMAND = (sys.executable, "-c", "from seq2seq.cli import main; main()", "train")
KILLS_A_RUN = 12  # afterwards a run is left to come to its end
RECIPE = """
[data]
train_source = "train.source"
train_target = "train.target"
valid_source = "valid.source"
valid_target = "valid.target"
[tokenizer]
vocab_size = 120
sample_source = 0.1
[model]
d_model = 32
num_heads = 2
d_ff = 64
num_encoder_layers = 1
num_decoder_layers = 1
[training]
max_steps = 400
batch_tokens = 400
warmup_steps = 50
log_every = 5
validate_every = 40
save_every = 10
keep_last = 3
average_checkpoints = 3
num_threads = 1
precision = "fp32"
"""


def write_corpus(folder: Path) -> None:
    """Made-up words and what they are backwards."""
    generator = random.Random(1)
    words = ["".join(generator.choices("abdegiklmnoprstu", k=generator.randint(2, 7))) for _ in range(60)]
    for name, count in (("train", 400), ("valid", 10)):
        lines = [" ".join(generator.choices(words, k=generator.randint(3, 8))) for _ in range(count)]
        (folder / f"{name}.source").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"{name}.target").write_text("".join(f"{line[::-1]}\n" for line in lines))
    (folder / "recipe.toml").write_text(RECIPE)


def start(recipe: Path, run: Path, **options: Any) -> subprocess.Popen[str]:
    command = [*COMMAND, str(recipe), "--run-dir", str(run), "--resume", "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options)


def finish(recipe: Path, run: Path, **options: Any) -> str:
    """Trains to the end; returns its messages. SystemExit where it fails."""
    process = start(recipe, run, **options)
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"a training failed that nothing had been done to:\n{errors}")
    return errors


def check_checkpoints(run: Path) -> int:
    """How many complete checkpoints there are; raises RunError where one is not sound."""
    checkpoints = Run(run).checkpoints()
    for checkpoint in checkpoints:
        checkpoint.verify()
    return len(checkpoints)


def kill(recipe: Path, run: Path, generator: random.Random, length: float, *, in_save: bool) -> str:
    """Trains and kills at a random moment; returns what was hit: "save", "other", or "nothing" where it had ended.

    length: seconds that the training takes, from its first file on.
    """
    process = start(recipe, run)
    lock = run / ".lock"
    with contextlib.suppress(FileNotFoundError):
        lock.unlink()  # left by the kill before; nobody holds it
    while process.poll() is None and not lock.exists():
        time.sleep(0.001)
    # A run that goes on has less left of it; many kills late in a run would find nothing.
    time.sleep(generator.random() * length * (0.3 if in_save else 0.7))
    while in_save and process.poll() is None and not saving(run):
        time.sleep(0.0001)
    if in_save:
        time.sleep(generator.random() * 0.01)  # anywhere within it: a save takes about so long
    process.send_signal(signal.SIGKILL)
    assert process.stderr is not None
    process.stderr.close()
    code = process.wait()
    if code > 0:
        sys.exit(f"a training failed with {code} that was to be killed")
    return "nothing" if code == 0 else "save" if saving(run) else "other"


def saving(run: Path) -> bool:
    """Whether a checkpoint is being written or removed, as one sees from the folder."""
    with contextlib.suppress(FileNotFoundError), os.scandir(run / "checkpoints") as entries:
        return any(entry.name.startswith(".saving-") for entry in entries)
    return False


def kill_runs(
    folder: Path, expected: dict[str, str], length: float, kills: int, during_saves: int, seed: int
) -> dict[str, Any]:
    """Kills so many times, over as many runs as that takes, and compares each run's end."""
    recipe, generator = folder / "recipe.toml", random.Random(seed)
    counts = {"kills": 0, "within_a_save": 0, "elsewhere": 0, "survived": 0, "runs": 0, "before_a_checkpoint": 0}
    differing: list[dict[str, Any]] = []
    while counts["kills"] < kills or counts["within_a_save"] < during_saves:
        run, here = folder / f"killed-{counts['runs']}", 0
        while here < KILLS_A_RUN and (counts["kills"] < kills or counts["within_a_save"] < during_saves):
            # Those within a save first: they do not always hit.
            hit = kill(recipe, run, generator, length, in_save=counts["within_a_save"] < during_saves)
            if hit == "nothing":
                break
            here += 1
            counts["kills"] += 1
            counts["within_a_save" if hit == "save" else "elsewhere"] += 1
            counts["before_a_checkpoint"] += check_checkpoints(run) == 0
        finish(recipe, run)
        found = fingerprints(Run.open(run))
        if found == expected:
            counts["survived"] += here
        else:
            names = [name for name, value in expected.items() if found.get(name) != value]
            differing.append({"run": counts["runs"], "kills": here, "differing": names})
        counts["runs"] += 1
        print(f"{counts['survived']} of {counts['kills']} kills survived, {counts['within_a_save']} within a save")
        shutil.rmtree(run)
    return {**counts, "differing": differing}


@contextlib.contextmanager
def small_disk(folder: Path, size: int | None) -> Iterator[bool]:
    """Mounts a file system of so many bytes; gives False where that may not be done here, or no size is given."""
    folder.mkdir(parents=True)
    if size is None:
        yield False
        return
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


def fill_disks(folder: Path, whole: Path, expected: dict[str, str], disks: int, seed: int) -> dict[str, Any]:
    """Trains on disks that are too small, of file systems and of limits on the size of a file by turns."""
    recipe, generator = folder / "recipe.toml", random.Random(seed)
    sizes = [path.stat().st_size for path in whole.rglob("*") if path.is_file()]
    counts: dict[str, Any] = {"runs": 0, "file_systems": 0, "file_size_limits": 0, "survived": 0}
    messages: list[str] = []
    lost: list[dict[str, Any]] = []
    for number in range(disks):
        disk = folder / f"disk-{number}"
        # Up to what the end needs; the check before training refuses the smallest at once.
        size = generator.randint(sum(sizes) // 4, sum(sizes) + 300_000)
        limit = generator.randint(500, max(sizes) - 1)
        with small_disk(disk, size if number % 2 == 0 else None) as full:
            process = start(recipe, disk / "run", preexec_fn=None if full else (lambda limit=limit: limited(limit)))
            _, errors = process.communicate()
            lines = errors.strip().splitlines()
            told = process.returncode == 0 or (process.returncode == 1 and well_told(lines, disk))
            messages += [lines[-1].replace(str(disk), "DISK")] if process.returncode else []
            wrong = [] if told else [f"ended with {process.returncode}: {lines}"]
            try:
                check_checkpoints(disk / "run")
                if full:
                    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
                finish(recipe, disk / "run")
                found = fingerprints(Run.open(disk / "run"))
                wrong += [f"{name} differs" for name in expected if found.get(name) != expected[name]]
            except RunError as error:
                wrong.append(str(error))
            lost += [{"disk": number, "wrong": wrong}] if wrong else []
            counts["survived"] += not wrong
            counts["runs"] += 1
            counts["file_systems" if full else "file_size_limits"] += 1
            print(f"{counts['survived']} of {counts['runs']} full disks survived; {lines[-1][:150] if lines else ''}")
    return {**counts, "ended_early": len(messages), "messages": sorted(set(messages)), "lost": lost}


def limited(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def well_told(lines: list[str], disk: Path) -> bool:
    """Whether the last line names a file, not a temporary one, and what to do; and there is no traceback."""
    last = lines[-1] if lines else ""
    named = str(disk) in last and ".tmp" not in last and ".saving" not in last
    return named and "free some space" in last and not any("Traceback" in line for line in lines)


COST = """
import json, sys, time
from pathlib import Path
from seq2seq import pipeline
from seq2seq.recipe import load_config
from seq2seq.training import trainer as module

spent = dict.fromkeys(("save", "_check_finite", "chain_hash", "watch_loss", "check_room"), 0.0)

def timed(holder, name):
    whole = getattr(holder, name)
    def timing(*arguments, **options):
        began = time.perf_counter()
        try:
            return whole(*arguments, **options)
        finally:
            spent[name] += time.perf_counter() - began
    setattr(holder, name, timing)

for name in ("save", "_check_finite"):
    timed(module.Trainer, name)
for name in ("chain_hash", "watch_loss", "check_room"):
    timed(module, name)

class Silent:
    def message(self, text): pass
    progress = validation = message

corpus, folder, steps = sys.argv[1:]
data = {f"train_{side}": f"{corpus}/train.{name}" for side, name in (("source", "en"), ("target", "de"))}
config = load_config(None, preset="tiny", data=data, overrides=[f"training.max_steps={steps}"])
state = pipeline.train(config, Path(folder), Silent()).state
print(json.dumps({"steps": state.step, "seconds": state.seconds, "save_every": config.training.save_every, **spent}))
"""


def measure_cost(folder: Path, steps: int) -> dict[str, Any]:
    """What saving and checking take of the time of the preset `tiny`, in shares."""
    command = [sys.executable, "-c", COST, str(QUICKSTART), str(folder / "cost"), str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = found["seconds"]
    found["share_of_checkpoints"] = round(found["save"] / seconds, 5)  # their checks of finiteness included
    found["share_of_checks"] = round((found["chain_hash"] + found["watch_loss"] + found["check_room"]) / seconds, 5)
    print(f"checkpoints take {100 * found['share_of_checkpoints']:.2f}% of training, checks in every step "
          f"{100 * found['share_of_checks']:.2f}%")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--during-saves", type=int, default=50, help="of these, so many within a save")
    parser.add_argument("--full-disks", type=int, default=20)
    parser.add_argument("--cost-steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-safety-") as name:
        folder = Path(name)
        write_corpus(folder)
        run, recipe = folder / "whole", folder / "recipe.toml"
        began = time.monotonic()
        finish(recipe, run)
        length = max(1.0, time.monotonic() - began - 2.0)  # less what importing takes
        expected = fingerprints(Run.open(run))
        print(f"an uninterrupted run takes {length + 2:.1f} s")
        asked = {
            "kills": options.kills
            and (lambda: kill_runs(folder, expected, length, options.kills, options.during_saves, options.seed)),
            "full_disks": options.full_disks
            and (lambda: fill_disks(folder, run, expected, options.full_disks, options.seed)),
            "cost": options.cost_steps and (lambda: measure_cost(folder, options.cost_steps)),
        }
        results = {"hardware": describe_hardware_here(), "expected": expected, **load(options.results, set(asked))}
        for part, work in asked.items():
            if work:
                results[part] = {"command": " ".join(["run.py", *sys.argv[1:]]), **work()}
        results["seconds"] = round(time.monotonic() - began)
    write_atomic(options.results, (json.dumps(results, indent=2) + "\n").encode())
    lost = 0
    for part, what in (("kills", "kills"), ("full_disks", "runs")):
        if asked[part]:
            lost += results[part][what] - results[part]["survived"]
            print(f"{results[part]['survived']} of {results[part][what]} {part.replace('_', ' ')} survived")
    sys.exit(1 if lost else 0)


def load(path: Path, parts: set[str]) -> dict[str, Any]:
    """The parts of earlier results: those that are not asked for now stay."""
    try:
        return {part: value for part, value in json.loads(path.read_text(encoding="utf-8")).items() if part in parts}
    except FileNotFoundError:
        return {}


def describe_hardware_here() -> Any:
    import torch

    return describe_hardware(torch.device("cpu"))


if __name__ == "__main__":
    main()
