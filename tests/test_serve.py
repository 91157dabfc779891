"""The HTTP server: right answers, refusals with one sentence, batches, and a shutdown that drains."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from angulus import InputError
from angulus.cli.main import app as command_line
from angulus.cli.serve import _service
from angulus.core.contract import Contract
from angulus.core.embeddings import Embeddings
from angulus.evaluation.protocols.calibration import Calibration, Rate
from angulus.models import artifact
from angulus.models.artifact import Config
from angulus.models.inputs import pixels_of
from angulus.models.photos import read_crop_or_photo
from angulus.models.verify import verify
from angulus.search import open_gallery

pytest.importorskip("fastapi")
pytest.importorskip("lancedb")
pytest.importorskip("httpx")

import httpx
from fastapi.testclient import TestClient

from angulus.serve import run
from angulus.serve.app import create_app
from angulus.serve.batches import Batches
from angulus.serve.guard import Guard, Limits, Meters
from angulus.serve.service import Service, UnavailableError

D = 8
CONFIG = Config("small", 3, (16, 16), D, contract=Contract(colour="rgb", flip="sum"))
KEY = "0123456789abcdef-secret"


def png(seed: int, size: int = 16) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibrated model, images 0.png ... 5.png, and a gallery of the first four as p0 ... p3."""
    root = tmp_path_factory.mktemp("serve")
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), root / "model")
    model = artifact.load(root / "model")
    rates = (0.01, Rate(0.9), Rate(0.01), Rate(0.02), 50, 100, 10.0, -5.0)
    Calibration(*rates, model=model.name).write(root / "model" / "calibration.json")
    for number in range(6):
        (root / f"{number}.png").write_bytes(png(number))
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(root / f"{n}.png"))).permute(2, 0, 1) for n in range(4)])
    ids, labels = np.array([f"p{n}/a.png" for n in range(4)]), np.array([f"p{n}" for n in range(4)])
    people = Embeddings(model.embed(pixels).numpy(), ids, labels=labels, models=np.full(4, model.name))
    open_gallery(root / "g").add(people)
    return root


@pytest.fixture
def service(folder: Path) -> Service:
    return Service(artifact.load(folder / "model"), open_gallery(folder / "g"), threshold=0.9999, most_pixels=100_000)


@pytest.fixture
def client(service: Service) -> Iterator[Any]:
    with TestClient(create_app(service, Limits(body=200_000, rate=0)), raise_server_exceptions=False) as opened:
        yield opened


def sent(client: Any, path: str, data: bytes, kind: str = "image/png") -> Any:
    return client.post(path, content=data, headers={"Content-Type": kind})


def sentence(answer: Any, status: int) -> str:
    assert answer.status_code == status and answer.headers["content-type"] == "application/json"
    (error,) = answer.json().values()
    assert isinstance(error, str) and "\n" not in error and len(error) < 500
    return error


def test_answers_are_those_of_the_library(client: Any, folder: Path, service: Service) -> None:
    files = [("image", (f"{n}.png", png(n), "image/png")) for n in range(3)]
    embedded = client.post("/embed", files=files).json()
    pixels = torch.stack([service.pixels(png(n), "image")[0] for n in range(3)])
    features = service.model.embed(pixels).numpy()
    assert embedded["model"] == service.model.name and embedded["warnings"] == []
    assert np.array(embedded["features"]) == pytest.approx(features, rel=1e-4, abs=1e-6)
    assert embedded["norms"] == pytest.approx(np.linalg.norm(features, axis=1), rel=1e-5)
    one = sent(client, "/embed", png(1), "application/octet-stream").json()
    assert np.array(one["features"]) == pytest.approx(features[1:2], rel=1e-4, abs=1e-6)

    for pair in ((0, 0), (0, 1)):
        expected = verify(service.model, *(folder / f"{n}.png" for n in pair))
        answer = client.post("/verify", files=[files[n] for n in pair]).json()
        assert answer["same"] == expected.same and answer["threshold"] == 0.9
        assert (answer["score"], answer["probability"]) == pytest.approx(
            (expected.score, expected.probability), abs=1e-6
        )
    assert client.post("/verify?threshold=-1", files=files[:2]).json()["same"] is True

    found = sent(client, "/search?top=3", png(2)).json()
    assert (found["decision"], found["name"], found["threshold"]) == ("match", "p2", 0.9999)
    assert found["nearest"][0]["id"] == "p2/a.png" and len(found["nearest"]) == 3
    assert found["nearest"][0]["score"] == pytest.approx(1, abs=1e-6)
    stranger = sent(client, "/search", png(5)).json()
    assert (stranger["decision"], stranger["name"]) == ("nobody", None) and len(stranger["nearest"]) == 4
    service.threshold = None
    assert sent(client, "/search", png(5)).json()["decision"] == "nearest"


