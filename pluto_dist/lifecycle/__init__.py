"""One rank in one run, from ``init()`` to its end.

``participant`` is the sequence. Each step is a module of its own: ``agreement`` on the external id, ``election`` of the
rank that creates the run (its owner) with ``creation``, ``attach`` of the other ranks, ``heartbeat``, ``recovery``
after an outage, ``shutdown``. ``exit_hooks`` and ``process_end`` observe how the process ends, ``termination`` SIGTERM.
"""
