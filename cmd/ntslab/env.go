package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const envName = "lab.env"

// env is DIR/lab.env: how other programs find the lab. It is written when all
// is ready, by rename, so whoever sees the file sees a lab that works.
type env struct {
	Name     string // host name, no port
	KE       string // ip:port, as are the next four
	NTP      string
	HTTP     string
	TLSALPN  string
	DNS      string
	CA       string // path: PEM that verifies the KE certificate
	ACME     string // directory URL
	ACMECA   string // path: PEM that verifies the directory itself
	Config   string // path
	Socket   string // path
	AgentPID int
}

// text is the file for a POSIX shell to read.
func (e env) text() string {
	var b strings.Builder
	for _, v := range []struct{ key, value string }{
		{"NAME", e.Name}, {"KE", e.KE}, {"NTP", e.NTP}, {"HTTP", e.HTTP}, {"TLSALPN", e.TLSALPN}, {"DNS", e.DNS},
		{"CA", e.CA}, {"ACME", e.ACME}, {"ACME_CA", e.ACMECA}, {"CONFIG", e.Config}, {"SOCKET", e.Socket},
		{"AGENT_PID", fmt.Sprint(e.AgentPID)},
	} {
		fmt.Fprintf(&b, "%s=%s\n", v.key, shellWord(v.value))
	}
	return b.String()
}

// shellWord quotes only what a shell would not take as it is.
func shellWord(s string) string {
	safe := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._:-+=@,", r)
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !safe(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// writeFile makes data appear at path at once.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ntslab-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name()) // gone already when all went well
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
