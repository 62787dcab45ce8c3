"""What a key is used for, and which way."""

from __future__ import annotations

from enum import Enum, IntEnum

from iam_auth_proxy.compat.keys_management.consts import (
    BACK_PATH_FLOW_STATE,
    FORWARD_PATH_FLOW_STATE,
)
from iam_auth_proxy.compat.keys_management.secret_key.errors import InvalidFlowNameError


class SecretKeyFlow(IntEnum):
    """A way that a key is used. A number, as in the original, that JSON can write, too."""

    DEFAULT = 1
    AUTHENTICATION = 1
    FORWARD_PATH = 2
    BACK_PATH = 3
    ENCRYPTION = 2
    DECRYPTION = 3

    @staticmethod
    def get(str_val: object) -> SecretKeyFlow:
        """A flow by what a stored state calls it.

        :param str_val: a member's name in any case, ``forward`` or ``back``; a member of the
            original's; its number, as a number or as text.
        :raises InvalidFlowNameError: none of them.
        """
        if isinstance(str_val, SecretKeyFlow):
            return str_val
        text = str_val.name if isinstance(str_val, Enum) else str(str_val)
        short = {
            FORWARD_PATH_FLOW_STATE: SecretKeyFlow.FORWARD_PATH,
            BACK_PATH_FLOW_STATE: SecretKeyFlow.BACK_PATH,
        }
        named = short.get(text) or SecretKeyFlow.__members__.get(text.upper())
        numbered = {str(flow.value): flow for flow in SecretKeyFlow}.get(text)
        found = named or numbered
        if found is None:
            raise InvalidFlowNameError(str_val)
        return found


class SecretKeyUseCase(Enum):
    """Two ways, or one."""

    ROUND_TRIP = 1
    ONE_WAY_TRIP = 2
    ENCRYPTION_DECRYPTION = 1
