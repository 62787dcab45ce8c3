"""The proxy that runs on a person's machine: a relay, and the sign-in that it makes on the way.

Read ``steering`` first: the relay asks it about every request and every answer, and it asks the
others. ``memo`` is what it remembers between the relay's questions; ``asking`` turns to the person,
``carrying`` puts service tokens on requests.

From the outside in (pyproject.toml holds the order):

``commands``
    What ``run``, ``exec`` and ``browser`` start.
``process``
    The running process: its parts put together, its control socket, its log.
``https``
    Apps on https: under another name, or with TLS ended here.
``upstream``
    Ways to an app: proxies and ssh tunnels.
``pages``
    All pages of the proxy, its own and those under an app's origin.
``signin``
    One sign-in, and the session that goes along with later requests.
``listeners``
    Where clients come in, and who may.
``decisions``
    For whom the proxy speaks: the security decisions, and the trust that they rest on.
"""
