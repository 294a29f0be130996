"""The `plot` section: how the charts look. Nothing here changes a number."""

from pydantic import Field

from cifar.params import Section


class Plot(Section):
    dpi: int = Field(ge=50, le=600)
    samples_per_class: int = Field(ge=1, le=20)
    mistakes: int = Field(ge=1, le=100)
