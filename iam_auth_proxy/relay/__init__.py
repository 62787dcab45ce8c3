"""How bytes move: an HTTP/1.1 forward proxy that knows nothing of IAM.

``relay`` builds it. ``client`` faces the browser: it reads one request after the other and starts
an exchange for each, ``forward`` (or ``connect``, which ends in a ``tunnel``, or in requests of one
origin where steering has a tunnel read). The exchange asks ``exchange.Steering`` through
``decision``, gets a connection from the ``pool``, and passes the answer on that ``origin`` reads;
its ``upload`` is the request's body, ``kept`` where the request may have to go out again. ``dial``
reaches origins and ``addresses`` says which may be. ``fetch`` is for the proxy's own requests.

The rules are apart from the I/O: ``reading`` and ``message`` for requests, ``response`` for
answers, ``chunked`` and ``body`` for where a body ends, ``limits`` for every bound. ``deadlines``
is the one timer, ``counters`` what was counted.
"""