def test_people_come_and_go_while_it_serves(client: Any, folder: Path, service: Service, tmp_path: Path) -> None:
    service.gallery = open_gallery(tmp_path / "g")
    ids = np.array(["q/a.png"])
    one = Embeddings(service.embed([service.pixels(png(5), "image")[0]])[0][None], ids, labels=np.array(["q"]))
    other = open_gallery(tmp_path / "g")
    other.add(replace(one, models=np.array([service.model.name])))
    assert sent(client, "/search", png(5)).json()["name"] == "q"
    other.remove_people(["q"])
    assert "the gallery cannot be read now" in sentence(sent(client, "/search", png(5)), 503)  # it is empty


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "kind", "status", "words"),
    [
        (b"", "image/png", 422, "it is empty"),
        (b"hello", "image/png", 422, "must be an image"),
        (png(1)[:200], "image/png", 422, "cut short"),
        (bomb(60_000), "image/png", 413, "at most"),
        (bomb(1_000), "image/png", 413, "must have at most 100,000 pixels; its header says 1000 x 1000"),
        (png(1, 20), "image/png", 422, "must be 16 x 16 pixels"),
        (png(1), "text/html", 415, "the Content-Type must be"),
        (png(1), "", 415, "the Content-Type must be"),
        (b"x" * 200_001, "image/png", 413, "the body must have at most 200,000 bytes"),
        (b"no form", "multipart/form-data; boundary=x", 400, ""),
        (b"no form", "multipart/form-data", 400, ""),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x", 400, ""),
    ],
)
@pytest.mark.parametrize("path", ["/embed", "/search"])
def test_hostile_uploads_end_in_a_sentence(
    client: Any, path: str, data: bytes, kind: str, status: int, words: str
) -> None:
    assert words in sentence(sent(client, path, data, kind), status)
    assert sent(client, path, png(1)).status_code == 200


def test_wrong_requests_end_in_a_sentence(client: Any, service: Service) -> None:
    files = [("image", (f"{n}.png", png(n), "image/png")) for n in range(3)]
    assert "must hold 2 images; got 1" in sentence(client.post("/verify", files=files[:1]), 422)
    assert "Too many files" in sentence(client.post("/verify", files=files), 400)
    assert "image 2 must be an image" in sentence(
        client.post("/verify", files=[files[0], ("image", ("x", b"x", "image/png"))]), 422
    )
    assert "multipart" in sentence(sent(client, "/embed", b"{}", "application/json"), 415)
    for path, said in (
        ("/search?thresold=0.9", "/search takes threshold and top in its URL; got 'thresold'"),
        ("/embed?top=3", "/embed takes no parameters in its URL; got 'top'"),
    ):
        answer = client.post(path, content=png(0), headers={"content-type": "image/png"})
        assert answer.status_code == 422 and answer.json() == {"error": said}
    for path in ("/search?top=0", "/search?top=1000", "/search?top=x", "/search?threshold=nan", "/search?threshold=2"):
        assert "got " in sentence(sent(client, path, png(1)), 422)
    for path in ("/nothing", "/health/"):
        sentence(client.get(path), 404)
    sentence(client.get("/embed"), 405)
    service.gallery = None
    assert "no gallery" in sentence(sent(client, "/search", png(1)), 404)


def test_a_body_without_a_length_is_bounded_as_well(client: Any) -> None:
    chunks = (b"x" * 1000 for _ in range(1000))
    answer = client.post("/embed", content=chunks, headers={"Content-Type": "image/png"})
    assert "the body must have at most 200,000 bytes" in sentence(answer, 413)


def test_a_failure_shows_nothing_of_itself(client: Any, service: Service, capfd: Any) -> None:
    def fail(pixels: object) -> None:
        raise RuntimeError("a secret of the server")

    service.embed = fail  # type: ignore[method-assign,assignment]
    with TestClient(create_app(service), raise_server_exceptions=False) as broken:
        assert sentence(sent(broken, "/embed", png(1)), 500) == "the server failed; its log says why"
        assert "a secret of the server" in capfd.readouterr().err
        text = broken.get("/metrics").text
    assert 'angulus_requests_total{path="/embed",status="500"} 1.0' in text


