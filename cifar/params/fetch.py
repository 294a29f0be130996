"""The `fetch` section: which data set, and where it comes from."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cifar.params import Section


class Fetch(Section):
    dataset: Literal["cifar10", "cifar100", "digits", "images"]
    source: str | None
    sha256: str | None = Field(pattern=r"^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def check_source(self) -> Self:
        if self.dataset == "images" and not self.source:
            raise ValueError(
                "fetch.dataset: images needs fetch.source, the folder or archive of your pictures"
            )
        if self.dataset == "digits" and (self.source or self.sha256):
            key = "source" if self.source else "sha256"
            raise ValueError(
                f"fetch.dataset: digits is built in and takes no fetch.{key}: set it to null"
            )
        return self
