"""The same manifests on one machine: real Envoy in front of processes that run the real SavedModels."""
