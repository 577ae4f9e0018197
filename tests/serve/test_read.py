from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest
from tests.serve.light import Bars, Client, bars, everything, png, raw, serving

from crnn import Reader

BAD = b"not a picture"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with serving(images=8, lexicon_words=20) as made:
        yield made


def test_a_word_however_it_is_sent(client: Client) -> None:
    data = png("plate7", scale=2)
    expected = Reader(engine=Bars()).read(data)
    encoded = base64.b64encode(data).decode()
    answers = [
        client.read(data),
        client.read(data, kind="application/octet-stream"),
        client.send("POST", "/v1/read", data),
        client.read_form(("image", "a.png", data)),
        client.read_form(("anything", "a.png", data)),
        client.read_form(("images", None, data)),
        client.read_json(images=[encoded]),
        client.read_json(images=[{"data": f"data:image/png;base64,{encoded}", "name": "a.png"}]),
    ]
    for answer in answers:
        (word,) = answer.json["words"]
        assert word["name"] in (None, "a.png")
        assert {**word, "name": None} == {
            "name": None,
            "text": "plate7",
            "confidence": round(expected.confidence, 6),
            "width": 200,
            "height": 64,
            "error": None,
        }
    assert [answer.json["words"][0]["name"] for answer in answers[3:]] == ["a.png", "a.png", None, None, "a.png"]


def test_characters_and_posterior_are_said_if_asked_for(client: Client) -> None:
    data = png("a7", scale=2)
    (plain,) = client.read(data).json["words"]
    assert "characters" not in plain and "posterior" not in plain
    answers = [
        client.read(data, "?characters=true&posterior=1"),
        client.read_form(("image", "", data), ("characters", None, b"true"), ("posterior", None, b"1")),
        client.read_json(images=[base64.b64encode(data).decode()], characters=True, posterior=True),
    ]
    for answer in answers:
        (word,) = answer.json["words"]
        assert word["characters"] == [
            {"character": "a", "score": 0.95, "span": [0.0, 4.0]},
            {"character": "7", "score": 0.95, "span": [12.0, 20.0]},
        ]
        posterior = word["posterior"]
        frames = np.array(posterior["frames"])
        assert frames.shape == (26, 37) and np.allclose(frames.sum(axis=1), 1, atol=37 * 5e-5)
        assert [posterior["classes"][k] for k in frames.argmax(axis=1)[:4]] == ["a", "", "7", ""]
        assert posterior["centres"] == [8.0 * t for t in range(26)]


def test_bad_pictures_among_good_ones_get_errors_of_their_own(client: Client) -> None:
    parts = [("images", f"{i}.png", data) for i, data in enumerate((png("one"), BAD, b"", png("four")))]
    answer = client.read_form(*parts)
    assert answer.texts == ["one", None, None, "four"]
    words = answer.json["words"]
    assert [word["name"] for word in words] == ["0.png", "1.png", "2.png", "3.png"]
    assert [word["error"] and word["error"]["code"] for word in words] == [
        None,
        "picture_unreadable",
        "picture_unreadable",
        None,
    ]
    assert words[1]["error"]["message"].startswith("not a picture") and words[2]["error"]["message"] == "empty"
    assert words[1]["confidence"] is words[1]["width"] is None


def test_a_lexicon_closes_the_texts(client: Client) -> None:
    words = ["Plate", "table", "late"]
    for answer in (
        client.read_form(("image", "", png("plqte")), ("lexicon", None, "\n".join(words).encode())),
        client.read_json(images=[base64.b64encode(png("plqte")).decode()], lexicon=words),
    ):
        (word,) = answer.json["words"]
        assert word["text"] == "Plate" and 0 < word["kept"] < 0.1
    assert client.read_form(("image", "", png("plqte")), ("lexicon", None, b" \n")).texts == ["plqte"]  # an empty box
    assert client.read_json(images=[""], lexicon=["Ж"]).code == "lexicon"


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"x", "text/plain", 415, "content_type"),
        (b"{}", "application/json", 400, "malformed"),
        (b"[1]", "application/json", 400, "malformed"),
        (b'{"images": []}', "application/json", 400, "malformed"),
        (b'{"images": ["?"]}', "application/json", 400, "malformed"),
        (b'{"images": [1]}', "application/json", 400, "malformed"),
        (b'{"images": [{"date": ""}]}', "application/json", 400, "malformed"),
        (b'{"images": [""], "charcters": true}', "application/json", 400, "malformed"),
        (b'{"images": [""], "characters": 7}', "application/json", 400, "malformed"),
        (b'{"images": [""], "lexicon": "word"}', "application/json", 400, "malformed"),
        (b'{"images": [""], "characters": %s}' % (b"[" * 500 + b"]" * 500), "application/json", 413, "too_large"),
        (b'{"images": [""], "characters": %s}' % (b"[" * 80 + b"]" * 80), "application/json", 400, "malformed"),
        (b'{"images": [""], "lexicon": ["\\ud800"]}', "application/json", 400, "lexicon"),
        (b'{"images": [""], "lexicon": ["%s"]}' % (b"a" * 201), "application/json", 413, "lexicon_too_large"),
        (b"[" * 50_000, "application/json", 413, "too_large"),
        (b"[" * 90, "application/json", 400, "malformed"),
        (b"\xff\xfe", "application/json", 400, "malformed"),
        (b"", "multipart/form-data", 400, "malformed"),
        (b"", "multipart/form-data; boundary=edge", 400, "malformed"),
        (b"--other\r\n", "multipart/form-data; boundary=edge", 400, "malformed"),
        (b"--edge\r\nA: b\r\n\r\nhalf a pic", "multipart/form-data; boundary=edge", 400, "malformed"),
        (b"--edge--\r\n", "multipart/form-data; boundary=edge", 400, "malformed"),
    ],
)
def test_what_cannot_be_understood_is_told(client: Client, body: bytes, kind: str, status: int, code: str) -> None:
    answer = client.read(body, kind=kind)
    assert (answer.status, answer.code) == (status, code)
    assert client.read(png("still")).texts == ["still"]


