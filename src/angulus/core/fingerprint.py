"""What a model is called: a fingerprint of all that its features depend on, and its rule for mirror images."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, cast

from angulus.core.contract import Flip

_NAME = re.compile(r"([0-9a-f]{16})-(none|sum|concat)")


def fingerprint(sha256: str, content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits: two models that have the same give the same features, but for the rule for mirror images.

    Args:
        sha256: of the weights, as hexadecimal digits.
        content: of the configuration, as JSON holds it; `about` and the contract's `flip` do not count.
    """
    contract = {name: value for name, value in content["contract"].items() if name != "flip"}
    counted = {name: value for name, value in content.items() if name != "about"} | {"contract": contract}
    return hashlib.sha256(json.dumps([sha256, counted], sort_keys=True).encode()).hexdigest()[:16]


def model_name(digits: str, flip: Flip) -> str:
    """What embeddings, calibrations and galleries call a model that joins mirror images by this rule.

    >>> model_name("0123456789abcdef", "sum")
    '0123456789abcdef-sum'
    """
    return f"{digits}-{flip}"


def parts(name: str | None) -> tuple[str, Flip] | None:
    """The fingerprint and the rule in a name; None where it is no name of Angulus' own.

    >>> parts("0123456789abcdef-sum"), parts("resnet-sum")
    (('0123456789abcdef', 'sum'), None)
    """
    found = _NAME.fullmatch(name or "")
    return None if found is None else (found[1], cast(Flip, found[2]))


def described(name: str | None) -> str:
    """A name as messages say it.

    >>> described("0123456789abcdef-sum"), described("resnet")
    ('the model with fingerprint 0123456789abcdef, flip sum', "the model 'resnet'")
    """
    own = parts(name)
    if own is not None:
        return f"the model with fingerprint {own[0]}, flip {own[1]}"
    return "a model that is not named" if name is None else f"the model {name!r}"
