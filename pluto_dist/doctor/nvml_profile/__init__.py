"""Records the results of this machine's NVIDIA driver as a profile for the fake driver of the tests."""
