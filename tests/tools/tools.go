//go:build tools

// Package tools pins the foreign programs that the tests check Bellhop with.
package tools

import (
	_ "github.com/prometheus/prometheus/cmd/promtool"
)
