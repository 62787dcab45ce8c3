"""The pages of the proxy itself.

``stop`` is the page under an app's origin when a request goes no further, and ``explain`` its
sentences. ``own`` serves the pages on the proxy's own address: ``status``, the question of
``confirm``, and the ``pac`` file. ``template`` loads the HTML templates at their first use.
"""
