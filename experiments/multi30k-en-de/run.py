"""Trains and tests English-German on Multi30k, on the raw and on the lowercased, tokenised files.

    python experiments/multi30k-en-de/run.py [--only lowercase|raw] [--seed 1] [--set section.key=value ...]

Needs the corpus in data/multi30k/ or the network to fetch it. Trains each recipe into runs/, translates both test sets
with the finished model (beam 5), scores them with sacreBLEU and adds the figures to results.json. The test sets are
only translated here, once, at the end; every choice in the recipes was made on the validation set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT / "data" / "multi30k"
RECIPES = {
    "lowercase": (HERE / "lowercase.toml", "{}.lc.norm.tok.{}", "none"),
    "raw": (ROOT / "data" / "multi30k.toml", "{}.{}.gz", "13a"),
}
TESTS = ("test_2016_flickr", "test_2017_flickr")


def seq2seq(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from seq2seq.cli import main; main()", *arguments], check=True)


def measure(name: str, run: Path) -> dict[str, Any]:
    """Benchmarks a finished run on both test sets."""
    _, pattern, tokenize = RECIPES[name]
    scores = {}
    for test in TESTS:
        source, reference = (str(DATA / pattern.format(test, language)) for language in ("en", "de"))
        report = run / f"{test}.json"
        command = ["benchmark", str(run), "--source", source, "--reference", reference, "--tokenize", tokenize]
        seq2seq(*command, "--beam-size", "5", "--json", str(report), "--output", str(run / test))
        result = json.loads(report.read_text(encoding="utf-8"))
        scores[test] = {
            metric: {key: score[key] for key in ("value", "low", "high", "signature")}
            for metric, score in result["systems"][0]["scores"].items()
        }
        without = result["systems"][0]["scores_without_normalized_overlap"]
        scores[test]["bleu_without_training_sentences"] = without and without["bleu"]["value"]
        scores[test]["sources_in_training_data"] = result["systems"][0]["overlap"]
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(RECIPES))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path, help="measure this finished run instead of training (with --only)")
    arguments = parser.parse_args()
    for name in [arguments.only] if arguments.only else list(RECIPES):
        run = arguments.run_dir or Path("runs") / f"m30k-{name}-{arguments.seed}"
        settings = [f"training.seed={arguments.seed}", *arguments.set]
        if not (run / "model.json").exists():
            options = [part for setting in settings for part in ("--set", setting)]
            seq2seq("train", str(RECIPES[name][0]), "--run-dir", str(run), "--overwrite", *options)
        info = json.loads((run / "model.json").read_text(encoding="utf-8"))
        results_path = HERE / "results.json"
        results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() else {}
        results[f"{name}, seed {info['training']['seed']}"] = {
            "recipe": str(RECIPES[name][0].relative_to(ROOT)),
            "set": arguments.set,
            "parameters": info["num_parameters"],
            "training": info["training"],
            "validation": info["validation"],
            "test": measure(name, run),
        }
        results_path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
