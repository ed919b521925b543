"""The version, where it is found even if a folder called seq2seq, such as a clone, hides the package's own file."""

__version__ = "0.1.0"
