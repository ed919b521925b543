"""How fast does this project train, beside what else one could train the same model with?

    python experiments/training-speed/run.py [--steps 100] [--repeat 3] [--only torch] [--markdown]

Trains the same model on the same encoded sentences with this project and with every peer that is installed, each in a
process of its own, one after the other, and prints and stores tokens per second, padding, peak memory, validation loss
and where the time goes. Needs the corpus in data/multi30k/ or the network to fetch it. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from common import FAILED, HERE, MEASURED, NOT_INSTALLED, PREPARED, ROOT, Record, Settings, write_settings
from report import SPEED, report, summarise

RESULTS = HERE / "results.json"
# Name: script, precision, variant. Those of the plain loop and this project take both precisions.
SYSTEMS = {
    "ours-fp32": ("ours.py", "fp32", ""),
    "ours-bf16": ("ours.py", "bf16", ""),
    "torch-fp32": ("peer_torch.py", "fp32", ""),
    "torch-bf16": ("peer_torch.py", "bf16", ""),
    "marian-eager-fp32": ("peer_marian.py", "fp32", "eager"),
    "marian-eager-bf16": ("peer_marian.py", "bf16", "eager"),
    "marian-sdpa-fp32": ("peer_marian.py", "fp32", "sdpa"),
    "marian-sdpa-bf16": ("peer_marian.py", "bf16", "sdpa"),
    "joeynmt-fp32": ("peer_joeynmt.py", "fp32", ""),
}
WITH_PARTS = ("ours.py", "peer_torch.py")
PACKAGES = ("seq2seq", "torch", "transformers", "joeynmt")


def launch(script: str, settings: Settings) -> Record:
    """Runs one measured process and returns its record; where there is none, the last line of its log says why."""
    name = f"{settings.name}-parts" if settings.parts else settings.name
    folder = PREPARED / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    given, taken, log = (folder / f"{name}{suffix}" for suffix in (".settings.json", ".record.json", ".log"))
    write_settings(settings, given)
    taken.unlink(missing_ok=True)
    # Joey NMT has no option for the number of threads.
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads)}
    command = [sys.executable, str(HERE / script), str(given), str(taken)]
    with log.open("w", encoding="utf-8") as stream:
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment, cwd=ROOT).returncode
    if code == 0 and taken.exists():
        record: Record = json.loads(taken.read_text(encoding="utf-8"))
        return record
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    reason = next((line for line in reversed(lines) if line.strip()), "no message")
    status = NOT_INSTALLED if reason.startswith("ModuleNotFoundError") else FAILED
    return {"status": status, "reason": f"exit code {code}: {reason.replace(str(ROOT), '.')}"}


def measure(names: list[str], settings: Settings, rounds: int) -> dict[str, list[Record]]:
    """The records of every system, one a round; every second round goes backwards. A system that fails is left out."""
    records: dict[str, list[Record]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            if any(record["status"] != MEASURED for record in records[name]):
                continue
            script, precision, variant = SYSTEMS[name]
            record = launch(script, replace(settings, name=name, precision=precision, variant=variant))
            records[name].append(record)
            figure = f"{record[SPEED]:,.0f} target tokens/s" if record["status"] == MEASURED else record["status"]
            print(f"round {number + 1}/{rounds}  {name}: {figure}", file=sys.stderr)
    return records


def measure_parts(names: list[str], settings: Settings) -> dict[str, Record]:
    """Where the time goes, by system, for those of which it can be told."""
    records = {}
    for name in names:
        script, precision, variant = SYSTEMS[name]
        if script in WITH_PARTS:
            chosen = replace(settings, name=name, precision=precision, variant=variant, parts=True)
            records[name] = launch(script, chosen)
            print(f"parts  {name}: {records[name]['status']}", file=sys.stderr)
    return records


def describe_machine() -> dict[str, Any]:
    """Processor, system, versions, and the load (processes that want a core, over the last minute)."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "load_average": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def choose(only: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """The systems whose name, or the beginning of it up to a hyphen, is among those asked for; all where none is."""
    for wanted in only:
        if not any(name == wanted or name.startswith(f"{wanted}-") for name in SYSTEMS):
            parser.error(f"--only {wanted}: choose from {', '.join(SYSTEMS)}, or the beginning of these")
    chosen = [n for n in SYSTEMS if any(n == wanted or n.startswith(f"{wanted}-") for wanted in only)]
    return chosen or list(SYSTEMS)


def parse() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--steps", type=int, default=100, help="timed updates of each system")
    parser.add_argument("--warmup-steps", type=int, default=20, help="updates before them that are not timed")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="torch, marian-sdpa, ours-bf16 ...")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="padded target tokens of a batch, at most")
    parser.add_argument("--vocab-size", type=int, default=10_000, help="pieces of the shared vocabulary")
    parser.add_argument("--repeat", type=int, default=1, help="rounds over all systems; medians are told")
    parser.add_argument("--dropout-everywhere", action="store_true", help="as nn.Transformer has it; see README.md")
    parser.add_argument("--no-parts", action="store_true", help="do not measure where the time goes")
    parser.add_argument("--output", type=Path, help="results.json here; with --only, in the work folder")
    parser.add_argument(
        "--markdown", action="store_true", help="print the stored results for a README; measure nothing"
    )
    arguments = parser.parse_args()
    for option in ("steps", "threads", "batch_tokens", "vocab_size", "repeat"):
        if getattr(arguments, option) < 1:
            parser.error(f"--{option.replace('_', '-')} must be 1 or more")
    if arguments.warmup_steps < 0:
        parser.error("--warmup-steps must be 0 or more")
    return arguments, choose(arguments.only, parser)


def main() -> None:
    arguments, names = parse()
    output = arguments.output or (PREPARED / "results.json" if arguments.only else RESULTS)
    if arguments.markdown:
        if not output.exists():
            sys.exit(f"{output.name}: nothing has been measured yet")
        print(report(json.loads(output.read_text(encoding="utf-8")), as_markdown=True))
        return
    options = ("steps", "warmup_steps", "threads", "batch_tokens", "vocab_size", "dropout_everywhere")
    settings = Settings(**{option: getattr(arguments, option) for option in options})
    machine = describe_machine()
    prepared = launch("prepare.py", replace(settings, name="prepare"))
    if prepared["status"] != MEASURED:
        sys.exit(f"the corpus could not be prepared: {prepared['reason']}")
    records = measure(names, settings, arguments.repeat)
    results = {
        "machine": machine,
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("name", "variant", "precision", "parts")},
        "rounds": arguments.repeat,
        **summarise(records),
        "parts": {} if arguments.no_parts else measure_parts(names, settings),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(report(results, as_markdown=False))


if __name__ == "__main__":
    main()
