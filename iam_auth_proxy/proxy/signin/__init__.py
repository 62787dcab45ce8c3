"""One sign-in, and the session that goes along with later requests.

``signins`` makes the steps of a sign-in, and ``jobs`` shares one among the requests that wait for
it. ``prover`` runs ``sealing`` (AWS) off the event loop. ``appside`` sends the proxy's own requests
to the app, as ``handover`` writes them; ``tickets`` stand for a token in the browser's URL bar.

``sessions`` over ``held`` (kept here for programs) and ``kept`` (cookies in a client's own jar) is
what comes of it; ``renewal`` says when one is renewed, ``cookies`` reads and writes them.
``servicetokens`` makes service tokens ahead.
"""
