"""The best recipe: a model that learns from the corpus and from what models of the same size make of it.

    python experiments/multi30k-en-de/diversified.py [--seed 1] [--rounds 2]

Trains the teachers on the corpus alone (preset `quick`; those of `--backward-seeds` from German to English), has them
translate it (`seq2seq diversify`), and trains the student on it all. With `--rounds 2` that student is one more
teacher, two translations are taken of each, and another student is trained. The last one is measured on the test sets
as run.py does. What is in runs/ already is not done again; a training that was interrupted is resumed. Nothing but the
29,000 pairs is used.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT / "data" / "multi30k"
COMMON = ('data.bleu_tokenize="none"',)  # what lowercase.toml has is for its own files
STUDENT = ("model.dropout=0.2", "training.batch_tokens=4096", "training.max_steps=6500")


def seq2seq(*arguments: str | Path) -> None:
    command = [sys.executable, "-c", "from seq2seq.cli import main; main()", *map(str, arguments)]
    subprocess.run(command, check=True)


def train(run: Path, *arguments: str | Path, settings: list[str]) -> Path:
    """Trains a run, or the rest of it."""
    if not (run / "model.json").exists():
        options = [part for setting in settings for part in ("--set", setting)]
        resume = ["--resume"] if (run / "config.toml").exists() else []
        seq2seq("train", HERE / "lowercase.toml", *arguments, "--run-dir", run, *resume, *options)
    return run


def files(train_folder: Path, source: str, target: str) -> list[str | Path]:
    """Options that name the corpus and the validation set."""
    pattern = "{}.lc.norm.tok.{}"
    return [
        "--source", train_folder / pattern.format("train", source),
        "--target", train_folder / pattern.format("train", target),
        "--valid-source", DATA / pattern.format("val", source),
        "--valid-target", DATA / pattern.format("val", target),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="of the last student; those before have 1")
    parser.add_argument("--rounds", type=int, default=1, help="of students, each with those before as teachers")
    parser.add_argument("--forward-seeds", type=int, nargs="*", default=[11, 12])
    parser.add_argument("--backward-seeds", type=int, nargs="*", default=[13])
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="for every training")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    if not (DATA / "train.lc.norm.tok.en").exists():
        sys.exit(f"{DATA}: there are no lc.norm.tok files; run.py --only lowercase fetches them")
    teachers = {"--forward": [], "--backward": []}  # type: dict[str, list[Path]]
    for option, seeds, corpus in (
        ("--forward", arguments.forward_seeds, files(DATA, "en", "de")),
        ("--backward", arguments.backward_seeds, files(DATA, "de", "en")),
    ):
        for seed in seeds:
            run = arguments.runs / f"m30k-teacher{option.removeprefix('-')}-{seed}"
            settings = [f"training.seed={seed}", *COMMON, *arguments.set]
            teachers[option].append(train(run, "--preset", "quick", *corpus, settings=settings))
    for number in range(1, arguments.rounds + 1):
        more = arguments.runs / f"m30k-diversified-data-{number}"
        if not all((more / f"train.lc.norm.tok.{language}").exists() for language in ("en", "de")):
            named = [part for option, runs in teachers.items() for run in runs for part in (option, run)]
            search = ("--beam-size", "5", "--n-best", str(number))
            seq2seq("diversify", *files(DATA, "en", "de")[:4], *named, "--output", more, "--overwrite", *search)
        seed = arguments.seed if number == arguments.rounds else 1
        settings = [f"training.seed={seed}", *COMMON, *STUDENT, *arguments.set]
        student = train(
            arguments.runs / f"m30k-diversified-{number}-{seed}", *files(more, "en", "de"), settings=settings
        )
        teachers["--forward"].append(student)
    measure = [sys.executable, str(HERE / "run.py"), "--only", "lowercase", "--run-dir", str(student)]
    subprocess.run([*measure, "--label", "lowercase, diversified"], check=True)


if __name__ == "__main__":
    main()
