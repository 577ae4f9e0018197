"""What can be known of the container without an engine that builds it."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from crnn.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest) in order: comments taken out, continued lines joined (Dockerfile reference, "Format")."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(maxsplit=1)[0], " ".join(line.split()[1:])) for line in text.splitlines() if line.strip()]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_image_is_slim_pinned_and_not_root() -> None:
    names = [instruction for instruction, _ in instructions()]
    assert set(names) <= {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "LABEL",
        "ENV",
        "USER",
        "EXPOSE",
        "HEALTHCHECK",
        "ENTRYPOINT",
    }
    for base in of("FROM"):
        assert re.fullmatch(r"python:3\.\d+-slim-\w+( AS \w+)?", base)
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    last = max(n for n, name in enumerate(names) if name == "FROM")
    assert "USER" in names[last:]
    (prepared,) = [rest for name, rest in instructions()[last:] if name == "RUN"]  # else what serves is what was copied
    assert prepared == f"mkdir /cache && chown {user} /cache"  # a new volume gets the folder's owner
    page = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    assert "-v crnn-cache:/cache -e CRNN_CACHE=/cache" in page


def test_what_is_installed_and_copied_is_there() -> None:
    install, _ = of("RUN")
    match = re.search(r'pip install --no-cache-dir "\.\[([\w,]+)\]"$', install)
    assert match
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = match[1].split(",")
    assert wanted == ["openvino", "serve"]
    brought = " ".join(sum((project["optional-dependencies"][extra] for extra in wanted), project["dependencies"]))
    assert "torch" not in brought
    sources = [source for copy in of("COPY") if "--from" not in copy for source in copy.split()[:-1]]
    assert {project["readme"], "pyproject.toml", "src", *project["license-files"]} <= set(sources)
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert let_in == set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_the_command_and_the_health_check_are_those_of_the_service() -> None:
    (entry,), (health,), (port,) = of("ENTRYPOINT"), of("HEALTHCHECK"), of("EXPOSE")
    program, command, *options = [word.strip(",") for word in shlex.split(entry.strip("[]"))]
    assert (program, command) == ("crnn", "serve")
    assert options == ["--host", "0.0.0.0", "--port", port]
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert shown.exit_code == 0 and "--host" in shown.stdout and "--port" in shown.stdout
    assert f"http://127.0.0.1:{port}/readyz" in health