@pytest.mark.parametrize("query", ["?charcters=1", "?characters=7", "?" + "&".join(["characters=1"] * 17)])
def test_a_query_that_cannot_be_understood_is_told(client: Client, query: str) -> None:
    answer = client.read(png("x"), query)
    assert (answer.status, answer.code) == (400, "malformed")


def test_limits_are_told(client: Client) -> None:
    nine = [("images", "x.png", png("x"))] * 9
    assert client.read_form(*nine[1:]).texts == ["x"] * 8
    many = client.read_form(*nine)
    assert (many.status, many.code) == (413, "too_many_images")
    assert client.read_json(images=[""] * 9).code == "too_many_images"
    words = [f"w{i}" for i in range(21)]
    assert client.read_json(images=[""], lexicon=words).code == "lexicon_too_large"
    lines = b"a\n" * 81
    assert client.read_form(("image", "", png("x")), ("lexicon", None, lines)).code == "lexicon_too_large"
    image = base64.b64encode(png("x")).decode()
    signs = [f'{word}, [{{"{word}' + "," * 10 for word in words[:20]]  # in strings they are no values
    assert client.read_json(images=[image], lexicon=signs).status == 200
    assert client.read_json(images=[image], lexicon=[[]] * 200).code == "too_large"
    wide = ('{"a": "\\"", "images": [' + "[], " * 200 + "[]]}").encode("utf-16-le")
    assert client.read(wide, kind="application/json").code == "too_large"
    squeezed = client.send("POST", "/v1/read", png("x"), Content_Encoding="gzip")
    assert (squeezed.status, squeezed.code) == (415, "encoding")
    head = b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 600_000
    with raw(client.port, head) as connection:
        assert connection.recv(100).startswith(b"HTTP/1.1 431")


def test_the_model_is_described(client: Client) -> None:
    said = client.get("/v1/model").json
    assert said["charset"] == "0123456789abcdefghijklmnopqrstuvwxyz" and said["steps"] == 26
    assert said["engine"] == {"name": "bars", "version": "1", "device": "CPU", "precision": "float32", "threads": 1}
    assert said["limits"]["images"] == 8 and said["limits"]["lexicon_words"] == 20


def test_openapi_describes_it(client: Client) -> None:
    api = client.get("/openapi.json").json
    read = api["paths"]["/v1/read"]["post"]
    assert {"image/*", "multipart/form-data", "application/json"} <= read["requestBody"]["content"].keys()

    def references(node: object) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (value for key, value in node.items() if key == "$ref")
            for value in node.values():
                yield from references(value)
        elif isinstance(node, list):
            for value in node:
                yield from references(value)

    schemas = api["components"]["schemas"]
    assert {name.rpartition("/")[2] for name in references(api)} <= schemas.keys()
    (word,) = client.read(png("x"), "?characters=1&posterior=1").json["words"]
    assert word.keys() <= schemas["ReadWord"]["properties"].keys()
    assert client.get("/v1/model").json.keys() == schemas["ModelAnswer"]["properties"].keys()
    assert client.get("/docs").status == client.get("/redoc").status == 404  # their scripts come from elsewhere


def test_the_page_is_served_under_a_strict_policy(client: Client) -> None:
    page = client.get("/")
    assert page.status == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert client.get("/", If_None_Match=page.headers["etag"]).status == 304
    script = client.get("/static/page.js")
    assert script.headers["content-type"].startswith("text/javascript")
    for path in ("/static/../app.py", "/static/..%2fapp.py", "/static/", "/static/no.js", "/etc/passwd"):
        assert client.get(path).status == 404, path
    assert client.get("/nothing").code == "not_found"
    wrong = client.get("/v1/read")
    assert (wrong.status, wrong.code, wrong.headers["allow"]) == (405, "method", "POST")


