"""The `evaluate` section: how the test images are scored."""

from typing import Literal

from pydantic import Field

from cifar.params import Device, Section


class Evaluate(Section):
    device: Device
    batch_size: int = Field(ge=1, le=1_000_000)
    tta: Literal["none", "flip"]
