"""The `fetch` section: which data set, and where it comes from."""

import re
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator, field_validator, model_validator

from cifar.params import ConflictError, Section, empty_is_none

Text = Annotated[str | None, BeforeValidator(empty_is_none)]
CREDENTIAL = re.compile(  # in the name of a query parameter, such as X-Amz-Signature or rlkey
    r"auth(?!or)|credential|jwt|key|pass|pwd|secret|session|sig$|signature|token|awsaccesskeyid|sas$",
    re.IGNORECASE,
)


class Fetch(Section):
    hidden: ClassVar[frozenset[str]] = frozenset({"source"})

    dataset: Literal["cifar10", "cifar100", "digits", "images"]
    source: Text
    sha256: Text

    @field_validator("sha256")
    @classmethod
    def check_sha256(cls, text: str | None) -> str | None:
        if text is not None and not re.fullmatch("[0-9a-f]{64}", text):
            raise ValueError("must be 64 hexadecimal digits in lower case")
        return text

    @model_validator(mode="after")
    def check_source(self) -> Self:
        if secret := credential(self.source or ""):
            raise ConflictError(
                f"fetch.source holds a credential, {secret}, and DVC would record it",
                "remove it here, and set the environment variable FETCH_SOURCE to the whole "
                "address",
            )
        if self.dataset == "images" and not self.source:
            raise ConflictError(
                "fetch.dataset: images needs fetch.source",
                "set it to the folder or archive of your images",
            )
        if self.dataset == "digits" and (self.source or self.sha256):
            key = "source" if self.source else "sha256"
            raise ConflictError(
                f"fetch.dataset: digits is built in and does not use fetch.{key}",
                f"set fetch.{key} to null",
            )
        return self


def credential(source: str) -> str:
    """The name, never the value, of what looks like a credential in an address; '' if nothing."""
    try:
        parts = urlsplit(source)
    except ValueError:  # not an address; opening it will fail with a message
        return ""
    if "@" in parts.netloc:
        return "a user name or password"
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return next((name for name in names if parts.scheme and CREDENTIAL.search(name)), "")
