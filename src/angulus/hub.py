"""Models on Hugging Face's hub, or any server that speaks as it does (HF_ENDPOINT); needs huggingface_hub.

Nothing is fetched or sent until one of the methods is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from angulus import artifact, checks, model_card

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
except ImportError as error:
    raise checks.InputError("models on a hub need the package huggingface_hub; pip install 'angulus[hub]'") from error

FILES = (artifact.WEIGHTS, artifact.CONFIG, artifact.CALIBRATION, model_card.NAME)


class HubModel(artifact.Model, ModelHubMixin):
    """A model that a hub keeps: `HubModel.from_pretrained("owner/name")`, `HubModel(model).push_to_hub("owner/name")`.

    What a repository holds is a model folder, and is checked as `angulus.load` checks one.

    Args:
        model: as `angulus.load` gives it.
    """

    def __init__(self, model: artifact.Model) -> None:
        super().__init__(
            model.config, model.backbone, model.sha256, model.calibration, model.preprocessing.mean_image, model.card
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        artifact.save(self.config, self.backbone, save_directory, self.preprocessing.mean_image, self.card)
        if self.calibration is not None:
            artifact.calibrate(save_directory, self.calibration)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, revision: str | None, token: str | bool | None, **options: Any
    ) -> HubModel:
        """Of a folder, or of a repository, of which only the files of a model folder are fetched."""
        if Path(model_id).is_dir():
            return cls(artifact.load(model_id))
        how = {name: options[name] for name in ("cache_dir", "force_download", "local_files_only")}
        folder = snapshot_download(model_id, revision=revision, token=token, allow_patterns=list(FILES), **how)
        return cls(artifact.load(folder))
