"""`angulus serve`: a model and a gallery over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from angulus.cli.output import say
from angulus.core import checks, extras, limits

if TYPE_CHECKING:
    from angulus.serve.service import Service

DEFAULT_BODY = "10M"


def serve(
    where: Annotated[
        str, typer.Argument(metavar="WHERE", help="A gallery as for `angulus search`, or a model folder.")
    ],
    model: Annotated[Path | None, typer.Option(help="The model folder that made the gallery.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A calibration, or a model folder that holds one; else the model's own.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(help="A threshold of your own for /search, a cosine.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than this machine's own need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_file: Annotated[
        Path | None, typer.Option(help="A file with the key that clients send; else ANGULUS_SERVE_KEY, else none.")
    ] = None,
    max_body: Annotated[str, typer.Option(help="Bytes of a request.")] = DEFAULT_BODY,
    max_pixels: Annotated[int, typer.Option(min=1, help="Pixels of an image.")] = 25_000_000,
    rate: Annotated[float, typer.Option(min=0, help="Requests per second of one client; 0 for any number.")] = 100,
    queue: Annotated[int, typer.Option(min=1, help="Requests in work or waiting; more are answered by 503.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Images that are embedded at a time.")] = 32,
) -> None:
    """Serve a model, and the gallery that it made, over HTTP: /embed, /verify, /search, /health, /metrics, /docs."""
    extras.require("serve", "serving", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
    from angulus.serve import run
    from angulus.serve.app import create_app
    from angulus.serve.guard import Limits

    size = limits.parse_size("--max-body", max_body)
    key = run.read_key(key_file)
    service = _service(where, model, calibration, threshold, max_pixels)
    app = create_app(service, Limits(size, waiting=queue, rate=rate, batch=batch), key, addresses_only=key is None)
    listening = run.listen(host, port, key)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    rows = "" if service.gallery is None else f", {len(service.gallery):,} rows in {where}"
    note = "" if key else "; no key: every program on this machine may ask"
    if service.gallery is not None and service.threshold is None:
        checks.warn("/search names the nearest person also to a stranger: give --calibration or --threshold")
    run.serve(app, listening, lambda: say(f"{service.model.name} on {address}{rows}{note}"))


def _service(
    where: str, folder: Path | None, calibration: Path | None, threshold: float | None, most_pixels: int
) -> Service:
    """What the command line asks to serve."""
    from angulus.cli.search import read_calibration
    from angulus.core.contract import describe_model
    from angulus.models import artifact
    from angulus.search import open_gallery, threshold_of
    from angulus.search.who import as_gallery
    from angulus.serve.service import Service

    if threshold is not None and calibration is not None:
        raise checks.InputError("give one of --threshold and --calibration; got both")
    if "://" not in where and (Path(where) / artifact.CONFIG).is_file():
        if folder is not None or threshold is not None or calibration is not None:
            raise checks.InputError(f"{where} is a model; --model, --threshold and --calibration go with a gallery")
        return Service(artifact.load(Path(where)), most_pixels=most_pixels)
    gallery = open_gallery(where)
    about = gallery.about()
    if folder is None:
        raise checks.InputError(
            f"{where} holds vectors of {describe_model(about.model)}, and that model must embed the images; give its "
            "folder with --model"
        )
    model = as_gallery(artifact.load(folder), gallery)
    if threshold is None:
        own = model.calibration_of(about.model)
        calibrated = own if calibration is None else read_calibration(calibration, about.model)
        threshold = None if calibrated is None else threshold_of(calibrated, about, where, model.name)
    else:
        checks.number("--threshold", threshold, low=-1, high=1)
    return Service(model, gallery, threshold, most_pixels)
