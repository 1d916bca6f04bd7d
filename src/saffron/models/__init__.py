"""Models: the one way to load each of them (here), and the stage that makes them (:mod:`saffron.models.making`)."""

from saffron.models.loading import (
    HEAD,
    ModelError,
    add_bias,
    check_fits,
    device_of,
    load_lm,
    load_mrm,
    load_tokenizer,
    one_line,
    require_device,
    require_finite,
    save_mrm_head,
    skeleton,
)

__all__ = [
    "HEAD",
    "ModelError",
    "add_bias",
    "check_fits",
    "device_of",
    "load_lm",
    "load_mrm",
    "load_tokenizer",
    "one_line",
    "require_device",
    "require_finite",
    "save_mrm_head",
    "skeleton",
]
