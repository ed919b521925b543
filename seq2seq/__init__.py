"""The encoder-decoder Transformer of "Attention Is All You Need", as a translation toolkit.

Importing this package imports nothing heavy: torch and the rest come in when a submodule that needs them does.
"""

from seq2seq.version import __version__

__all__ = ["__version__"]
