"""How to train on few pairs: the first 1,000, 3,000 and 10,000 of Multi30k, other vocabularies, dropout and more text.

    python experiments/small-corpus/run.py [--pairs 1000 3000 10000] [--only ROW ...] [--seed 1] [--max-steps 2000]

Every row is a training of so many steps on one core, scored on the whole validation set (raw files, 13a, beam 5, alpha
1.8); no test set is looked at. The rows `diversified` and `back-translated` learn from what two such models make of the
same pairs (`seq2seq diversify`), the latter with the German sentences of the other pairs of the corpus as text of one
language. Rows that are finished in results.json are skipped; it and table.md are written anew after each, and several
of these may run at once, with different rows that have no training in common (the last two need `2,000 pieces`).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from seq2seq.recipe import load_config
from seq2seq.run_folder.files import write_atomic
from seq2seq.text.download import ensure_downloads
from seq2seq.text.reading import read_lines

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPE = ROOT / "data" / "multi30k.toml"
DATA = ROOT / "data" / "multi30k"
BEST = "2,000 pieces"  # what the teachers and students of the last rows have
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {  # preset and settings
    "quick": ("quick", ()),
    "4,000 pieces": ("quick", ("tokenizer.vocab_size=4000",)),
    "2,000 pieces": ("quick", ("tokenizer.vocab_size=2000",)),
    "1,000 pieces": ("quick", ("tokenizer.vocab_size=1000",)),
    "2,000 pieces, tiny": ("tiny", ("tokenizer.vocab_size=2000",)),
    "2,000 pieces, BPE-dropout": (
        "quick", ("tokenizer.vocab_size=2000", "tokenizer.sample_source=0.1", "tokenizer.sample_target=0.1"),
    ),
}  # fmt: skip
MORE = ("diversified", "back-translated")


def seq2seq(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from seq2seq.cli import main; main()", *arguments], check=True)


class Corpus:
    """The first pairs of the corpus as files, and the German of the others."""

    def __init__(self, pairs: int, folder: Path) -> None:
        self.folder, self.more = folder, folder / "more.de"
        folder.mkdir(parents=True, exist_ok=True)
        for language in ("en", "de"):
            lines = list(read_lines(DATA / f"train.{language}.gz"))
            write_atomic(folder / f"train.{language}", _text(lines[:pairs]))
        write_atomic(self.more, _text(lines[pairs:]))

    def run(self, row: str, seed: int) -> Path:
        return self.folder / f"{row.replace(',', '').replace(' ', '-')}-{seed}"

    def files(self, folder: Path, source: str, target: str) -> list[str]:
        options = ["--source", str(folder / f"train.{source}"), "--target", str(folder / f"train.{target}")]
        return [*options, *self.validation("--valid-source", source), *self.validation("--valid-target", target)]

    @staticmethod
    def validation(option: str, language: str) -> list[str]:
        return [option, str(DATA / f"val.{language}.gz")]


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def train(run: Path, corpus: list[str], row: str, seed: int, steps: int) -> None:
    if (run / "model.json").exists():
        return
    preset, settings = ROWS[row]
    common = (f"training.seed={seed}", f"training.max_steps={steps}", "training.num_threads=1")
    options = [part for setting in (*common, *settings) for part in ("--set", setting)]
    resume = ["--resume"] if (run / "config.toml").exists() else []
    seq2seq("train", str(RECIPE), *corpus, "--preset", preset, "--run-dir", str(run), *resume, *options)


def measure(corpus: Corpus, row: str, seed: int, steps: int) -> dict[str, Any]:
    """Trains what a row needs, and scores it on the validation set."""
    run = corpus.run(row, seed)
    if row in ROWS:
        train(run, corpus.files(corpus.folder, "en", "de"), row, seed, steps)
    else:
        forward, backward = (
            corpus.run(BEST, seed),
            corpus.folder / f"back-{seed}",
        )
        train(forward, corpus.files(corpus.folder, "en", "de"), BEST, seed, steps)
        train(backward, corpus.files(corpus.folder, "de", "en"), BEST, seed, steps)
        more = corpus.folder / f"{row}-text-{seed}"
        if not (more / "train.de").exists():
            teachers = ["--forward", str(forward), "--backward", str(backward)]
            text = ["--monolingual-target", str(corpus.more)] if row == "back-translated" else []
            pairs = corpus.files(corpus.folder, "en", "de")[:4]
            seq2seq("diversify", *pairs, *teachers, *text, "--output", str(more), "--overwrite", "--threads", "1")
        train(run, corpus.files(more, "en", "de"), BEST, seed, steps)
    report = run / "validation.json"
    test = [*corpus.validation("--source", "en"), *corpus.validation("--reference", "de"), "--metrics", "bleu"]
    seq2seq("benchmark", str(run), *test, "--beam-size", "5", "--length-penalty", "1.8", "--json", str(report))
    score = json.loads(report.read_text(encoding="utf-8"))["systems"][0]["scores"]["bleu"]
    info = json.loads((run / "model.json").read_text(encoding="utf-8"))
    lines = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    losses = [record["valid_loss"] for record in lines if "valid_loss" in record]
    return {
        "bleu": round(score["value"], 2),
        "bleu_interval": [round(score["low"], 2), round(score["high"], 2)],
        "perplexity_a_piece": round(math.exp(losses[-1]), 3),
        "pieces": info["source_vocab_size"],
        "parameters": info["num_parameters"],
        "training": info["training"],
        "pairs": info["corpus"]["kept"],
    }


def table(results: dict[str, Any]) -> str:
    """Rows by what was changed, columns by how many pairs."""
    sizes = sorted({one["of"] for one in results.values()})
    lines = ["| | " + " | ".join(f"{size:,} pairs" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for row in (*ROWS, *MORE):
        cells = []
        for size in sizes:
            found = [one["bleu"] for one in results.values() if (one["row"], one["of"]) == (row, size)]
            cells.append(f"{sum(found) / len(found):.2f}" + f" ({len(found)})" * (len(found) > 1) if found else "")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1000, 3000, 10_000])
    parser.add_argument("--only", nargs="+", choices=[*ROWS, *MORE], metavar="ROW", help="these rows alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "small-corpus", help="of the runs")
    parser.add_argument("--list", action="store_true", help="print the rows, and do nothing")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join((*ROWS, *MORE)))
        return
    ensure_downloads(load_config(RECIPE).data.downloads, print)
    for size in arguments.pairs:
        corpus = Corpus(size, arguments.folder / f"{size}-pairs-{arguments.max_steps}-steps")
        for row in arguments.only or (*ROWS, *MORE):
            key, path = f"{size}, {row}, {arguments.max_steps} steps, seed {arguments.seed}", HERE / "results.json"
            results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            if key in results:
                continue
            found = {"of": size, "row": row, **measure(corpus, row, arguments.seed, arguments.max_steps)}
            results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # others may have finished
            results[key] = found
            write_atomic(path, (json.dumps(results, indent=2) + "\n").encode())
            write_atomic(HERE / "table.md", table(results).encode())


if __name__ == "__main__":
    main()
