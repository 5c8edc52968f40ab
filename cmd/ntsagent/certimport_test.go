package main

import (
	"testing"
	"time"

	"ntsagent/agent/status"
)

func TestImportTellsWhetherTheCertificateIsRenewedInTime(t *testing.T) {
	begins := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	const line = "ok    a.example: certificate 0a by CA, valid from 2026-11-23T12:00Z to 2026-11-24T12:00Z, serves"
	for _, tt := range []struct {
		name  string
		renew time.Time
		want  string
	}{
		{"nothing is ordered any more", time.Time{}, line},
		{"in time", begins.Add(12 * time.Hour), line + "\n      its successor is ordered from the CA at 2026-11-24T00:00Z"},
		{"too late", begins.Add(7 * 24 * time.Hour), line + "\n      it is over before a successor can be ordered from the CA, at 2026-11-30T12:00Z: import another until then"},
	} {
		c := status.Certificate{Name: "a.example", Serial: "0a", Issuer: "CA", NotBefore: begins, NotAfter: begins.Add(24 * time.Hour), RenewAt: tt.renew}
		if got := importedText(c); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
