"""``pluto-dist run``, torchrun with a run around it, and ``python -m pluto_dist``, which runs a script inside a run.

``agent`` starts torch's elastic agent in this process. ``supervisor`` sends the run's heartbeats beside it, stops the
job on a cancel, and reports its end, with the ``root_cause`` of a failure and kills by the kernel for lack of memory
(``oom``). ``command`` makes torchrun's command line, with the script inside the runner ``script``.
"""
