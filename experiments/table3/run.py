"""Table 3 of the paper at the scale of Multi30k: one training a row, ten minutes each on one core.

    python experiments/table3/run.py [--only ROW ...] [--seed 1] [--max-steps 2000] [--output FOLDER] [--list]

Rows that are finished in results.json are skipped; it holds rows of one number of steps and one seed, for others
`--output` names another folder. After each row results.json, table.md and, with matplotlib, table3.png are written
anew; several of these may run at once, with different rows. Perplexity and BLEU (beam 4, and alpha 1.8 as preset `tiny`
has it) are of the validation set, as the paper's are.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from rows import BASE, ROWS, Row

from seq2seq.run_folder.files import write_atomic

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RECIPE = HERE.parent / "multi30k-en-de" / "lowercase.toml"
DATA = ROOT / "data" / "multi30k"


def seq2seq(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from seq2seq.cli import main; main()", *arguments], check=True)


def read_results(folder: Path) -> dict[str, Any]:
    """What is known of each row so far, by its name."""
    path = folder / "results.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """The figures, the table and, where it can be drawn, the picture."""
    write_atomic(folder / "results.json", (json.dumps(results, indent=2) + "\n").encode())
    write_atomic(folder / "table.md", table(results).encode())
    try:
        draw(results, folder / "table3.png")
    except ImportError as error:
        print(f"no picture ({error}): pip install -e '.[plot]' and run this again", file=sys.stderr)


def train(row: Row, run: Path, seed: int, max_steps: int) -> dict[str, Any]:
    """Trains and scores one row. Perplexity is that of the last weights, before averaging."""
    if not (run / "model.json").exists():
        common = ("training.optimizer=adam", "training.warmup_steps=800", "training.learning_rate_scale=0.8",
                  "training.weight_decay=0", f"training.seed={seed}", f"training.max_steps={max_steps}",
                  f"training.validate_every={max_steps}", "training.num_threads=1")  # fmt: skip
        options = [part for setting in (*common, *row.settings) for part in ("--set", setting)]
        seq2seq("train", str(RECIPE), "--run-dir", str(run), "--overwrite", *options)
    info = json.loads((run / "model.json").read_text(encoding="utf-8"))
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [record["valid_loss"] for record in map(json.loads, lines) if "valid_loss" in record]
    report = run / "validation.json"
    sides = [str(DATA / f"val.lc.norm.tok.{language}") for language in ("en", "de")]
    command = ["benchmark", str(run), "--source", sides[0], "--reference", sides[1], "--tokenize", "none"]
    seq2seq(*command, "--beam-size", "4", "--json", str(report))
    score = json.loads(report.read_text(encoding="utf-8"))["systems"][0]["scores"]["bleu"]
    return {
        "steps": max_steps,
        "seed": seed,
        "parameters": info["num_parameters"],
        "minutes": round(info["training"]["seconds"] / 60, 1),
        "precision": info["training"]["precision"],
        "hardware": info["training"]["hardware"],
        "perplexity": round(math.exp(losses[-1]), 3),
        "bleu": round(score["value"], 2),
        "bleu_interval": [round(score["low"], 2), round(score["high"], 2)],
    }


def table(results: dict[str, Any]) -> str:
    """The finished rows beside the paper's, differences from the base in brackets."""
    lines = [
        "| row | here | parameters | perplexity | BLEU | paper | perplexity | BLEU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    base = results.get(BASE.name)
    for row in ROWS:
        result = results.get(row.name)
        if result is None:
            continue
        bleu, perplexity = f"{result['bleu']:.1f}", f"{result['perplexity']:.2f}"
        if base is not None and row is not BASE:
            bleu += f" ({result['bleu'] - base['bleu']:+.1f})"
        theirs = f"{row.paper[1]:.1f}"
        if row is not BASE:
            theirs += f" ({row.paper[1] - BASE.paper[1]:+.1f})"
        millions = f"{result['parameters'] / 1e6:.2f}M"
        cells = (row.name, row.label, millions, perplexity, bleu, row.paper_label, f"{row.paper[0]:.2f}", theirs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture_label(row: Row) -> str:
    """What is varied here, and in brackets in the paper, where that is something else."""
    own = f"{row.name.partition('-')[0]}  {row.label}"
    return own if row.paper_label in ("the same", row.label) else f"{own}  [{row.paper_label}]"


def draw(results: dict[str, Any], path: Path) -> None:
    """A picture of the differences in BLEU from the base, here and in the paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in ROWS if row is not BASE and row.name in results]
    if BASE.name not in results or not rows:
        return
    base = results[BASE.name]["bleu"]
    figure = Figure(figsize=(9, 1.5 + 0.36 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(rows))
    ours = [results[row.name]["bleu"] - base for row in rows]
    axes.barh([p - 0.2 for p in places], ours, 0.4, label=f"Multi30k, tiny (base {base:.1f})", color="tab:blue")
    theirs = [row.paper[1] - BASE.paper[1] for row in rows]
    axes.barh(
        [p + 0.2 for p in places], theirs, 0.4, label="paper, newstest2013 (base 25.8) [its row]", color="tab:orange"
    )
    axes.set_yticks(list(places), [picture_label(row) for row in rows])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("BLEU minus that of the base model")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(frameon=False, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], metavar="ROW")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-steps", type=int, default=2000)
    parser.add_argument("--output", type=Path, default=HERE, metavar="FOLDER", help="of results.json and the rest")
    parser.add_argument("--list", action="store_true", help="print the rows and what they set")
    arguments = parser.parse_args()
    if arguments.list:
        for row in ROWS:
            print(f"{row.name:18} {row.label:32} {' '.join(row.settings)}")
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    wanted = (arguments.max_steps, arguments.seed)
    for name, done in read_results(arguments.output).items():
        if (done["steps"], done["seed"]) != wanted:
            parser.error(
                f"{arguments.output / 'results.json'} has row {name} of {done['steps']} steps and seed {done['seed']}, "
                "which cannot be compared: name another folder by --output"
            )
    for row in ROWS:
        if row.name in read_results(arguments.output) or (arguments.only and row.name not in arguments.only):
            continue
        run = ROOT / "runs" / "table3" / f"{row.name}-{arguments.max_steps}-{arguments.seed}"
        result = train(row, run, arguments.seed, arguments.max_steps)
        # Read anew: others may have finished meanwhile.
        write_results(arguments.output, read_results(arguments.output) | {row.name: result})
    write_results(arguments.output, read_results(arguments.output))
    print(table(read_results(arguments.output)))


if __name__ == "__main__":
    main()
