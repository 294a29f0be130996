"""The `train` section: network, optimisation, augmentation, hardware."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cifar.params import Section

MODELS = Path(__file__).parent.parent / "models"
MUON = (
    "fast",
)  # networks whose layers have the scales that muon's rates are made for: add your own


class Train(Section):
    # the network
    model: str
    depth: int = Field(ge=0, le=1000)
    width: int = Field(ge=0, le=100_000)
    dropout: float = Field(ge=0, lt=1)
    dropout_step: float = Field(ge=0, lt=1)
    batch_norm: bool
    backbone: str | None
    freeze: bool
    # the optimisation
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
    clip_norm: float = Field(ge=0)
    # which weights are kept
    monitor: Literal["accuracy", "loss"]
    keep: Literal["best", "last"]
    patience: int = Field(ge=0, le=1_000_000)
    ema: float = Field(ge=0, lt=1)
    ensemble: int = Field(ge=1, le=100)
    # the augmentation
    flip: Literal["none", "random", "alternating"]
    shift: int = Field(ge=0, le=1024)
    cutout: int = Field(ge=0, le=1024)
    small_epochs: int = Field(ge=0, le=1_000_000)
    small_scale: float = Field(gt=0, lt=1)
    # the hardware
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    threads: int = Field(ge=0, le=1024)
    processes: int = Field(ge=1, le=1024)
    stream: bool
    precision: Literal["auto", "fp32", "bf16"]
    compile: Literal["none", "default", "reduce-overhead"]

    @field_validator("model")
    @classmethod
    def check_model(cls, name: str) -> str:
        known = sorted(path.stem for path in MODELS.glob("[a-z]*.py"))
        if name not in known:
            raise ValueError(f"no such file in cifar/models; there are {', '.join(known)}")
        return name

    @model_validator(mode="after")
    def check_together(self) -> Self:
        if self.nesterov and self.optimizer != "sgd":
            raise ValueError(
                f"train.nesterov has no effect with train.optimizer: {self.optimizer}: set it to false"
            )
        if self.nesterov and not self.momentum:
            raise ValueError("train.nesterov needs train.momentum above 0")
        if self.momentum and self.optimizer in ("adam", "adamw"):
            raise ValueError(
                f"train.momentum has no effect with train.optimizer: {self.optimizer}: set it to 0"
            )
        if self.optimizer == "muon" and self.model not in MUON:
            others = "-S train.optimizer=sgd -S train.lr=0.01 -S train.small_share=0"
            known = ", ".join(MUON)
            raise ValueError(
                f"train.optimizer: muon is for train.model: {known}, not {self.model}: try {others}"
            )
        if self.batch_size < 2 * self.processes:
            raise ValueError(
                f"train.batch_size must be at least 2 for each of train.processes = {self.processes}"
            )
        if self.processes > 1 and self.device not in ("auto", "cuda", "cpu"):
            raise ValueError(
                f"train.device: {self.device} is one device, not for train.processes: take auto"
            )
        if self.warmup and self.warmup >= self.epochs:
            raise ValueError(
                f"train.warmup = {self.warmup} leaves none of train.epochs = {self.epochs}"
            )
        if self.warmup and self.schedule == "plateau":
            raise ValueError("train.schedule: plateau takes no train.warmup: set it to 0")
        if (self.model == "pretrained") != bool(self.backbone):
            raise ValueError(
                "train.model: pretrained and train.backbone go together: set both or none"
            )
        return self
