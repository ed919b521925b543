"""A run as a Hugging Face model that `AutoModelForSeq2SeqLM` and `AutoTokenizer` load without our code.

Post-norm is MarianMTModel; pre-norm is PegasusForConditionalGeneration, the class with a LayerNorm before each
sub-layer, one more after each stack, and fixed sinusoids laid out as `[sin | cos]`. Both use MarianTokenizer, which
runs our SentencePiece models and numbers pieces by vocab.json.

What neither class has is refused: learned positions and heads whose sizes do not add up to d_model.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.config import Config
from seq2seq.export.ctranslate2_format import longest_input
from seq2seq.export.errors import ExportError
from seq2seq.export.packages import need
from seq2seq.model.attention import MultiHeadAttention
from seq2seq.model.layers import DecoderLayer, EncoderLayer, LayerNorm
from seq2seq.model.transformer import Transformer
from seq2seq.run_folder.files import disk_errors
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer


def check_expressible(config: Config, tokenizer: Tokenizer) -> None:
    """Raises ExportError, naming the field, for what no class of transformers computes."""
    model = config.model
    if model.positions == "learned":
        raise ExportError(
            'model.positions = "learned": Marian and Pegasus have sinusoids only; export with --to ctranslate2, or '
            'train with model.positions="sinusoidal"'
        )
    if model.key_size * model.num_heads != model.d_model:
        raise ExportError(
            f"model.head_size = {model.key_size}: with model.num_heads = {model.num_heads}, Marian and Pegasus need "
            f"heads of d_model / num_heads = {model.d_model / model.num_heads:g}; export with --to ctranslate2"
        )
    for id_ in (PAD, UNK, BOS, EOS):
        names = tokenizer.source_pieces([id_]) + tokenizer.target_pieces([id_])
        if names[0] != names[1]:
            raise ExportError(
                f"the source tokenizer calls piece {id_} {names[0]!r}, the target tokenizer {names[1]!r}: a Hugging "
                "Face tokenizer has one name for both; learn both tokenizers with the same names"
            )


def write_huggingface(folder: Path, model: Transformer, tokenizer: Tokenizer, config: Config) -> None:
    """Writes config.json, model.safetensors, generation_config.json and the tokenizer's files into a folder."""
    need("transformers", "huggingface")
    check_expressible(config, tokenizer)
    with quiet():
        exported = build_model(model, config)
        exported.generation_config = _generation_config(config)
        with disk_errors():
            exported.save_pretrained(folder)
    _write_tokenizer(folder, tokenizer, config)


def build_model(model: Transformer, config: Config) -> Any:
    """The transformers model, on the CPU, in evaluation mode, with copies of the weights."""
    import transformers

    all_tied = model.source_embedding is model.target_embedding and model.output_weight is model.target_embedding
    options = _model_options(model, config)
    state = _state(model)
    exported: Any
    if model.config.norm == "post":
        exported = transformers.MarianMTModel(
            transformers.MarianConfig(
                **options,
                vocab_size=model.source_vocab_size,
                decoder_vocab_size=model.target_vocab_size,
                share_encoder_decoder_embeddings=all_tied,
                tie_word_embeddings=model.output_weight is model.target_embedding,
            )
        )
    else:
        # Pegasus has one vocabulary size: the smaller side gets pieces that are never read nor generated.
        size = max(model.source_vocab_size, model.target_vocab_size)
        exported = transformers.PegasusForConditionalGeneration(
            transformers.PegasusConfig(**options, vocab_size=size, tie_word_embeddings=all_tied)
        )
        for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
            state[name] = F.pad(state[name], (0, 0, 0, size - len(state[name])))
    own = exported.state_dict()
    if "model.shared.weight" in own:
        state["model.shared.weight"] = state["model.encoder.embed_tokens.weight"]
    bias = torch.zeros_like(own["final_logits_bias"])
    bias[:, model.target_vocab_size :] = torch.finfo(bias.dtype).min / 2  # probability 0, and no NaN on the way
    state["final_logits_bias"] = bias
    for name in ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"):
        state[name] = own[name]  # theirs are sinusoids too; the certificate compares the results
    exported.load_state_dict(state)
    return exported.eval()


def _model_options(model: Transformer, config: Config) -> dict[str, Any]:
    c = model.config
    return {
        "d_model": c.d_model,
        "encoder_layers": c.num_encoder_layers,
        "decoder_layers": c.num_decoder_layers,
        "encoder_attention_heads": c.num_heads,
        "decoder_attention_heads": c.num_heads,
        "encoder_ffn_dim": c.d_ff,
        "decoder_ffn_dim": c.d_ff,
        "activation_function": c.activation,  # their "gelu" is the one with erf, as ours
        "max_position_embeddings": longest_input(config.decoding),
        "scale_embedding": True,
        "dropout": c.dropout,
        "attention_dropout": c.attention_dropout,
        "activation_dropout": c.activation_dropout,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "decoder_start_token_id": BOS,
        "forced_eos_token_id": None,  # what reaches its maximum length ends as it stands
    }


def _state(model: Transformer) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {"lm_head.weight": model.output_weight}
    for side, embedding, layers, norm in (
        ("encoder", model.source_embedding, model.encoder_layers, model.encoder_norm),
        ("decoder", model.target_embedding, model.decoder_layers, model.decoder_norm),
    ):
        state[f"model.{side}.embed_tokens.weight"] = embedding
        if norm is not None:
            state |= _norm(f"model.{side}.layer_norm", norm)
        for number, layer in enumerate(layers):
            assert isinstance(layer, (EncoderLayer, DecoderLayer))
            state |= _layer(f"model.{side}.layers.{number}", layer)
    return {name: tensor.detach().float().cpu().clone() for name, tensor in state.items()}


