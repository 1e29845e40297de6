"""The shop simulator, its defect catalogue, and the sinks it sends to."""
