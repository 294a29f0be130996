"""The `train` section: network, optimization, augmentation, hardware."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from cifar.params import ConflictError, Device, Section, empty_is_none

MODELS = Path(__file__).parent.parent / "models"


class Train(Section):
    # the network
    model: str
    depth: int = Field(ge=0, le=1000)
    width: int = Field(ge=0, le=100_000)
    dropout: float = Field(ge=0, lt=1)
    dropout_step: float = Field(ge=0, lt=1)
    batch_norm: bool
    backbone: Annotated[str | None, BeforeValidator(empty_is_none)]
    freeze: bool
    # the optimization
    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=2, le=1_000_000)  # batch normalisation needs two images
    optimizer: Literal["sgd", "adam", "adamw", "muon"]
    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    schedule: Literal["constant", "step", "cosine", "linear", "onecycle", "plateau"]
    warmup: int = Field(ge=0, le=1_000_000)
    drop: float = Field(gt=0, lt=1)
    drop_epochs: int = Field(ge=1, le=1_000_000)
    label_smoothing: float = Field(ge=0, lt=1)
    class_weights: Literal["none", "balanced"]
    clip_norm: float = Field(ge=0)
    # the weights to keep
    keep: Literal["last", "best"]
    monitor: Literal["accuracy", "loss"]
    patience: int = Field(ge=0, le=1_000_000)
    ema: float = Field(ge=0, lt=1)
    ensemble: int = Field(ge=1, le=100)
    # the augmentation
    flip: Literal["none", "random", "alternating"]
    shift: int = Field(ge=0, le=1024)
    cutout: int = Field(ge=0, le=1024)
    rotate: float = Field(ge=0, le=180)
    zoom: float = Field(ge=0, lt=1)
    flip_vertical: bool
    brightness: float = Field(ge=0, lt=1)
    contrast: float = Field(ge=0, lt=1)
    saturation: float = Field(ge=0, lt=1)
    mixup: float = Field(ge=0, le=100)
    cutmix: float = Field(ge=0, le=100)
    small_epochs: int = Field(ge=0, le=1_000_000)
    small_scale: float = Field(gt=0, lt=1)
    # the hardware
    device: Device
    threads: int = Field(ge=0, le=1024)
    processes: int = Field(ge=1, le=1024)
    load: Literal["auto", "memory", "disk"]
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["none", "default", "reduce-overhead"]

    @field_validator("model")
    @classmethod
    def check_model(cls, name: str) -> str:
        known = sorted(path.stem for path in MODELS.glob("[!_]*.py"))
        if name not in known:
            raise ValueError(f"not a file in cifar/models; choose from {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def check_backbone(self) -> Self:
        if self.model == "pretrained" and not self.backbone:
            raise ConflictError(
                "train.model: pretrained needs train.backbone",
                "set train.backbone to a network of torchvision, such as resnet18",
            )
        if self.backbone and self.model != "pretrained":
            raise ConflictError(
                f"train.backbone has no effect with train.model: {self.model}",
                "set train.backbone to null, or train.model to pretrained",
            )
        return self

    @model_validator(mode="after")
    def check_optimizer(self) -> Self:
        no_effect = f"has no effect with train.optimizer: {self.optimizer}"
        if self.nesterov and self.optimizer != "sgd":
            raise ConflictError(f"train.nesterov {no_effect}", "set train.nesterov to false")
        if self.nesterov and not self.momentum:
            raise ConflictError(
                "train.nesterov needs momentum",
                "set train.momentum above 0, or train.nesterov to false",
            )
        if self.momentum and self.optimizer in ("adam", "adamw"):
            raise ConflictError(f"train.momentum {no_effect}", "set train.momentum to 0")
        return self

    @model_validator(mode="after")
    def check_epochs(self) -> Self:
        if self.warmup and self.schedule == "plateau":
            raise ConflictError(
                "train.schedule: plateau does not use train.warmup", "set train.warmup to 0"
            )
        if self.warmup and self.warmup >= self.epochs:
            raise ConflictError(
                f"train.warmup = {self.warmup} uses up train.epochs = {self.epochs}",
                "lower train.warmup, or raise train.epochs",
            )
        if self.small_epochs > self.epochs:
            raise ConflictError(
                f"train.small_epochs = {self.small_epochs} exceeds train.epochs = {self.epochs}",
                f"set train.small_epochs to {self.epochs} or less (0: none)",
            )
        return self

    @model_validator(mode="after")
    def check_mixing(self) -> Self:
        if self.mixup and self.cutmix:
            raise ConflictError(
                "train.mixup and train.cutmix both mix two images", "set one of them to 0"
            )
        return self

    @model_validator(mode="after")
    def check_processes(self) -> Self:
        if self.batch_size < 2 * self.processes:
            raise ConflictError(
                f"train.batch_size = {self.batch_size} is less than two images "
                f"for each of train.processes = {self.processes}",
                "raise train.batch_size, or lower train.processes",
            )
        if self.processes > 1 and self.device not in ("auto", "cuda", "cpu"):
            raise ConflictError(
                f"train.device: {self.device} is one device for train.processes = {self.processes}",
                "set train.processes to 1, or train.device to cuda or cpu",
            )
        return self
