"""Ways of damaging a file: bytes that are flipped, cut, doubled and swapped for odd ones; values of a JSON document."""

from __future__ import annotations

import contextlib
import copy
import gzip
import json
import random
import re
from collections.abc import Iterator
from typing import Any

NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    1023,
    65_535,
    2**31 - 1,
    2**31,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
)
TOKENS = (
    b"\0", b"\n", b"\r\n", b"\t", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xc3", b"\xe2\x80\xae", b'"', b"\'\'\'",
    b"{", b"[", b"]", b"}", b"=", b"[[", b"1e999", b"nan", b"-inf", b"true", b"null", b"../", b"/dev/zero",
    b"/etc/passwd", b"\\u0000", b"\\ud800", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x1f\x8b\x08\x00",
    b"9" * 5000, b"[" * 3000, b"a" * 70_000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, 10**100, -(2**63),
    "", "x", "\0", "\ud800", "../../etc/passwd", "/dev/zero", "e" * 1000, [], {}, [[]], [0], {"": 0}, [None, None],
    {"step": 1}, "F32", "F16", "I64", "U8", [0, 0], [1, 2**40], [2**63, 2**63], ["F32"],
)  # fmt: skip


def mutate(seed: bytes, generator: random.Random, *, structured: bool) -> bytes:
    """The seed with one to four changes. structured: half of the time as JSON, by its values."""
    if structured and generator.random() < 0.5:
        with contextlib.suppress(ValueError):  # no document any more: it has been changed before
            return mutate_json(seed, generator)
    content = bytearray(seed)
    for _ in range(generator.choice((1, 1, 1, 2, 4))):
        content = _change(content, generator)
    return bytes(content)


def _change(content: bytearray, generator: random.Random) -> bytearray:
    size = len(content)
    start = generator.randrange(size + 1)
    stop = min(size, start + generator.choice((1, 1, 2, 4, 8, 30, 300, 10_000)))
    kind = generator.randrange(9)
    if kind == 0 and size:
        content[min(start, size - 1)] ^= 1 << generator.randrange(8)
    elif kind == 1 and size:
        content[min(start, size - 1)] = generator.randrange(256)
    elif kind == 2:
        content[start:start] = generator.choice(TOKENS)
    elif kind == 3:
        del content[start:stop]
    elif kind == 4:
        content[start:start] = content[start:stop] * generator.choice((1, 1, 3, 100))
    elif kind == 5:
        del content[start:]
    elif kind == 6:
        width = generator.choice((1, 2, 4, 8))
        number = generator.choice(NUMBERS) % 256**width
        content[start : start + width] = number.to_bytes(width, generator.choice(("little", "big")))
    elif kind == 7:  # a number in a text
        found = list(re.finditer(rb"\d+", bytes(content[:100_000])))
        if found:
            match = generator.choice(found)
            content[match.start() : match.end()] = str(generator.choice(NUMBERS)).encode()
    else:
        content[start:stop] = generator.randbytes(stop - start)
    return content[: 4 << 20]


def mutate_json(seed: bytes, generator: random.Random) -> bytes:
    """A JSON document with a value or a name changed, doubled or gone, anywhere in it."""
    document = copy.deepcopy(json.loads(seed))
    for _ in range(generator.choice((1, 1, 2, 3))):
        node: Any = document
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = generator.choice(keys)
            if isinstance(node[key], (dict, list)) and generator.random() < 0.7:
                node = node[key]
                continue
            if generator.random() < 0.2:
                del node[key]
            elif isinstance(node, dict) and generator.random() < 0.2:
                node[str(generator.choice(VALUES))] = node[key]
            else:
                node[key] = generator.choice(VALUES)
            break
    return json.dumps(document).encode("utf-8", "surrogatepass")


