"""A stand-in for the library transformers: one small network, with the names and the structure that a DINOv2 has."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

DEFAULTS = {"hidden_size": 12, "num_hidden_layers": 1, "image_size": 16, "patch_size": 4, "num_channels": 3}


class Layer(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(size, size)

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + torch.tanh(self.fc(tokens))


class Toy(nn.Module):
    """What transformers gives: tokens, the class token first, in a structure."""

    supports_gradient_checkpointing = True
    checkpointing: dict[str, bool] | None = None

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.cls_token = nn.Parameter(torch.randn(1, 1, config.hidden_size))
        self.mask_token = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.patches = nn.Conv2d(config.num_channels, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.layer = nn.ModuleList(Layer(config.hidden_size) for _ in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(self, pixel_values: Tensor) -> Any:
        tokens = self.patches(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) * getattr(self.config, "odd", 1)
        for layer in self.layer:
            again = self.checkpointing is not None and self.training
            tokens = checkpoint(layer, tokens, **self.checkpointing) if again else layer(tokens)
        return types.SimpleNamespace(last_hidden_state=self.norm(tokens))

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict[str, bool]) -> None:
        self.checkpointing = activation_checkpointing_kwargs

    @classmethod
    def from_pretrained(cls, folder: Path, **options: Any) -> tuple[Toy, dict[str, Any]]:
        assert options == {
            **{"use_safetensors": True, "local_files_only": True, "output_loading_info": True, "dtype": torch.float32},
            "attn_implementation": "sdpa",
        }
        net = cls(types.SimpleNamespace(**{**DEFAULTS, **json.loads((folder / "config.json").read_text())}))
        found = net.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        return net, {"missing_keys": set(found.missing_keys)}


@contextmanager
def installed() -> Iterator[None]:
    """Within, `import transformers` gives this."""
    module = types.ModuleType("transformers")
    chosen = types.SimpleNamespace(for_model=lambda kind, **settings: types.SimpleNamespace(**{**DEFAULTS, **settings}))
    module.AutoConfig, module.Dinov2Model = chosen, Toy  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "transformers", module)
        yield
