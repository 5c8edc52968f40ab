//go:build slow

package issuer_test

const (
	stride    = 1
	killTwice = true
)
