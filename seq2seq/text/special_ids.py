"""SentencePiece models of other makers, with the special pieces at the ids that are used here.

By default SentencePiece has unknown, beginning and end of sentence as 0, 1 and 2 and no padding, other toolkits have
other orders. An id is a piece's place in the file, and no text is segmented otherwise for it: so the four are moved to
its beginning, and those that are missing are added. The numbers of fields are those of `sentencepiece_model.proto`.
"""

from __future__ import annotations

from seq2seq.text.model_proto import BYTES, FIXED32, VARINT, Field, ModelProtoError, fields_of, piece_types

PIECE, TRAINER = 1, 2
UNKNOWN, CONTROL = 2, 3  # types of pieces
# In the order of their ids here: their names' and ids' fields in trainer_spec, and their names where it has none.
SPECIAL = ((48, 43, b"<pad>"), (45, 40, b"<unk>"), (46, 41, b"<s>"), (47, 42, b"</s>"))


def with_special_ids(content: bytes) -> bytes:
    """A model that `check_model_proto` has let pass, with pad, unk, bos and eos as ids 0 to 3.

    Raises ModelProtoError where another kind of piece has the name of one of them.
    """
    types = piece_types(content)
    pieces, others, trainer = [], [], b""
    for field in fields_of(content):
        number, _, value = field
        if number == PIECE and isinstance(value, bytes):
            pieces.append(value)
        else:
            others.append(field)
            trainer = value if number == TRAINER and isinstance(value, bytes) else trainer
    given = {field: value for field, _, value in fields_of(trainer) if isinstance(value, bytes)}
    places = {_name(piece): place for place, piece in enumerate(pieces)}
    first: list[bytes] = []
    moved: set[int] = set()
    for name_field, _, default in SPECIAL:
        name = given.get(name_field, default)
        kind = UNKNOWN if default == b"<unk>" else CONTROL
        place = types.index(UNKNOWN) if kind == UNKNOWN and UNKNOWN in types else places.get(name)
        if place is None:
            first.append(_encoded((1, BYTES, name)) + _encoded((2, FIXED32, bytes(4))) + _encoded((3, VARINT, kind)))
        elif types[place] != kind:
            raise ModelProtoError(f"its piece {name.decode('utf-8', 'replace')!r} is not a special one")
        else:
            first.append(pieces[place])
            moved.add(place)
    if len(moved) == len(SPECIAL) and first == pieces[: len(SPECIAL)]:
        return content
    ids = b"".join(_encoded((id_field, VARINT, number)) for number, (_, id_field, _) in enumerate(SPECIAL))
    rest = [piece for place, piece in enumerate(pieces) if place not in moved]
    written = [_encoded((PIECE, BYTES, piece)) for piece in first + rest]
    # Of a field that is there twice, the last counts.
    written += [_encoded((TRAINER, BYTES, trainer + ids) if field[0] == TRAINER else field) for field in others]
    return b"".join(written)


def _name(piece: bytes) -> bytes:
    return next((value for field, _, value in fields_of(piece) if field == 1 and isinstance(value, bytes)), b"")


def _encoded(field: Field) -> bytes:
    """A field as protocol buffers have it."""
    number, kind, value = field
    tag = _varint(number << 3 | kind)
    if isinstance(value, int):
        return tag + _varint(value)
    return tag + (_varint(len(value)) if kind == BYTES else b"") + value


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
