package status

import (
	"fmt"
	"time"
)

// Export is the copy of a certificate that another program serves.
type Export struct {
	Name    string    `json:"name"`
	Cert    string    `json:"cert"` // paths
	Key     string    `json:"key"`
	Serial  string    `json:"serial,omitempty"`       // of the certificate it has to be
	Written time.Time `json:"written,omitzero"`       // when it was last written, or left for who writes it
	Asked   time.Time `json:"asked,omitzero"`         // when the daemon was last asked for it
	Served  time.Time `json:"served,omitzero"`        // when the daemon was last seen to serve it, with cookies that it opens
	Waits   time.Time `json:"waits,omitzero"`         // the daemon is restarted for it then, and until then serves the one before
	Problem string    `json:"problem,omitempty"`      // what was wrong when it was last asked, and what to do
	Hurts   bool      `json:"hurts,omitempty"`        // that keeps clients from being served
	Failed  string    `json:"write_failed,omitempty"` // why it could not be written, and what to do
}

// Why says what is wrong, "" when nothing is.
func (e Export) Why() string {
	switch {
	case e.Failed == "":
		return e.Problem
	case e.Problem == "":
		return e.Failed
	}
	return e.Failed + "; " + e.Problem
}

// judgeExports sorts what is wrong with the exports.
func judgeExports(d Document, valid bool) (hurt, look []string) {
	for _, e := range d.Exports {
		why := e.Why()
		switch {
		case why == "" && valid && e.Served.IsZero() && d.Keys.Mode == ModeCertificate:
			hurt = append(hurt, "the daemon has not been seen to serve our certificate yet")
		case why == "":
		case e.Hurts:
			hurt = append(hurt, why)
		default:
			look = append(look, "export to "+e.Cert+": "+why)
		}
	}
	return hurt, look
}

// servedText tells of a key exchange that the daemon serves.
func servedText(d Document) string {
	for _, e := range d.Exports {
		switch {
		case e.Problem != "" && e.Hurts:
			return "NOT served by " + d.Daemon.Kind
		case e.Problem != "":
			return d.Daemon.Kind + " serves it, not with our certificate"
		case !e.Waits.IsZero() && !e.Served.IsZero():
			return fmt.Sprintf("%s serves it with the certificate before, seen %s ago; it is restarted for the new one, once a day at most, in %s",
				d.Daemon.Kind, Span(d.Time.Sub(e.Served)), Span(max(0, e.Waits.Sub(d.Time))))
		case !e.Served.IsZero():
			return d.Daemon.Kind + " serves it with our certificate, seen " + Span(d.Time.Sub(e.Served)) + " ago"
		}
	}
	return "left to " + d.Daemon.Kind + ", not seen yet"
}
