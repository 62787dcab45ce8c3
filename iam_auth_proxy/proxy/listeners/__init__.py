"""Where clients come in, and who may.

``address``
    As commands and people write it.
``listen``
    Sockets to listen on, and what becomes of them. ``descriptors``: how many connections fit.
``entrance``
    Who may use a listener: the owner of a local connection (``peers``), or whoever knows a password
    (``clientauth``).
"""
