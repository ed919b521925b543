"""Trains and tests English-German on Multi30k, on the raw and on the lowercased, tokenised files.

    python experiments/multi30k-en-de/run.py [--only lowercase|raw|plain|plain-raw] [--preset quick] [--seed 1]
                                             [--set section.key=value ... --label LABEL]

`plain` and `plain-raw`, which are trained only when they are asked for, are the same files with the paper's own
training: its schedule (equation 3) instead of one that ends with the minutes. Not the paper's are the size of the model
and its dropout of 0.3 (Wu et al. 2021), half of Xavier's first weights, the average of ten checkpoints, and bfloat16
where there is hardware.

Needs the corpus in data/multi30k/ or the network to fetch it. Trains each recipe into runs/, translates both test sets
with the finished model (beam 5 unless told), scores them with sacreBLEU and adds the figures to results.json, with the
wall clock from the start of `seq2seq train` to the finished run. A finished run of the same settings is not trained
again. The test sets are only translated here, once, at the end; every choice in the recipes was made on the validation
set.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seq2seq.config import Config
from seq2seq.recipe import build_config, load_config
from seq2seq.run_folder.files import write_atomic

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATA = ROOT / "data" / "multi30k"
PLAIN = ("training.optimizer=adam", "training.schedule=inverse_sqrt", "training.warmup_steps=1600",
         "training.learning_rate_scale=1.0", "training.weight_decay=0", "training.max_steps=16000",
         "training.keep_last=10", "training.average_checkpoints=10")  # fmt: skip


class Recipe(NamedTuple):
    """files: the test files' names, by test set and language. tokenize: sacreBLEU's tokenizer."""

    config: Path
    files: str
    tokenize: str
    settings: tuple[str, ...] = ()


RECIPES = {
    "lowercase": Recipe(HERE / "lowercase.toml", "{}.lc.norm.tok.{}", "none"),
    "raw": Recipe(ROOT / "data" / "multi30k.toml", "{}.{}.gz", "13a"),
    "plain": Recipe(HERE / "lowercase.toml", "{}.lc.norm.tok.{}", "none", PLAIN),
    "plain-raw": Recipe(ROOT / "data" / "multi30k.toml", "{}.{}.gz", "13a", PLAIN),
}
TESTS = ("test_2016_flickr", "test_2017_flickr")


def seq2seq(*arguments: str) -> None:
    subprocess.run([sys.executable, "-c", "from seq2seq.cli import main; main()", *arguments], check=True)


def settings_of(run: Path) -> dict[str, Any]:
    """The preset of a run, and what its configuration changes of it, but for the corpus."""
    config = load_config(run / "config.toml")
    preset = build_config({}, preset=config.preset or None)
    return {"preset": config.preset, **differences(config, preset)}


def differences(config: Config, other: Config) -> dict[str, Any]:
    """What a configuration has otherwise than another, but for the corpus."""
    found: dict[str, Any] = {}
    for section in ("tokenizer", "model", "training", "decoding"):
        own, others = getattr(config, section).model_dump(), getattr(other, section).model_dump()
        found |= {f"{section}.{name}": value for name, value in own.items() if value != others[name]}
    return found


def check_settings(run: Path, recipe: Path, preset: str, settings: Sequence[str], remedy: str) -> None:
    """Ends the program where a finished run was trained with other settings than are asked for, but for the threads."""
    other = differences(load_config(run / "config.toml"), load_config(recipe, preset=preset, overrides=settings))
    other.pop("training.num_threads", None)
    if other:
        named = ", ".join(f"{name} = {value}" for name, value in other.items())
        sys.exit(f"{run} was trained with other settings ({named}): {remedy}")


def measure(name: str, run: Path, search: list[str]) -> dict[str, Any]:
    """Benchmarks a finished run on both test sets. search: options of the benchmark."""
    recipe = RECIPES[name]
    scores = {}
    for test in TESTS:
        source, reference = (str(DATA / recipe.files.format(test, language)) for language in ("en", "de"))
        report = run / f"{test}.json"
        command = ["benchmark", str(run), "--source", source, "--reference", reference, "--tokenize", recipe.tokenize]
        seq2seq(*command, *search, "--json", str(report), "--output", str(run / test), "--overwrite")
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
    parser.add_argument("--only", choices=list(RECIPES), help="without it lowercase and raw")
    parser.add_argument("--preset", help="instead of the recipe's, tiny")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--run-dir", type=Path, help="measure this finished run, with --only, instead of training")
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--length-penalty", type=float, help="alpha; by default the run's own")
    parser.add_argument("--label", help="what the results are called, before the seed; needed with --set")
    arguments = parser.parse_args()
    if arguments.run_dir and (not arguments.only or arguments.preset or arguments.set):
        parser.error("--run-dir needs --only, and has its preset and its settings from its training")
    if arguments.run_dir and not (arguments.run_dir / "model.json").exists():
        parser.error(f"--run-dir {arguments.run_dir}: no finished run is there")
    if arguments.set and not arguments.label:
        parser.error("--set: other settings are another result: give it a --label")
    for name in [arguments.only] if arguments.only else ("lowercase", "raw"):
        preset = arguments.preset or "tiny"
        run = arguments.run_dir or Path("runs") / f"m30k-{name}-{preset}-{arguments.seed}"
        settings = [f"training.seed={arguments.seed}", *RECIPES[name].settings, *arguments.set]
        seconds = None
        if arguments.run_dir:
            preset = load_config(run / "config.toml").preset
        elif (run / "model.json").exists():
            check_settings(run, RECIPES[name].config, preset, settings, "move it away, or measure it by --run-dir")
        else:
            options = ["--preset", preset, *(part for setting in settings for part in ("--set", setting))]
            began = time.monotonic()
            seq2seq("train", str(RECIPES[name].config), "--run-dir", str(run), "--overwrite", *options)
            seconds = round(time.monotonic() - began, 1)
        alpha = arguments.length_penalty
        if alpha is None:
            alpha = load_config(run / "config.toml").decoding.length_penalty
        search = ["--beam-size", str(arguments.beam_size), "--length-penalty", str(alpha)]
        info = json.loads((run / "model.json").read_text(encoding="utf-8"))
        key = f"{arguments.label or f'{name}, {preset}'}, seed {info['training']['seed']}"
        if arguments.beam_size != 5 or arguments.length_penalty is not None:
            key += f", beam {arguments.beam_size}, alpha {alpha:g}"
        test = measure(name, run, search)
        results_path = HERE / "results.json"  # read only now: others may have finished meanwhile
        results = json.loads(results_path.read_text(encoding="utf-8")) if results_path.exists() else {}
        before = results.get(key, {})
        if seconds is None and before.get("training") == info["training"]:
            seconds = before.get("wall_clock_seconds")
        results[key] = {
            "recipe": str(RECIPES[name].config.relative_to(ROOT)),
            "settings": settings_of(run),
            "wall_clock_seconds": seconds,
            "parameters": info["num_parameters"],
            "training": info["training"],
            "validation": info["validation"],
            "search": " ".join(search),
            "test": test,
        }
        write_atomic(results_path, (json.dumps(results, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
