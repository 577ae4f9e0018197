from __future__ import annotations

import os
import pickle
import signal
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from crnn.charset import Charset
from crnn.cli import app
from crnn.datasets.lmdb import LmdbReader, LmdbWriter
from crnn.errors import CrnnError, DatasetError
from crnn.protocols import alnum36
from crnn.synthesis import generator as generator_module
from crnn.synthesis.corpus import Corpus, Text
from crnn.synthesis.fonts import open_fonts
from crnn.synthesis.generator import Photographs, SyntheticWord, WordGenerator
from crnn.synthesis.layout import Shape, lay_out
from crnn.synthesis.stream import draw


def test_word_n_does_not_depend_on_what_was_drawn_before(
    generator: WordGenerator, fonts: Path, words: dict[str, float]
) -> None:
    forwards = [generator.word(n) for n in range(60)]
    other = WordGenerator(Corpus(words), open_fonts([str(fonts)]), seed=3)
    for n in reversed(range(60)):
        word = other.word(n)
        assert word.drawn == forwards[n].drawn
        assert np.array_equal(word.image, forwards[n].image)


def test_another_seed_draws_other_words(generator: WordGenerator, fonts: Path, words: dict[str, float]) -> None:
    other = WordGenerator(Corpus(words), open_fonts([str(fonts)]), seed=4)
    assert [generator.word(n).drawn for n in range(20)] != [other.word(n).drawn for n in range(20)]


def test_pictures_are_crops_that_show_something(generator: WordGenerator) -> None:
    light_on_dark = 0
    for n in range(300):
        image, label, drawn = generator.word(n)
        assert image.dtype == np.uint8 and image.ndim == 2
        assert 8 <= image.shape[0] <= 160 and 8 <= image.shape[1] <= 480
        assert label == alnum36(drawn) != ""
        assert image.std() > 5
        light_on_dark += float(np.median(image)) < float(image.mean())
    assert 100 < light_on_dark < 200


def test_workers_change_nothing(generator: WordGenerator) -> None:
    assert list(draw(generator, 40, 200, workers=2)) == list(draw(generator, 40, 200))


def test_small_capitals_are_seen_as_capitals(generator: WordGenerator) -> None:
    texts = {n: generator.corpus.sample(Random((3 << 64) + n)) for n in range(300)}
    small = {n: text.drawn for n, text in texts.items() if text.small_capitals and text.drawn != text.drawn.upper()}
    assert len(small) > 3
    for n, drawn in small.items():
        assert generator.word(n)[1:] == (alnum36(drawn), drawn.upper())


def test_fonts_without_the_words_characters_are_refused(fonts: Path) -> None:
    cyrillic = "абвгдежзийклмнопрстуфхцчшщъыьэюя"
    corpus = Corpus({"привет": 1.0, "улица": 2.0}, charset=Charset("0123456789" + cyrillic + cyrillic.upper()))
    with pytest.raises(
        DatasetError, match=r"fonts lack the characters of most words, such as '(привет|улица)'.*--fonts"
    ):
        WordGenerator(corpus, open_fonts([str(fonts)]))


def test_a_word_that_cannot_be_drawn_is_given_up(generator: WordGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_module, "TEXTS", 3)
    monkeypatch.setattr(WordGenerator, "_draw", lambda *_: None)
    with pytest.raises(DatasetError, match="word 7: none of 3 texts can be drawn"):
        generator.word(7)


def test_photographs_are_cut_to_size_and_the_same_for_the_same_dice(data_dir: Path) -> None:
    photographs = Photographs(data_dir / "backgrounds_lmdb")
    for shape in ((20, 50), (60, 300), (150, 400)):
        first, second = photographs(Random(5), *shape), photographs(Random(5), *shape)
        assert first.shape == shape and first.dtype == np.uint8
        assert np.array_equal(first, second)


