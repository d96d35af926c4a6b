"""``pluto-dist run``: torchrun with a run around it.

The launcher is torch's own elastic agent in this process (``agent``); beside it a supervisor beats for the run,
heeds a cancel and tells the tracker how the job ended (``supervisor``, ``verdict``, ``memory``). What is started
is torchrun's command line with the script inside the worker-side wrapper (``command``).
"""
