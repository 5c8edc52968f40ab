//go:build !race

package agent

// fraction is what part of a load a test makes.
const fraction = 1
