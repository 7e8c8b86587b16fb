"""An experiment in, records out: Locust users that predict, and one crash-safe shard a process."""
