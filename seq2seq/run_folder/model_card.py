"""The README.md of a run folder: what the model is, how it was made, how to use it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seq2seq.config import Config
from seq2seq.untrusted import MAX_CONFIG_BYTES, read_regular

TITLE = "# A translator from"


def is_card(path: Path) -> bool:
    """Whether a file is a card of this program; False where it cannot be read: it is left alone."""
    try:
        return read_regular(path, MAX_CONFIG_BYTES).startswith(TITLE.encode())
    except OSError:
        return False


def is_of_another_model(card: str, info: Mapping[str, Any]) -> bool:
    """Whether a text is a card of this program for a model that was trained for longer or shorter."""
    rows = re.findall(r"^\| Training \| ([\d,]+ steps,)", card, re.MULTILINE)
    return card.startswith(TITLE) and bool(rows) and _steps(info) not in rows


def _steps(info: Mapping[str, Any]) -> str:
    return f"{info['training']['steps']:,} steps,"


def model_card(config: Config, info: Mapping[str, Any]) -> str:
    """A model card in Markdown from the configuration and model.json."""
    model, training, validation = config.model, info["training"], info["validation"]
    languages = f"{info['source_language'] or 'source'} to {info['target_language'] or 'target'}"
    key = f", head size {model.key_size}" if model.head_size is not None else ""
    corpus = info["corpus"]
    steps = ", ".join(f"{step:,}" for step in training["averaged_steps"])
    several = len(training["averaged_steps"]) > 1
    weights = f"mean of the checkpoints at steps {steps}" if several else f"the checkpoint at step {steps}"
    vocabulary = f"{info['source_vocab_size']:,} source and {info['target_vocab_size']:,} target pieces"
    if info["shared_vocabulary"]:
        vocabulary = f"{info['source_vocab_size']:,} pieces, shared by both sides"
    rows = [
        ("Architecture", f"Transformer, {model.num_encoder_layers} + {model.num_decoder_layers} layers, d_model "
         f"{model.d_model}, d_ff {model.d_ff}, {model.num_heads} heads{key}, {model.norm}-norm, {model.activation}"),
        ("Parameters", f"{info['num_parameters']:,}"),
        ("Vocabulary", vocabulary),
        ("Training pairs", f"{corpus['kept']:,} of {corpus['read']:,} read"),
        ("Training", f"{_steps(info)} {training['epochs']} epochs, {training['seconds'] / 60:.1f} "
         f"minutes, {training['precision']}, seed {training['seed']}, "
         f"{training['hardware']}, torch {training['torch']}"),
        ("Weights", weights),
    ]  # fmt: skip
    if origin := training.get("init_from"):
        name = origin["name"].replace("|", "\\|")
        rows.append(("Fine-tuned from", f"{name} (SHA-256 of its weights {origin['model_sha256'][:16]})"))
    if validation["bleu"] is not None:
        rows.append(("Validation BLEU", f"{validation['bleu']:.2f} (beam {validation['beam_size']}, sacreBLEU "
                     f"tokenisation {validation['bleu_tokenize']})"))  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""{TITLE} {languages}

Trained with seq2seq {info["seq2seq_version"]}; every setting is in `config.toml`, every number in `model.json` and
`metrics.jsonl`.

| | |
|---|---|
{table}

## Use

```
echo "..." | seq2seq translate THIS_FOLDER
seq2seq benchmark THIS_FOLDER --source test.src --reference test.trg
```

## Limits

The model knows what its training data showed it and nothing else: it will be fluent and wrong on text of other
kinds. It translates line by line, without regard to the lines around. Judge it on text of your own before you rely
on it.
"""
