"""Learns the shared tokenizer and encodes the corpus, once for each vocabulary size; run by `run.py`.

SentencePiece BPE over both sides of the training files, no normalisation, with the special ids that all systems can
be told to use. This project reads the text and the tokenizer, Joey NMT the pieces, the plain loops the ids.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import sentencepiece
from common import BOS, EOS, PAD, PREPARED, RECIPE, UNK, Record, Settings, run_child

from seq2seq.recipe import load_config
from seq2seq.text.download import ensure_downloads


def learn(files: list[Path], settings: Settings) -> None:
    temporary = settings.tokenizer_path.with_suffix("")
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(str(file) for file in files),
        model_prefix=str(temporary),
        model_type="bpe",
        vocab_size=settings.vocab_size,
        character_coverage=1.0,
        normalization_rule_name="identity",
        pad_id=PAD,
        unk_id=UNK,
        bos_id=BOS,
        eos_id=EOS,
        minloglevel=2,
    )


def encode(files: dict[tuple[str, str], Path], settings: Settings) -> None:
    """Encodes each line: as ids in one archive, and as text with spaces between the pieces.

    The archive has `SPLIT_SIDE_values`, the ids of all lines one after the other without special ids, and
    `SPLIT_SIDE_lengths`; it is written last.
    """
    processor = sentencepiece.SentencePieceProcessor(model_file=str(settings.tokenizer_path))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    settings.tokenizer_path.with_suffix(".vocab").write_text("\n".join([*pieces, ""]), encoding="utf-8")
    arrays = {}
    for (split, side), file in files.items():
        lines = processor.encode(file.read_text(encoding="utf-8").split("\n")[:-1])
        arrays[f"{split}_{side}_lengths"] = np.array([len(line) for line in lines], dtype=np.int64)
        arrays[f"{split}_{side}_values"] = np.array(list(itertools.chain.from_iterable(lines)), dtype=np.int64)
        text = "".join(f"{' '.join(pieces[i] for i in line)}\n" for line in lines)
        Path(f"{settings.pieces_path(split)}.{side}").write_text(text, encoding="utf-8")
    np.savez(settings.corpus_path, **arrays)  # type: ignore[arg-type]


def prepare(settings: Settings) -> Record:
    data = load_config(RECIPE).data
    ensure_downloads(data.downloads, lambda text: print(text, file=sys.stderr))
    names = itertools.product(("train", "valid"), ("source", "target"))
    files = {(split, side): Path(getattr(data, f"{split}_{side}")) for split, side in names}
    PREPARED.mkdir(parents=True, exist_ok=True)
    if not settings.corpus_path.exists():
        learn([file for (split, _), file in files.items() if split == "train"], settings)
        encode(files, settings)
    return {}


if __name__ == "__main__":
    run_child(prepare)
