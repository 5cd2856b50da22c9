//go:build tools

// Package tools pins the store of the API server that the tests start.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
)
