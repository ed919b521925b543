"""What a SentencePiece model file says, read without SentencePiece: is it safe to hand to the library?

SentencePiece is C++ that was written for models of its own making. Up to version 0.2.1 a file could crash the process
(google/sentencepiece issues 1263, a piece of 600 kB overflows the stack; 1269, a table of characters that points out of
itself); what crashes cannot be caught. So the structure is checked here first, and what no trainer writes is refused.

The file is a protocol buffer, `sentencepiece_model.proto`: pieces (1), trainer_spec (2), normalizer_spec (3),
self_test_data (4), denormalizer_spec (5). https://protobuf.dev/programming-guides/encoding has the encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator

MAX_PIECES = 1_100_000  # tokenizer.vocab_size ends at a million
MAX_PIECE_BYTES = 512  # SentencePiece makes none of more than 16 characters unless told to
MAX_NORMALIZED_BYTES = 256  # what one character becomes: 33 at most in Unicode's NFKC
MAX_SETTING_BYTES = 1 << 20  # texts in trainer_spec, such as the name of the corpus, or a list of symbols
TRAINER_MODEL_TYPE, UNIGRAM, BPE, CHAR = 3, 1, 2, 4
TRAINER_UNK_SURFACE = 44  # the text that stands for an unknown piece in every translation
NORMAL = 1  # of a piece that text is made of; others are unknown, control, user-defined, unused, byte
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | bytes]  # number, wire type, value


class ModelProtoError(ValueError):
    """Not a SentencePiece model that a trainer wrote. The message says what is wrong with it."""


def check_model_proto(content: bytes) -> None:
    """Raises ModelProtoError for what is not plainly a SentencePiece model of the kinds that are used here."""
    num_pieces, trainers = 0, 0
    for number, kind, value in fields_of(content):
        if number == 1 and isinstance(value, bytes):
            num_pieces += 1
            _check_piece(value, num_pieces)
        elif number == 2 and isinstance(value, bytes):
            trainers += 1
            _check_trainer(value)
        elif number in (3, 5) and isinstance(value, bytes):
            _check_normalizer(value)
        elif number == 4 and value:
            raise ModelProtoError("it has self-tests, which are not run here")
        elif number in (1, 2, 3, 5):
            raise ModelProtoError(f"field {number} is of wire type {kind}")
    if not 0 < num_pieces <= MAX_PIECES or trainers != 1:
        raise ModelProtoError(f"it has {num_pieces:,} pieces and {trainers} descriptions of its training")


def piece_types(content: bytes) -> list[int]:
    """The type of each piece of a model that `check_model_proto` has let pass."""
    types = []
    for number, _, piece in fields_of(content):
        if number == 1 and isinstance(piece, bytes):
            given = [value for field, _, value in _plain_piece(piece) or fields_of(piece) if field == 3]
            types.append(int(given[-1]) if given else NORMAL)
    return types


def _check_piece(content: bytes, number: int) -> None:
    """SentencePiece{piece = 1, score = 2, type = 3}."""
    piece = b""
    fields: Iterable[Field] = _plain_piece(content) or fields_of(content)
    for field, kind, value in fields:
        if field == 1 and isinstance(value, bytes):
            piece = value
        elif field == 2 and kind == FIXED32 and isinstance(value, bytes):
            if not math.isfinite(struct.unpack("<f", value)[0]):
                raise ModelProtoError(f"the score of piece {number} is not finite")
        elif not (field == 3 and isinstance(value, int) and 1 <= value <= 6):
            raise ModelProtoError(f"piece {number} has an unknown field {field}")
    if not 0 < len(piece) <= MAX_PIECE_BYTES or b"\0" in piece:
        raise ModelProtoError(f"piece {number} has {len(piece):,} bytes, or a NUL")
    _utf8(piece, f"piece {number}")


def _plain_piece(content: bytes) -> list[Field] | None:
    """The fields of a piece as trainers write nearly all of them, at once: there are thousands. None for others."""
    size = content[1] if len(content) > 1 else 0
    rest = len(content) - 2 - size
    if content[:1] != b"\x0a" or size > 127 or rest not in (5, 7) or content[2 + size] != 0x15:
        return None
    fields: list[Field] = [(1, BYTES, content[2 : 2 + size]), (2, FIXED32, content[3 + size : 7 + size])]
    if rest == 7:
        if content[-2] != 0x18 or content[-1] > 127:
            return None
        fields.append((3, VARINT, content[-1]))
    return fields


def _check_trainer(content: bytes) -> None:
    model_type = UNIGRAM
    for field, kind, value in fields_of(content):
        if isinstance(value, bytes) and kind == BYTES:
            if len(value) > (64 if field == TRAINER_UNK_SURFACE else MAX_SETTING_BYTES):
                raise ModelProtoError(f"its trainer_spec has {len(value):,} bytes in field {field}")
            if field == TRAINER_UNK_SURFACE:
                _utf8(value, "the text for unknown pieces")
        if field == TRAINER_MODEL_TYPE:
            model_type = value if isinstance(value, int) else 0
    if model_type not in (UNIGRAM, BPE, CHAR):
        raise ModelProtoError("it is a model of neither bpe, unigram nor characters")


def _check_normalizer(content: bytes) -> None:
    for field, _, value in fields_of(content):
        if isinstance(value, bytes):
            if field == 2 and value:
                _check_charsmap(value)
            elif len(value) > MAX_SETTING_BYTES:
                raise ModelProtoError(f"its normalizer_spec has {len(value):,} bytes in field {field}")


def _check_charsmap(content: bytes) -> None:
    """precompiled_charsmap: the size of a trie, the trie, texts that end with a NUL each, to which its leaves point.

    The trie is a double array (darts-clone): units of 32 bits. A step from unit i with a byte b goes to unit
    i ^ offset(i) ^ b: where the array has a multiple of 256 units, offsets that stay in it keep every step in it.
    """
    import numpy as np  # here, as few models have such a table, and importing takes longer than all else that is done

    size = int.from_bytes(content[:4], "little")
    texts = content[4 + size :]
    if len(content) < 4 or size % 1024 or not 0 < size <= len(content) - 4 or not texts.endswith(b"\0"):
        raise ModelProtoError("its table of characters is damaged")
    units = np.frombuffer(content, "<u4", size // 4, offset=4)
    leaf = units >> np.uint32(31) == 1
    if leaf[0]:
        raise ModelProtoError("its table of characters is damaged at the root")
    places = np.arange(len(units), dtype=np.uint32)
    offsets = (units >> np.uint32(10)) << ((units & np.uint32(1 << 9)) >> np.uint32(6))
    if ((places ^ offsets) >= len(units))[~leaf].any():
        raise ModelProtoError("its table of characters points out of itself")
    if max(map(len, texts.split(b"\0"))) > MAX_NORMALIZED_BYTES:
        raise ModelProtoError(f"its table of characters makes more than {MAX_NORMALIZED_BYTES} bytes of one")
    _utf8(texts, "its table of characters")


def _utf8(content: bytes, what: str) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        raise ModelProtoError(f"{what} is not UTF-8") from None


def fields_of(content: bytes) -> Iterator[Field]:
    """The fields of one message, one level deep. Bytes and fixed numbers come as bytes, the others as integers."""
    position, end = 0, len(content)
    while position < end:
        tag, position = _varint(content, position)
        kind = tag & 7
        value: int | bytes
        if kind == VARINT:
            value, position = _varint(content, position)
        else:
            if kind == BYTES:
                size, position = _varint(content, position)
            elif kind in (FIXED32, FIXED64):
                size = 4 if kind == FIXED32 else 8
            else:
                raise ModelProtoError(f"there is no wire type {kind} in such a file")
            value = content[position : position + size]
            position += size
            if position > end:
                raise ModelProtoError("it is cut short")
        yield tag >> 3, kind, value


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """An integer of up to 64 bits, 7 in each byte, and where the next field begins."""
    if position < len(content) and content[position] < 0x80:  # most are of one byte
        return content[position], position + 1
    value = 0
    for count, byte in enumerate(content[position : position + 10], 1):
        value |= (byte & 0x7F) << 7 * (count - 1)
        if byte < 0x80:
            return value, position + count
    raise ModelProtoError("it is cut short, or has a number without an end")
