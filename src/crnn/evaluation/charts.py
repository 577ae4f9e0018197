"""Charts as SVG. Colours are classes of ``page.css``, so that a chart is light or dark as its page is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree.ElementTree import Element

from crnn.evaluation.breakdown import Group, Taken
from crnn.evaluation.calibration import Bin
from crnn.evaluation.markup import Child, number, tag

_WIDTH, _HEIGHT = 560, 300
_LEFT, _RIGHT, _TOP = 46, 20, 12
_STRIP = 46  # the bars of counts below the axis
_TENTHS = [k / 10 for k in range(0, 11, 2)]


class Scale(NamedTuple):
    """A linear map from ``low``..``high`` to pixels ``start``..``end``."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of ``value``."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


class Difference(NamedTuple):
    """A difference of two accuracies with its 95 % interval, all fractions."""

    name: str
    value: float
    low: float
    high: float


def by_group(groups: Sequence[Group], axis: str) -> Element:
    """Accuracy of each group with its 95 % interval, and below the axis how many words it has."""
    x = Scale(0, len(groups), _LEFT, _WIDTH - _RIGHT)
    y = Scale(0, 1, _HEIGHT - 38 - _STRIP, _TOP)
    marks: list[Child] = _rows(y)
    most = max(group.words for group in groups)
    floor = _HEIGHT - 20
    for k, group in enumerate(groups):
        low, high = group.interval
        centre = x(k + 0.5)
        tall = max(1.0, group.words / most * (_STRIP - 14))
        marks += [
            _text(centre, y(0) + 14, group.name, "middle"),
            tag("rect", x=x(k + 0.2), y=floor - tall, width=x(0.6) - x(0), height=tall, class_="count"),
            tag(
                "g",
                tag("title", f"{group.name}: {group.accuracy:.1%} of {group.words:,} ({low:.1%} to {high:.1%})"),
                _line(centre, y(low), centre, y(high), "whisker"),
                tag("circle", cx=centre, cy=y(group.accuracy), r=4, class_="point"),
            ),
        ]
    marks += [_text(x(len(groups) / 2), _HEIGHT - 4, f"{axis}; bars: number of words", "middle")]
    summary = ", ".join(f"{group.name}: {group.accuracy:.0%}" for group in groups)
    return _svg(_HEIGHT, f"Accuracy by {axis}. {summary}.", *marks)


def reliability(bins: Sequence[Bin]) -> Element:
    """Accuracy by confidence against the diagonal of a calibrated reader, and how many words there are of each."""
    side = 300
    x = Scale(0, 1, _LEFT, _LEFT + side)
    y = Scale(0, 1, _TOP + side, _TOP)
    bottom = y(0) + 34 + _STRIP
    marks: list[Child] = [*_rows(y, x(0), x(1)), *[_text(x(v), y(0) + 14, f"{v:.0%}", "middle") for v in _TENTHS]]
    most = max(each.words for each in bins)
    for each in bins:
        if each.confidence is None or each.accuracy is None:
            continue
        left, wide = x(each.low) + 1, x(each.high) - x(each.low) - 2
        tall = max(1.0, each.words / most * (_STRIP - 8))
        told = f"{each.words:,} words of confidence {each.low:.0%} to {each.high:.0%}: {each.accuracy:.1%} right"
        marks += [
            tag(
                "g",
                tag("title", f"{told}, {each.confidence:.1%} expected"),
                tag("rect", x=left, y=y(each.accuracy), width=wide, height=y(0) - y(each.accuracy), class_="bar"),
                _line(left, y(each.accuracy), left + wide, y(each.accuracy), "top"),
                tag("circle", cx=x(each.confidence), cy=y(each.accuracy), r=3.5, class_="point"),
            ),
            tag("rect", x=left, y=bottom - tall, width=wide, height=tall, class_="count"),
        ]
    marks += [
        _line(x(0), y(0), x(1), y(1), "ideal"),
        _text(x(0.5), bottom + 14, "confidence; bars below: number of words", "middle"),
    ]
    return _svg(
        bottom + 20,
        "Reliability: accuracy by confidence. The table below has the figures.",
        *marks,
        width=_LEFT + side + _RIGHT,
    )


def coverage_curve(points: Sequence[Taken], total: int) -> Element:
    """Accuracy of the words that are kept, by the share of words that is kept, surest first."""
    x = Scale(0, 1, _LEFT, _WIDTH - _RIGHT)
    least = min(point.right / point.words for point in points)
    y = Scale(min(0.9, int(least * 10) / 10), 1, _HEIGHT - 38, _TOP)
    ticks = [y.low + k * (1 - y.low) / 5 for k in range(6)]
    marks: list[Child] = [*_rows(y, ticks=ticks), *[_text(x(v), y.start + 14, f"{v:.0%}", "middle") for v in _TENTHS]]
    places = [f"{number(x(p.words / total), 1)},{number(y(p.right / p.words), 1)}" for p in points]
    marks += [
        tag("polyline", points=" ".join(places), class_="curve"),
        _text(x(0.5), _HEIGHT - 6, "share of words kept, surest first", "middle"),
    ]
    last = points[-1]
    return _svg(_HEIGHT, f"Accuracy of the words kept; {last.right / last.words:.1%} if all are.", *marks)


def differences(rows: Sequence[Difference]) -> Element:
    """Differences with their intervals, one below the other, around the line of no difference."""
    reach = max(0.005, *(abs(end) for row in rows for end in (row.low, row.high))) * 1.08
    x = Scale(-reach, reach, 170, _WIDTH - 60)
    marks: list[Child] = [_line(x(0), _TOP, x(0), _TOP + 30 * len(rows), "ideal")]
    for k, row in enumerate(rows):
        middle = _TOP + 30 * k + 15
        told = f"{row.name}: {100 * row.value:+.2f} points ({100 * row.low:+.2f} to {100 * row.high:+.2f})"
        marks += [
            tag(
                "g",
                tag("title", told),
                _text(160, middle + 4, row.name if len(row.name) <= 22 else f"{row.name[:21]}…", "end"),
                _line(x(row.low), middle, x(row.high), middle, "whisker"),
                tag("circle", cx=x(row.value), cy=middle, r=4, class_="point"),
                _text(_WIDTH - 4, middle + 4, f"{100 * row.value:+.2f}", "end"),
            )
        ]
    bottom = _TOP + 30 * len(rows) + 16
    for text, at, anchor in (("A is better", -reach, "start"), ("0", 0.0, "middle"), ("B is better", reach, "end")):
        marks.append(_text(x(at), bottom, text, anchor))
    summary = ", ".join(f"{row.name}: {100 * row.value:+.2f} points" for row in rows)
    return _svg(bottom + 6, f"Difference of the accuracies, B minus A. {summary}.", *marks)


def _rows(
    y: Scale, left: float = _LEFT, right: float = _WIDTH - _RIGHT, ticks: Sequence[float] = _TENTHS
) -> list[Child]:
    """Horizontal lines of a grid with their percentages."""
    marks: list[Child] = []
    for value in ticks:
        marks += [_line(left, y(value), right, y(value), "grid"), _text(left - 6, y(value) + 4, f"{value:.0%}", "end")]
    return marks


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    return tag("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)


def _text(x: float, y: float, text: str, anchor: str) -> Element:
    return tag("text", text, x=float(x), y=float(y), text_anchor=anchor)


def _svg(height: float, label: str, *marks: Child, width: float = _WIDTH) -> Element:
    box = f"0 0 {number(float(width))} {number(float(height))}"
    return tag("svg", *marks, viewBox=box, role="img", aria_label=label, class_="chart", style=f"max-width:{width}px")
