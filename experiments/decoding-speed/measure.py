"""One system, one process: `measure.py SETTINGS.json RECORD.json`. See run.py.

Every system goes from text to text, and its time has all of that in it; the others are given the pieces of the run's
own tokenizer. The length penalty is the run's, but CTranslate2's, which is its default of 1.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

BOS, EOS, PAD = 2, 3, 0
LATENCY_LINES = 100  # translated one at a time
HF_BATCH = 64

Translate = Callable[[Sequence[str], int], list[str]]  # lines and the beam size -> translations


def peak_memory_bytes() -> int:
    """The most memory that this process ever had resident (Linux)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


class Pieces:
    """The run's tokenizer, without the project."""

    def __init__(self, run: Path) -> None:
        import sentencepiece

        self.model = sentencepiece.SentencePieceProcessor(model_file=str(run / "tokenizer.model"))

    def ids(self, line: str) -> list[int]:
        return [*self.model.encode(line), EOS]

    def text(self, ids: Sequence[int]) -> str:
        return str(self.model.decode([int(i) for i in ids if i not in (PAD, BOS, EOS)]))


def ours(settings: dict[str, Any]) -> Translate:
    """This project: batches, threads and all by itself, as `seq2seq translate` does it."""
    from seq2seq.decoding.translator import Options, Translator
    from seq2seq.runtime import set_up_cpu

    set_up_cpu(settings["threads"])
    translator = Translator(Path(settings["run"]), precision=settings["variant"])
    length = settings["fixed_length"]
    fixed = {"min_length": length, "max_length": length} if length else {}

    def translate(lines: Sequence[str], beam_size: int) -> list[str]:
        return [result.text for result in translator.stream(lines, Options(beam_size=beam_size, **fixed))]

    return translate


def ctranslate2(settings: dict[str, Any]) -> Translate:
    """CTranslate2 called directly: one-thread workers, batches of its own making by tokens."""
    import ctranslate2 as library

    pieces, threads = Pieces(Path(settings["run"])), settings["threads"]
    translator = library.Translator(
        settings["export"], compute_type=settings["variant"], inter_threads=threads, intra_threads=1
    )
    length = settings["fixed_length"]

    def translate(lines: Sequence[str], beam_size: int) -> list[str]:
        tokens = [pieces.model.encode(line, out_type=str) for line in lines]
        options: dict[str, Any] = {"max_decoding_length": length or 200, "min_decoding_length": length or 1}
        # The fastest sizes where some were tried (256 to 8,192 tokens). CTranslate2 sorts sentences by length.
        size = 1200 // beam_size if len(lines) > 1 else 0
        results = translator.translate_batch(
            tokens, beam_size=beam_size, max_batch_size=size, batch_type="tokens", **options
        )
        return [pieces.model.decode_pieces(result.hypotheses[0]) for result in results]

    return translate


def huggingface(settings: dict[str, Any]) -> Translate:
    """Hugging Face `generate`, batches of 64 sentences of similar length, float32."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(settings["threads"])
    pieces = Pieces(Path(settings["run"]))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(settings["export"]).eval()
    length = settings["fixed_length"]
    limits: dict[str, Any] = {"max_new_tokens": length or 200, "max_length": None}
    if length:
        limits["min_new_tokens"] = length

    def batches(ids: list[list[int]]) -> Iterator[list[int]]:
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        for start in range(0, len(order), HF_BATCH):
            yield order[start : start + HF_BATCH]

    def translate(lines: Sequence[str], beam_size: int) -> list[str]:
        ids = [pieces.ids(line) for line in lines]
        found = [""] * len(lines)
        for batch in batches(ids):
            longest = max(len(ids[i]) for i in batch)
            source = torch.tensor([ids[i] + [PAD] * (longest - len(ids[i])) for i in batch])
            outputs = model.generate(
                input_ids=source, attention_mask=source != PAD, num_beams=beam_size, do_sample=False, **limits
            )
            for i, output in zip(batch, outputs.tolist(), strict=True):
                found[i] = pieces.text(output)
        return found

    return translate


SYSTEMS = {"ours": ours, "ctranslate2": ctranslate2, "huggingface": huggingface}


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Sentences per second at each beam size (the best of the repetitions) and the median time for one sentence."""
    lines = Path(settings["source"]).read_text(encoding="utf-8").split("\n")[:-1][: settings["lines"]]
    translate = SYSTEMS[settings["system"]](settings)
    record: dict[str, Any] = {"beams": {}}
    for beam_size in settings["beam_sizes"]:
        translate(lines[:200], beam_size)  # warms up
        seconds, outputs = [], []
        for _ in range(settings["repeat"]):
            start = time.perf_counter()
            outputs = translate(lines, beam_size)
            seconds.append(time.perf_counter() - start)
        single = []
        for line in lines[:LATENCY_LINES]:
            start = time.perf_counter()
            translate([line], beam_size)
            single.append(time.perf_counter() - start)
        record["beams"][str(beam_size)] = {
            "sentences_per_second": len(lines) / min(seconds),
            "latency_ms": 1e3 * statistics.median(single),
            "outputs": outputs,
        }
    return record | {"peak_memory_bytes": peak_memory_bytes()}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(measure(given)), encoding="utf-8")
