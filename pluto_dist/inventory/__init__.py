"""Hardware and software of a job: ``probes`` and ``gpu`` read one node, ``report`` composes the document of all nodes.

``records`` are exchanged between nodes. Importing this package loads neither psutil nor pynvml nor torch.
"""
