//go:build tools

// Package tools pins the oldest Kubernetes that Bellhop supports.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
