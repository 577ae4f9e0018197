"""From a configuration to the sample stream it describes."""

from __future__ import annotations

from pathlib import Path

from crnn.datasets.check import summary
from crnn.errors import OptionError
from crnn.spec import ModelSpec
from crnn.synthesis.corpus import Corpus
from crnn.synthesis.fonts import open_fonts
from crnn.synthesis.generator import Photographs, WordGenerator
from crnn.training.config import TrainConfig
from crnn.training.data import RealWords, SampleStream


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


def open_sources(config: TrainConfig) -> tuple[SampleStream, list[RealWords], list[str]]:
    """(stream, sets to validate on, what to tell the user of each: share, words used, held out, left out and why)."""
    spec = config.spec
    real = [(RealWords(Path(path), spec), share) for path, share in config.train]
    total = sum(share for _, share in real) + (config.synthetic if config.fonts else 0.0)
    notes = [
        f"{words.path}: {share / total:.0%} of the samples; {len(words.training)} words to train on, "
        f"{len(words.held_out)} held out, left out: {summary(words.skipped)}"
        for words, share in real
    ]
    validation = [RealWords(Path(path), spec, validation=True) for path in config.validate]
    notes += [
        f"{words.path}: {len(words.held_out)} words to validate on, left out: {summary(words.skipped)}"
        for words in validation
    ]
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
    return SampleStream(sources, spec, config.seed), validation or [words for words, _ in real], notes
