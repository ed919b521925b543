"""How fast does this project translate, beside what else the same model can be run with?

    python experiments/decoding-speed/run.py RUN [--repeat 3] [--only ours-fp32] [--base] [--markdown]

Exports the run to CTranslate2 and Hugging Face, then translates the same test set with every system in turn, each in a
process of its own: this project (float32, bfloat16), CTranslate2 (float32, int8), Hugging Face generate. Prints and
stores sentences per second, the time for one sentence, BLEU, and how many translations differ; with `--only`, stores
them where `--output` says. See README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PREPARED = HERE / "prepared"  # exports, settings, records, logs; not under version control
RESULTS = HERE / "results.json"
DATA = ROOT / "data" / "multi30k"
# Name: system, variant, export.
SYSTEMS = {
    "ours-fp32": ("ours", "fp32", ""),
    "ours-bf16": ("ours", "bf16", ""),
    "ctranslate2-float32": ("ctranslate2", "float32", "ctranslate2-float32"),
    "ctranslate2-int8": ("ctranslate2", "int8", "ctranslate2-int8"),
    "huggingface": ("huggingface", "fp32", "huggingface"),
}
COLUMNS = (
    "system", "beam 5, sentences/s", "beam 1", "one sentence, ms: beam 5", "beam 1", "BLEU 5 / 1", "differ", "MB",
)  # fmt: skip
SEQ2SEQ = [sys.executable, "-c", "from seq2seq.cli import main; main()"]


def exports(run: Path) -> Path:
    """The folder of a run's exports, by the weights that they are of."""
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    return PREPARED / f"{run.name}-{digest[:12]}"


def export(run: Path, only: list[str]) -> None:
    """Writes the exports that the systems need, once for each state of the run."""
    for name in {SYSTEMS[system][2] for system in only} - {""}:
        folder, kind = exports(run) / name, name.partition("-")[0]
        options = ["--quantization", name.partition("-")[2]] if kind == "ctranslate2" else []
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [*SEQ2SEQ, "export", str(run), str(folder), "--to", kind, *options, "--overwrite"]
            subprocess.run(command, check=True, stdout=sys.stderr)


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One system's record; a failure has its reason."""
    folder = PREPARED / "records"
    folder.mkdir(parents=True, exist_ok=True)
    given, taken, log = (folder / f"{name}{suffix}" for suffix in (".settings.json", ".record.json", ".log"))
    given.write_text(json.dumps(settings), encoding="utf-8")
    taken.unlink(missing_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"])}
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, str(HERE / "measure.py"), str(given), str(taken)]
        code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment).returncode
    if code == 0 and taken.exists():
        record: dict[str, Any] = json.loads(taken.read_text(encoding="utf-8"))
        return record
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return {"failed": lines[-1] if lines else f"exit code {code}"}


def score(records: dict[str, Any], reference: list[str]) -> None:
    """Adds BLEU, and how many outputs differ from this project's float32, in place of the outputs themselves."""
    import sacrebleu

    base = records.get("ours-fp32", {}).get("beams", {})
    first = {beam: found["outputs"] for beam, found in base.items()}
    for record in records.values():
        for beam, found in record.get("beams", {}).items():
            outputs = found.pop("outputs")
            if reference:
                found["bleu"] = sacrebleu.corpus_bleu(outputs, [reference], tokenize="none", force=True).score
            if beam in first:
                found["differ"] = sum(a != b for a, b in zip(outputs, first[beam], strict=True))


DIRECTLY = """
import sys, ctranslate2, sentencepiece
export, run, source, threads, beam = sys.argv[1:]
pieces = sentencepiece.SentencePieceProcessor(model_file=run + "/tokenizer.model")
translator = ctranslate2.Translator(export, compute_type="int8", inter_threads=int(threads), intra_threads=1)
lines = [pieces.encode(line.rstrip("\\n"), out_type=str) for line in open(source)]
results = translator.translate_batch(lines, beam_size=int(beam), max_batch_size=1200 // int(beam), batch_type="tokens")
for result in results:
    print(pieces.decode_pieces(result.hypotheses[0]))
"""


def whole_process(run: Path, source: Path, threads: int) -> dict[str, float]:
    """Seconds of whole processes, the best of three after one that is not counted."""
    sentence, threaded = "a man is riding a horse .\n", ["--threads", str(threads)]
    engine = ["--engine", "ctranslate2", "--quantization", "int8", *threaded]
    translate, test_set = [*SEQ2SEQ, "translate", str(run)], [str(source), "--beam-size"]
    folder = exports(run) / "ctranslate2-int8"
    directly = [sys.executable, "-c", DIRECTLY, str(folder), str(run), str(source), str(threads)]
    names = "seq2seq translate", "seq2seq translate --engine ctranslate2, int8", "CTranslate2 called directly, int8"
    commands = {
        "seq2seq --help": ([*SEQ2SEQ, "--help"], ""),
        "one sentence: seq2seq translate": ([*translate, *threaded], sentence),
        "one sentence: seq2seq translate --engine ctranslate2, int8": ([*translate, *engine], sentence),
    }
    for beam in ("1", "5"):
        whole = [*translate, *test_set, beam]
        for name, command in zip(names, ([*whole, *threaded], [*whole, *engine], [*directly, beam]), strict=True):
            commands[f"test set, beam {beam}: {name}"] = (command, "")
    seconds, nowhere = {}, subprocess.DEVNULL
    for name, (command, text) in commands.items():
        times = []
        for _ in range(4):
            start = time.perf_counter()
            subprocess.run(command, input=text, text=True, stdout=nowhere, stderr=nowhere, check=True)
            times.append(time.perf_counter() - start)
        seconds[name] = min(times[1:])
    return seconds


