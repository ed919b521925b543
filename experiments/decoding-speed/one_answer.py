"""Does a translation depend on the batch that it was computed in?

    python experiments/decoding-speed/one_answer.py RUN

Translates both test sets of Multi30k (lowercased files) in batches of 1, 7 and 64 sentences and by tokens, beams 1 and
5, in float32, and compares pieces and scores with those of batches by tokens. Then scores all translations again by
forced decoding. Ends with 1 where something differs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from seq2seq.decoding.beam import Hypothesis, beam_search, greedy_search
from seq2seq.decoding.scoring import score_batch
from seq2seq.decoding.translator import Translator
from seq2seq.runtime import set_up_cpu
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import BOS, EOS

DATA = Path(__file__).resolve().parents[2] / "data" / "multi30k"
CLOSE = 1e-5  # of two hypotheses: either may come first
BOUND = 1e-4  # between the score of a search and that of forced decoding


def batches(lengths: list[int], size: int) -> list[list[int]]:
    """Sentences in order of length, `size` to a batch; 0: so many as have 1,600 padded pieces."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    found: list[list[int]] = []
    while order:
        count = size or max(1, 1600 // lengths[order[0]])
        found.append(order[:count])
        order = order[count:]
    return found


def search(translator: Translator, sources: list[list[int]], beam_size: int, size: int) -> list[Hypothesis]:
    found: dict[int, Hypothesis] = {}
    for batch in batches([len(source) for source in sources], size):
        source = pad([sources[i] for i in batch], end=EOS)
        limits = [len(sources[i]) + 50 for i in batch]
        if beam_size == 1:
            best = greedy_search(translator.scorer, source, limits)
        else:
            both = beam_search(translator.scorer, source, limits, beam_size=beam_size, length_penalty=0.6, n_best=2)
            best = [hypotheses[0] for hypotheses in both]
        found.update(zip(batch, best, strict=True))
    return [found[i] for i in range(len(sources))]


def forced(translator: Translator, sources: list[list[int]], hypotheses: list[Hypothesis]) -> float:
    """The largest difference of log-probabilities of a whole translation."""
    worst = 0.0
    for batch in batches([len(source) for source in sources], 64):
        source = pad([sources[i] for i in batch], end=EOS)
        outputs = [[*hypotheses[i].pieces, *([EOS] if hypotheses[i].ended else [])] for i in batch]
        target_output = pad(outputs)
        target_input = pad([[BOS, *output[:-1]] for output in outputs])
        scores = score_batch(translator.model, source, target_input, target_output).double().sum(1)
        expected = torch.tensor([hypotheses[i].log_probability for i in batch], dtype=torch.float64)
        worst = max(worst, float((scores - expected).abs().max()))
    return worst


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    set_up_cpu(0)
    translator = Translator(Path(sys.argv[1]))
    lines = [
        line
        for name in ("test_2016_flickr", "test_2017_flickr")
        for line in (DATA / f"{name}.lc.norm.tok.en").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    sources = [list(source) for source in translator.tokenizer.encode_source(lines)]
    wrong = 0
    for beam_size in (1, 5):
        reference = search(translator, sources, beam_size, 0)
        for size in (1, 7, 64):
            other = search(translator, sources, beam_size, size)
            different = [i for i, (a, b) in enumerate(zip(reference, other, strict=True)) if a.pieces != b.pieces]
            close = [i for i in different if abs(reference[i].score - other[i].score) < CLOSE]
            exact = sum(a == b for a, b in zip(reference, other, strict=True))
            wrong += len(different) - len(close)
            same = len(lines) - len(different)
            print(
                f"beam {beam_size}, batches of {size}: {same} of {len(lines)} translations as in batches by tokens, "
                f"{exact} with every number the same to the last bit; close choices: {close}"
            )
        error = forced(translator, sources, reference)
        wrong += error > BOUND
        print(f"beam {beam_size}: log-probabilities differ from forced decoding by at most {error:.1e}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
