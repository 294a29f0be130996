"""The `preprocess` section: from raw images to three splits of one size."""

from typing import Literal, Self

from pydantic import Field, model_validator

from cifar.params import ConflictError, Section


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
    on_animated: Literal["error", "first"]
    on_duplicate: Literal["report", "error"]

    @model_validator(mode="after")
    def check_fold(self) -> Self:
        if self.folds == 1:
            raise ConflictError("preprocess.folds = 1", "set it to 2 or more, or to 0 for none")
        if self.fold >= max(1, self.folds):
            raise ConflictError(
                f"preprocess.fold = {self.fold} with preprocess.folds = {self.folds}",
                "the folds count from 0, so set preprocess.fold below preprocess.folds"
                if self.folds
                else "set preprocess.fold to 0",
            )
        return self
