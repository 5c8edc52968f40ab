// Package partstest gives tests the daemons of package parts.
package partstest

import (
	"os"
	"testing"

	"ntsagent/packaging/parts"
)

// Chrony returns the release's unpacked chrony, unpacking it on first use. A
// test that needs chrony and cannot have it fails; it is never skipped.
func Chrony(t testing.TB, r parts.Release) parts.Root {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatalf("find the repository: %v", err)
	}
	repo, err := parts.RepoDir(wd)
	if err != nil {
		t.Fatal(err)
	}
	root, err := parts.UnpackChrony(t.Context(), repo, r)
	if err != nil {
		t.Fatal(err)
	}
	return root
}
