"""The server's paths, as a FastAPI application."""

from __future__ import annotations

import asyncio
import contextlib
import html
import sys
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from angulus import __version__
from angulus.core import checks
from angulus.core.checks import InputError
from angulus.data.decode import TooManyPixelsError
from angulus.models.verify import decide
from angulus.search import Match
from angulus.search.who import name_of
from angulus.serve.batches import Batches
from angulus.serve.guard import Guard, Limits, Meters, refuse
from angulus.serve.service import Service, UnavailableError, norm_of

MOST_PEOPLE = 100  # in one answer
DECODERS = 2  # images decoded at a time

_MULTIPART = "multipart/form-data"
_IMAGE = {"schema": {"type": "string", "format": "binary"}}


@dataclass
class Embedded:
    """The features [N, d] of the images in their order, not normalised, and the name of the model that made them."""

    model: str
    features: list[list[float]]
    norms: list[float]
    warnings: list[str]


@dataclass
class Verified:
    """Whether two images show one person: score >= threshold. The probability needs a calibrated model."""

    model: str
    same: bool
    score: float
    threshold: float
    probability: float | None
    norms: tuple[float, float]
    warnings: list[str]


@dataclass
class Found:
    """Who an image shows. The decision is match, nobody (all below the threshold), or nearest (no threshold)."""

    model: str
    decision: str
    name: str | None
    threshold: float | None
    nearest: list[Match]
    norm: float
    warnings: list[str]


