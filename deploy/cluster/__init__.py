"""The same stack on a Kubernetes cluster with Istio."""
