package main

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"ntsagent/ntske/client"
)

// goodAddress is what a healthy member looks like at one address.
func goodAddress(addr, family string) client.AddressReport {
	return client.AddressReport{
		Address: netip.MustParseAddr(addr), Family: family,
		TLS: &client.TLSReport{Version: "1.3", Group: "X25519MLKEM768", Name: "alice.members.pool.example", Issuer: "Let's Encrypt",
			NotAfter: time.Date(2027, 1, 5, 9, 11, 0, 0, time.UTC), DaysLeft: 31},
		KE: &client.KEReport{Cookies: 8, CookieOctets: 100, AEAD: 15, AEADName: "AES-SIV-CMAC-256", NTPPort: 123, TookMS: 4.123},
		NTP: &client.NTPReport{Address: netip.MustParseAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 123).String()), Replies: 2,
			KECookies: 1, Refreshed: 1, Stratum: 2, ReferenceID: "198.51.100.4", OffsetMS: 0.2061, DelayMS: 0.312},
	}
}

func goodReport(results ...client.AddressReport) client.Report {
	r := client.Report{Name: "alice.members.pool.example", Port: 4460, OK: true, Results: results}
	for _, a := range results {
		r.Addresses = append(r.Addresses, a.Address)
	}
	return r
}

func TestCheckScreen(t *testing.T) {
	refused := goodAddress("2001:db8::7", "ipv6")
	refused.KE, refused.NTP = nil, nil
	refused.Problem = &client.Problem{Step: "ntske", Fault: client.Server, Text: "the server did not serve the request: NTS-KE: peer answered: internal server error"}
	unreachable := client.AddressReport{Address: netip.MustParseAddr("2001:db8::7"), Family: "ipv6",
		Problem: &client.Problem{Step: "connect", Fault: client.Tool, Text: "this tool could not reach the server: network is unreachable"}}
	lossy := goodAddress("192.0.2.7", "ipv4")
	lossy.NTP.Lost, lossy.NTP.OffsetMS, lossy.KE.NTPHost = 1, -2912.3, "ntp.example"
	nowhere := client.Report{Name: "x.example", Port: 4460, Problem: &client.Problem{Step: "resolve", Fault: client.Server, Text: "the server did not have an address in DNS: no such host"}}

	const block = "tls       1.3 X25519MLKEM768, alice.members.pool.example, Let's Encrypt, 31 d left\n" +
		"ntske     8 cookies of 100 B, AEAD 15 (AES-SIV-CMAC-256), NTP at the same address, port 123          4.1 ms\n" +
		"ntp       2 authenticated replies (1 with a key-exchange cookie, 1 with a refreshed one)\n" +
		"          stratum 2, refid 198.51.100.4, offset +0.21 ms, delay 0.31 ms\n"
	tests := []struct {
		name   string
		report client.Report
		want   string
	}{
		{"one address, all good", goodReport(goodAddress("192.0.2.7", "ipv4")),
			"resolve   192.0.2.7\n" + block + "OK        authenticated on IPv4\n"},
		{"both families, all good", goodReport(goodAddress("192.0.2.7", "ipv4"), goodAddress("2001:db8::7", "ipv6")),
			"resolve   192.0.2.7, 2001:db8::7\nIPv4      192.0.2.7\n" + block + "IPv6      2001:db8::7\n" + block +
				"OK        authenticated on IPv4 and IPv6\n"},
		{"the server fails on one family", goodReport(goodAddress("192.0.2.7", "ipv4"), refused),
			"resolve   192.0.2.7, 2001:db8::7\nIPv4      192.0.2.7\n" + block + "IPv6      2001:db8::7\n" +
				"tls       1.3 X25519MLKEM768, alice.members.pool.example, Let's Encrypt, 31 d left\n" +
				"ntske     the server did not serve the request: NTS-KE: peer answered: internal server error\n" +
				"FAIL      authenticated on IPv4, not authenticated on IPv6\n"},
		{"no route to one family", goodReport(goodAddress("192.0.2.7", "ipv4"), unreachable),
			"resolve   192.0.2.7, 2001:db8::7\nIPv4      192.0.2.7\n" + block + "IPv6      2001:db8::7\n" +
				"connect   this tool could not reach the server: network is unreachable\n" +
				"UNKNOWN   authenticated on IPv4, could not try IPv6\n"},
		{"a lost packet, a far clock, another host", goodReport(lossy),
			"resolve   192.0.2.7\n" +
				"tls       1.3 X25519MLKEM768, alice.members.pool.example, Let's Encrypt, 31 d left\n" +
				"ntske     8 cookies of 100 B, AEAD 15 (AES-SIV-CMAC-256), NTP at ntp.example, port 123               4.1 ms\n" +
				"ntp       2 authenticated replies (1 with a key-exchange cookie, 1 with a refreshed one), 1 lost\n" +
				"          stratum 2, refid 198.51.100.4, offset -2.912 s, delay 0.31 ms\n" +
				"OK        authenticated on IPv4\n"},
		{"no such name", nowhere,
			"resolve   the server did not have an address in DNS: no such host\nFAIL      not authenticated\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			if err := writeReport(&b, tt.report, false); err != nil {
				t.Fatal(err)
			}
			if b.String() != tt.want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), tt.want)
			}
		})
	}
}

