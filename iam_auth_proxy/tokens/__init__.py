"""Service tokens (kmsauth): made for scripts and services, verified for apps.

``issuer`` has KMS make tokens (``build`` makes an issuer, ``naming`` finds whom its tokens are
from) and ``auth`` puts them on the requests of HTTP clients. ``verifier`` has KMS open them, for
the keys that ``accepts`` names and ``keys`` finds; ``cache`` remembers them. Where one does not
open, ``diagnosis`` finds out which part of it is at fault. The format is
``protocol.service_token``.
"""
