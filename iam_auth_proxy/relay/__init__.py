"""How bytes move: an HTTP/1.1 forward proxy that knows nothing of IAM.

``client`` faces the browser, ``origin`` faces the app and pools its connections, ``dial`` reaches
an origin (direct, SOCKS, HTTP CONNECT), ``tunnel`` is CONNECT, ``message`` holds the pure rules of
heads and framing. What is decided about an exchange is decided behind :class:`exchange.Steering`.
"""
