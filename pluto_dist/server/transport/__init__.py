"""HTTP below the endpoints: socket, connection limits, middleware, request bodies, query strings, responses."""
