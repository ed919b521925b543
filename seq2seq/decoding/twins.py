"""Whether the compiled decoder does what the model and the search do that are written to be read.

After a change to one of them the other would go on as before, and translate with a model that is not the one that was
trained. So before it is used it is tried on a small model, once a process.

Shapes: as in scorer.py.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple, cast, get_args

import torch

from seq2seq.config import ModelConfig
from seq2seq.decoding.engine import Engine
from seq2seq.decoding.hypotheses import Hypothesis
from seq2seq.decoding.options import Normalization
from seq2seq.decoding.scorer import Scorer, TransformerScorer
from seq2seq.model import native
from seq2seq.model.layers import DecoderLayer
from seq2seq.model.transformer import BOS, EOS, Transformer
from seq2seq.model.twins import TOLERANCE, VOCABULARY, difference, examples, specimen

SOURCES = examples((70, 9, 2), first=3)
STEPS = 20  # what is farther apart in a translation is not seen
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)
LIMITS, BEAMS = (12, 9, 5), 3


class Mismatch(NamedTuple):
    """What the compiled decoder does not do as the model or the search does; search: the latter alone."""

    text: str
    search: bool


def scorer_for(model: Transformer, warn: Callable[[str], None] = warnings.warn) -> Scorer:
    """The fastest scorer there is for a model where it stands.

    warn is told where the compiled decoder would be the fastest and is not used, for a mismatch.
    """
    assert not model.training, "decoding needs model.eval()"
    found = mismatch(model)
    if found is not None:
        warn(found.text)
    if not Engine.serves(model) or (found is not None and not found.search):
        return TransformerScorer(model)
    engine = Engine(model)
    engine.many_steps = found is None
    return engine


def mismatch(model: Transformer) -> Mismatch | None:
    """Why the compiled decoder may not be used where it serves a model; None where it may, or does not serve it."""
    if not Engine.serves(model):
        return None
    rest = "it is not used, and translating takes longer until it has the same change"
    decoder = "the compiled decoder (seq2seq/decoding/engine.py, seq2seq/model/native/steps.inc)"
    if not Engine.knows(model):
        return Mismatch(f"{decoder} does not have all modules of this model: {rest}", search=False)
    config, kernels = model.config, native.generation()
    if (found := step_difference(config, kernels)) > TOLERANCE:
        text = f"{decoder} does not compute what seq2seq/model does, log-probabilities differ by {found:.2%}: {rest}"
        return Mismatch(text, search=False)
    if not same_search(config, kernels):
        text = f"the compiled search (seq2seq/model/native/steps.inc) does not find what decoding/beam.py does: {rest}"
        return Mismatch(text, search=True)
    return None


@cache
@torch.inference_mode()
def step_difference(config: ModelConfig, kernels: str | None) -> float:
    """How far the compiled decoder's log-probabilities are from the model's, of the largest; infinite for NaN.

    kernels: whose they are, which the result depends on.
    """
    model = specimen(config)
    with torch.autocast("cpu", enabled=False):
        return _step_difference(model)


def _step_difference(model: Transformer) -> float:
    decodings = [scorer.start(SOURCES) for scorer in (Engine(model), TransformerScorer(model))]
    pieces, worst = torch.full((len(SOURCES),), BOS), 0.0
    for step in range(STEPS):
        found, expected = (decoding.step(pieces).all()[:, EOS:] for decoding in decodings)
        worst = max(worst, difference(found, expected))
        rows = torch.arange(len(pieces))
        if step < 2:  # every hypothesis goes on with two pieces
            rows = rows.repeat_interleave(2)
            for decoding in decodings:
                decoding.select(None, rows)
        pieces = EOS + 1 + (torch.arange(len(rows)) * 5 + step) % (VOCABULARY - EOS - 1)
    return worst


@cache
def same_search(config: ModelConfig, kernels: str | None) -> bool:
    """Whether many steps of beam search in one call of the compiled decoder find what they find one by one."""
    from seq2seq.decoding.beam import beam_search  # which takes its scorers from here

    found: list[list[list[Hypothesis]]] = [[], []]
    engines = [Engine(ending(specimen(config), weight)) for weight in (1.0, 2.0, 4.0)]
    for engine, normalization in itertools.product(engines, NORMALIZATIONS):
        for engine.many_steps in (True, False):
            found[engine.many_steps] += beam_search(
                engine, SOURCES, LIMITS, beam_size=BEAMS, n_best=BEAMS, length_penalty=1.0,
                length_normalization=normalization,
            )  # fmt: skip
    return found[0] == found[1]


def ending(model: Transformer, weight: float) -> Transformer:
    """The model, changed so that its translations end the sooner the greater the weight is."""
    norm = model.decoder_norm or cast(DecoderLayer, model.decoder_layers[-1]).feed_forward_residual.norm
    with torch.no_grad():
        norm.bias[0] += 2.0
        model.output_weight[EOS, 0] += weight
    return model
