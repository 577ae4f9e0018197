from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from crnn.charset import Charset
from crnn.errors import ModelError
from crnn.spec import DELIVERABLE, ModelSpec

OTHER = ModelSpec(
    charset=Charset("ażß"), width=160, steps=41, mean=0, temperature=1.25, licence="CC0", lineage=("a", "b")
)
DTRB = ModelSpec(trunk="dtrb", steps=24, channels=3)
AIPP = ModelSpec(aipp="bgr")


@pytest.mark.parametrize("spec", [DELIVERABLE, OTHER, DTRB, AIPP])
def test_json_round_trip(spec: ModelSpec) -> None:
    text = spec.to_json()
    assert ModelSpec.from_json(text) == spec
    assert ModelSpec.from_json(text).to_json() == text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert "\n" not in text and text.isascii()  # fits any metadata field


def test_the_deliverables_contract_as_written() -> None:
    assert json.loads(DELIVERABLE.to_json()) == {
        "aipp": "",
        "blank": 0,
        "channels": 1,
        "charset": "0123456789abcdefghijklmnopqrstuvwxyz",
        "height": 32,
        "input_name": "actual_input_1",
        "licence": "",
        "lineage": [],
        "mean": 0.5,
        "output_name": "output1",
        "resampling": "bicubic",
        "std": 0.5,
        "steps": 26,
        "temperature": 1.0,
        "trunk": "crnn",
        "version": 2,
        "width": 100,
    }


def test_version_1_is_read_with_the_defaults_of_what_it_did_not_have() -> None:
    old = json.loads(OTHER.to_json()) | {"version": 1}
    del old["trunk"], old["aipp"]
    spec = ModelSpec.from_json(json.dumps(old))
    assert spec == OTHER
    assert json.loads(spec.to_json())["version"] == 2


@pytest.mark.parametrize(
    ("spec", "picture", "shape", "kind"),
    [
        (DELIVERABLE, (32, 100), (1, 32, 100), "float32"),
        (DTRB, (32, 100, 3), (3, 32, 100), "float32"),
        (ModelSpec(aipp="gray"), (32, 100), (32, 100, 1), "uint8"),
        (ModelSpec(aipp="rgb"), (32, 100, 3), (32, 100, 3), "uint8"),
        (AIPP, (32, 100, 3), (32, 100, 3), "uint8"),
    ],
)
def test_what_goes_in(spec: ModelSpec, picture: tuple[int, ...], shape: tuple[int, ...], kind: str) -> None:
    assert (spec.picture_shape, spec.input_shape, spec.input_dtype.name) == (picture, shape, kind)


def test_whole_numbers_are_numbers() -> None:
    assert ModelSpec(mean=0, std=1).to_json() == ModelSpec(mean=0.0, std=1.0).to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"blank": 36},
        {"blank": False},
        {"channels": 2},
        {"trunk": "vgg"},
        {"trunk": "dtrb"},  # 24 steps, not 26
        {"trunk": "dtrb", "width": 4, "steps": 0},
        {"aipp": "yuv"},
        {"aipp": "rgb", "channels": 3},
        {"charset": "abc"},
        {"height": 0},
        {"height": 32.0},
        {"width": -100},
        {"width": 104},  # 26 steps don't fit it
        {"steps": 24},
        {"resampling": "BICUBIC"},
        {"mean": float("nan")},
        {"mean": "0.5"},
        {"std": 0.0},
        {"std": True},
        {"temperature": float("inf")},
        {"temperature": -1.0},
        {"input_name": ""},
        {"output_name": "actual_input_1"},
        {"licence": None},
        {"lineage": "scratch"},
        {"lineage": (1,)},
    ],
)
def test_values_no_network_can_have_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="model spec: (steps|" + next(iter(change)) + ")"):
        replace(DELIVERABLE, **change)


def changed(**change: Any) -> str:
    return json.dumps(json.loads(DELIVERABLE.to_json()) | change)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[1, 2]", "JSON object"),
        ("3", "JSON object"),
        ("{}", "version None"),
        (changed(version=3), "version 3"),
        (changed(version=1), "unknown key 'aipp', 'trunk'"),
        (changed(version=True), "version True"),
        (changed(chanels=1, zzz=1), "unknown key 'chanels', 'zzz'"),
        ('{"version": 1, "width": 100, "steps": 26}', "missing key 'blank', 'channels', 'charset'"),
        (DELIVERABLE.to_json()[:-1] + ', "width": 100}', "more than once"),
        (changed(charset="aa"), "charset: 'a'"),
        (changed(charset=["a", "b"]), "charset: give its characters as one string"),
        (changed(charset=None), "charset"),
        (changed(lineage=[1]), "lineage"),
        (changed(mean=float("nan")), "mean"),
        (changed(height={"pixels": 32}), "height"),
    ],
)
def test_other_json_is_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as error:
        ModelSpec.from_json(text)
    assert "\n" not in str(error.value)