def test_only_so_many_photographs_are_kept_decoded(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_dir / "backgrounds_lmdb"
    expected = [Photographs(path)(Random(n), 30, 90) for n in range(20)]
    monkeypatch.setattr(generator_module, "KEPT", 200_000)
    photographs = Photographs(path)
    for n, wanted in enumerate(expected):
        assert np.array_equal(photographs(Random(n), 30, 90), wanted)
    assert 0 < photographs._pictures.bytes <= 200_000 and len(photographs._pictures) < 20
    assert len(pickle.dumps(photographs)) < 1000  # each process decodes its own


def test_backgrounds_that_are_no_pictures_are_named(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "none"):
        pass
    with pytest.raises(DatasetError, match="holds no picture"):
        Photographs(tmp_path / "none")
    for name, data in (("text", b"no picture"), ("empty", b"")):
        with LmdbWriter(tmp_path / name) as writer:
            writer.add(data, "")
        with pytest.raises(DatasetError, match="image-000000001 is no picture"):
            Photographs(tmp_path / name)(Random(0), 20, 50)


def test_a_background_that_cannot_be_decoded_ends_nothing(fonts: Path, tmp_path: Path) -> None:
    ground = BytesIO()
    Image.new("L", (200, 100), 120).save(ground, "PNG")
    with LmdbWriter(tmp_path / "grounds[old]") as writer:
        for data in (ground.getvalue(), b"no picture", ground.getvalue()):
            writer.add(data, "")
    photographs = Photographs(tmp_path / "grounds[old]")
    assert all(photographs(Random(n), 20, 50).mean() == 120 for n in range(30))
    assert photographs.unreadable > 3

    words = tmp_path / "words.txt"
    words.write_text("open\nstreet\n", encoding="utf-8")
    arguments = ["synth", str(tmp_path / "out[new]"), "--count", "128", "--fonts", str(fonts), "--words", str(words)]
    found = []
    for workers in ("1", "2"):
        more = ["--workers", workers, "--overwrite", "--backgrounds", str(tmp_path / "grounds[old]")]
        result = CliRunner().invoke(app, [*arguments, *more])
        assert result.exit_code == 0, result.output
        assert "out[new]: 128 words" in result.stdout and "backgrounds that were drawn cannot be" in result.stderr
        found.append(result.stderr)
    assert found[0] == found[1]


class Deadly(WordGenerator):
    """Takes its process with it, as the system does when memory runs out."""

    def word(self, n: int) -> SyntheticWord:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal")
def test_a_drawing_process_that_dies_is_one_error(generator: WordGenerator) -> None:
    deadly = Deadly(generator.corpus, generator.fonts)
    with pytest.raises(CrnnError, match="a process that draws words has died"):
        list(draw(deadly, 0, 10, workers=2))


def test_the_command_writes_a_data_set_and_a_sheet(fonts: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("open\nstreet\ncoffee\n", encoding="utf-8")
    arguments = ["synth", str(tmp_path / "out"), "--count", "70", "--fonts", str(fonts), "--words", str(words)]
    result = CliRunner().invoke(app, [*arguments, "--seed", "9", "--sheet", str(tmp_path / "sheet.png")])
    assert result.exit_code == 0, result.output
    reader = LmdbReader(tmp_path / "out")
    assert len(reader) == 70
    generator = WordGenerator(Corpus.from_file(words), open_fonts([str(fonts)]), seed=9)
    for n in (0, 33, 69):
        word = generator.word(n)
        assert reader.label(n) == word.drawn
        assert np.array_equal(np.asarray(reader.image(n)), word.image)
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "exists" in again.stderr


def test_the_command_draws_what_another_charset_can_write(fonts: Path, tmp_path: Path) -> None:
    arguments = ["synth", str(tmp_path / "out"), "--count", "40", "--fonts", str(fonts), "--charset", "0123456789.-"]
    words = tmp_path / "words.txt"
    words.write_text("0.5\n12-3\nopen\n", encoding="utf-8")
    result = CliRunner().invoke(app, [*arguments, "--words", str(words), "--width", "64"])
    assert result.exit_code == 0, result.output
    reader = LmdbReader(tmp_path / "out")
    labels = [reader.label(i) for i in range(40)]
    assert set("".join(labels)) <= set("0123456789.-") and max(map(len, labels)) <= 17
    assert any("." in label for label in labels)


@pytest.mark.parametrize(("name", "message"), [("sheet.words", "call it .png"), ("none/sheet.png", "no such folder")])
def test_a_sheet_that_cannot_be_written_is_refused_first(name: str, message: str, fonts: Path, tmp_path: Path) -> None:
    arguments = ["synth", str(tmp_path / "out"), "--count", "1", "--fonts", str(fonts), "--sheet", str(tmp_path / name)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_without_fonts_is_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synth", str(tmp_path / "out"), "--fonts", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and "no usable font" in result.stderr
    assert not (tmp_path / "out").exists()


def test_clutter_is_never_a_whole_letter(generator: WordGenerator) -> None:
    """Neighbours show at most a fifth of a line's height, or a strip of a letter beside the word."""
    face = generator.fonts.faces[0]
    line = lay_out(Text("HEEL", False), face, Shape(), Random(0))
    assert line is not None
    seen = 0
    for n in range(60):
        size, origin = (140, 60), (5 - line.box[0] * 40, 10 + line.box[3] * 40)
        ink = generator._neighbours(line, 40, size, origin, (5, 5, 10, 10), Random(n))
        seen += bool(ink.any())
        height = line.height * 40
        columns = np.flatnonzero((ink[int(10 + 0.3 * height) : int(50 - 0.3 * height)] > 100).any(0))
        assert ((columns < 140 * 0.2) | (columns > 140 * 0.8)).all()
    assert seen > 20
