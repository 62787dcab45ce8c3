"""What runs on my machine: the relay, and the sign-in behind its one decision point.

``decide`` and ``trust`` are pure: for whom the proxy speaks, and to whom. ``signin`` performs the
steps, ``steering`` is what the relay asks, ``pages`` is what a person sees, and ``daemon`` builds
the parts and runs them.
"""
