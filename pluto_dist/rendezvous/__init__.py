"""How the ranks of a launch find each other and exchange messages, and under which keys of the store.

Three scopes, because torchrun's store outlives the attempts of its launch:

- the launch: its token and the runs that it began, found again by the next attempt; every node keeps them in its
  ``node_state`` as well, for the store may end with its host;
- the attempt: the nodes that take part, with their hardware (``membership``);
- the run: the n-th ``init()`` of the attempt (``run_channel``).
"""
