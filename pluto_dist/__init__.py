"""One job, one run."""
