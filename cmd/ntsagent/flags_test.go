package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTimeoutEndsTheWaitForADeafAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, words := range []string{"status", "cert show", "keys show", "keys rotate", "reload"} {
		var stdout, stderr strings.Builder
		start := time.Now()
		args := append(strings.Fields(words), "--socket", path, "--timeout", "30ms")
		code := execute(t.Context(), args, &stdout, &stderr)
		if code != exitTemporary || !strings.Contains(stderr.String(), "no answer on "+path+" in time") {
			t.Errorf("%s: exit %d, %q; want %d and that there was no answer in time", words, code, stderr.String(), exitTemporary)
		}
		if took := time.Since(start); took >= lookPatience { // the shortest there is
			t.Errorf("%s took %s, --timeout was 30ms", words, took)
		}
	}
}