def test_the_key_is_asked_for(service: Service) -> None:
    with TestClient(create_app(service, key=KEY), raise_server_exceptions=False) as locked:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
            answer = locked.post("/embed", content=png(1), headers={"Content-Type": "image/png", **headers})
            assert "needs its key" in sentence(answer, 401) and answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
        sentence(locked.get("/metrics"), 401)
        assert locked.get("/health").json() == {"status": "ok"}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "image/png"}
        assert locked.post("/embed", content=png(1), headers=headers).status_code == 200


def test_without_a_key_no_web_page_can_read_answers(service: Service) -> None:
    with TestClient(create_app(service, addresses_only=True)) as client:
        for host, status in (
            ("localhost", 200),
            ("127.0.0.1:8000", 200),
            ("[::1]:8000", 200),
            ("evil.example:8000", 403),
            ("127.0.0.1.evil.example", 403),
            ("localhost@evil.example", 403),
            ("[", 403),
            ("", 403),
        ):
            assert client.get("/health", headers={"Host": host}).status_code == status, host
        assert "IP addresses only" in sentence(client.get("/metrics"), 403)


def test_one_client_cannot_ask_too_often(service: Service) -> None:
    with TestClient(create_app(service, Limits(rate=2))) as client:
        answers = [client.get("/metrics") for _ in range(6)]
        assert [answer.status_code for answer in answers].count(429) == 4
        assert "2 requests per second" in sentence(answers[-1], 429) and int(answers[-1].headers["retry-after"]) >= 1
        assert client.get("/health").status_code == 200


def test_a_full_queue_is_said_and_the_rest_is_computed_in_batches(service: Service) -> None:
    started, go, sizes = threading.Event(), threading.Event(), []
    embed = service.embed

    def slow(pixels: list[torch.Tensor]) -> Any:
        sizes.append(len(pixels))
        started.set()
        assert go.wait(20)
        return embed(pixels)

    service.embed = slow  # type: ignore[method-assign]
    app = create_app(service, Limits(waiting=5, rate=0, batch=3))

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(app=app)
        async with app.app.router.lifespan_context(app.app), httpx.AsyncClient(transport=transport) as client:

            async def post(number: int) -> Any:
                headers = {"Content-Type": "image/png"}
                return await client.post("http://test/embed", content=png(number % 6), headers=headers)

            tasks = [asyncio.create_task(post(0))]
            await asyncio.to_thread(started.wait, 20)
            tasks += [asyncio.create_task(post(number)) for number in range(1, 5)]
            await asyncio.sleep(0.3)  # they are decoded and wait
            refused = await post(5)
            go.set()
            return [*await asyncio.gather(*tasks), refused]

    *answers, refused = asyncio.run(ask())
    assert [answer.status_code for answer in answers] == [200] * 5
    assert "5 requests are in work already" in sentence(refused, 503) and refused.headers["retry-after"] == "1"
    assert sizes == [1, 3, 1]
    pixels = torch.stack([service.pixels(png(n), "image")[0] for n in range(5)])
    expected = service.model.embed(pixels).numpy()
    assert np.array([answer.json()["features"][0] for answer in answers]) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_failure_in_a_batch_reaches_those_who_wait_for_it_and_no_later_one() -> None:
    class Panic(BaseException):  # as those of Rust code are
        pass

    def invert(items: list[int]) -> list[float]:
        if items[0] < 0:
            raise Panic("damaged files")
        return [1 / item for item in items]

    async def ask() -> list[Any]:
        batches = Batches(invert, 4, lambda size: None)
        async with batches.running():
            first = await asyncio.gather(batches.ask(0), return_exceptions=True)
            second = await asyncio.gather(batches.ask(-1), return_exceptions=True)
            return [*first, *second, await asyncio.wait_for(batches.ask(2), 20)]

    failed, panicked, later = asyncio.run(ask())
    assert isinstance(failed, ZeroDivisionError) and later == 0.5
    assert isinstance(panicked, RuntimeError) and str(panicked) == "Panic: damaged files"


def test_the_page_and_the_schema_need_no_network(client: Any) -> None:
    page = client.get("/docs")
    assert page.status_code == 200 and "POST /search" in page.text
    assert not re.search(r"https?://|<script|<link|<img", page.text)
    assert set(client.get("/openapi.json").json()["paths"]) == {"/embed", "/verify", "/search", "/health", "/metrics"}


def test_the_metrics_count(client: Any) -> None:
    for status, data in ((200, png(1)), (422, b"x"), (200, png(2))):
        assert sent(client, "/embed", data).status_code == status
    client.get("/nothing/at/all")
    text = client.get("/metrics").text
    assert 'angulus_requests_total{path="/embed",status="200"} 2.0' in text
    assert 'angulus_requests_total{path="/embed",status="422"} 1.0' in text
    assert 'angulus_requests_total{path="other",status="404"} 1.0' in text
    assert 'angulus_request_seconds_count{path="/embed"} 3.0' in text
    assert 'angulus_batch_size_count{step="embed"} 2.0' in text


