package config

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// maxHMACFile is more octets than any file with an HMAC key has.
const maxHMACFile = 4 << 10

// FileWarnings are what is wrong with files and folders of this host that certificates are ordered with, one line each, with
// what to do. What the caller may not see is left out.
func (c *Config) FileWarnings() (out []string) {
	if c.Certificate.Source != SourceACME {
		return nil
	}
	a := c.ACME
	if h := a.HTTP01; h.Mode == HTTP01Webroot && slices.Contains(a.Challenges, ChallengeHTTP01) {
		info, err := os.Stat(h.Webroot)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			out = append(out, fmt.Sprintf("acme.http01.webroot: there is no folder %s; make it, for the agent's user alone to write to and for the web server to read", h.Webroot))
		case err == nil && !info.IsDir():
			out = append(out, fmt.Sprintf("acme.http01.webroot: %s is not a folder; name that of the web server", h.Webroot))
		}
	}
	for _, e := range []struct {
		key  string
		path string
	}{{"acme.eab", a.EAB.HMACFile}, {"acme.fallback_eab", a.FallbackEAB.HMACFile}} {
		if e.path == "" {
			continue
		}
		if why := badSecret(e.path); why != "" {
			out = append(out, fmt.Sprintf("%s.hmac_file: %s; no account is opened with it: write the key there as the CA has given it, in base64url, "+
				"with mode 0600, owned by the agent's user", e.key, why))
		}
	}
	return out
}

// badSecret says why the file at path holds no HMAC key, or not in secret. Nothing of what is in it is told.
func badSecret(path string) string {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no file " + path
	case err != nil:
		return ""
	case !info.Mode().IsRegular():
		return path + " is not a regular file"
	case info.Mode().Perm()&0o007 != 0:
		return fmt.Sprintf("everybody may read %s, it has mode %04o", path, info.Mode().Perm())
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHMACFile+1))
	if err != nil {
		return ""
	}
	text = bytes.TrimRight(bytes.TrimSpace(text), "=")
	if _, err := base64.RawURLEncoding.DecodeString(string(text)); err != nil || len(text) == 0 || len(text) > maxHMACFile {
		return path + " is not base64url"
	}
	return ""
}