func TestCheckSaysWhatToTryAboutACertificate(t *testing.T) {
	at := netip.MustParseAddr("192.0.2.7")
	for _, c := range []struct {
		name, host string
		err        error
		hint       string
	}{
		{"an address, and a certificate for names", "192.0.2.7", x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}}, Host: "192.0.2.7"},
			"check by name: the certificate is not for this address"},
		{"an address, and a certificate for another one", "192.0.2.7",
			x509.HostnameError{Certificate: &x509.Certificate{IPAddresses: []net.IP{net.IPv4(192, 0, 2, 8)}}, Host: "192.0.2.7"},
			"check by name: the certificate is not for this address"},
		{"a name, and a certificate for another one", "b.example", x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"a.example"}}, Host: "b.example"}, ""},
		{"a private CA", "a.example", x509.UnknownAuthorityError{}, "private CA? use --ca F"},
		{"an expired certificate", "a.example", x509.CertificateInvalidError{Reason: x509.Expired, Cert: &x509.Certificate{}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := "the server did not show a certificate that verifies: " + c.err.Error()
			r := client.Report{Name: c.host, Results: []client.AddressReport{{Address: at, Family: "ipv4",
				Problem: &client.Problem{Step: "tls", Fault: client.Server, Text: text}}}}
			var b strings.Builder
			if err := writeReport(&b, r, false); err != nil {
				t.Fatal(err)
			}
			screen := "tls       " + text + "\n"
			quiet := "check " + c.host + " at 192.0.2.7: tls: " + text
			if c.hint != "" {
				screen += "          " + c.hint + "\n"
				quiet += "; " + c.hint
			}
			if want := screen + "FAIL      not authenticated on IPv4\n"; b.String() != want {
				t.Errorf("got\n%s\nwant\n%s", b.String(), want)
			}
			if got := firstProblem(r); got != quiet {
				t.Errorf("quiet: %q, want %q", got, quiet)
			}
		})
	}
}

func TestCheckColoursTheLastLineOnly(t *testing.T) {
	var b strings.Builder
	writeReport(&b, goodReport(goodAddress("192.0.2.7", "ipv4")), true)
	if want := "\x1b[32mOK\x1b[0m        authenticated"; strings.Count(b.String(), "\x1b") != 2 || !strings.Contains(b.String(), want) {
		t.Errorf("got %q", b.String())
	}
}

func TestCheckTarget(t *testing.T) {
	for in, want := range map[string]struct {
		name string
		port uint16
	}{
		"Alice.pool.example":      {"alice.pool.example", 0},
		"alice.pool.example:4461": {"alice.pool.example", 4461},
		"127.0.0.1":               {"127.0.0.1", 0},
		"127.0.0.1:1":             {"127.0.0.1", 1},
		"2001:db8::7":             {"2001:db8::7", 0},
		"[2001:db8::7]":           {"2001:db8::7", 0},
		"[2001:db8::7]:65535":     {"2001:db8::7", 65535},
	} {
		c, err := checkTarget(in)
		if err != nil || c.Name != want.name || c.Port != want.port {
			t.Errorf("%s: got %q %d, %v, want %v", in, c.Name, c.Port, err, want)
		}
	}
	for _, in := range []string{"", ":4460", "a:", "a:0", "a:65536", "a:x", "[::1", "[::1]x", "[127.0.0.1]:1", "münchen.example", "a b", "a/b", "a\x1b[2J", strings.Repeat("a", 255)} {
		if c, err := checkTarget(in); err == nil {
			t.Errorf("%q was taken as %q port %d", in, c.Name, c.Port)
		}
	}
}

func TestCheckResolver(t *testing.T) {
	for in, want := range map[string]string{"": "", "192.0.2.1": "192.0.2.1:53", "::1": "[::1]:53", "[::1]": "[::1]:53", "127.0.0.1:5353": "127.0.0.1:5353"} {
		if got, err := checkResolver(in); err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"dns.example", "dns.example:53", "127.0.0.1:", "127.0.0.1:99999"} {
		if got, err := checkResolver(in); err == nil {
			t.Errorf("%q was taken as %q", in, got)
		}
	}
}

