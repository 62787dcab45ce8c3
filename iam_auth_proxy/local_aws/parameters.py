"""Parameters of one operation, checked as AWS checks them, each taken exactly once."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

from iam_auth_proxy.local_aws.errors import NotEmulated, ServiceError
from iam_auth_proxy.local_aws.wire import Json, Operation


class Parameters:
    """Takes parameters out of an operation; what is left over is not emulated.

    Every method raises :class:`.errors.ServiceError` with the service's validation code, and text
    like AWS's, for a value outside its limits.
    """

    def __init__(self, service: str, operation: Operation) -> None:
        self._name = f"{service}:{operation.action}"
        self._code = "ValidationException" if service == "kms" else "ValidationError"
        self._left: dict[str, Json] = dict(operation.parameters)

    def done(self) -> None:
        """Say that all known parameters were taken.

        :raises NotEmulated: others are left.
        """
        for name in self._left:
            raise NotEmulated(f"{self._name} with {name}")

    def refuse(self, name: str, constraint: str, value: object = None) -> ServiceError:
        """A validation error of AWS's form; ``value`` is left out where it may be a secret."""
        shown = "Value" if value is None else f"Value '{value}'"
        place = name[:1].lower() + name[1:]
        return ServiceError(
            self._code,
            400,
            f"1 validation error detected: {shown} at '{place}' failed to satisfy constraint: "
            f"Member must {constraint}",
        )

    def optional_text(
        self, name: str, low: int = 0, high: int = 1 << 20, pattern: str = ""
    ) -> str | None:
        """A string of ``low`` to ``high`` characters that fits ``pattern``; ``None`` if absent."""
        value = self._left.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, str):
            raise ServiceError("SerializationException", 400, f"{name} is not a string")
        if not low <= len(value) <= high:
            bound = f"greater than or equal to {low}" if len(value) < low else ""
            bound = bound or f"less than or equal to {high}"
            raise self.refuse(name, f"have length {bound}")
        if pattern and not re.fullmatch(pattern, value, re.ASCII):
            raise self.refuse(name, f"satisfy regular expression pattern: {pattern}", value)
        return value

    def text(self, name: str, low: int = 1, high: int = 1 << 20, pattern: str = "") -> str:
        """As :meth:`optional_text`, and required."""
        value = self.optional_text(name, low, high, pattern)
        if value is None:
            raise self.refuse(name, "not be null")
        return value

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._left.pop(name, default)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}", value, re.ASCII):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ServiceError("SerializationException", 400, f"{name} is not a number")
        if value < low:
            raise self.refuse(name, f"have value greater than or equal to {low}", value)
        if value > high:
            raise self.refuse(name, f"have value less than or equal to {high}", value)
        return value

    def boolean(self, name: str) -> bool:
        """``true`` or ``false``, the latter where absent."""
        value = self._left.pop(name, False)
        if isinstance(value, str) and value in {"true", "false"}:
            value = value == "true"
        if not isinstance(value, bool):
            raise ServiceError("SerializationException", 400, f"{name} is not a boolean")
        return value

    def only(self, name: str, *values: str) -> str | None:
        """One of the values that are emulated; ``None`` if absent."""
        value = self._left.pop(name, None)
        if value is not None and value not in values:
            raise NotEmulated(f"{self._name} with {name}={value}")
        return str(value) if value is not None else None

    def blob(self, name: str, high: int) -> bytes:
        """1 to ``high`` bytes, in base64."""
        value = self._left.pop(name, None)
        if value is None:
            raise self.refuse(name, "not be null")
        try:
            decoded = base64.b64decode(str(value), validate=True)
        except (ValueError, binascii.Error) as error:
            raise ServiceError("SerializationException", 400, f"{name} is no base64") from error
        if not decoded:
            raise self.refuse(name, "have length greater than or equal to 1")
        if len(decoded) > high:
            raise self.refuse(name, f"have length less than or equal to {high}")
        return decoded

    def string_map(self, name: str) -> dict[str, str]:
        """An object of strings, empty where absent."""
        value = self._left.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            raise ServiceError("SerializationException", 400, f"{name} is no map of strings")
        return {key: str(text) for key, text in value.items()}
