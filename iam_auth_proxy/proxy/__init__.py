"""The proxy that runs on a person's machine: a relay, and the sign-in that it makes on the way.

Read ``steering`` first: the relay asks it about every request and every answer, and it asks the
others. ``decide`` and ``rules`` hold the security decisions, and are pure.

Decisions
    ``decide``: for whom the proxy speaks, and what to make of a challenge. ``rules``: what the
    rules of trust say of an origin. ``trust``: which rules hold, and the keys pinned at first use,
    kept in ``trust.toml`` by ``trustfile``. ``inforce``: lookups derived from the rules.
    ``clicks``: which requests open a page. ``limits``: how often to sign in. ``unidentified``: an
    app that asks for a client certificate. ``memo``: what steering remembers between the relay's
    questions.

One sign-in
    ``signin`` makes the steps; ``jobs`` shares one sign-in among the requests that wait for it;
    ``prover`` runs ``sealing`` (AWS) off the event loop; ``appside`` sends the proxy's own requests
    to the app and ``handover`` writes them; ``tickets`` stand for a token in the browser's URL bar.

What goes along with later requests
    ``sessions`` over ``held`` (kept here for programs) and ``kept`` (cookies in a client's own
    jar); ``renewal``: when one is renewed; ``cookies``: reading and writing them. ``servicetokens``
    makes service tokens ahead, ``carrying`` puts them on requests.

Apps on https
    Under another name: ``alias`` rewrites header fields, ``aliases`` decides who is let in,
    ``aliasports`` listens. TLS ended here: ``intercept`` over ``ca``, ``certificates``, ``bundle``
    (a file of roots), ``rootstores`` and ``browsertrust`` (who trusts the local CA).

Ways to an app
    ``vias``: upstream proxies. ``bastion`` over ``ssh``: tunnels.

People
    ``asking`` and ``questions``: the confirm page; ``pages``: all pages; ``mfa``: a code at the
    terminal; ``announce``: the lines at the start; ``whoami``, ``report``: what a running proxy
    says of itself.

Running it
    ``daemon`` (``run``), ``program`` (``exec``) and ``browse`` with ``browsers`` (``browser``)
    start ``running``: the parts that ``build`` makes of the settings, behind ``listen`` and
    ``serve``. ``entrance`` says who may use each listener, by ``peers`` (the owner of a local
    connection) and ``clientauth`` (passwords). ``control`` is the socket of the command line, found
    through ``runtime``, with ``controlapp`` behind it. ``webapp`` loads aiohttp late. ``children``:
    commands in the foreground. ``noproxy``: what they ask for without it. ``sd``: systemd.
    ``rlimits``: the process's limits; ``descriptors``: how many connections fit. ``logs`` and
    ``redact``: the log.
"""
