"""Small models and batches that the tests of this folder share."""

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import on_one_thread
from torch import Tensor

from seq2seq.config import ModelConfig
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer

SMALL = {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.0}


def build_model(
    *, seed: int = 0, source_vocab_size: int = 20, target_vocab_size: int = 20, shared: bool = True, **changes: object
) -> Transformer:
    """A small model in eval mode whose biases and LayerNorms are random too, so that a test can miss none of them."""
    torch.manual_seed(seed)
    model = Transformer(
        ModelConfig.model_validate({**SMALL, **changes}), source_vocab_size, target_vocab_size, shared=shared
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def build_batch(seed: int, source_lengths: list[int], target_lengths: list[int]) -> tuple[Tensor, Tensor]:
    """source `pieces eos` [B, S] and target_input `bos pieces` [B, T] of the given lengths, padded, for 20 pieces."""
    generator = torch.Generator().manual_seed(seed)

    def sentences(lengths: list[int]) -> Tensor:
        ids = torch.randint(4, 20, (len(lengths), max(lengths)), generator=generator)
        return ids.masked_fill(torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], PAD)

    source, target_input = sentences(source_lengths), sentences(target_lengths)
    source[torch.arange(len(source)), torch.tensor(source_lengths) - 1] = EOS
    target_input[:, 0] = BOS
    return source, target_input


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    yield from on_one_thread()


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Transformer]:
    return build_model


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., tuple[Tensor, Tensor]]:
    return build_batch
