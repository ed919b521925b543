"""Whether `packed`, which training runs, does what `forward` does, which is written to be read.

The tests hold them together. This holds them together for whoever changes one and has not run the tests: nothing else
would tell that the other goes on as before. It is done on a small model, before the first step of every training.
"""

from __future__ import annotations

import math
from threading import Lock

import torch
from torch import Tensor

from seq2seq.config import ModelConfig
from seq2seq.model import native
from seq2seq.model.packed import Sentences
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer

TOLERANCE = 1e-3  # of the largest number; rounding makes some 1e-6
VOCABULARY = 40
LENGTHS = (70, 3), (40, 66)  # of two sources and their targets; what lies farther apart is not seen

_making = Lock()  # torch's random state is one for all threads


def specimen(config: ModelConfig) -> Transformer:
    """A small model with a configuration's choices, in evaluation mode; no bias is 0 and no norm's weight 1."""
    sizes = {"d_model": 24, "num_heads": 2, "head_size": None, "d_ff": 40, "initial_gain": None}
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2, "max_positions": 128}
    small = config.model_copy(update={**sizes, **layers})
    with _making, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = Transformer(small, VOCABULARY, VOCABULARY, shared=True).float()  # whatever torch's default type is
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def examples(lengths: tuple[int, ...], first: int) -> Tensor:
    """Ids of sentences [B, T], padded at the end; `first` tells one set of them from another."""
    longest = max(lengths)
    ids = torch.arange(first, first + len(lengths) * longest).view(len(lengths), longest)
    ids = EOS + 1 + ids * 7 % (VOCABULARY - EOS - 1)
    return ids.masked_fill(torch.arange(longest) >= torch.tensor(lengths)[:, None], PAD)


def packed_difference(config: ModelConfig) -> float:
    """How far the packed form is from `forward` in torch, of the largest number: logits, gradients of all weights."""
    model = specimen(config)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    source, target = (examples(lengths, first) for lengths, first in zip(LENGTHS, (0, 5), strict=True))
    target[:, 0] = BOS
    sources, targets = (Sentences.of(torch.tensor([0, *lengths]).cumsum(0)) for lengths in LENGTHS)

    def with_gradients(logits: Tensor) -> list[Tensor]:
        loss = (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum()
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return [logits.detach(), torch.cat([gradient.flatten() for gradient in gradients])]

    with torch.enable_grad(), torch.autocast("cpu", enabled=False):
        states = model.packed_states(source[source != PAD], sources, target[target != PAD], targets)
        packed = with_gradients(model.project(states))
        with native.disabled():
            plain = with_gradients(model(source, target)[target != PAD])
    return max(difference(*both) for both in zip(packed, plain, strict=True))


def difference(value: Tensor, expected: Tensor) -> float:
    """The greatest one, of the largest expected number; infinite where a number is NaN."""
    found = float((value - expected).abs().max() / expected.abs().max())
    return math.inf if math.isnan(found) else found
