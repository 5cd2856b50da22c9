//go:build tools

// Package tools pins kubeconform, and the Prometheus operator whose resources the chart makes.
package tools

import (
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
	_ "github.com/yannh/kubeconform/cmd/kubeconform"
)
