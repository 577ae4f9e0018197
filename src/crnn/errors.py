"""What can go wrong, in the user's words.

Every message is one line: what is wrong, where, and what to do about it. The command line prints it as it is.
"""

from __future__ import annotations


class CrnnError(Exception):
    """Something the user gave is wrong. Base of every error this package raises on purpose."""


class ImageError(CrnnError):
    """A picture cannot be read."""


class PixelLimitError(ImageError):
    """A picture has more pixels than it may have."""


class LabelError(CrnnError):
    """A text cannot be written in the charset, or class indices are no text."""


class DatasetError(CrnnError):
    """A data set is missing, damaged, or not what it should be."""


class ModelError(CrnnError):
    """A model file, its spec or its charset is missing or invalid."""


class EngineError(CrnnError):
    """An engine cannot run, or what it gives back does not fit the model's spec."""


class OptionError(CrnnError):
    """An option has a value that cannot be used."""


class CheckpointError(CrnnError):
    """A training run or its weights cannot be loaded."""
