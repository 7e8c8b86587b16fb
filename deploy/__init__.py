"""An experiment in, a stack that serves it out: manifests, models, references, and Envoy or a cluster."""
