"""Words in tar archives as WebDataset lays them out: the files of one word stand together and share the name up to its
first dot, ``000017.jpg`` and ``000017.txt`` (or ``.cls``, or ``.json``).

The layout: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from crnn.datasets.files import LABEL_SUFFIXES, label_in
from crnn.datasets.tar import tar_members
from crnn.datasets.words import Entry, Unusable, WordSource, is_picture, within_limit
from crnn.errors import CrnnError, DatasetError
from crnn.images import SUFFIXES


def from_archives(path: Path, archives: Sequence[Path]) -> WordSource:
    """The words of tar archives (which may be compressed), one after the other. ``path`` is what they were found at."""
    decided = f"WebDataset, {len(archives):,} archives" if len(archives) > 1 else "WebDataset archive"
    return WordSource(path, "webdataset", decided, partial(_entries, path, archives))


def _entries(path: Path, archives: Sequence[Path]) -> Iterator[Entry]:
    for archive in archives:
        prefix = "" if archive == path else f"{archive.name}/"
        found = False
        for key, files in _samples(archive):
            found = True
            yield Entry(prefix + key, *_word(files))
        if not found:
            raise DatasetError(f"{archive}: no picture and no label in this archive")


def _samples(archive: Path) -> Iterator[tuple[str, dict[str, bytes | Unusable]]]:
    """(key, content by what follows its first dot) of the words; only one word is held."""
    key, files = "", dict[str, bytes | Unusable]()
    try:
        with open(archive, "rb") as file:
            for name, data in tar_members(file, str(archive), SUFFIXES + LABEL_SUFFIXES):
                folder, slash, base = name.rpartition("/")
                stem, _, suffix = base.partition(".")
                if files and folder + slash + stem != key:
                    yield key, files
                    files = {}
                key = folder + slash + stem
                if suffix.lower() in files:
                    files[suffix.lower()] = Unusable("unreadable", f"{base!r} stands twice in the archive")
                else:
                    files[suffix.lower()] = Unusable("unreadable", str(data)) if isinstance(data, CrnnError) else data
    except OSError as error:
        raise DatasetError(f"{archive}: cannot be opened ({error.strerror})") from None
    if files:
        yield key, files


def _word(files: dict[str, bytes | Unusable]) -> tuple[bytes | Unusable, str | Unusable]:
    pictures = [name for name in files if is_picture("." + name)]
    labels = [name for suffix in LABEL_SUFFIXES for name in files if ("." + name).endswith(suffix)]
    image: bytes | Unusable = Unusable("missing", "no picture stands beside its label in the archive")
    label: str | Unusable = Unusable("missing", "no .txt, .cls or .json stands beside it in the archive")
    if len(pictures) > 1:
        image = Unusable("unreadable", f"{len(pictures)} pictures of this name: .{', .'.join(pictures)}")
    elif pictures:
        data = files[pictures[0]]
        image = data if isinstance(data, Unusable) else within_limit(data)
    if labels:
        data = files[labels[0]]
        label = data if isinstance(data, Unusable) else label_in("." + labels[0], data)
    return image, label
