"""A user's Python values as JSON that can be stored (``encode``), and JSON as checked records (``codec``).

``encode`` makes plain JSON of any object that scripts use as a config, such that the tracker stores exactly what was
sent, and lists what was lost. It works in one direction: nothing is ever turned back into objects, and what JSON
cannot hold becomes a short description. It sends and logs nothing, never changes its argument, and imports no library
that the script has not imported itself (except yaml, for a YAML file).

>>> from pluto_dist.serialization.encode import encode
>>> from pluto_dist.serialization.types import summary
>>> encoded = encode({"lr": 1e-3, "betas": (0.9, 0.999), "clip": float("inf"), "hub": {"token": "t-123"}})
>>> encoded.value
{'lr': 0.001, 'betas': [0.9, 0.999], 'clip': 'Infinity', 'hub': {'token': 't-123'}}
>>> summary(encoded.losses)
('clip: no JSON number; stored as the text "Infinity"',)
>>> encoded.suspects
('hub.token',)
"""