def mutate_toml(seed: bytes, generator: random.Random) -> bytes:
    """A TOML file that is still one: lines doubled or gone, values that are numbers, texts or lists of another kind."""
    lines = seed.decode().split("\n")
    for _ in range(generator.choice((1, 1, 2, 4))):
        place = generator.randrange(len(lines))
        key, equals, _ = lines[place].partition(" = ")
        if equals and generator.random() < 0.9:
            number = str(generator.choice(NUMBERS))
            odd = json.dumps(generator.choice(("", "x", "../x", "/dev/zero", "nan", "auto", "none", "learned", "all")))
            other = generator.choice(("true", "false", "[]", "nan", "inf", "1e308", "-0.0", "0.5", "{}", "1979-05-27"))
            lines[place] = f"{key} = {generator.choice((number, number, odd, other))}"
        elif generator.random() < 0.5:
            del lines[place]
        else:
            lines.insert(place, generator.choice(lines))
    return "\n".join(lines).encode()


def mutate_fields(seed: bytes, generator: random.Random, depth: int = 0) -> bytes:
    """A protocol buffer with fields that are changed, doubled or gone, and lengths that are right again."""
    fields = list(_fields(seed))
    for _ in range(generator.choice((1, 1, 2, 5))):
        if not fields:
            break
        # Few of the fields of a model are not pieces.
        rare = [n for n, (_, value) in enumerate(fields) if len(value) > 40] or [0]
        place = generator.choice(rare) if generator.random() < 0.5 else generator.randrange(len(fields))
        tag, value = fields[place]
        kind = generator.random()
        if kind < 0.1:
            del fields[place]
        elif kind < 0.2:
            fields.insert(place, generator.choice(fields))
        elif tag & 7 == 2 and depth == 0 and kind < 0.8:
            fields[place] = tag, mutate_fields(value, generator, depth + 1)
        else:
            changed = mutate(value, generator, structured=False)
            fields[place] = tag, (changed[:4].ljust(4, b"\0") if tag & 7 == 5 else changed)
    encoded = b""
    for tag, value in fields:
        encoded += _varint(tag) + (_varint(len(value)) if tag & 7 == 2 else b"") + value
    return encoded


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of an undamaged message: tag, and value as it is written."""
    position = 0
    while position < len(content):
        tag, position = _read_varint(content, position)
        start = position
        if tag & 7 == 0:
            _, position = _read_varint(content, position)
        elif tag & 7 == 2:
            size, start = _read_varint(content, position)
            position = start + size
        else:
            position += 4 if tag & 7 == 5 else 8
        yield tag, content[start:position]


def _read_varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content):
        byte = content[position]
        value |= (byte & 127) << shift
        shift, position = shift + 7, position + 1
        if byte < 128:
            break
    return value, position


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    return bytes([*encoded, value])


def mutate_tensors(seed: bytes, generator: random.Random) -> bytes:
    """A safetensors file: its header as JSON or as bytes, the size of the header, the tensors."""
    size = int.from_bytes(seed[:8], "little")
    header, tensors = seed[8 : 8 + size], seed[8 + size :]
    if generator.random() < 0.7:
        header = mutate(header, generator, structured=True)
    if generator.random() < 0.3:
        tensors = mutate(tensors, generator, structured=False)
    said = len(header) if generator.random() < 0.9 else generator.choice(NUMBERS) % 2**64
    return said.to_bytes(8, "little") + header + tensors


def mutate_gzip(seed: bytes, generator: random.Random) -> bytes:
    """Lines that are changed and then packed, packed and then changed, or packed with a tail."""
    if generator.random() < 0.5:
        return gzip.compress(mutate(seed, generator, structured=False), 1)
    return mutate(gzip.compress(seed, 1), generator, structured=False)


def mutate_lines(seed: bytes, generator: random.Random, *, structured: bool) -> bytes:
    """Lines of which each may be changed, doubled or gone; now and then one is a document of its own."""
    lines = seed.split(b"\n")
    for _ in range(generator.choice((1, 2, 5))):
        number = generator.randrange(len(lines))
        if lines[number].strip():
            lines[number] = mutate(lines[number], generator, structured=structured)
    return b"\n".join(lines)
