"""Single words of a page: the picture, the network's posterior drawn over it, and what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from crnn.ctc import frame_span
from crnn.decoding.decoder import Reading
from crnn.evaluation.evidence import Seen
from crnn.evaluation.markup import Child, described, number, tag, visible, word
from crnn.protocols import alnum36
from crnn.spec import ModelSpec

_WIDTH = 320
_TALLEST = 110  # of the picture in its own shape
_LETTERS, _LANE = 14, 90  # heights: the line of letters, and the probabilities from 0 to 1 below it
_SHOWN = 0.05  # a class that no frame gives as much is not drawn
_NAMED = 0.2  # a peak lower than this gets no letter
_FAINT = 0.005
_CLASSES = 12


def card(entry: Mapping[str, Any], dataset: str, seen: Seen, spec: ModelSpec | None, name: str) -> Element:
    """A word read wrongly. ``name`` is its own on the page."""
    facts: list[tuple[str, Child]] = [
        ("label", word(entry["label"])),
        ("read as", word(entry["text"])),
        ("confidence", f"{entry['confidence']:.3f}"),
    ]
    if "kept" in entry:
        facts.append(("kept", f"{entry['kept']:.2g}"))
    if seen.label_probability is not None:
        facts.append(("probability of the label", f"{seen.label_probability:.2g}"))
    if seen.decoded is not None and seen.decoded.characters:
        scores: list[Child] = []
        for each in seen.decoded.characters:
            scores += [tag("span", f"{each.character} {each.score:.2f}", class_="score"), " "]
        facts.append(("each character", tag("span", *scores)))
    facts.append(("key", f"{entry['key']} of {dataset}"))
    again = seen.decoded
    changed = None
    if again is not None and entry["text"] not in (again.text, again.text.lower(), alnum36(again.text)):
        changed = tag("p", "Read again, it is ", word(again.text), f" ({again.confidence:.3f}).", class_="changed")
    return tag(
        "article",
        drawing(entry, seen, spec, name),
        tag("p", f"No picture: {seen.problem}.", class_="problem") if seen.problem else None,
        described(facts),
        changed,
        class_="card",
    )


def drawing(entry: Mapping[str, Any], seen: Seen, spec: ModelSpec | None, name: str) -> Element | None:
    """The picture in its own shape; below it, where there is a posterior, stretched to full width with that over it.

    The probability of each class that matters is drawn as an area over the picture, frame by frame, at the place of the
    frame's receptive field (:func:`crnn.ctc.frame_span`). None if there is no picture.
    """
    picture = seen.picture
    if picture is None:
        return None
    scale = min(_WIDTH / picture.width, _TALLEST / picture.height)
    wide, tall = picture.width * scale, picture.height * scale
    label = f"Picture of the word {visible(entry['label'])!r}"
    # The one copy of the picture is stretched to its size here; "none" lets the second drawing of it stretch further.
    whole = tag("image", id=name, href=picture.uri, width=wide, height=tall, preserveAspectRatio="none")
    if seen.posterior is None or seen.decoded is None or spec is None:
        return _svg(tall, f"{label}.", whole)
    top = tall + 6 + _LETTERS
    stretch = f"translate(0 {number(top)}) scale({number(_WIDTH / wide, 4)} {number(_LANE / tall, 4)})"
    behind = tag("use", href=f"#{name}", transform=stretch, class_="behind")
    areas, told = _areas(seen.posterior, seen.decoded, entry["label"], spec, top)
    edge = tag("rect", x=0, y=top, width=_WIDTH, height=_LANE, class_="edge")
    return _svg(top + _LANE + 2, f"{label}, and the network's posterior over it: {told}.", whole, behind, edge, *areas)


def legend() -> Element:
    """What the colours of the posteriors mean."""
    kinds = (
        ("right", "read, as in the label"),
        ("wrong", "read, otherwise than in the label"),
        ("missed", "in the label, not read"),
        ("rival", "neither"),
        ("blank", "the CTC blank (line)"),
    )
    return tag("ul", *[tag("li", tag("span", class_=f"key {kind}"), text) for kind, text in kinds], class_="legend")


def _areas(
    posterior: NDArray[np.floating[Any]], decoded: Reading, label: str, spec: ModelSpec, top: float
) -> tuple[list[Child], str]:
    """(the areas, the blank's line and the letters; the peaks in words)."""
    base = top + _LANE
    spans = [frame_span(t, t, spec, _WIDTH) for t in range(spec.steps)]
    kinds = _kinds(decoded, label, spec)
    peaks = posterior[:, 1:].max(axis=0)
    shown = [k for k in np.argsort(-peaks).tolist() if peaks[k] >= _SHOWN][:_CLASSES]
    marks: list[Child] = [tag("path", d=_steps(posterior[:, 0], spans, base), class_="blank")]
    letters: list[Child] = []
    told: list[tuple[int, str]] = []
    for k in shown:
        symbol, values = spec.charset.symbols[k], posterior[:, k + 1]
        for kind in dict.fromkeys(kinds(symbol)):
            here = np.where([each == kind for each in kinds(symbol)], values, 0.0)
            if path := _blocks(here, spans, base):
                title = tag("title", f"{symbol}: {here.max():.2f}")
                marks.append(tag("path", title, d=path, class_=f"area {kind}"))
        for t in _tops(values):
            centre = min(max(sum(spans[t]) / 2, 6.0), _WIDTH - 6.0)
            height = base - _LANE * float(values[t]) - 3
            kind = f"letter {kinds(symbol)[t]}"
            letters.append(tag("text", symbol, x=centre, y=height, text_anchor="middle", class_=kind))
            told.append((t, f"{symbol} {values[t]:.2f}"))
    return [*marks, *letters], ", ".join(text for _, text in sorted(told)) or "nothing but the blank"


def _kinds(decoded: Reading, label: str, spec: ModelSpec) -> Callable[[str], list[str]]:
    """kinds(symbol): what a symbol is in each frame, as :func:`legend` names it; capitals count as small letters."""
    wanted = [character.lower() for character in label]
    right: set[int] = set()
    lost: set[str] = set()
    for piece in Levenshtein.opcodes(wanted, [each.character.lower() for each in decoded.characters]):
        if piece.tag == "equal":
            right.update(range(piece.dest_start, piece.dest_end))
        else:
            lost.update(wanted[piece.src_start : piece.src_end])

    @cache
    def kinds(symbol: str) -> list[str]:
        found = ["missed" if symbol.lower() in lost else "rival"] * spec.steps
        for n, each in enumerate(decoded.characters):
            if each.character == symbol:  # the slopes of its peak, a frame to each side, belong to it
                first, last = max(each.frames[0] - 1, 0), min(each.frames[1] + 1, spec.steps - 1)
                found[first : last + 1] = ["right" if n in right else "wrong"] * (last + 1 - first)
        return found

    return kinds


def _tops(values: NDArray[np.floating[Any]]) -> list[int]:
    """The frames of the peaks worth a letter: of each run of frames above half of what that takes, the highest."""
    above = np.flatnonzero(values >= _NAMED / 2)
    runs = np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else []
    best = [int(run[values[run].argmax()]) for run in runs]
    return [t for t in best if values[t] >= _NAMED]


def _blocks(values: NDArray[np.floating[Any]], spans: list[tuple[float, float]], base: float) -> str:
    """An SVG path around the bars of one class, without those too low to be seen."""
    pieces: list[str] = []
    inside = False
    for value, (left, right) in zip(values.tolist(), spans, strict=True):
        if value < _FAINT:
            pieces += [f"V{number(base, 1)}Z"] if inside else []
            inside = False
            continue
        if not inside:
            pieces.append(f"M{number(left, 1)} {number(base, 1)}")
        pieces.append(f"V{number(base - _LANE * value, 1)}H{number(right, 1)}")
        inside = True
    return "".join(pieces) + (f"V{number(base, 1)}Z" if inside else "")


def _steps(values: NDArray[np.floating[Any]], spans: list[tuple[float, float]], base: float) -> str:
    """An SVG path along the tops of the bars of one class."""
    heights = [number(base - _LANE * value, 1) for value in values.tolist()]
    steps = [f"V{height}H{number(right, 1)}" for height, (_, right) in zip(heights, spans, strict=True)]
    return f"M{number(spans[0][0], 1)} {heights[0]}" + "".join(steps)


def _svg(height: float, label: str, *marks: Child) -> Element:
    box = f"0 0 {_WIDTH} {number(float(height))}"
    return tag("svg", *marks, viewBox=box, role="img", aria_label=label, class_="seen")
