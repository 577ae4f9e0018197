"""Two results on the same words: which model reads better, and whether chance could have made the difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from crnn.errors import OptionError
from crnn.evaluation.metrics import wilson
from crnn.evaluation.saved import word_number

SCHEMA = "crnn.comparison/1"
TEST = "McNemar's exact test, two-sided"
INTERVAL = "95 %, Newcombe 1998 (Statistics in Medicine 17, 2635-2650), method 10"
_SHOWN = 3  # words that a message names


class Pairs(NamedTuple):
    """How often each of two readers was right about the same words."""

    both: int
    only_a: int
    only_b: int
    neither: int

    @property
    def words(self) -> int:
        """All of them."""
        return sum(self)

    @property
    def accuracies(self) -> tuple[float, float]:
        """A's and B's."""
        return (self.both + self.only_a) / self.words, (self.both + self.only_b) / self.words

    @property
    def difference(self) -> float:
        """B's accuracy minus A's."""
        return (self.only_b - self.only_a) / self.words

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how often a fair coin would split the words that only one reads as unevenly, or more.

        Twice the smaller tail of the binomial distribution with p = 1/2, at most 1 (McNemar 1947, Psychometrika 12,
        153-157, without his approximation by chi-squared).
        """
        n, least = self.only_a + self.only_b, min(self.only_a, self.only_b)
        common = math.lgamma(n + 1) - n * math.log(2)  # logarithms: 2**n is no float beyond n = 1023
        tail = math.fsum(math.exp(common - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(least + 1))
        return min(1.0, 2 * tail)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference for paired proportions, within -1..1 (:data:`INTERVAL`).

        The distances from each accuracy to the ends of its Wilson interval are added as vectors, at an angle whose
        cosine is the correlation of the two readers, with a continuity correction where that is positive.
        """
        n = self.words
        (a, b), (right_a, right_b) = self.accuracies, (self.both + self.only_a, self.both + self.only_b)
        (low_a, high_a), (low_b, high_b) = wilson(right_a, n), wilson(right_b, n)
        agreement = self.both * self.neither - self.only_a * self.only_b
        corrected = max(agreement - n / 2, 0.0) if agreement > 0 else agreement
        margins = math.sqrt(right_a * (n - right_a)) * math.sqrt(right_b * (n - right_b))
        phi = corrected / margins if margins else 0.0

        def length(x: float, y: float) -> float:
            return math.sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))

        below, above = length(b - low_b, high_a - a), length(high_b - b, a - low_a)
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    def as_json(self) -> dict[str, Any]:
        """The figures of a comparison."""
        return {
            **self._asdict(),
            "words": self.words,
            "accuracy": list(self.accuracies),
            "difference": self.difference,
            "interval": list(self.interval),
            "p": self.p_value,
        }


def compare(a: Mapping[str, Any], b: Mapping[str, Any], names: tuple[str, str] = ("A", "B")) -> dict[str, Any]:
    """Compare two reports word by word, as a dictionary ready for JSON::

        {schema, protocol, subset, test, interval, notes: [text],
         a: {name, model, engine, temperature, and knowledge if there was any}, b: {the same},
         datasets: [{path, both, only_a, only_b, neither, words, accuracy: [a, b], difference, interval: [lo, hi], p,
                     differing: [{key, label, a: {text, confidence}, b: {text, confidence}}]}],
         overall: {both, ..., p}}

    ``both``, ``only_a``, ``only_b`` and ``neither`` count words by who reads them right. Differences are B's accuracy
    minus A's, as fractions. ``differing`` are the words that only one reads right, in the data set's order. ``names``
    are what messages call the two.

    Data sets belong together by content, else by name, else by being the only ones; words by key, or by the number in
    it where results of files (``test_5.bin``) meet those of a data set (``image-000000005``).

    Raises OptionError, naming the first words, if the reports are not over the same words with the same labels.
    """
    for key in ("protocol", "subset"):
        if a[key] != b[key]:
            raise OptionError(f"{names[0]} is over {key} {a[key]!r}, {names[1]} over {b[key]!r}: not comparable")
    notes: list[str] = []
    entries, tables = [], []
    for data_a, data_b in _datasets(a["datasets"], b["datasets"], names):
        pairs = _words(data_a, data_b, names)
        if data_a["sha256"] != data_b["sha256"]:
            notes.append(
                f"{data_a['path']}: keys and labels agree, but the two results are of different copies (their sha256 "
                "differs): the pictures may not be the same"
            )
        right = [(x["text"] == x["label"], y["text"] == y["label"]) for x, y in pairs]
        kinds = [(True, True), (True, False), (False, True), (False, False)]
        tables.append(Pairs(*[right.count(kind) for kind in kinds]))
        differing = [
            {
                "key": x["key"],
                "label": x["label"],
                **{n: {k: w[k] for k in ("text", "confidence")} for n, w in (("a", x), ("b", y))},
            }
            for (x, y), (right_a, right_b) in zip(pairs, right, strict=True)
            if right_a != right_b
        ]
        entries.append({"path": data_a["path"], **tables[-1].as_json(), "differing": differing})
    facts = ("model", "engine", "temperature", "knowledge")
    sources = {
        side: {"name": name, **{key: report[key] for key in facts if key in report}}
        for side, name, report in (("a", names[0], a), ("b", names[1], b))
    }
    return {
        "schema": SCHEMA,
        "protocol": a["protocol"],
        "subset": a["subset"],
        "test": TEST,
        "interval": INTERVAL,
        "notes": notes,
        **sources,
        "datasets": entries,
        "overall": Pairs(*[sum(column) for column in zip(*tables, strict=True)]).as_json(),
    }


def verdict(overall: Mapping[str, Any]) -> str:
    """What the figures of a comparison say, in a sentence."""
    low, high = overall["interval"]
    points = f"{100 * overall['difference']:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"
    if overall["p"] < 0.05:
        better = "B" if overall["difference"] > 0 else "A"
        return f"{better} reads better: B - A = {points}, p {p_text(overall['p'])}"
    return f"no difference beyond chance: B - A = {points}, p {p_text(overall['p'])}"


def p_text(p: float) -> str:
    """A p-value for people: ``= 0.032``, ``< 0.0001``."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.2g}" if p < 0.1 else f"= {p:.2f}"


def ranked(differing: Sequence[Mapping[str, Any]], winner: str) -> list[Mapping[str, Any]]:
    """The words that only ``winner`` ("a" or "b") reads right, first those the other was surest of."""
    other = "b" if winner == "a" else "a"
    won = [word for word in differing if word[winner]["text"] == word["label"]]
    return sorted(won, key=lambda word: -float(word[other]["confidence"]))


def _datasets(
    first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]], names: tuple[str, str]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The data sets of two reports that belong together, in the order of the first."""
    left = list(range(len(second)))
    partner: dict[int, int] = {}

    def match(same: Any) -> None:
        for i, data in enumerate(first):
            if i not in partner:
                found = next((j for j in left if same(data, second[j])), None)
                if found is not None:
                    partner[i] = found
                    left.remove(found)

    match(lambda x, y: x["sha256"] == y["sha256"])
    match(lambda x, y: Path(x["path"]).name == Path(y["path"]).name)
    if len(first) == len(second) == 1:
        partner[0] = 0
    alone = [(names, data) for i, data in enumerate(first) if i not in partner]
    alone += [(names[::-1], second[j]) for j in left if len(first) != 1 or len(second) != 1]
    if alone:
        (has, has_not), data = alone[0]
        raise OptionError(f"{has} is over {data['path']}, {has_not} is not; evaluate both on the same data sets")
    return [(data, second[partner[i]]) for i, data in enumerate(first)]


def _words(
    first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The words of two data sets that belong together, in the order of the first."""
    sides = [_by_key(data, name) for data, name in zip((first, second), names, strict=True)]
    if not sides[0].keys() & sides[1].keys():
        numbered = [{word_number(key): word for key, word in side.items()} for side in sides]
        if all(None not in found and len(found) == len(side) for found, side in zip(numbered, sides, strict=True)):
            sides = [{str(key): word for key, word in found.items()} for found in numbered]
    for (here, there), data, (has, has_not) in zip(
        (sides, sides[::-1]), (second, first), (names, names[::-1]), strict=True
    ):
        if missing := [key for key in here if key not in there]:
            reasons = {each["key"]: each["reason"] for each in data["skipped"]}
            listed = [here[key]["key"] for key in missing[:_SHOWN]]
            told = ", ".join(f"{key} ({reasons[key]})" if key in reasons else key for key in listed)
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            what = f"{has} has words that {has_not} has not: {told}{more}"
            raise OptionError(f"{first['path']}: {what}; evaluate both on the same words")
    pairs = [(word, sides[1][key]) for key, word in sides[0].items()]
    if wrong := [(x, y) for x, y in pairs if x["label"] != y["label"]]:
        x, y = wrong[0]
        what = f"the label of {x['key']} is {x['label']!r} in {names[0]}, {y['label']!r} in {names[1]}"
        more = f" ({len(wrong):,} labels differ)" if len(wrong) > 1 else ""
        raise OptionError(f"{first['path']}: {what}{more}; evaluate both on the same words")
    return pairs


def _by_key(data: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    words = {word["key"]: word for word in data["words"]}
    if len(words) != len(data["words"]):
        raise OptionError(f"{name}: {data['path']}: two of its words have the same key, so they cannot be told apart")
    return words
