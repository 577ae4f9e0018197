"""``crnn serve``: words read over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from crnn.cli._options import Engine, Model, Precision, Threads
from crnn.errors import CrnnError, OptionError

_LIBRARIES = frozenset(
    ("fastapi", "starlette", "uvicorn", "httptools", "python_multipart", "prometheus_client", "pydantic")
)


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8000,
    model: Model = None,
    engine: Engine = None,
    precision: Precision = None,
    threads: Threads = None,
    max_batch: Annotated[int, typer.Option(min=1, metavar="N", help="Words in one call of the network.")] = 64,
    max_wait_ms: Annotated[
        float, typer.Option(min=0, metavar="MS", help="How long a free network waits for words of other clients.")
    ] = 10.0,
    images: Annotated[int, typer.Option(min=1, metavar="N", help="Pictures a request may have.")] = 64,
    request_mib: Annotated[int, typer.Option(min=1, metavar="N", help="MiB that a request may have.")] = 32,
    pixel_limit: Annotated[int, typer.Option(min=1, metavar="N", help="Pixels a picture may have.")] = 32_000_000,
    lexicon_words: Annotated[int, typer.Option(min=1, metavar="N", help="Words a lexicon may have.")] = 10_000,
    queue: Annotated[
        int, typer.Option(min=1, metavar="N", help="Words taken in and not answered yet; above, clients get 503.")
    ] = 1024,
    queue_mib: Annotated[int, typer.Option(min=1, metavar="N", help="MiB of requests not answered yet.")] = 256,
    connections: Annotated[int, typer.Option(min=1, metavar="N", help="Connections at a time.")] = 1000,
    body_seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="How long a client may take to send a request.")
    ] = 20.0,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="S", help="How long a request may wait for its answer.")
    ] = 30.0,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="CRNN_API_KEY",
            metavar="KEY",
            help="What clients have to show; better in the environment, where other users do not see it.",
            show_default="none",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Let pages of ORIGIN, such as https://example.org, use it; * is all."),
    ] = None,
    log: Annotated[bool, typer.Option("--log/--no-log", help="A line on standard error for each request.")] = True,
) -> None:
    """Read words over HTTP, and show a page to try it on.

    The page is at http://127.0.0.1:8000/, the interface is described at
    /openapi.json, and clients of the Open Inference Protocol find it under /v2.
    SIGTERM and Ctrl-C finish what was taken in.
    """
    try:
        from crnn.serve import app as application
        from crnn.serve import server
    except ModuleNotFoundError as error:
        if error.name not in _LIBRARIES:
            raise
        raise CrnnError(f"this needs {error.name}: pip install 'crnn[serve]'") from None

    import logging
    import os
    import signal
    import sys
    import warnings

    from PIL import Image

    from crnn.engines import resolve
    from crnn.engines.lanes import Lanes
    from crnn.engines.processors import usable_processors
    from crnn.serve.settings import Settings

    if api_key is None and "CRNN_API_KEY" in os.environ:  # the command line takes an empty one for none
        raise OptionError("CRNN_API_KEY is empty: put a key into it, or unset it to let everybody in")
    settings = Settings(
        max_batch=max_batch,
        max_wait=max_wait_ms / 1000,
        images=images,
        request_bytes=request_mib << 20,
        pixels=pixel_limit,
        lexicon_words=lexicon_words,
        queue_words=queue,
        queue_bytes=queue_mib << 20,
        connections=connections,
        body_seconds=body_seconds,
        seconds=seconds,
        api_key=api_key,
        cors=tuple(cors or ()),
    )
    # In a container, the first process is not ended by a signal that nobody takes; server.run has its own way later.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with server.listen(host, port) as bound:
        path, name, _ = resolve(model, engine)
        lanes = Lanes(path, name, threads or usable_processors(), precision)
        opened = lanes.single.engine
        for note in opened.notes:
            typer.echo(f"crnn: {note}", err=True)
        warnings.filterwarnings("ignore", module=r"PIL\.")  # of oddities in files; what matters becomes an error
        Image.MAX_IMAGE_PIXELS = None  # ours is the limit, and not Pillow's
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        logging.getLogger("crnn.serve").setLevel(logging.INFO if log else logging.WARNING)
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes requests
        shown = f"[{host}]" if ":" in host else host
        what = f"{opened.name} {opened.version}, {opened.precision}, {opened.threads} threads"
        typer.echo(f"crnn: http://{shown}:{bound.getsockname()[1]}/ ({what})", err=True)
        server.run(server.make(application.create_app(settings, lanes), settings), bound)
