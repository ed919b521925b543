"""Makes more training data out of the same: data diversification (Nguyen et al. 2020, arXiv 1911.01986).

    python experiments/multi30k-en-de/diversify.py --forward RUN [RUN ...] --backward RUN [RUN ...] --output FOLDER

Translates the training sources with every forward run and the training targets with every backward run (beam search),
and writes FOLDER/train.en and FOLDER/train.de: the original pairs, those with translated targets (which alone are
sequence-level knowledge distillation, Kim and Rush 2016, arXiv 1606.07947), and those with translated sources
(back-translation of the corpus itself). Pairs that come twice are kept once. Nothing but the training corpus is used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from seq2seq.decoding.translator import Options, Translator
from seq2seq.runtime import set_up_cpu

DATA = Path(__file__).resolve().parents[2] / "data" / "multi30k"


def translate(run: Path, lines: list[str], beam_size: int, precision: str) -> list[str]:
    translator = Translator(run, precision=precision)
    return [result.text for result in translator.stream(lines, Options(beam_size=beam_size))]


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forward", type=Path, nargs="*", default=[], help="runs from English to German")
    parser.add_argument("--backward", type=Path, nargs="*", default=[], help="runs from German to English")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--beam-size", type=int, default=5)
    parser.add_argument("--precision", choices=["fp32", "bf16", "auto"], default="auto")
    arguments = parser.parse_args()
    set_up_cpu(0)
    sources, targets = read(DATA / "train.lc.norm.tok.en"), read(DATA / "train.lc.norm.tok.de")
    pairs = list(zip(sources, targets, strict=True))
    for run in arguments.forward:
        pairs += zip(sources, translate(run, sources, arguments.beam_size, arguments.precision), strict=True)
    for run in arguments.backward:
        pairs += zip(translate(run, targets, arguments.beam_size, arguments.precision), targets, strict=True)
    kept = list(dict.fromkeys(pairs))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for side, language in enumerate(("en", "de")):
        text = "".join(f"{pair[side]}\n" for pair in kept)
        (arguments.output / f"train.{language}").write_text(text, encoding="utf-8")
    print(f"{len(sources):,} pairs of the corpus, {len(pairs):,} with translations, {len(kept):,} different ones")


if __name__ == "__main__":
    main()
