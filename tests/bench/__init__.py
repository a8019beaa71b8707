"""`bench`: workloads, sides, processes, reports."""
