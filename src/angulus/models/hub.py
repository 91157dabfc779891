"""Models on Hugging Face's hub, or on a server with the same API (HF_ENDPOINT); needs huggingface_hub.

Nothing is fetched or sent until a method is called.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from angulus.core import extras, hub
from angulus.core.checks import InputError
from angulus.models import artifact

extras.load("huggingface_hub", "hub", "models on a hub")
from huggingface_hub import ModelHubMixin  # noqa: E402  # the line above says what is missing


class HubModel(artifact.Model, ModelHubMixin):
    """A model on a hub: `HubModel.from_pretrained("owner/name")`, `HubModel(model).push_to_hub("owner/name")`.

    A repository holds a model folder, and is checked as by `angulus.load`, which also gives the `model` to push.
    """

    def __init__(self, model: artifact.Model) -> None:
        about = model.calibration, model.preprocessing.mean_image, model.card
        super().__init__(model.config, model.backbone, model.sha256, *about, model.classifier)
        self.pairs = model.pairs

    def _save_pretrained(self, save_directory: Path) -> None:
        mean_image = self.preprocessing.mean_image
        artifact.save(self.config, self.backbone, save_directory, mean_image, self.card, self.classifier)
        for calibration in filter(None, (self.calibration, *self.pairs.values())):
            artifact.calibrate(save_directory, calibration)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **model_kwargs: Any,
    ) -> HubModel:
        """Load from a folder, or from a repository, of which only the files of a model folder are fetched.

        Replaces the mixin's own method, which reads a stranger's `config.json` without a check.
        """
        if model_kwargs:
            name = next(iter(model_kwargs))
            raise InputError(f"a model is loaded as it was stored; got the argument {name!r}; leave it out")
        if Path(pretrained_model_name_or_path).is_dir():
            return cls(artifact.load(pretrained_model_name_or_path))
        options = {"cache_dir": cache_dir, "force_download": force_download, "local_files_only": local_files_only}
        name = str(pretrained_model_name_or_path)
        return cls(artifact.load(hub.fetch(name, artifact.FILES, "hub", revision=revision, token=token, **options)))
