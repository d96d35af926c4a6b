"""HTTP to the tracker: requests, deadlines, answers as errors, the rate limit of a whole job; and the offline queue."""
