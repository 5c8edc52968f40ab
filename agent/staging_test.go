package agent

import (
	"bytes"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme"
	"ntsagent/agent/config"
)

// What the check of a configuration lets pass is used, and what is not used does not pass.
func TestAFallbackCAIsRefusedByTheConfigurationWhereTheAgentWouldNotTurnToIt(t *testing.T) {
	t.Parallel()
	const real, rehearsal = "https://acme-v02.api.letsencrypt.org/directory", "https://acme-staging-v02.api.letsencrypt.org/directory"
	for _, c := range []struct {
		directory, fallback string
		refused             bool
	}{
		{real, rehearsal, true},
		{real, "https://dv.acme-v02.test-api.pki.goog/directory", true},
		{real, "https://ACME.Staging.ca.example/directory", true},
		{real, "https://ca.test:14000/dir", true},
		{real, "https://acme.zerossl.com/v2/DV90", false},
		{real, "https://ca.example/staging/test", false},
		{real, "https://latest.ca.example/directory", false},
		{rehearsal, "https://ca.test:14000/dir", false},
		{rehearsal, real, false},
	} {
		var log bytes.Buffer
		acme.NewManager(acme.Config{Directory: c.directory, Fallback: acme.Authority{Directory: c.fallback}, Log: hclog.New(&hclog.LoggerOptions{Output: &log})})
		_, err := config.Parse("test", []byte("names: [alice.example]\nacme: {agree_to_terms: true, directory: \""+c.directory+"\", fallback_directory: \""+c.fallback+"\"}\n"))
		if ignored := strings.Contains(log.String(), "fallback CA not used"); ignored != c.refused || (err != nil) != c.refused {
			t.Errorf("%s after %s: refused with %v, ignored: %v; want %v", c.fallback, c.directory, err, ignored, c.refused)
		}
	}
}
