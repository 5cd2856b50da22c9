//! Desired rules × observed rules → actions with reasons, and their execution. No Kubernetes.
