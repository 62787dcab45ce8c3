"""What people type. Words go to stderr, data to stdout; every error is a sentence and a next step.

``iam-auth-proxy [flags]`` is the original's command line and the same as ``iam-auth-proxy run
[flags]``. The flags of ``run`` are the table ``config.OPTIONS`` and are spelled nowhere else. Only
click and the configuration are imported here: a command imports what it needs when it runs.

``outcome`` has ``main``, and turns whatever happened into words and an exit status. ``commands``
lists all commands and holds the short ones; ``catalogue`` imports the others when they are called,
``layout`` prints help, ``settings`` makes flags of the table of options, ``loading`` quickens
imports.

One module for each command: ``browser``, ``ca``, ``config``, ``exec``, ``keyring``, ``secret``
(with ``secretfiles``), ``service`` (with ``units``), ``token``, ``trust`` (with ``trustwords`` and
``service_token``). ``policies`` has ``env`` besides; ``look`` has ``status``, ``whoami`` and
``logout``, which ask a running proxy by ``running`` and ``unixhttp``. ``durations`` are read and
written by many.
"""

from iam_auth_proxy.cli.loading import loading

with loading():
    from iam_auth_proxy.cli.outcome import main

__all__ = ["main"]