def _layer(name: str, layer: EncoderLayer | DecoderLayer) -> dict[str, Tensor]:
    state = {
        **_attention(f"{name}.self_attn", layer.self_attention),
        **_norm(f"{name}.self_attn_layer_norm", layer.self_attention_residual.norm),
        f"{name}.fc1.weight": layer.feed_forward.in_weight,
        f"{name}.fc1.bias": layer.feed_forward.in_bias,
        f"{name}.fc2.weight": layer.feed_forward.out_weight,
        f"{name}.fc2.bias": layer.feed_forward.out_bias,
        **_norm(f"{name}.final_layer_norm", layer.feed_forward_residual.norm),
    }
    if isinstance(layer, DecoderLayer):
        state |= _attention(f"{name}.encoder_attn", layer.cross_attention)
        state |= _norm(f"{name}.encoder_attn_layer_norm", layer.cross_attention_residual.norm)
    return state


def _attention(name: str, attention: MultiHeadAttention) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {f"{name}.out_proj.weight": attention.out_weight}
    state[f"{name}.out_proj.bias"] = attention.out_bias
    weights, biases = attention.in_weight.chunk(3), attention.in_bias.chunk(3)
    for projection, weight, bias in zip(("q_proj", "k_proj", "v_proj"), weights, biases, strict=True):
        state[f"{name}.{projection}.weight"], state[f"{name}.{projection}.bias"] = weight, bias
    return state


def _norm(name: str, norm: LayerNorm) -> dict[str, Tensor]:
    return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}


def _generation_config(config: Config) -> Any:
    """The run's own search. transformers divides by |y|^alpha, and its longest output is one number for all inputs."""
    import transformers

    data, decoding = config.data, config.decoding
    longest = max(data.max_source_length, data.max_target_length) + decoding.max_extra_length
    return transformers.GenerationConfig(
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        suppress_tokens=[PAD, UNK, BOS],
        num_beams=decoding.beam_size,
        length_penalty=decoding.length_penalty if decoding.beam_size > 1 else None,  # refused where nothing uses it
        max_new_tokens=min(longest, longest_input(decoding)),
    )


def _write_tokenizer(folder: Path, tokenizer: Tokenizer, config: Config) -> None:
    (folder / "source.spm").write_bytes(tokenizer.source_bytes)
    (folder / "target.spm").write_bytes(tokenizer.target_bytes)
    sources = tokenizer.source_pieces(range(tokenizer.source_vocab_size))
    _write_json(folder / "vocab.json", {piece: i for i, piece in enumerate(sources)})
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "pad_token": sources[PAD],
        "unk_token": sources[UNK],
        "bos_token": sources[BOS],
        "eos_token": sources[EOS],
        "model_max_length": config.decoding.max_source_length + 1,  # with end-of-sentence
        "split_special_tokens": True,  # "</s>" in a text is four characters
        "clean_up_tokenization_spaces": False,
    }
    if config.data.source_language:
        settings["source_lang"] = config.data.source_language
    if config.data.target_language:
        settings["target_lang"] = config.data.target_language
    if not tokenizer.shared:
        targets = tokenizer.target_pieces(range(tokenizer.target_vocab_size))
        _write_json(folder / "target_vocab.json", {piece: i for i, piece in enumerate(targets)})
        settings["separate_vocabs"] = True
    _write_json(folder / "tokenizer_config.json", settings)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and warnings of transformers, among them advice to install what nothing here uses."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*sacremoses")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


class HuggingFaceModel:
    """An exported folder at work, loaded as its users will load it, for the certificate."""

    def __init__(self, folder: Path, target_vocab_size: int) -> None:
        transformers = need("transformers", "huggingface")
        with quiet():
            self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, local_files_only=True).eval()
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.target_vocab_size = target_vocab_size

    def greedy(self, sources: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]:
        """As `CTranslate2Model.greedy`."""
        batch = pad(sources, end=EOS)
        with quiet(), torch.inference_mode():
            generated = self.model.generate(
                input_ids=batch,
                attention_mask=(batch != PAD).long(),
                num_beams=1,
                do_sample=False,
                length_penalty=1.0,
                max_new_tokens=max(limits),
            )
        return [_until_end(row[1:].tolist())[:limit] for row, limit in zip(generated, limits, strict=True)]

    def logits(self, source: Tensor, target_input: Tensor) -> Tensor:
        """source [B, S], target_input [B, T], both padded at the end -> [B, T, V]."""
        with torch.inference_mode():
            found: Tensor = self.model(
                input_ids=source, attention_mask=(source != PAD).long(), decoder_input_ids=target_input
            ).logits
        return found[..., : self.target_vocab_size]

    def encode(self, line: str) -> list[int]:
        """As `tokenizer(line)` gives it, end-of-sentence included."""
        with quiet():
            return [int(i) for i in self.tokenizer(line)["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """As users decode what `generate` gave: it begins with the decoder's first input."""
        return str(self.tokenizer.decode([BOS, *ids], skip_special_tokens=True))


def _until_end(ids: list[int]) -> list[int]:
    return ids[: ids.index(EOS) + 1] if EOS in ids else ids