def test_rates_of_many_clients_stay_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("angulus.serve.guard.CLIENTS", 10)
    guard = Guard(None, Limits(rate=1), None, Meters())
    assert [guard._wait_s("a") > 0 for _ in range(3)] == [False, True, True]
    for number in range(50):
        assert guard._wait_s(str(number)) == 0
    assert len(guard._clients) == 10


@pytest.mark.parametrize("text", ["", "short", "with a space in it", "ключ-ключ-ключ-ключ", "x" * 15])
def test_weak_keys_are_refused(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(InputError, match="key"):
        run.read_key(tmp_path / "key")
    monkeypatch.setenv(run.KEY_VARIABLE, text)
    with pytest.raises(InputError, match="openssl rand") as error:
        run.read_key(None)
    assert not text or text not in str(error.value)


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(run.KEY_VARIABLE, raising=False)
    assert run.read_key(None) is None
    monkeypatch.setenv(run.KEY_VARIABLE, KEY)
    assert run.read_key(None) == KEY
    (tmp_path / "key").write_text("another-key-of-a-file\n")
    assert run.read_key(tmp_path / "key") == "another-key-of-a-file"
    with pytest.raises(InputError, match="No such file"):
        run.read_key(tmp_path / "none")


def test_answers_do_not_wait_for_a_delayed_acknowledgement() -> None:
    with run.listen("127.0.0.1", 0, None) as listening, socket.create_connection(listening.getsockname()) as _:
        accepted, _address = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_other_machines_need_a_key_and_a_taken_port_is_a_sentence() -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(
            InputError, match=r"can be reached from other machines, so it needs a key; set ANGULUS_SERVE_KEY"
        ):
            run.listen(host, 0, None)
    with run.listen("127.0.0.1", 0, None) as taken, pytest.raises(InputError, match="cannot listen on 127"):
        run.listen("127.0.0.1", taken.getsockname()[1], None)
    with run.listen("0.0.0.0", 0, KEY) as open_to_all:
        assert open_to_all.getsockname()[1] > 0


def test_what_cannot_be_served_is_refused(folder: Path, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        return str(CliRunner().invoke(command_line, ["serve", *map(str, arguments)]).exception)

    other = replace(CONFIG, embedding_size=D + 1)
    artifact.save(other, other.build(), tmp_path / "other")
    assert "give its folder with --model" in refused(folder / "g")
    assert "and this is the model with fingerprint" in refused(folder / "g", "--model", tmp_path / "other")
    assert "--model, --threshold and --calibration go with a gallery" in refused(folder / "model", "--threshold", 0.5)
    assert "there is no gallery in" in refused(tmp_path / "none")
    assert "--threshold must be" in refused(folder / "g", "--model", folder / "model", "--threshold", 3)
    assert "--max-body must be a size" in refused(folder / "model", "--max-body", "much")


def test_a_real_server_drains_and_closes_slow_bodies(folder: Path) -> None:
    """SIGTERM while a request's body arrives: the answer still comes, and the exit code is 0."""
    command = [
        sys.executable,
        "-m",
        "angulus",
        "serve",
        str(folder / "g"),
        "--model",
        str(folder / "model"),
        "--port",
        "0",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        said = server.stdout.readline()
        port = int(re.search(r"127\.0\.0\.1:(\d+), 4 rows", said)[1])  # type: ignore[index]
        answer = httpx.post(f"http://127.0.0.1:{port}/search", content=png(1), headers={"Content-Type": "image/png"})
        assert answer.json()["name"] == "p1"
        many = b"x" * 2**20
        for content in (many * 30, (many for _ in range(30))):  # with a length, and without
            url, headers = f"http://127.0.0.1:{port}/embed", {"Content-Type": "image/png"}
            refused = httpx.post(url, content=content, headers=headers, timeout=60)
            assert "at most 10,485,760 bytes" in sentence(refused, 413)
        data = png(2)
        head = "POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        head += f"Content-Length: {len(data)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(head.encode() + data[:100])
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            assert server.poll() is None
            slow.sendall(data[100:])
            slow.settimeout(20)
            received = b""
            while part := slow.recv(65536):
                received += part
        assert b"200 OK" in received and json.loads(received.rpartition(b"\r\n\r\n")[2])["name"] == "p2"
        assert server.wait(timeout=120) == 0


async def answer_to_a_body_that_does_not_come(guard: Any) -> list[Any]:
    sent: list[Any] = []
    parts = iter([{"type": "http.request", "body": b"x", "more_body": True}])

    async def receive() -> Any:
        for part in parts:
            return part
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"image/png"), (b"content-length", b"100")]
    scope = {"type": "http", "method": "POST", "path": "/embed", "raw_path": b"/embed", "query_string": b""}
    await guard({**scope, "headers": headers, "client": ("x", 1), "server": ("x", 1), "scheme": "http"}, receive, send)
    return sent


def test_a_body_that_does_not_come_is_given_up(service: Service) -> None:
    start, body = asyncio.run(answer_to_a_body_that_does_not_come(create_app(service, Limits(body_s=0.1))))
    assert (
        start["status"] == 408
        and "the body must arrive within 0.1 s; got 1 bytes of it" in json.loads(body["body"])["error"]
    )


def test_requests_without_the_key_take_no_place_in_the_queue(service: Service) -> None:
    guard = create_app(service, Limits(waiting=2), KEY)

    async def ask() -> int:
        refused = [asyncio.create_task(answer_to_a_body_that_does_not_come(guard)) for _ in range(3)]
        await asyncio.sleep(0.1)
        transport = httpx.ASGITransport(app=guard)
        async with httpx.AsyncClient(transport=transport) as client:
            status = (await client.get("http://test/metrics", headers={"Authorization": f"Bearer {KEY}"})).status_code
        assert not any(task.done() for task in refused)
        for task in refused:
            task.cancel()
        return status

    assert asyncio.run(ask()) == 200


def test_a_gallery_that_cannot_be_read_is_the_servers_fault(service: Service) -> None:
    service.gallery = open_gallery("no/such/place")
    with pytest.raises(UnavailableError, match="there is no gallery"):
        service.search([(np.ones(D, np.float32), 3)])


def test_a_gallery_of_a_compatible_model_and_of_first_numbers_is_served(folder: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="not for its first 4 numbers"):
        old = artifact.load(folder / "model").with_dimensions(4)
    pixels = torch.stack([pixels_of(png(number), old.config, "image") for number in range(4)])
    people = Embeddings(
        old.embed(pixels).numpy(), np.array(list("abcd")), labels=np.array(list("ABCD")), models=np.full(4, old.name)
    )
    open_gallery(tmp_path / "g").add(people)
    torch.manual_seed(0)
    network = CONFIG.build()
    with torch.no_grad():
        next(network.parameters()).mul_(1.01)
    config = replace(CONFIG, compatible_with=(old.fingerprint,))
    artifact.save(config, network, tmp_path / "new")
    with pytest.warns(UserWarning, match="not for its first 4 numbers"):
        service = _service(str(tmp_path / "g"), tmp_path / "new", None, 0.5, 1000)
    assert service.model.name == f"{service.model.fingerprint}-sum-4" and service.model.fingerprint != old.fingerprint
    with TestClient(create_app(service)) as client:
        answer = sent(client, "/search", png(2)).json()
    assert (answer["decision"], answer["name"], answer["model"]) == ("match", "C", service.model.name)
    artifact.save(replace(config, embedding_size=3), replace(CONFIG, embedding_size=3).build(), tmp_path / "small")
    with pytest.raises(InputError, match="dimensions must be"):
        _service(str(tmp_path / "g"), tmp_path / "small", None, 0.5, 1000)


def test_a_photo_is_aligned_and_a_crop_is_not(folder: Path) -> None:
    pytest.importorskip("cv2")
    from planted_faces import Planted, photo
    from planted_faces import png as encoded

    contract = Contract(size=(32, 32), colour="rgb", template="five_points")
    torch.manual_seed(0)
    config = replace(CONFIG, image_size=(32, 32), contract=contract)
    artifact.save(config, config.build(), folder / "aligned")
    service = Service(artifact.load(folder / "aligned"), detector=Planted())
    image = photo()
    image[30:120, 60:150] = np.random.default_rng(0).integers(60, 256, (90, 90, 3))
    image[30:120, 60:150, 0] = 250  # as sure as the detector wants it
    (folder / "photo.png").write_bytes(encoded(image))
    pixels, warnings = service.pixels(encoded(image), "the photo")
    expected, _ = read_crop_or_photo(folder / "photo.png", config, Planted())
    assert torch.equal(pixels, expected) and warnings == []
    assert service.pixels(png(3, 32), "the crop")[0].shape == (3, 32, 32)
    with pytest.raises(InputError, match="the photo must show a face that can be used"):
        service.pixels(encoded(photo()), "the photo")
