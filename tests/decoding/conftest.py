"""Small random models and sources that the tests of this folder share."""

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import on_one_thread
from torch import Tensor

from seq2seq.config import ModelConfig
from seq2seq.decoding.beam import Hypothesis
from seq2seq.decoding.scoring import score_batch
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer


def build_model(
    seed: int, vocab_size: int, *, sharpness: float = 2.0, biases: dict[int, float] | None = None
) -> Transformer:
    """A random model with an opinion: `sharpness` scales its logits, `biases` are added to those of some pieces."""
    torch.manual_seed(seed)
    config = ModelConfig(
        d_model=16, num_heads=2, d_ff=32, num_encoder_layers=1, num_decoder_layers=2, positions="learned",
        max_positions=256, tied_embeddings="none",
    )  # fmt: skip
    model = Transformer(config, vocab_size, vocab_size, shared=True).eval()
    with torch.no_grad():
        # As drawn, such a model repeats one piece whatever it reads. Strong positions and attention make it listen.
        model.target_embedding.mul_(2)
        for positions in (model.source_positions, model.target_positions):
            positions.weight.mul_(4)
        for layer in model.decoder_layers:
            for attention in (layer.self_attention, layer.cross_attention):
                attention.in_weight.mul_(2)
                attention.out_weight.mul_(2)
            layer.feed_forward.in_weight.mul_(2)
            layer.feed_forward.out_weight.mul_(2)
        last_norm = model.decoder_layers[-1].feed_forward_residual.norm
        last_norm.weight[0], last_norm.bias[0] = 0.0, 1.0  # the first dimension is 1: its output weights are biases
        model.output_weight.mul_(sharpness)
        model.output_weight[:, 0] = 0.0
        for piece, bias in (biases or {}).items():
            model.output_weight[piece, 0] = bias
    return model


def build_source(seed: int, vocab_size: int, lengths: list[int]) -> Tensor:
    """Sources of the given lengths, end-of-sentence included, padded: [B, S]."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.full((len(lengths), max(lengths)), PAD)
    for row, length in enumerate(lengths):
        source[row, : length - 1] = torch.randint(4, vocab_size, (length - 1,), generator=generator)
        source[row, length - 1] = EOS
    return source


def score_again(model: Transformer, source: Tensor, hypotheses: list[Hypothesis]) -> list[list[float]]:
    """The log-probabilities of the pieces of one hypothesis a source, from the teacher-forced model."""
    outputs = [[*h.pieces, EOS] if h.ended else list(h.pieces) for h in hypotheses]
    longest = max(len(output) for output in outputs)
    target_output = torch.tensor([output + [PAD] * (longest - len(output)) for output in outputs])
    target_input = torch.tensor([[BOS, *output[:-1]] + [PAD] * (longest - len(output)) for output in outputs])
    scores = score_batch(model, source, target_input, target_output)
    return [row[: len(output)].tolist() for row, output in zip(scores, outputs, strict=True)]


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    yield from on_one_thread()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return build_model


@pytest.fixture(scope="session")
def make_source() -> Callable[[int, int, list[int]], Tensor]:
    return build_source


@pytest.fixture(scope="session")
def rescore() -> Callable[[Transformer, Tensor, list[Hypothesis]], list[list[float]]]:
    return score_again
