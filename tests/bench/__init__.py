"""``make bench``: the speed and size that are owed, measured against others in the same run.

Plain programs, not tests: a busy machine would make them fail. ``rows`` says what is owed,
``figures`` judges and prints it, ``contestants`` starts what is compared; each of ``load``,
``downloads``, ``signin`` and ``size`` measures some of the rows.
"""
