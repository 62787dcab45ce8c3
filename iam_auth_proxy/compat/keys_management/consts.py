"""The names in a stored state."""

from __future__ import annotations

from typing import Final

STATE: Final = "state"
KEY: Final = "key"
EARLIER: Final = "earlier"
"""Keys before :data:`KEY` that something may still be encrypted under; the original has no such."""

FORWARD_PATH_FLOW_STATE: Final = "forward"
BACK_PATH_FLOW_STATE: Final = "back"
ENCRYPTION_KEY_TYPE: Final = "encrypt"
DECRYPTION_KEY_TYPE: Final = "decrypt"
