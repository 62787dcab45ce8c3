"""For whom the proxy speaks: the security decisions, and the trust that they rest on.

``decide``
    Which client may be given what (``authority()``), and what to make of a challenge. Pure.
``rules``
    What the rules of trust say of an origin. Pure. ``inforce``: lookups derived from them.
``trust``
    Which rules hold now, and the keys pinned at first use; ``trustfile`` keeps both in
    ``trust.toml``.
``clicks``
    Which requests open a page. ``unidentified``: an app that asks for a client certificate.
``questions``
    What the person is being asked, and what they said. ``limits``: how often to sign in.
"""
