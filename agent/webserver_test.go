package agent

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"ntsagent/agent/status"
)

// TestWhatTheWebServerShowsIsInTheStatus counts on a web server that does not show our proofs: none, or one that knows nothing of
// them. The fault is told when it was seen before two orders.
func TestWhatTheWebServerShowsIsInTheStatus(t *testing.T) {
	t.Parallel()
	at := resolver(t, map[uint16]string{dns.TypeA: "A 127.0.0.1"})
	a, c, _ := http01(t, fmt.Sprintf("  resolvers: [%q]\n  http01: {mode: webroot, webroot: %s}\npublic_addresses: [127.0.0.1]\n", at, t.TempDir()))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.managers[0].Run(ctx) }()
	for range 2 {
		if err := c.managers[0].Renew(ctx, true); err == nil {
			t.Error("a certificate from nowhere")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	certs := c.report()
	if faults := certs[0].WebServer; len(faults) == 0 || faults[0].What == "" || faults[0].Fix == "" {
		t.Fatalf("%+v", certs[0])
	}
	d := status.Document{Certificates: certs, LastErrors: a.events.List()}.Judged(time.Now())
	text, fault := status.Text(d), certs[0].WebServer[0]
	if !strings.Contains(text, "web server: "+fault.What) || !strings.Contains(text, "to mend: "+fault.Fix) {
		t.Errorf("%+v is not told:\n%s", fault, text)
	}
	told := 0
	for _, e := range d.LastErrors {
		if strings.Contains(e.What, fault.What) {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times: %+v", told, d.LastErrors)
	}
}