// runCheck runs the verb and returns what it printed and its exit code.
func runCheck(t *testing.T, g globals, args ...string) (string, int) {
	t.Helper()
	if g.Timeout == 0 {
		g.Timeout = time.Minute
	}
	cmd := checkCommand(&g)
	var out strings.Builder
	cmd.SetArgs(append([]string{}, args...)) // nil would be those of this program
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(t.Context())
	var e *exitError
	switch {
	case err == nil:
		return out.String(), exitGood
	case errors.As(err, &e):
		if e.err != nil {
			fmt.Fprintln(&out, e.err)
		}
		return out.String(), e.code
	default:
		return out.String() + err.Error(), exitUsage
	}
}

func TestCheckExitCodes(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no host", nil, exitUsage, "check needs a HOST[:PORT]"},
		{"not a host", []string{"a/b"}, exitUsage, "is no host name"},
		{"both families only", []string{"-4", "-6", "127.0.0.1"}, exitUsage, "none of the others can be"},
		{"too few queries", []string{"--count", "1", "127.0.0.1"}, exitUsage, "at least 2"},
		{"a CA file that is not there", []string{"--ca", filepath.Join(dir, "none"), "127.0.0.1"}, exitUsage, "no such file"},
		{"a CA file without certificates", []string{"--ca", empty, "127.0.0.1"}, exitUsage, "no PEM certificate"},
		{"an algorithm this tool has not", []string{"--aead", "15,31", "127.0.0.1"}, exitUsage, "--aead 31: use some of"},
		{"an algorithm beyond 16 bits", []string{"--aead", "65551", "127.0.0.1"}, exitUsage, "--aead 65551"},
		{"an algorithm twice", []string{"--aead", "15,15", "127.0.0.1"}, exitUsage, "twice"},
		{"a resolver by name", []string{"--resolver", "dns.example", "127.0.0.1"}, exitUsage, "ADDRESS"},
		{"a server that is not there", []string{"127.0.0.1:1"}, exitFailed, "the server did not accept a TCP connection: connection refused"},
		{"the other family", []string{"-6", "127.0.0.1:1"}, exitFailed, "the server did not have an IPv6 address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, code := runCheck(t, globals{}, tt.args...)
			if code != tt.code || !strings.Contains(out, tt.says) {
				t.Errorf("exit %d, want %d; printed %q, want %q in it", code, tt.code, out, tt.says)
			}
		})
	}
}

func TestCheckQuietSaysOneLineAndJSONIsOneDocument(t *testing.T) {
	out, code := runCheck(t, globals{Quiet: true}, "127.0.0.1:1")
	if want := "check 127.0.0.1 at 127.0.0.1: connect: the server did not accept a TCP connection: connection refused\n"; out != want || code != exitFailed {
		t.Errorf("quiet: %q, exit %d, want %q", out, code, want)
	}
	out, code = runCheck(t, globals{JSON: true}, "127.0.0.1:1")
	var r struct {
		OK      *bool
		Results []struct {
			Problem struct{ Step, Fault, Text string }
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitFailed || r.OK == nil || *r.OK || len(r.Results) != 1 || r.Results[0].Problem.Fault != "server" {
		t.Errorf("json: %s, exit %d, %v", out, code, err)
	}
}

func TestCheckExitsByWhoseFaultItIs(t *testing.T) {
	tool := goodAddress("2001:db8::7", "ipv6")
	tool.Problem = &client.Problem{Step: "connect", Fault: client.Tool, Text: "this tool could not"}
	server := goodAddress("192.0.2.7", "ipv4")
	server.Problem = &client.Problem{Step: "ntp", Fault: client.Server, Text: "the server did not"}
	for want, r := range map[int]client.Report{
		exitGood:      goodReport(goodAddress("192.0.2.7", "ipv4")),
		exitTemporary: goodReport(goodAddress("192.0.2.7", "ipv4"), tool),
		exitFailed:    goodReport(server, tool),
	} {
		cmd := &cobra.Command{}
		cmd.SetOut(new(strings.Builder))
		var e *exitError
		code := exitGood
		if errors.As(showCheck(cmd, &globals{}, r), &e) {
			code = e.code
		}
		if code != want {
			t.Errorf("exit %d, want %d", code, want)
		}
	}
}

func TestCheckTellsAnUnreadableCAFromAMissingOne(t *testing.T) {
	if os.Geteuid() == 0 {
		// root reads everything: a directory is what it cannot read as a file.
		if _, err := checkRoots(t.TempDir()); err == nil {
			t.Error("a directory was read")
		}
		return
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := checkRoots(file); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
}
