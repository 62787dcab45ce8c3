"""How bytes move: an HTTP/1.1 forward proxy that knows nothing of IAM.

``relay`` builds it. ``client`` faces the browser: it reads one request after the other, asks
``destination`` where each goes, and starts an exchange for it: ``forward`` for requests,
``connect`` for a CONNECT, which becomes a ``tunnel`` or, for the hosts whose TLS is ended here,
``intercept`` (by the ClientHello that ``hello`` reads; ``certificate_refusals`` remembers who did
not take our certificate). ``local_answers`` are given without any origin.

``exchange`` is the seam to ``proxy/``: what the relay says of a request and an answer, and what it
can be told (``exchange.Steering``); ``decision`` calls it and contains its faults. A connection to
the origin comes from the ``pool``, and ``origin`` reads the answer. ``upload`` is the request's
body on its way, ``kept`` a copy where the request may have to go out again. ``fetch`` is for the
proxy's own requests.

``dial`` reaches origins: ``resolve`` looks names up, ``addresses`` says which may be dialled,
``via`` which proxy stands between, ``socks`` and ``http_connect`` talk to that, ``tls`` checks the
app. ``failures`` and ``tls_failures`` give what goes wrong on the way its name and remedy.

Rules without I/O: ``reading`` and ``message`` for requests, ``response`` for answers, ``fields``
for the field lines of both, ``chunked`` and ``body`` for where a body ends, ``limits`` for every
bound. What all connections of a relay have in common is ``shared``. ``deadlines`` is the one timer,
``counters`` what was counted, ``transports`` what is done to sockets, ``splice`` moves long runs of
bytes inside the kernel.
"""
