"""The OpenAPI document of the embedded tracker. ``schemas`` is also what the declarations in ``routes`` are made of."""