def test_a_key_opens_all_but_health_and_the_page() -> None:
    with serving(api_key="s3cret") as client:
        for path in ("/healthz", "/readyz", "/", "/static/page.js", "/v2/health/ready"):
            assert client.get(path).status == 200, path
        for name, value in (
            ("X_No", ""),
            ("X_API_Key", "s3cre"),
            ("Authorization", "Bearer s3"),
            ("Authorization", "s3cret"),
        ):
            headers = {name: value}
            for path in ("/v1/model", "/metrics", "/openapi.json", "/v2", "/nothing"):
                answer = client.get(path, **headers)
                assert answer.status == 401 and "s3cret" not in answer.body.decode()
            assert client.send("POST", "/v1/read", png("x"), **headers).code == "key"
        assert client.send("POST", "/v1/read", png("x"), X_API_Key="s3cret").texts == ["x"]
        assert client.send("POST", "/v1/read", png("x"), Authorization="Bearer s3cret").texts == ["x"]


def test_other_origins_are_let_in_only_by_name(client: Client) -> None:
    origin = "https://example.org"
    assert "access-control-allow-origin" not in client.get("/v1/model", Origin=origin).headers
    with serving(cors=(origin,)) as open_one:
        assert open_one.get("/v1/model", Origin=origin).headers["access-control-allow-origin"] == origin
        assert "access-control-allow-origin" not in open_one.get("/v1/model", Origin="https://other.org").headers
        asks = {"Origin": origin, "Access_Control_Request_Method": "POST"}
        assert open_one.send("OPTIONS", "/v1/read", None, **asks).status == 200


def test_metrics_count_what_was_done() -> None:
    with serving() as client:
        client.read_form(*[("images", "x.png", png("x"))] * 5, ("images", "y", BAD))
        client.read(b"x", kind="text/plain")
        assert client.metric("crnn_words_total") == 5
        assert client.metric("crnn_batch_size_sum") == 6  # and one to warm up
        assert client.metric("crnn_queue_seconds_count") == 6
        assert client.metric("crnn_engine_seconds_count") == client.metric("crnn_batch_size_count") >= 2
        assert client.metric("crnn_waiting_words") == client.metric("crnn_waiting_bytes") == 0
        found = client.get("/metrics").body.decode()
        assert 'crnn_errors_total{kind="picture_unreadable"} 1.0' in found
        assert 'crnn_errors_total{kind="content_type"} 1.0' in found
        assert 'crnn_requests_total{route="/v1/read",status="200"} 1.0' in found


def test_the_log_says_nothing_of_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "crnn.serve")
    with serving() as client:
        client.read_form(("image", "secret-name.png", png("secret")), ("lexicon", None, b"secret"))
        client.read(b"secret", "?secret=secret", kind="secret")
        client.get("/secret?secret")
    lines = [record.getMessage() for record in caplog.records if record.name == "crnn.serve"]
    assert [line.rsplit(" ", 2)[0] for line in lines[1:]] == [
        "POST /v1/read 200 1 words",
        "POST /v1/read 400 0 words",
        "GET - 404 0 words",
    ]


def test_any_http_client_will_do(client: Client) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{client.port}/v1/read", png("plain"))
    request.add_header("Content-Type", "image/png")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.load(answer)["words"][0]["text"] == "plain"
    chunked = b"POST /v1/read HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ntransfer-encoding: chunked\r\n\r\n"
    data = png("chunks")
    for start in range(0, len(data), 50):
        piece = data[start : start + 50]
        chunked += f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    with raw(client.port, chunked + b"0\r\n\r\n") as connection:
        assert b'"text":"chunks"' in connection.recv(4096)


def test_a_client_that_would_rather_speak_another_protocol(client: Client) -> None:
    """Java's, which asks every server for HTTP/2 in its first request."""
    data = png("java")
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAQ"
    head = f"POST /v1/read HTTP/1.1\r\nHost: x\r\n{wish}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    last = b"GET /healthz HTTP/1.0\r\n\r\n"
    for pieces in ((head + data + last,), (head[:90], head[90:], data[:50], data[50:], last)):
        answers = everything(raw(client.port, *pieces))
        assert b'"text":"java"' in answers and b'"alive"' in answers
    with raw(client.port, head + data) as connection:  # and in each request that follows on the connection
        for _ in range(3):
            assert b'"text":"java"' in connection.recv(4096)
            connection.sendall(head + data)


def test_an_empty_line_after_a_request_does_not_keep_a_connection() -> None:
    with serving(body_seconds=0.2) as other, raw(other.port, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n") as connection:
        assert b'"alive"' in connection.recv(4096)
        connection.sendall(b"\r\n")
        connection.settimeout(10)
        assert connection.recv(4096) == b""  # closed, after the time that a request may take


def test_bars_are_read() -> None:
    assert Reader(engine=Bars()).read(bars("self1")).text == "self1"
