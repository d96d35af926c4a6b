"""Records what the NVIDIA driver of this machine answers, as a profile for the fake driver of the tests."""
