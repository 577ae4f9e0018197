"""From a configuration to the sample stream it describes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from crnn.datasets.check import summary, unknown_characters
from crnn.errors import OptionError
from crnn.spec import ModelSpec
from crnn.synthesis.corpus import Corpus
from crnn.synthesis.fonts import open_fonts
from crnn.synthesis.generator import Photographs, WordGenerator
from crnn.training.config import TrainConfig
from crnn.training.data import RealWords, SampleStream
from crnn.training.importance import Importance
from crnn.training.initial import initial_path
from crnn.training.validation import MOST


def word_generator(
    fonts: tuple[str, ...], words: str, backgrounds: str, seed: int, spec: ModelSpec | None = None
) -> WordGenerator:
    """The generator of ``crnn synth`` and of the trainer: the same arguments give the same words.

    ``words`` and ``backgrounds`` may be empty: English words by frequency; no photographs.
    """
    steps = (spec or ModelSpec()).steps
    charset = (spec or ModelSpec()).charset
    corpus = Corpus.from_file(Path(words), steps, charset) if words else Corpus.english(steps, charset)
    return WordGenerator(corpus, open_fonts(list(fonts)), seed, Photographs(Path(backgrounds)) if backgrounds else None)


def open_sources(
    config: TrainConfig, tell: Callable[[str], object] = lambda text: None
) -> tuple[SampleStream, list[RealWords], list[str]]:
    """(stream, sets to validate on, what to tell the user of each: share, words used, held out, left out and why).

    ``tell`` is told how far it is, in words.
    """
    spec = config.spec
    importance = Importance(initial_path(config.importance), spec) if config.importance else None

    def opened(path: str, validation: bool = False) -> RealWords:
        def advance(done: int, total: int) -> None:
            tell(f"opening {path}: {done:,} of {total:,} words")

        return RealWords(Path(path), spec, validation=validation, advance=advance)

    real = [(opened(path), share) for path, share in config.train]
    total = sum(share for _, share in real) + (config.synthetic if config.fonts else 0.0)
    notes = [
        f"{words.path}: {share / total:.0%} of the samples; {len(words.training)} words to train on, "
        f"{len(words.held_out)} held out, left out: {summary(words.skipped)}"
        for words, share in real
    ]
    validation = [opened(path, validation=True) for path in config.validate]
    notes += [
        f"{words.path}: {len(words.held_out)} words to validate on, left out: {summary(words.skipped)}"
        for words in validation
    ]
    for words in (*(words for words, _ in real), *validation):
        if unknown := unknown_characters(words.skipped):
            notes.append(
                f"{words.path}: the {len(spec.charset)} characters to be written are not all that its labels have: "
                f"{unknown} (--charset takes others; crnn data check {words.path} --charset lists all)"
            )
        if (most := len(words.held_out)) > MOST and (words in validation or not validation):
            notes.append(f"{words.path}: of {most:,} words to validate on, {MOST:,} are taken, evenly over the set")
    sources: list[tuple[RealWords | WordGenerator, float]] = list(real)
    if config.fonts:
        if config.synthetic <= 0:
            raise OptionError("--fonts is given, but --synthetic 0 leaves no share for synthetic words")
        generator = word_generator(config.fonts, config.words, config.backgrounds, config.seed, spec)
        notes.append(
            f"synthetic words: {config.synthetic / total:.0%} of the samples; {len(generator.fonts.faces)} faces, "
            f"{len(generator.corpus)} words"
        )
        sources.append((generator, config.synthetic))
    stream = SampleStream(sources, spec, config.seed, importance, twice=config.consistency > 0)
    return stream, validation or [words for words, _ in real], notes
