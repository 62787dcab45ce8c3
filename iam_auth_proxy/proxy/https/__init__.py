"""Apps on https, which a proxy sees only the outside of.

Under another name
    ``alias`` rewrites header fields, ``aliases`` decides who is let in.
TLS ended here
    ``intercept`` over ``ca`` and ``certificates``; ``bundle``: a file of roots for programs;
    ``rootstores`` and ``browsertrust``: who trusts the local CA, ``browsers``: which are there.
"""