def report(results: dict[str, Any], *, as_markdown: bool) -> str:
    """The tables, for people or for a README."""
    lines = []
    for title, part in results["models"].items():
        rows = [list(COLUMNS)]
        for name, record in part["systems"].items():
            if "failed" in record:
                rows.append([name, f"failed: {record['failed']}", *[""] * 6])
                continue
            five, one = record["beams"]["5"], record["beams"]["1"]
            rows.append(
                [
                    name,
                    f"{five['sentences_per_second']:,.0f}",
                    f"{one['sentences_per_second']:,.0f}",
                    f"{five['latency_ms']:.1f}",
                    f"{one['latency_ms']:.1f}",
                    f"{five['bleu']:.2f} / {one['bleu']:.2f}" if "bleu" in five else "",
                    f"{five.get('differ', '')} / {one.get('differ', '')}",
                    f"{record['peak_memory_bytes'] / 1e6:,.0f}",
                ]
            )
        lines += [title, "", *table(rows, as_markdown=as_markdown), ""]
        if "processes" in part:
            rows = [["whole process", "seconds"], *([name, f"{s:.2f}"] for name, s in part["processes"].items())]
            lines += [*table(rows, as_markdown=as_markdown), ""]
    return "\n".join(lines)


def table(rows: list[list[str]], *, as_markdown: bool) -> list[str]:
    if as_markdown:
        rule = ["---"] + ["---:"] * (len(rows[0]) - 1)
        return ["| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def make_base(folder: Path) -> Path:
    """An untrained run of preset `base`, but with the 10,000 pieces that Multi30k has: one update."""
    if not (folder / "model.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        settings = ["training.max_steps=1", "training.batch_tokens=200", "training.max_validation_sentences=1"]
        settings += ["training.preflight=false", "tokenizer.vocab_size=10000"]
        options = [part for setting in settings for part in ("--set", setting)]
        recipe = str(ROOT / "experiments" / "multi30k-en-de" / "lowercase.toml")
        subprocess.run([*SEQ2SEQ, "train", recipe, "--preset", "base", "--run-dir", str(folder), *options], check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?", help="a run trained on the lowercased files of Multi30k")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", action="append", default=[], choices=list(SYSTEMS))
    parser.add_argument("--base", action="store_true", help="an untrained base model with outputs of 30 pieces, too")
    parser.add_argument("--output", type=Path, help="where results are stored; by default results.json")
    parser.add_argument("--markdown", action="store_true", help="print the stored results; measure nothing")
    arguments = parser.parse_args()
    if arguments.markdown:
        print(report(json.loads((arguments.output or RESULTS).read_text(encoding="utf-8")), as_markdown=True))
        return
    if not arguments.run and not arguments.base:
        parser.error("name a run, or --base")
    names = arguments.only or list(SYSTEMS)
    source, target = (DATA / f"test_2016_flickr.lc.norm.tok.{language}" for language in ("en", "de"))
    jobs = [(arguments.run, 0, 1000)] if arguments.run else []
    if arguments.base:
        jobs.append((make_base(PREPARED / "base"), 30, 200))
    results: dict[str, Any] = {"threads": arguments.threads, "repeat": arguments.repeat, "models": {}}
    for run, fixed_length, lines in jobs:
        export(run, names)
        settings = {
            "run": str(run), "source": str(source), "lines": lines, "beam_sizes": [5, 1], "repeat": arguments.repeat,
            "threads": arguments.threads, "fixed_length": fixed_length,
        }  # fmt: skip
        records = {}
        for name in names:
            system, variant, folder = SYSTEMS[name]
            own = {"system": system, "variant": variant, "export": str(exports(run) / folder)}
            records[name] = measure(name, settings | own)
            print(f"{run.name}: {name}: {'failed' if 'failed' in records[name] else 'measured'}", file=sys.stderr)
        score(records, [] if fixed_length else target.read_text(encoding="utf-8").split("\n")[:-1])
        title = "untrained base, outputs of 30 pieces" if fixed_length else f"{run.name}"
        results["models"][title] = {"systems": records}
        if not fixed_length and not arguments.only:
            results["models"][title]["processes"] = whole_process(run, source, arguments.threads)
    if output := arguments.output or (None if arguments.only else RESULTS):  # a part is not the whole
        output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(report(results, as_markdown=False))


if __name__ == "__main__":
    main()
