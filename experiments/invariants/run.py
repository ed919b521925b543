"""Does a trained model keep the promises of decoding? Checks a finished run on real sentences.

    python experiments/invariants/run.py runs/quickstart data/quickstart/test.en

For every line: greedy search equals beam search with one beam; translations do not depend on the batch (alone, by 7, by
64, all at once); logits with the cache equal those without; generated pieces score the same when they are scored again.
Prints the largest differences, and ends with 1 where one is beyond its bound. float32.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from seq2seq.decoding.beam import Hypothesis, beam_search, greedy_search
from seq2seq.decoding.scoring import score_batch
from seq2seq.model.transformer import BOS, EOS, Transformer
from seq2seq.run import Run
from seq2seq.text.batching import pad
from seq2seq.text.reading import read_lines

BOUND = 1e-4  # on log-probabilities of sentences, and on logits


def search(model: Transformer, sources: list[torch.Tensor], beam_size: int, batch: int) -> list[Hypothesis]:
    """The best hypothesis of each source, in batches of so many sentences in the order given."""
    found: list[Hypothesis] = []
    for start in range(0, len(sources), batch):
        part = sources[start : start + batch]
        padded = pad([source.numpy() for source in part], end=EOS)
        limits = [len(source) + 50 for source in part]
        if beam_size == 1:
            found += greedy_search(model, padded, limits)
        else:
            searched = beam_search(model, padded, limits, beam_size=beam_size, length_penalty=0.6)
            found += [best for best, *_ in searched]
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--lines", type=int, default=500)
    arguments = parser.parse_args()
    run = Run.open(arguments.run)
    model, tokenizer = run.load_model(), run.tokenizer()
    lines = [line for line in read_lines(arguments.file) if line.strip()][: arguments.lines]
    sources = [torch.tensor(ids, dtype=torch.int32) for ids in tokenizer.encode_source(lines)]
    failures = 0
    for beam_size in (1, 5):
        alone = search(model, sources, beam_size, 1)
        for batch in (7, 64, len(sources)):
            together = search(model, sources, beam_size, batch)
            other = sum(a.pieces != b.pieces for a, b in zip(alone, together, strict=True))
            apart = max(abs(a.log_probability - b.log_probability) for a, b in zip(alone, together, strict=True))
            print(f"beam {beam_size}, batches of {batch}: {other} translations differ, scores by {apart:.1e} at most")
            failures += other + (apart > BOUND)
        worst = 0.0
        for source, best in zip(sources, alone, strict=True):
            target = torch.tensor([*best.pieces, EOS] if best.ended else list(best.pieces))
            target_input = torch.cat([torch.tensor([BOS]), target[:-1]])
            padded = pad([source.numpy()], end=EOS)
            again = float(score_batch(model, padded, target_input[None], target[None]).sum())
            worst = max(worst, abs(again - best.log_probability))
        print(f"beam {beam_size}: scored again, log-probabilities differ by {worst:.1e} at most")
        failures += worst > BOUND
        if beam_size == 1:
            one = [
                beam_search(model, pad([s.numpy()], end=EOS), [len(s) + 50], beam_size=1, length_penalty=0.6)[0][0]
                for s in sources
            ]
            other = sum(a.pieces != b.pieces for a, b in zip(alone, one, strict=True))
            print(f"greedy search against one beam: {other} translations differ")
            failures += other
            worst = max(cache_difference(model, s, best) for s, best in zip(sources, alone, strict=True))
            print(f"logits with the cache against without: {worst:.1e} at most")
            failures += worst > BOUND
    print(f"{len(lines)} lines: {'all as promised' if not failures else f'{failures} FAILED'}")
    sys.exit(1 if failures else 0)


def cache_difference(model: Transformer, source: torch.Tensor, best: Hypothesis) -> float:
    """The largest difference of logits between decoding step by step and all at once."""
    padded = pad([source.numpy()], end=EOS)
    target_input = torch.tensor([[BOS, *best.pieces]])
    memory, mask = model.encode(padded)
    whole = model.decode(target_input, memory, mask)
    cache = model.start_cache(memory, mask)
    steps = [model.project(model.step_states(target_input[:, t : t + 1], cache)) for t in range(target_input.shape[1])]
    return float((whole - torch.cat(steps, dim=1)).abs().max())


if __name__ == "__main__":
    main()
