"""Requests that no tracker has taken, kept on disk until they are sent.

::

    <folder>/<run>/<time>-<host>-<pid>-<random>.json     one request, whole, of mode 0600
    <folder>/<run>/set-aside/                            files that are no request, or were refused for good

A file appears whole, is never changed, and is removed once a tracker has taken its request, so processes of many hosts
may write to one folder on a shared filesystem. A sender holds the lock of the run. No file contains an API key.

``entry`` is one request, ``queue`` all of one run on disk, ``replay`` sends them in order. A live process
writes through ``outbox``; ``pluto-dist sync`` is ``sync``.
"""
