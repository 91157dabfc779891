"""Models through Hugging Face's mixin: a folder, and a server that speaks as the hub does."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import angulus
import fake_hub
import people
from angulus import InputError
from angulus.core.contract import Contract
from angulus.core.hub import fetch
from angulus.evaluation.protocols.calibrate import calibrate, pairs_of_images
from angulus.models import artifact
from angulus.models.artifact import Config

huggingface_hub = pytest.importorskip("huggingface_hub")

CONFIG = Config("small", 1, (8, 8), 3, contract=Contract(7.0, 16.0), about={"recipe": "tiny"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A calibrated model whose author has named a licence in its card."""
    torch.manual_seed(0)
    artifact.save(CONFIG, CONFIG.build(), tmp_path / "model")
    embeddings = people.crowd()
    names = np.full(len(embeddings), angulus.load(tmp_path / "model").name)
    embeddings = replace(embeddings, models=names)
    calibration, _ = calibrate(embeddings, pairs_of_images(embeddings), target_fmr=0.1, draws=0)
    artifact.calibrate(tmp_path / "model", calibration)
    card = tmp_path / "model" / "README.md"
    card.write_text(card.read_text().replace("license: unknown", "license: cc-by-4.0"))
    return tmp_path / "model"


def pixels() -> torch.Tensor:
    return torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}


def test_a_folder_that_was_loaded_and_saved_is_the_same(folder: Path, tmp_path: Path) -> None:
    from angulus.models.hub import HubModel

    loaded = HubModel.from_pretrained(str(folder))
    assert isinstance(loaded, angulus.Model)
    assert torch.equal(loaded.embed(pixels()), angulus.load(folder).embed(pixels()))
    loaded.save_pretrained(tmp_path / "again")
    assert files(tmp_path / "again") == files(folder)
    HubModel(angulus.load(folder)).save_pretrained(tmp_path / "third")
    assert files(tmp_path / "third") == files(folder)


PUSH = """
import sys, angulus
from angulus.models.hub import HubModel
HubModel(angulus.load(sys.argv[1])).push_to_hub("me/faces", token="hf_none")
"""
FETCH = """
import sys, torch
from angulus.models.hub import HubModel
p = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
sys.stdout.buffer.write(HubModel.from_pretrained("me/faces").embed(p).numpy().tobytes())
"""


def run(code: str, url: str, home: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, check=False)


def test_what_is_pushed_is_what_another_machine_fetches(folder: Path, tmp_path: Path) -> None:
    with fake_hub.running() as hub:
        pushed = run(PUSH, hub.url, tmp_path / "here", folder)
        assert pushed.returncode == 0, pushed.stderr.decode()
        assert hub.files == {f"me/faces/{name}": data for name, data in files(folder).items()}
        hub.files["me/faces/evil.pkl"] = b"never asked for"
        fetched = run(FETCH, hub.url, tmp_path / "there")
        assert fetched.returncode == 0, fetched.stderr.decode()
        assert fetched.stdout == angulus.load(folder).embed(pixels()).numpy().tobytes()
        assert not any("evil" in each for each in hub.asked)
        whole = bytearray(hub.files["me/faces/model.safetensors"])
        whole[-1] ^= 1
        hub.files["me/faces/model.safetensors"] = bytes(whole)
        tampered = run(FETCH, hub.url, tmp_path / "elsewhere")
        assert b"is not the file that config.json was written for" in tampered.stderr


REFUSED = {
    "gated-401": (401, {"X-Error-Code": "GatedRepo"}, "it is gated; accept its licence on its page on the hub"),
    "gated-403": (403, {"X-Error-Code": "GatedRepo"}, "it is gated; accept its licence on its page on the hub"),
    "missing": (404, {"X-Error-Code": "RepoNotFound"}, "it is missing or private; check the name, or log in"),
    "revision": (404, {"X-Error-Code": "RevisionNotFound"}, "it has no revision 'v9'; leave the revision out, or"),
    "token": (401, {"X-Error-Message": "Invalid credentials"}, r"the hub refuses it \(status 401\); log in with"),
}


def test_what_a_hub_refuses_is_a_sentence_with_the_way_out() -> None:
    with fake_hub.running() as hub:
        hub.refused = {f"me/{name}": (status, headers) for name, (status, headers, _) in REFUSED.items()}
        for name, (*_, sentence) in REFUSED.items():
            said = f"there is no folder 'me/{name}', and no model of this name can be fetched from a hub: {sentence}"
            with pytest.raises(InputError, match=said):
                fetch(f"me/{name}", ["config.json"], "hub", revision="v9", endpoint=hub.url)
    with pytest.raises(InputError, match=r"the hub does not answer \(.*\); check the network, or download"):
        fetch("me/faces", ["config.json"], "hub", endpoint=hub.url)  # which has ended


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "angulus.models.hub", raising=False)
    with pytest.raises(
        InputError, match=r"models on a hub needs `pip install 'angulus\[hub\]'` \(there is no package hugg"
    ):
        import angulus.models.hub  # noqa: F401


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "9" * 5000, "[1]", '"x"', "\udcff"])
def test_a_strangers_configuration_is_refused_in_a_sentence(folder: Path, text: str) -> None:
    from angulus.models.hub import HubModel

    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json"):
        HubModel.from_pretrained(str(folder))
    with pytest.raises(InputError, match="a model is loaded as it was stored; got the argument 'size'"):
        HubModel.from_pretrained(str(folder), size=3)


def test_the_card_is_one_that_the_hub_reads_and_says_what_is_measured(folder: Path) -> None:
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert card.data.library_name == "angulus" and card.data.license == "cc-by-4.0"
    assert card.data.pipeline_tag == "image-feature-extraction" and "small" in card.data.tags
    calibration = angulus.load(folder).calibration
    assert calibration is not None
    assert f"Threshold {calibration.threshold.value:.4f}" in card.text
    assert "uint8 [batch, 1, 8, 8], grey" in card.text and "(x − 7) / 16" in card.text
    artifact.save(CONFIG, CONFIG.build(), folder)  # other weights: no calibration, no licence of theirs
    text = (folder / "README.md").read_text()
    assert "Not calibrated" in text and "license: unknown" in text


def test_a_card_without_the_mark_is_left_alone(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    calibration = angulus.load(folder).calibration
    assert calibration is not None
    artifact.calibrate(folder, calibration)
    assert (folder / "README.md").read_text() == "mine" == angulus.load(folder).card
    (folder / "README.md").unlink()
    artifact.calibrate(folder, calibration)
    assert angulus.load(folder).card is None
