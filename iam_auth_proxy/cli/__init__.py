"""What people type. Words go to stderr, data to stdout; every error is a sentence and a next step.

``iam-auth-proxy [flags]`` is the original's command line and the same as ``iam-auth-proxy run
[flags]``. The flags of ``run`` are the table ``config.OPTIONS`` and are spelled nowhere else. Only
click and the configuration are imported here: a command imports its room when it runs.

``layout`` is how commands are found and how help looks, ``commands`` the commands themselves, and
``outcome`` turns whatever happened into words and an exit status.
"""

from iam_auth_proxy.cli.loading import loading

with loading():
    from iam_auth_proxy.cli.outcome import main

__all__ = ["main"]
