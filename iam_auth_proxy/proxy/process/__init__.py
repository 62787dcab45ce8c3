"""The running process: its parts, put together and started.

``build``
    The parts that the settings make. ``running``: those parts behind their listeners, over
    ``serve``; ``aliasports``: the listeners of aliases. ``webapp`` loads aiohttp late.
``control``
    The socket of the command line, found through ``runtime``, with ``controlapp`` behind it;
    ``whoami`` and ``report`` are what a running proxy says of itself.
``logs``
    The log, and ``redact``, what must not be in it.
``sd``
    systemd. ``rlimits``: the process's own limits.
"""
