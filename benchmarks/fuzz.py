"""Hostile input: damaged pictures, data sets and archives, by the thousand or for hours.

    python benchmarks/fuzz.py --cases 4000
    python benchmarks/fuzz.py --minutes 60 --seed 7
    python benchmarks/fuzz.py --case 1234 --seed 7     # one case again, with its traceback

Files of every format we read, of our own drawing and of real words, are mutated: bytes flipped and replaced, runs cut
out, doubled, spliced in from another file, ends cut off, and checksums put right so that the damage gets past them.
Each mutant goes through the package as a user's file would. It has to be read or to be refused with one line
(CrnnError); another exception, a crash, more than --seconds for one case, or more than --megabytes of memory ends the
run with status 1 and says which case it was. The cases run in processes of their own, a few hundred each.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import random
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

Target = Callable[[bytes, str, Path], str]
"""Takes a mutant, its kind and a folder for files; says what became of it. Raises if that was a fault."""

SAMPLE = Path(__file__).resolve().parent.parent / "src" / "crnn" / "samples" / "words_lmdb"
A_PROCESS = 500  # cases


class Seed(NamedTuple):
    """A file to mutate; ``kind`` is a format of pictures, "TAR" or "LMDB"."""

    kind: str
    data: bytes


class Fault(NamedTuple):
    """What ended the run."""

    case: int
    what: str


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    """An image as a file of ``kind``."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn(text: str, mode: str = "RGB") -> Any:
    """A small picture of a word."""
    image = Image.new("RGB", (90, 24), (230, 220, 200))
    ImageDraw.Draw(image).text((8, 6), text, (30, 30, 90))
    return image.convert(mode)


def seeds(words: list[bytes]) -> list[Seed]:
    """Files of every format, from our own drawing and from ``words`` (encoded pictures of real words)."""
    found = []
    pictures = [drawn("harbour"), *(Image.open(io.BytesIO(word)).convert("RGB") for word in words)]
    for picture in pictures:
        frames = [picture.transpose(Image.Transpose.ROTATE_180), picture.convert("L").convert("RGB")]
        exif = Image.Exif()
        exif[0x0112] = 6
        kinds: list[tuple[str, Any, dict[str, Any]]] = [
            ("PNG", picture, {}),
            ("PNG", picture.convert("RGBA"), {"exif": exif}),
            ("PNG", picture.quantize(16), {"transparency": 0}),
            ("PNG", picture.convert("L").convert("I;16"), {}),
            ("PNG", picture, {"save_all": True, "append_images": frames}),
            ("JPEG", picture, {"exif": exif, "quality": 80}),
            ("JPEG", picture.convert("CMYK"), {}),
            ("JPEG", picture, {"progressive": True}),
            ("BMP", picture, {}),
            ("BMP", picture.convert("1"), {}),
            ("GIF", picture.quantize(32), {"save_all": True, "append_images": frames}),
            ("TIFF", picture, {"compression": "tiff_lzw", "exif": exif}),
            ("TIFF", picture.convert("L"), {"compression": "raw"}),
            ("TIFF", picture.convert("1"), {"compression": "group4"}),
            ("TIFF", picture.convert("F"), {}),
            ("TIFF", picture, {"compression": "jpeg"}),
            ("WEBP", picture, {}),
            ("WEBP", picture.convert("RGBA"), {"lossless": True, "exif": exif}),
            ("WEBP", picture, {"save_all": True, "append_images": frames}),
            ("PPM", picture, {}),
            ("ICO", picture.convert("RGBA"), {}),
            ("JPEG2000", picture, {}),
            ("PCX", picture, {}),
        ]
        found += [Seed(kind, encoded(image, kind, **options)) for kind, image, options in kinds]
    found += [Seed("LMDB", seed.data) for seed in found]
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
            file = io.BytesIO()
            archive: Any = tarfile.open(fileobj=file, mode=mode, format=form)  # noqa: SIM115
            with archive:
                for number in range(3):
                    name = "deep/" * (30 * number) + f"wörd {number}.png"  # long names have headers of their own
                    member = tarfile.TarInfo(name)
                    data = encoded(drawn(f"w{number}"), "PNG")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
            found += [Seed("TAR", file.getvalue())] * 4
    return found


