//go:build race

package agent

// fraction is what part of a load a test makes: under the race detector all is
// several times as slow.
const fraction = 10
