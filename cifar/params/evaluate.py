"""The `evaluate` section: how the test images are scored."""

from typing import Literal

from cifar.params import Device, Section


class Evaluate(Section):
    device: Device
    tta: Literal["none", "flip"]
