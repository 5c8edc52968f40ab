//go:build !race

package issuer_test

const raceDetector = false
