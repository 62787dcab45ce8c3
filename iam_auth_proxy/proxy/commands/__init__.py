"""What the command line starts: ``daemon`` for ``run``, ``program`` for ``exec``, ``browse`` for
``browser``.

``announce``: the lines at the start. ``mfa``: a code at the terminal. ``children``: commands in the
foreground; ``noproxy``: what they ask for without the proxy.
"""
