//go:build !slow

package issuer_test

// The sweep kills at every stride-th change of a file, once. make test-slow leaves none out, and kills half of those agents
// a second time while they start.
const (
	stride    = 7
	killTwice = false
)
