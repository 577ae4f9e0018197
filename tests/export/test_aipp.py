from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.doubles.aipp import parse

from crnn.ctc import decode
from crnn.datasets.lmdb import LmdbReader
from crnn.engines import open_engine
from crnn.errors import OptionError
from crnn.export.aipp import configuration, emulate
from crnn.images import normalise, prepare
from crnn.spec import DELIVERABLE, ModelSpec


def pixels(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(5).integers(0, 256, (3, 32, 100, channels), np.uint8)


def fields(text: str) -> dict[str, str]:
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("aipp_op {", "}")
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:-1])}


def test_the_configuration_of_the_deliverables_package() -> None:
    found = fields(configuration(replace(DELIVERABLE, aipp="bgr")))
    expected = {
        "aipp_mode": "static",
        "input_format": "RGB888_U8",
        "src_image_size_w": "100",
        "src_image_size_h": "32",
        "csc_switch": "true",
        "rbuv_swap_switch": "true",
        "matrix_r0c0": "76",
        "matrix_r0c1": "150",
        "matrix_r0c2": "30",
        "min_chn_0": "127.5",
    }
    assert {key: found[key] for key in expected} == expected
    assert all(found[f"matrix_r{row}c{column}"] == "0" for row in (1, 2) for column in range(3))
    assert float(found["var_reci_chn_0"]) == pytest.approx(1 / 127.5, rel=1e-8)


def test_gray_and_rgb_configurations() -> None:
    gray = fields(configuration(replace(DELIVERABLE, aipp="gray")))
    assert (gray["input_format"], gray["csc_switch"]) == ("YUV400_U8", "false")
    assert not [key for key in gray if key.startswith(("matrix", "rbuv"))]
    assert fields(configuration(replace(DELIVERABLE, aipp="rgb")))["rbuv_swap_switch"] == "false"


@pytest.mark.parametrize("kind", ["gray", "rgb", "bgr"])
@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.5), (0.0, 1.0), (0.588, 0.193)])
def test_the_configuration_means_what_is_emulated(kind: str, mean: float, std: float) -> None:
    """The double reads the file and computes by the documents, written without knowing our arithmetic."""
    spec = ModelSpec(aipp=kind, mean=mean, std=std)
    batch = pixels(1 if kind == "gray" else 3)
    stage = parse(configuration(spec), spec.width, spec.height, 1)
    ours = emulate(batch, spec)
    assert ours.dtype == np.float32 and ours.shape == (3, 1, 32, 100)
    np.testing.assert_allclose(ours, stage.apply(batch, 1), atol=2e-3 / std)  # float16


def test_gray_is_the_float_path_but_for_float16() -> None:
    batch = pixels(1)
    exact = normalise(batch[..., 0], DELIVERABLE)
    assert np.abs(emulate(batch, replace(DELIVERABLE, aipp="gray")) - exact).max() < 6e-4  # half a step of float16 at 1


def test_colour_is_luma_in_256ths() -> None:
    spec = replace(DELIVERABLE, aipp="rgb")
    for rgb, gray in [((255, 255, 255), 255), ((0, 0, 0), 0), ((255, 0, 0), 75), ((0, 255, 0), 149), ((0, 0, 255), 29)]:
        picture = np.full((1, 32, 100, 3), rgb, np.uint8)
        assert emulate(picture, spec)[0, 0, 0, 0] == pytest.approx(gray / 127.5 - 1, abs=6e-4)
        swapped = np.ascontiguousarray(picture[..., ::-1])
        np.testing.assert_array_equal(emulate(swapped, replace(spec, aipp="bgr")), emulate(picture, spec))


def test_real_words_read_alike(data_dir: Path) -> None:
    """From gray pixels each, from colour nearly all (benchmarks/aipp.py has the figures)."""
    engine, reader = open_engine(None, "onnxruntime"), LmdbReader(data_dir / "IIIT5K_train_lmdb")
    texts = {}
    for kind in ("", "gray", "rgb", "bgr"):
        spec = replace(engine.spec, aipp=kind)
        batch = normalise(np.stack([prepare(reader.image_bytes(i), spec) for i in range(0, 640, 10)]), spec)
        logp = engine.run(emulate(batch, spec) if kind else batch)
        texts[kind] = [word.text for word in decode(logp, spec.charset)]
    assert texts["gray"] == texts[""] and texts["bgr"] == texts["rgb"]
    assert sum(a == b for a, b in zip(texts["rgb"], texts[""], strict=True)) >= 60


def test_what_aipp_cannot_do() -> None:
    with pytest.raises(OptionError, match="choose gray, rgb or bgr"):
        configuration(DELIVERABLE)
    with pytest.raises(OptionError, match=r"a mean of -0\.5"):
        configuration(ModelSpec(aipp="gray", mean=-0.5))
