//go:build tools

// Package tools pins the newest Kubernetes that the tests run Bellhop against.
package tools

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