def create_app(
    service: Service, limits: Limits | None = None, key: str | None = None, *, addresses_only: bool = False
) -> Any:
    """The ASGI application: /embed, /verify, /search, /health, /metrics, /docs and /openapi.json.

    Args:
        service: what answers.
        limits: on requests.
        key: that clients send as `Authorization: Bearer KEY`; None: everybody is let in.
        addresses_only: see `guard.Guard`.
    """
    limits = limits or Limits()
    meters = Meters()
    embed = Batches(service.embed, limits.batch, meters.batches.labels("embed").observe)
    search = Batches(service.search, limits.batch, meters.batches.labels("search").observe)
    decoding = asyncio.Semaphore(DECODERS)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with embed.running(), search.running():
            yield

    unused: dict[str, Any] = {"docs_url": None, "redoc_url": None, "redirect_slashes": False}
    app = FastAPI(title="Angulus", version=__version__, lifespan=lifespan, **unused)
    _answer_errors(app)

    async def features_of(images: list[tuple[str, bytes]]) -> tuple[list[Any], list[float], list[str]]:
        """Features, their norms, and warnings."""

        async def one(name: str, data: bytes) -> tuple[torch.Tensor, list[str]]:
            async with decoding:
                return await asyncio.to_thread(service.pixels, data, name)

        prepared = await asyncio.gather(*(one(name, data) for name, data in images))
        features = await asyncio.gather(*(embed.ask(pixels) for pixels, _ in prepared))
        norms = [norm_of(feature, name) for feature, (name, _) in zip(features, images, strict=True)]
        return features, norms, [warning for _, warnings in prepared for warning in warnings]

    @app.post("/embed", openapi_extra=_body("one image, or a form of images"))
    async def embed_images(request: Request) -> Embedded:
        """Features of one image, or of several in a form."""
        features, norms, warnings = await features_of(await _images(request, 1, limits.batch))
        return Embedded(service.model.name, [feature.tolist() for feature in features], norms, warnings)

    @app.post("/verify", openapi_extra=_body("a form with two images", alone=False))
    async def verify_images(
        request: Request, threshold: Annotated[float | None, Query(ge=-1, le=1)] = None
    ) -> Verified:
        """Whether two images show one person, by the model's calibration or by a threshold of your own."""
        if threshold is None and service.model.calibration is None:
            way = "give a cosine of your own as /verify?threshold=, or calibrate the model and start the server again"
            raise HTTPException(422, f"this model is not calibrated, so no threshold of its scores is known; {way}")
        features, _, warnings = await features_of(await _images(request, 2, 2, ("threshold",)))
        made = decide(service.model, np.stack(features), threshold=threshold)
        verdict = (made.same, made.score, made.threshold, made.probability, made.norms)
        return Verified(service.model.name, *verdict, [*warnings, *made.warnings])

    @app.post("/search", openapi_extra=_body("one image"))
    async def search_image(
        request: Request,
        top: Annotated[int, Query(ge=1, le=MOST_PEOPLE)] = 5,
        threshold: Annotated[float | None, Query(ge=-1, le=1)] = None,
    ) -> Found:
        """Who of the gallery an image shows, or nobody; people by their best photo."""
        if service.gallery is None:
            raise HTTPException(404, "this server has no gallery; start it as angulus serve GALLERY --model MODEL")
        (feature,), (norm,), warnings = await features_of(await _images(request, 1, 1, ("threshold", "top")))
        limit = service.threshold if threshold is None else threshold
        nearest = list((await search.ask((feature, top))).matches)
        passed = bool(nearest) and (limit is None or nearest[0].score >= limit)
        decision = "nobody" if not passed else "nearest" if limit is None else "match"
        name = name_of(nearest[0]) if passed else None
        return Found(service.model.name, decision, name, limit, nearest, norm, warnings)

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        return PlainTextResponse(generate_latest(meters.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(_page(app.openapi()))

    return Guard(app, limits, key, meters, addresses_only=addresses_only)


async def _images(request: Request, least: int, most: int, takes: tuple[str, ...] = ()) -> list[tuple[str, bytes]]:
    """The images of a request by their names in errors: its body, or the files of its form."""
    if unknown := sorted(set(request.query_params) - set(takes)):
        rule = f"{request.url.path} takes {' and '.join(takes) or 'no parameters'} in its URL"
        raise HTTPException(422, f"{rule}; got {checks.shown(unknown[0])}")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    await request.body()
    if kind.startswith("image/") or kind == "application/octet-stream":
        images = [("the image", await request.body())]
    elif kind == _MULTIPART:
        async with request.form(max_files=most, max_fields=0) as form:
            files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
            images = [(f"image {place}", await file.read()) for place, file in enumerate(files, 1)]
    else:
        rule = f"the Content-Type must be image/..., application/octet-stream or {_MULTIPART}"
        raise HTTPException(415, f"{rule}; got {checks.shown(kind)}")
    if not least <= len(images) <= most:
        count = f"{least}" if least == most else f"{least} to {most}"
        raise HTTPException(422, f"the request must hold {count} images; got {len(images)}")
    return images


def _answer_errors(app: FastAPI) -> None:
    """Let every error end in JSON with one sentence."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return refuse(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return refuse(422, f"{first['loc'][-1]}: {first['msg']}; got {checks.shown(first.get('input'))}")

    @app.exception_handler(InputError)
    async def unusable(request: Request, error: InputError) -> JSONResponse:
        return refuse(413 if isinstance(error, TooManyPixelsError) else 422, checks.one_line(error))

    @app.exception_handler(UnavailableError)
    async def unavailable(request: Request, error: UnavailableError) -> JSONResponse:
        print(f"angulus serve: {error}", file=sys.stderr)  # noqa: T201  # the log of a server
        return refuse(503, "the gallery cannot be read now; the server's log says why", {"Retry-After": "5"})

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> JSONResponse:
        return refuse(400, "the client left before its body was complete")

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        traceback.print_exception(error)
        return refuse(500, "the server failed; its log says why")


def _body(what: str, *, alone: bool = True) -> dict[str, Any]:
    """The request body of a path, for OpenAPI."""
    parts = {"type": "object", "properties": {"image": {"type": "array", "items": _IMAGE["schema"]}}}
    kinds = {"image/*": _IMAGE, "application/octet-stream": _IMAGE} if alone else {}
    content = {**kinds, _MULTIPART: {"schema": parts}}
    return {"requestBody": {"required": True, "description": what, "content": content}}


def _page(schema: dict[str, Any]) -> str:
    """The paths as a page that loads nothing from elsewhere."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, call in methods.items():
            body = call.get("requestBody", {})
            rows = [f"<li>{html.escape(p['name'])} (query)</li>" for p in call.get("parameters", [])]
            if body:
                rows.append(
                    f"<li>body: {html.escape(body['description'])}, {html.escape(', '.join(body['content']))}</li>"
                )
            parts.append(
                f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
                f"<p>{html.escape(call.get('description', ''))}</p><ul>{''.join(rows)}</ul>"
            )
    answers = schema.get("components", {}).get("schemas", {})
    for name in ("Embedded", "Verified", "Found"):
        fields = ", ".join(answers[name]["properties"])
        parts.append(f"<h3>{name}</h3><p>{html.escape(answers[name].get('description', ''))}</p><p>{fields}</p>")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Angulus</title>'
    way = 'Errors are <code>{"error": "one sentence"}</code>. <a href="openapi.json">openapi.json</a>'
    style = "font-family:sans-serif;max-width:50em;margin:2em auto"
    return f'{head}<body style="{style}"><h1>Angulus</h1><p>{way}</p>{"".join(parts)}</body></html>'
