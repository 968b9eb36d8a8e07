"""Identity of functions and classes as a hash: the user's count by their source, our own by their name."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from typing import Any

_PACKAGE = __name__.partition(".")[0]

IDENTITIES = {
    "models.residual": {
        "ResidualBlock": "1495bb35df181a21371f61555908981cecb8e02a7c56389d44222603c573b803",
        "ResidualNet": "60fe45a5b8a7978015effee1137343b34a57b5920782f1f72f5bd19e5ee1166a",
    },
    "models.inception_time": {
        "InceptionModule": "402732e06137b1c3f65220144d855a82fb3724aa8a2b0ebaf686467cb588ac80",
        "Shortcut": "8c6fd4fae83ba3880a0380ef5b82377c836fa906d0a8dbef3e3f6e134b975c96",
        "InceptionTime": "fa0054936b949590dfd6939ca6a3ed34b31cd0dc9a16b9a42fdd6015a3199ce5",
    },
    "nn.normalize": {
        "Normalize": "c6079cc61e8c0ff9910bf7a61e2125adfbfa876481dac77e2d653cb7307bb79c",
    },
    "nn.training.distillation": {
        "soft_label_loss": "f4d9ec01b6342e503dd6b93ef247069f0fd7a40bd8849741ee8b35e70f2219a4",
        "output_matching_loss": "a2ab69f6f79f4c87cdc6d86973f9ae4fd74dab3aeb8e187af8963e55495545e9",
    },
    "tasks.metrics": {
        "accuracy": "4ed9a8c228326acaff368edbca4ccc73d01dde6f3a948e584f05a891c4690936",
        "macro_f1": "2c5dd170388eb107dce87485d60cb28d06713c9d330c71b851cc01cfb4053650",
        "auc": "b4232c47c3772530303ac6a043779bf9bea755e318063a206adb8f1f89c880cc",
        "rmse": "389082bd130567ed253b9d41f5fc57cc731e8adf5c8c6a5b6fb49207dc592254",
    },
    "nn.training.losses": {
        "mean_squared_error": "5c4aede6430d760d2235800b58793f53702d2f70d01b211552a91f90b3077660",
    },
    "tasks.task": {
        "_normalized": "270821272fed0895b2973e378c567cee654882f5c761719c92b52bb559e0646a",
    },
    "tasks.digits": {
        "build_model": "b1df4f0e5f83050bd3f97fe515c7e161aff6e0887426fcee25b882898d7a1c6f",
        "_augment": "bf3d83cb6e557b74538afebdcd9d956b6a05b6bd2021169c9eee725f76da57da",
    },
    "tasks.cifar10": {
        "build_model": "3c1e5f957c77830b59311d1819396c5f43f185816c94661f887d0532819259a6",
        "_augment": "694f52cf3443c272dd4bd93d9c77ecbe517b1b271057d51636d0117b7ec37e9f",
    },
}
"""Identities of our own code that fingerprints of stored studies hold, by module in the package and name.

These are the digests of name and source that the objects had when our code still counted by its source.
"""


def source_sha256(thing: Any) -> str:
    """Identity of a class or function, SHA-256; of a partial, that of its function and arguments.

    The user's code and that of other packages counts by name and source. What has no Python source (built in,
    or typed at a prompt) counts by its name.

    Code of this package counts by a fixed identity, so that moving it or mending its docstring makes no
    stored study another task: its entry in ``IDENTITIES``, or its name where it has none. What our code
    computes is in the cache keys (``evaluation.keys.code_digest``).

    Whoever changes what such an object computes gives it a new identity: another name, or another digest in
    ``IDENTITIES``. Whoever moves or renames one without changing what it computes moves its entry along; one
    without an entry gets the hash of its old name as its entry.
    """
    if isinstance(thing, functools.partial):
        # The text of a function holds its address, which differs between processes.
        args = tuple(source_sha256(arg) if callable(arg) else arg for arg in thing.args)
        text = re.sub(r"0x[0-9a-f]+", "", f"{args!r}\n{sorted(thing.keywords.items())!r}")
        return _sha256(source_sha256(thing.func), text)
    code = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    place = code.__module__ or ""  # a built-in method has none
    package, _, module = place.partition(".")
    name = f"{place}.{code.__qualname__}"
    if package == _PACKAGE:
        return IDENTITIES.get(module, {}).get(code.__qualname__) or _sha256(name)
    try:
        return _sha256(name, inspect.getsource(code))
    except (OSError, TypeError):
        return _sha256(name, "")


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
