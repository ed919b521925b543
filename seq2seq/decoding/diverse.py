"""Different translations of one sentence: diverse beam search (Vijayakumar et al. 2016, arXiv 1610.02424).

The paper's groups search side by side, and a group loses a penalty for pieces that earlier groups have at the same
position. Here the groups search one after another, each with the whole beam, away from what the earlier ones returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from seq2seq.decoding.hypotheses import Hypothesis, Penalty

Others = list[list[list[int]]]  # outputs of each sentence, in pieces


def alternatives(
    count: int,
    sentences: int,
    search: Callable[[Others | None], list[list[Hypothesis]]],
    text: Callable[[Sequence[int]], str],
) -> list[list[Hypothesis]]:
    """At most `count` hypotheses a sentence, whose texts differ, in the order in which they were found.

    search: hypotheses for every sentence, best first, away from others; text: of pieces.
    """
    found: list[list[Hypothesis]] = [[] for _ in range(sentences)]
    texts: list[set[str]] = [set() for _ in range(sentences)]
    for number in range(count):
        others = [[list(one.pieces) for one in hypotheses] for hypotheses in found] if number else None
        for own, taken, hypotheses in zip(found, texts, search(others), strict=True):
            for one in hypotheses:
                if (said := text(one.pieces)) not in taken:  # other pieces may be the same text
                    own.append(one)
                    taken.add(said)
                    break
    return found


def scored_again(
    hypotheses: Sequence[Hypothesis], logs: Sequence[Sequence[float]], penalty: Penalty
) -> list[Hypothesis]:
    """The same with the model's own log-probabilities, and by them: their search had penalties in them."""
    return [
        Hypothesis(one.pieces, one.ended, sum(own), sum(own) / penalty(len(own)), tuple(own))
        for one, own in zip(hypotheses, logs, strict=True)
    ]
