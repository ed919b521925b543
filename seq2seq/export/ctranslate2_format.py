"""A run as a CTranslate2 model (https://github.com/OpenNMT/CTranslate2), through CTranslate2's own specification.

Everything that CTranslate2 would otherwise guess is written down: the position tables (its own sinusoids have other
frequencies than section 3.5's), the scale of the embeddings, epsilon, the start of the decoder. What our model can
compute it can, so that nothing is refused but a quantisation that it does not know.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.config import DecodingConfig
from seq2seq.export.errors import ExportError
from seq2seq.export.packages import need_ctranslate2
from seq2seq.model.attention import MultiHeadAttention
from seq2seq.model.layers import LAYER_NORM_EPSILON, DecoderLayer, EncoderLayer, FeedForward, LayerNorm
from seq2seq.model.positional import LearnedPositions, sinusoids
from seq2seq.model.transformer import Transformer
from seq2seq.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer


def longest_input(config: DecodingConfig) -> int:
    """Positions that translating can need: a source with its end, or a target with its beginning and its end."""
    return config.max_source_length + max(config.max_extra_length, 0) + 1


def write_ctranslate2(
    folder: Path, model: Transformer, tokenizer: Tokenizer, decoding: DecodingConfig, quantization: str
) -> None:
    """Writes model.bin, config.json, the vocabularies and the SentencePiece models into an existing folder."""
    need_ctranslate2()
    spec = build_spec(model, tokenizer, decoding)
    try:
        spec.validate()
        spec.optimize(quantization=quantization)
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"CTranslate2 refuses the model: {' '.join(str(error).split())}") from None
    spec.save(str(folder))
    for name, content in tokenizer.files().items():
        (folder / name).write_bytes(content)


def build_spec(model: Transformer, tokenizer: Tokenizer, decoding: DecodingConfig) -> Any:
    """The model as a `ctranslate2.specs.TransformerSpec`, float32, with copies of the weights."""
    from ctranslate2.specs import common_spec, transformer_spec

    config = model.config
    activations = {"relu": common_spec.Activation.RELU, "gelu": common_spec.Activation.GELU}  # gelu with erf, as ours
    if config.activation not in activations:
        raise ExportError(f"model.activation = {config.activation!r} has no counterpart in CTranslate2")
    options: dict[str, Any] = {"pre_norm": config.norm == "pre", "activation": activations[config.activation]}
    if config.key_size * config.num_heads != config.d_model:
        options["head_dim"] = config.key_size
    # What `TransformerSpec.from_config` does, which has no way to give the size of a head.
    encoder = transformer_spec.TransformerEncoderSpec(config.num_encoder_layers, config.num_heads, **options)
    decoder = transformer_spec.TransformerDecoderSpec(config.num_decoder_layers, config.num_heads, **options)
    spec = transformer_spec.TransformerSpec(encoder, decoder)
    encoder.embeddings[0].weight = _array(model.source_embedding)
    decoder.embeddings.weight = _array(model.target_embedding)
    decoder.projection.weight = _array(model.output_weight)
    longest = longest_input(decoding)
    for side, positions, norm in (
        (encoder, model.source_positions, model.encoder_norm),
        (decoder, model.target_positions, model.decoder_norm),
    ):
        side.scale_embeddings = True  # by sqrt(D), section 3.4
        side.position_encodings.encodings = _positions(positions, longest, config.d_model)
        if norm is not None:
            _set_norm(side.layer_norm, norm)
    for layer_spec, layer in zip(encoder.layer, model.encoder_layers, strict=True):
        _set_layer(layer_spec, layer)
    for layer_spec, layer in zip(decoder.layer, model.decoder_layers, strict=True):
        _set_layer(layer_spec, layer)
    _set_vocabularies(spec, tokenizer)
    return spec


def _set_vocabularies(spec: Any, tokenizer: Tokenizer) -> None:
    sources = tokenizer.source_pieces(range(tokenizer.source_vocab_size))
    targets = tokenizer.target_pieces(range(tokenizer.target_vocab_size))
    for id_ in (UNK, EOS):  # CTranslate2 looks for both in both vocabularies by one name
        if sources[id_] != targets[id_]:
            raise ExportError(
                f"the source tokenizer calls piece {id_} {sources[id_]!r}, the target tokenizer {targets[id_]!r}: "
                "CTranslate2 has one name for both; learn both tokenizers with the same names"
            )
    spec.register_source_vocabulary(sources)
    spec.register_target_vocabulary(targets)
    spec.config.unk_token, spec.config.eos_token = targets[UNK], targets[EOS]
    spec.config.bos_token = spec.config.decoder_start_token = targets[BOS]
    spec.config.add_source_bos, spec.config.add_source_eos = False, True
    spec.config.layer_norm_epsilon = LAYER_NORM_EPSILON


def _array(weight: Tensor) -> NDArray[np.float32]:
    """A copy: quantising works in place, and the model is still needed."""
    array: NDArray[np.float32] = weight.detach().to("cpu").float().numpy().copy()
    return array


def _positions(positions: object, longest: int, d_model: int) -> NDArray[np.float32]:
    if not isinstance(positions, LearnedPositions):
        return _array(sinusoids(longest, d_model))
    table = _array(positions.weight)
    # Scoring computes the piece after the last one too, whatever becomes of it: one row that no result depends on.
    return np.concatenate([table, np.zeros_like(table[:1])])


def _set_linear(spec: Any, weight: Tensor, bias: Tensor) -> None:
    spec.weight, spec.bias = _array(weight), _array(bias)


def _set_norm(spec: Any, norm: LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _set_attention(spec: Any, attention: MultiHeadAttention, *, over_memory: bool) -> None:
    """Query, key and value are one matrix over the same input; over the memory, the query is apart."""
    width = attention.num_heads * attention.key_size if over_memory else 0
    if over_memory:
        _set_linear(spec.linear[0], attention.in_weight[:width], attention.in_bias[:width])
    _set_linear(spec.linear[-2], attention.in_weight[width:], attention.in_bias[width:])
    _set_linear(spec.linear[-1], attention.out_weight, attention.out_bias)


def _set_layer(spec: Any, layer: object) -> None:
    assert isinstance(layer, (EncoderLayer, DecoderLayer))
    _set_attention(spec.self_attention, layer.self_attention, over_memory=False)
    _set_norm(spec.self_attention.layer_norm, layer.self_attention_residual.norm)
    if isinstance(layer, DecoderLayer):
        _set_attention(spec.attention, layer.cross_attention, over_memory=True)
        _set_norm(spec.attention.layer_norm, layer.cross_attention_residual.norm)
    _set_feed_forward(spec.ffn, layer.feed_forward)
    _set_norm(spec.ffn.layer_norm, layer.feed_forward_residual.norm)


def _set_feed_forward(spec: Any, feed_forward: FeedForward) -> None:
    _set_linear(spec.linear_0, feed_forward.in_weight, feed_forward.in_bias)
    _set_linear(spec.linear_1, feed_forward.out_weight, feed_forward.out_bias)


class CTranslate2Model:
    """An exported folder at work, for the certificate: greedy search and the log-probabilities of given outputs."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, quantization: str) -> None:
        """Computes as the export is quantised, where this processor can; `native` says so. Otherwise in float32."""
        ctranslate2 = need_ctranslate2()
        self.compute_types = sorted(ctranslate2.get_supported_compute_types("cpu"))
        self.native = quantization in self.compute_types
        self.computes = quantization if self.native else "float32"
        self.source = tokenizer.source_pieces(range(tokenizer.source_vocab_size))
        self.target = tokenizer.target_pieces(range(tokenizer.target_vocab_size))
        self.ids = {piece: i for i, piece in enumerate(self.target)}
        self.translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type=self.computes, inter_threads=1, intra_threads=1
        )

    def greedy(self, sources: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """Ids of the most probable pieces, end-of-sentence included where it came; at most `limits` of them."""
        found = self.translator.translate_batch(
            [[self.source[i] for i in source] for source in sources],
            beam_size=1,
            max_input_length=0,
            max_decoding_length=max(limits),
            min_decoding_length=0,  # one by default: an empty translation is one too
            disable_unk=True,
            suppress_sequences=[[self.target[PAD]], [self.target[BOS]]],
            return_end_token=True,
        )
        # Longer than its limit is only what another sentence of the batch was allowed: greedy search just goes on.
        return [
            [self.ids[piece] for piece in result.hypotheses[0]][:limit]
            for result, limit in zip(found, limits, strict=True)
        ]

    def log_probabilities(
        self, sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Of each piece of each output, end-of-sentence included where it stands there."""
        scored = self.translator.score_batch(
            [[self.source[i] for i in source] for source in sources],
            [[self.target[i] for i in output if i != EOS] for output in outputs],
            max_input_length=0,
        )
        values = [[float(x) for x in result.log_probs[: len(ids)]] for result, ids in zip(scored, outputs, strict=True)]
        # Not a number is no small difference.
        return [[x if math.isfinite(x) else -math.inf for x in row] for row in values]
