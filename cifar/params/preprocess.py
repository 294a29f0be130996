"""The `preprocess` section: from raw images to three splits of one size."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cifar.params import Section


class Preprocess(Section):
    image_size: int = Field(ge=1, le=1024)
    val_fraction: float = Field(gt=0, lt=1)
    folds: int = Field(ge=0, le=1_000_000)
    fold: int = Field(ge=0)
    test_fraction: float = Field(gt=0, lt=1)
    split_seed: int = Field(ge=0, lt=2**32)
    per_class: int = Field(ge=0, le=1_000_000_000)
    normalize: Literal["unit", "symmetric", "center", "standardize"]
    on_bad_image: Literal["error", "skip"]
    on_duplicate: Literal["report", "error"]

    @model_validator(mode="after")
    def check_fold(self) -> Self:
        if self.folds == 1 or self.fold >= max(1, self.folds):
            raise ValueError(
                "preprocess.folds is 0 or at least 2, and preprocess.fold is below it, counting from 0"
            )
        return self
