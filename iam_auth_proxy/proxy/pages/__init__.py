"""What a person sees of the proxy itself.

``stop`` is the page under an app's origin when a request goes no further; ``own`` are the pages on
the proxy's own address.
"""
