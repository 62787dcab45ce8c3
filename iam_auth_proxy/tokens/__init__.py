"""Service tokens (kmsauth): made for scripts and services, verified for apps.

``issuer`` has KMS make tokens and ``auth`` puts them on the requests of HTTP clients; ``verifier``
has KMS open them, for the keys that ``accepts`` names and ``keys`` finds. Where one does not open,
``diagnosis`` finds out which part of it is at fault. What they say is ``protocol.service_token``.
"""
