"""Fixtures that several test files use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from angulus.search import Gallery

if not torch.cuda.is_available():  # before anything imports triton, which reads it then
    os.environ.setdefault("TRITON_INTERPRET", "1")

# How long an example takes says how busy the machine is, and not whether the code is right.
settings.register_profile("angulus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("angulus")


# `make test` gives whole files to its processes: one of these at the end would leave a core idle.
LONGEST = (
    *("test_readme_path", "test_tables", "test_base_install", "test_sharded", "test_torchrun", "test_ranks"),
    *("test_embedding", "test_prepare_page", "test_cli", "test_nets", "test_recipe", "test_search_crashes"),
    *("test_checkpoint", "test_evaluate"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, and the others in their order."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data: $ANGULUS_DATA, else shared/data next to the checkout; skips where neither is there."""
    named = os.environ.get("ANGULUS_DATA", "")
    folder = Path(named).expanduser() if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"needs real data: there is no folder {folder}; set ANGULUS_DATA to one that holds mnist/ and others"
        )
    return folder


@pytest.fixture
def angulus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command line in this process; gives its exit code, output and errors."""
    from angulus.cli import main as cli

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["angulus", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err  # type: ignore[return-value]

    return command


@pytest.fixture(params=["lance", "qdrant", "faiss"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gallery]:
    """An empty gallery of each store."""
    from angulus.search import Gallery, open_gallery
    from angulus.search.qdrant import QdrantStore

    if request.param == "lance":
        yield open_gallery(tmp_path / "gallery")
    elif request.param == "faiss":
        pytest.importorskip("faiss")
        yield open_gallery(tmp_path / "gallery.faiss")
    else:
        client = pytest.importorskip("qdrant_client").QdrantClient(":memory:")
        yield Gallery(QdrantStore(client, "faces"))
        client.close()


@pytest.fixture(params=["g", "g.faiss"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder for a gallery of each store that keeps one in a folder; not there yet."""
    if request.param == "g.faiss":
        pytest.importorskip("faiss")
    return tmp_path / str(request.param)