def mutate(seed: Seed, others: list[Seed], dice: random.Random) -> bytes:
    """One to four mutations of a file."""
    data = bytearray(seed.data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
        if not data:
            break
        # headers are small and matter most
        at = dice.randrange(min(len(data), 64) if dice.random() < 0.4 else len(data))
        length = min(len(data) - at, dice.choice((1, 2, 4, 8, 64, 512)))
        way = dice.randrange(8)
        if way == 0:
            data[at] ^= 1 << dice.randrange(8)
        elif way == 1:
            for _ in range(dice.randrange(1, 33)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        elif way == 2:
            value = dice.choice((b"\0", b"\xff", b"\x7f", b"\x80", b"9", b"\x01"))
            data[at : at + length] = value * length
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at : at + length]
        elif way == 5:
            data[at:at] = data[at : at + length] * dice.choice((1, 1, 50))
        elif way == 6:
            other = dice.choice(others).data
            start = dice.randrange(len(other))
            data[at : at + length] = other[start : start + dice.choice((length, length, 4096))]
        else:
            struct.pack_into(
                dice.choice((">I", "<I", ">H", "<H")), number := bytearray(4), 0, dice.choice((0, 1, 65535))
            )
            data[at : at + 4] = number
    if seed.kind == "TAR" and dice.random() < 0.7:
        _mend_tar(data)
    return _mended_png(bytes(data)) if dice.random() < 0.5 else bytes(data)


def _mended_png(data: bytes) -> bytes:
    """Right checksums for a PNG's chunks, as far as they can be told apart."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            break
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out + data[at:])


def _mend_tar(data: bytearray) -> None:
    """Right checksums for what may be headers of a tar archive."""
    for at in range(0, len(data) - 511, 512):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def read_it(mutant: bytes, kind: str, folder: Path) -> str:
    """The real thing: through inputs.py and images.py, as ``crnn read`` does, up to the network's input."""
    import lmdb

    from crnn.errors import CrnnError
    from crnn.images import open_gray, prepare
    from crnn.inputs import pictures
    from crnn.spec import DELIVERABLE

    skipped: list[str] = []
    path = folder / ("case.tar" if kind == "TAR" else "case.bin")
    if kind == "LMDB":
        path = folder / "case_lmdb"
        with lmdb.open(str(path), map_size=16 << 20, lock=False, sync=False) as env, env.begin(write=True) as writing:
            writing.put(b"num-samples", b"1")
            writing.put(b"image-000000001", mutant)
    else:
        path.write_bytes(mutant)
    read = 0
    for item in pictures([path], on_skip=lambda source, reason: skipped.append(reason)):
        try:
            pixels = prepare(open_gray(item.data), DELIVERABLE)
        except CrnnError as error:
            skipped.append(str(error))
            continue
        if pixels.shape != (32, 100):
            raise AssertionError(f"shape {pixels.shape}")
        read += 1
    for reason in skipped:
        if not reason.strip() or "\n" in reason or len(reason) > 500:
            raise AssertionError(f"not one line: {reason!r}")
    if not read and not skipped:
        raise AssertionError("neither read nor refused")
    return "refused" if skipped else "read"


def case(number: int, seed: int, files: list[Seed]) -> tuple[bytes, str]:
    """Mutant ``number`` and its kind: a function of the seed, the number and the files."""
    dice = random.Random(f"{seed}/{number}")
    chosen = dice.choice(files)
    return mutate(chosen, files, dice), chosen.kind


def _work(pipe: Connection, target: Target, numbers: range, seed: int, files: list[Seed]) -> None:
    """In a process of its own: says which case begins, then what became of it."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # as crnn read does
    import crnn.inputs  # noqa: F401 (takes its time, which is none of the first case's)

    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            mutant, kind = case(number, seed, files)
            pipe.send(("begin", number))
            try:
                pipe.send((target(mutant, kind, Path(folder)), kind))
            except BaseException:
                pipe.send(("fault", traceback.format_exc()))
                return
    pipe.send(("memory", _peak_megabytes()))


def _peak_megabytes() -> float:
    try:
        import resource
    except ImportError:  # Windows has no such count
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def fuzz(
    files: list[Seed],
    target: Target = read_it,
    *,
    seed: int = 0,
    first: int = 0,
    cases: int | None = None,
    minutes: float | None = None,
    seconds: float = 20,
    megabytes: float = 2000,
    counts: Counter[str] | None = None,
) -> Fault | None:
    """Run cases until there are enough, the time is up, or one is at fault. ``counts`` is filled with outcomes."""
    counts = Counter() if counts is None else counts
    ends = time.monotonic() + (minutes * 60 if minutes is not None else float("inf"))
    spawn = multiprocessing.get_context("spawn")
    while (cases is None or first < cases) and time.monotonic() < ends:
        numbers = range(first, first + A_PROCESS if cases is None else min(first + A_PROCESS, cases))
        first = numbers.stop
        ours, theirs = spawn.Pipe(duplex=False)
        process = spawn.Process(target=_work, args=(theirs, target, numbers, seed, files), daemon=True)
        process.start()
        theirs.close()
        fault = _watch(ours, process, seconds, megabytes, counts)
        if fault:
            return fault
    return None


def _watch(pipe: Connection, process: Any, seconds: float, megabytes: float, counts: Counter[str]) -> Fault | None:
    number, patience = -1, 60.0  # the process has to start first
    try:
        while pipe.poll(patience):
            what, detail = pipe.recv()
            if what == "begin":
                number, patience = detail, seconds
            elif what == "fault":
                return Fault(number, detail)
            elif what == "memory":
                return Fault(number, f"used {detail:.0f} MB (this or a case before)") if detail > megabytes else None
            else:
                counts[f"{detail} {what}"] += 1
        return Fault(number, f"took more than {seconds:g} seconds")
    except EOFError:
        process.join()
        return Fault(number, f"the process died (exit status {process.exitcode})")
    finally:
        if process.is_alive():
            process.join(1)
        if process.is_alive():
            process.kill()
        pipe.close()


def real_words(limit: int = 2) -> list[bytes]:
    """Pictures of real words from $CRNN_DATA, or of the bundled sample."""
    from crnn.datasets.lmdb import LmdbReader

    folder = Path(os.environ["CRNN_DATA"]) / "IIIT5K_lmdb" if "CRNN_DATA" in os.environ else SAMPLE
    reader = LmdbReader(folder)
    return [reader.image_bytes(i) for i in range(0, len(reader), max(1, len(reader) // limit))][:limit]


def main() -> int:
    """The command line; 1 if a case was at fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, help="go on for so long (default: until --cases are done)")
    parser.add_argument("--cases", type=int, help="how many (default: 4000, or no limit with --minutes)")
    parser.add_argument("--case", type=int, help="only this one, here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="the longest one case may take")
    parser.add_argument("--megabytes", type=float, default=2000, help="the most memory a process may have held")
    options = parser.parse_args()
    files = seeds(real_words())
    if options.case is not None:
        mutant, kind = case(options.case, options.seed, files)
        with tempfile.TemporaryDirectory() as folder:
            print(kind, len(mutant), "bytes:", read_it(mutant, kind, Path(folder)))
        return 0
    cases = 4000 if options.cases is None and options.minutes is None else options.cases
    counts: Counter[str] = Counter()
    began = time.monotonic()
    limits = {"seconds": options.seconds, "megabytes": options.megabytes}
    fault = fuzz(files, seed=options.seed, cases=cases, minutes=options.minutes, counts=counts, **limits)
    for outcome, count in sorted(counts.items()):
        print(f"{count:8,} {outcome}")
    print(f"{counts.total():8,} cases in {time.monotonic() - began:.0f} s, seed {options.seed}")
    if fault:
        print(
            f"case {fault.case}: {fault.what.strip()}\nagain: --case {fault.case} --seed {options.seed}",
            file=sys.stderr,
        )
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
