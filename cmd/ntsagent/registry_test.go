package main

import (
	"net/netip"
	"strings"
	"testing"

	"ntsagent/ntske/client"
)

func TestCheckNamesWhereTheTimeComesFrom(t *testing.T) {
	for _, c := range []struct {
		name    string
		stratum uint8
		id      string
		want    string
	}{
		{"a registered clock", 1, "GPS", "refid GPS (Global Position System)"},
		{"a clock nobody registered", 1, "GNSS", "refid GNSS (not registered)"},
		{"a private clock", 1, "XYZ", "refid XYZ (private)"},
		{"a clock against the rules", 1, "gps", "refid gps (octet 1 is neither an upper-case letter nor a digit)"},
		{"no clock", 1, "", "refid "},
		{"a server's server", 2, "198.51.100.4", "refid 198.51.100.4"},
		{"no server", 2, "0.0.0.0", "refid 0.0.0.0"},
		{"the own clock", 10, "127.127.1.1", "refid 127.127.1.1 (the server's own clock, without a source)"},
		{"a kiss code", 0, "RATE", "kiss code RATE"},
		{"no kiss code", 0, "", "not synchronised"},
		{"not synchronised", 16, "198.51.100.4", "refid 198.51.100.4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := goodAddress("192.0.2.7", "ipv4")
			a.NTP.Stratum, a.NTP.ReferenceID = c.stratum, c.id
			var b strings.Builder
			if err := writeReport(&b, goodReport(a), false); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(b.String(), ", "+c.want+", offset +0.21 ms") {
				t.Errorf("got\n%s\nwant %s", b.String(), c.want)
			}
		})
	}
}

func TestCheckSaysWhatAKissCodeMeans(t *testing.T) {
	for _, c := range []struct{ name, step, text, hint string }{
		{"a registered code", "ntp", "the server did not give the time, but the kiss code DENY", "DENY: Access denied by remote server"},
		{"an unauthenticated one", "ntp", "response is not authenticated: kiss code RATE",
			"RATE: Rate exceeded. The server has temporarily denied access because the client exceeded the rate threshold"},
		{"a short code", "ntp", "the server did not give the time, but the kiss code ABC.", "ABC is not registered"},
		{"a private code", "ntp", "the server did not give the time, but the kiss code XABC", "XABC is private"},
		{"no code", "ntp", "the server did not give the time, but the kiss code ....", ""},
		{"a text that ends too early", "ntp", "kiss code ", ""},
		{"another problem", "ntp", "the server did not send a new cookie", ""},
		{"another step", "ntske", "kiss code RATE", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := client.Report{Name: "a.example", Results: []client.AddressReport{{Address: netip.MustParseAddr("192.0.2.7"), Family: "ipv4",
				Problem: &client.Problem{Step: c.step, Fault: client.Server, Text: c.text}}}}
			screen, quiet := c.text+"\n", "check a.example at 192.0.2.7: "+c.step+": "+c.text
			if c.hint != "" {
				screen += "          " + c.hint + "\n"
				quiet += "; " + c.hint
			}
			var b strings.Builder
			if err := writeReport(&b, r, false); err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(b.String(), screen+"FAIL      not authenticated on IPv4\n") {
				t.Errorf("got\n%s\nwant\n%s", b.String(), screen)
			}
			if got := firstProblem(r); got != quiet {
				t.Errorf("quiet: %q, want %q", got, quiet)
			}
		})
	}
}
