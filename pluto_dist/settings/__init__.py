"""What the user set: arguments of ``init()``, environment variables, defaults, and the key in the keychain."""
