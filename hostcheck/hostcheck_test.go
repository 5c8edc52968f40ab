package hostcheck

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func mustParse(t testing.TB, s string) Name {
	t.Helper()
	n, err := ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestParseNameGivesTheCanonicalForm(t *testing.T) {
	label63 := strings.Repeat("a", 63)
	longest := strings.Join([]string{label63, label63, label63, strings.Repeat("b", 61)}, ".")
	for in, want := range map[string]string{
		"alice.members.pool.example":  "alice.members.pool.example",
		"Alice.Members.POOL.example":  "alice.members.pool.example",
		"alice.members.pool.example.": "alice.members.pool.example",
		"xn--bcher-kva.example":       "xn--bcher-kva.example",
		"localhost":                   "localhost",
		"3com.example":                "3com.example",
		"1.2.3.4.example":             "1.2.3.4.example",
		"a-b.c--d.example":            "a-b.c--d.example",
		label63 + ".example":          label63 + ".example",
		longest:                       longest,
		longest + ".":                 longest,
	} {
		got, err := ParseName(in)
		if err != nil || got.String() != want || got.IsZero() {
			t.Errorf("ParseName(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseNameRefusesWhatIsNoHostName(t *testing.T) {
	long := strings.Repeat("a.", 126) + "aa"
	if len(long) != 254 {
		t.Fatal(len(long))
	}
	for _, in := range []string{
		"", ".", "..", "a..b", ".a", "a.example..", "-a.example", "a-.example", "a.-b", "a_b.example", "*.example", "a b", " a", "a ", "a\t",
		"a\x00", "a\n", "b\u00fccher.example", "\u212aelvin.example", "a\u3002b", "a\u200d.example", "a:80", "a/b", "a@b", "a%2eb", "a,b", "[::1]", "::1",
		"127.0.0.1", "127.0.0.1.", "1.2.3", "1", "0x7f000001", "0x7f.1", "0X7F.0x1", "example.0x", "a.123",
		strings.Repeat("a", 64) + ".example", long,
	} {
		if got, err := ParseName(in); err == nil || !got.IsZero() || got.String() != "" {
			t.Errorf("ParseName(%q) = %q, %v; want an error and no name", in, got, err)
		} else if strings.ContainsAny(err.Error(), "\n\x00\t") || len(err.Error()) > 400 {
			t.Errorf("ParseName(%q): error is not one short clean line: %q", in, err)
		}
	}
}

func TestSetKeepsOrderWithoutRepetitions(t *testing.T) {
	a, b := mustParse(t, "a.example"), mustParse(t, "b.example")
	s := NewSet([]Name{b, {}, a, b})
	if got := s.Names(); len(got) != 2 || got[0] != b || got[1] != a {
		t.Fatalf("names = %v", got)
	}
	s.Names()[0] = a
	if s.Names()[0] != b {
		t.Fatal("a caller changed the set")
	}
	if !s.Contains(a) || s.Contains(Name{}) || s.Contains(mustParse(t, "c.example")) {
		t.Fatal("Contains is wrong")
	}
}

func TestTheZeroSetAndTheZeroNameMatchNothing(t *testing.T) {
	for _, s := range []Set{{}, NewSet(nil), NewSet([]Name{{}})} {
		for _, host := range []string{"", ".", ":80", "a.example"} {
			if n, status := s.Check(request(host)); status == 0 || !n.IsZero() {
				t.Errorf("host %q passes an empty set", host)
			}
			if _, ok := s.MatchSNI(host); ok {
				t.Errorf("sni %q passes an empty set", host)
			}
		}
		if s.Contains(Name{}) || len(s.Names()) != 0 {
			t.Error("an empty set contains something")
		}
	}
}

func request(host string) *http.Request {
	return &http.Request{Method: "GET", RequestURI: "/", ProtoMajor: 1, ProtoMinor: 1, Host: host}
}

func TestCheckDecidesByHost(t *testing.T) {
	alice := mustParse(t, "alice.pool.example")
	bob := mustParse(t, "bob.pool.example")
	s := NewSet([]Name{alice, bob}, 5002, 8080)
	for _, c := range []struct {
		rule   string
		host   string
		want   Name
		status int
	}{
		{"an own name passes", "alice.pool.example", alice, 0},
		{"another own name passes", "bob.pool.example", bob, 0},
		{"upper case is folded", "ALICE.Pool.eXample", alice, 0},
		{"one trailing dot is dropped", "alice.pool.example.", alice, 0},
		{"port 80 is always listed", "alice.pool.example:80", alice, 0},
		{"a configured port is listed", "alice.pool.example:5002", alice, 0},
		{"dot and port together pass", "alice.pool.example.:8080", alice, 0},
		{"an empty Host is no form", "", Name{}, 400},
		{"a port alone is an empty Host", ":80", Name{}, 400},
		{"a dot alone is an empty Host", ".", Name{}, 400},
		{"letters are no port", "alice.pool.example:abc", Name{}, 400},
		{"an empty port is no port", "alice.pool.example:", Name{}, 400},
		{"a sign is no digit", "alice.pool.example:+80", Name{}, 400},
		{"a space is no digit", "alice.pool.example:80 ", Name{}, 400},
		{"two ports are no form", "alice.pool.example:80:80", Name{}, 400},
		{"other digits are no digits", "alice.pool.example:\u0668\u0660", Name{}, 400},
		{"a percent sign is refused", "alice%2epool.example", Name{}, 400},
		{"an underscore is refused", "a_b.pool.example", Name{}, 400},
		{"a space is refused", "alice.pool.example evil", Name{}, 400},
		{"userinfo is refused", "a@alice.pool.example", Name{}, 400},
		{"a path is refused", "alice.pool.example/x", Name{}, 400},
		{"a list is refused", "alice.pool.example,evil", Name{}, 400},
		{"a NUL is refused", "alice.pool.example\x00", Name{}, 400},
		{"a newline is refused", "alice.pool.example\n", Name{}, 400},
		{"a letter beyond ASCII that folds to ours is refused", "alice.pool.e\u017fample", Name{}, 400},
		{"an ideographic full stop is refused", "alice\u3002pool.example", Name{}, 400},
		{"an open bracket alone is no form", "[", Name{}, 400},
		{"a bracket that holds a name is no form", "[alice.pool.example]", Name{}, 400},
		{"a bracket that holds IPv4 is no form", "[127.0.0.1]", Name{}, 400},
		{"text after a bracket is no form", "[::1]x", Name{}, 400},
		{"an IPv6 literal with a bad port is no form", "[::1]:x", Name{}, 400},
		{"an IPv6 address without brackets is no form", "::1", Name{}, 400},
		{"an IPv6 literal is somebody else", "[::1]", Name{}, 421},
		{"an IPv6 literal with port is somebody else", "[2001:db8::7]:80", Name{}, 421},
		{"an IPv6 literal with a zone is somebody else", "[fe80::1%25lo]:80", Name{}, 421},
		{"an IPv4 address is somebody else", "127.0.0.1", Name{}, 421},
		{"an IPv4 address with port is somebody else", "192.0.2.7:80", Name{}, 421},
		{"another name is somebody else", "evil.example", Name{}, 421},
		{"a name above is somebody else", "pool.example", Name{}, 421},
		{"a name below is somebody else", "www.alice.pool.example", Name{}, 421},
		{"a name that ends like ours is somebody else", "xalice.pool.example", Name{}, 421},
		{"a name that begins like ours is somebody else", "alice.pool.example.evil", Name{}, 421},
		{"only one dot is dropped", "alice.pool.example..", Name{}, 421},
		{"a leading dot is not dropped", ".alice.pool.example", Name{}, 421},
		{"an unlisted port is somebody else", "alice.pool.example:443", Name{}, 421},
		{"port 0 is somebody else", "alice.pool.example:0", Name{}, 421},
		{"a port with a leading zero is not the listed one", "alice.pool.example:080", Name{}, 421},
		{"a port beyond 65535 does not wrap around", "alice.pool.example:65616", Name{}, 421},
		{"a very long port is somebody else", "alice.pool.example:" + strings.Repeat("8", 4000), Name{}, 421},
		{"a very long name is somebody else", strings.Repeat("a", 5000), Name{}, 421},
	} {
		t.Run(c.rule, func(t *testing.T) {
			got, status := s.Check(request(c.host))
			if got != c.want || status != c.status {
				t.Errorf("Check(%q) = %q, %d; want %q, %d", c.host, got, status, c.want, c.status)
			}
		})
	}
}

func TestCheckDecidesByForm(t *testing.T) {
	alice := mustParse(t, "alice.pool.example")
	s := NewSet([]Name{alice})
	for _, c := range []struct {
		rule   string
		edit   func(*http.Request)
		status int
	}{
		{"the origin-form passes", func(r *http.Request) {}, 0},
		{"any method passes, the handler decides", func(r *http.Request) { r.Method = "BREW" }, 0},
		{"two slashes are an origin-form", func(r *http.Request) { r.RequestURI = "//evil.example/x" }, 0},
		{"HTTP/1.0 passes", func(r *http.Request) { r.ProtoMinor = 0 }, 0},
		{"an absolute-form is refused", func(r *http.Request) { r.RequestURI = "http://alice.pool.example/" }, 400},
		{"another scheme is refused", func(r *http.Request) { r.RequestURI = "ftp://alice.pool.example/" }, 400},
		{"the asterisk-form is refused", func(r *http.Request) { r.Method, r.RequestURI = "OPTIONS", "*" }, 400},
		{"the authority-form is refused", func(r *http.Request) { r.Method, r.RequestURI = "CONNECT", "alice.pool.example:80" }, 400},
		{"CONNECT with a path is refused", func(r *http.Request) { r.Method, r.RequestURI = "CONNECT", "/" }, 400},
		{"an empty request-target is refused", func(r *http.Request) { r.RequestURI = "" }, 400},
		{"an HTTP/2 preface is refused", func(r *http.Request) { r.Method, r.RequestURI, r.ProtoMajor = "PRI", "*", 2 }, 400},
		{"HTTP/2 is refused", func(r *http.Request) { r.ProtoMajor = 2 }, 400},
		{"HTTP/0.9 is refused", func(r *http.Request) { r.ProtoMajor = 0 }, 400},
		{"a wrong form outranks a wrong name", func(r *http.Request) { r.Host, r.RequestURI = "evil.example", "*" }, 400},
	} {
		t.Run(c.rule, func(t *testing.T) {
			r := request("alice.pool.example")
			c.edit(r)
			want := Name{}
			if c.status == 0 {
				want = alice
			}
			if got, status := s.Check(r); got != want || status != c.status {
				t.Errorf("Check = %q, %d; want %q, %d", got, status, want, c.status)
			}
		})
	}
}

func TestMatchSNI(t *testing.T) {
	alice := mustParse(t, "alice.pool.example")
	s := NewSet([]Name{alice}, 5002)
	for sni, want := range map[string]bool{
		"alice.pool.example":      true,
		"ALICE.pool.Example":      true,
		"alice.pool.example.":     true,
		"":                        false,
		".":                       false,
		"alice.pool.example..":    false,
		"alice.pool.example:5002": false,
		"alice.pool.example:80":   false,
		"bob.pool.example":        false,
		"*.pool.example":          false,
		"127.0.0.1":               false,
		"::1":                     false,
		"[::1]":                   false,
		"alice.pool.e\u017fample": false,
		"alice.pool.example\x00":  false,
	} {
		got, ok := s.MatchSNI(sni)
		if ok != want || (got == alice) != want {
			t.Errorf("MatchSNI(%q) = %q, %v; want %v", sni, got, ok, want)
		}
	}
}

func TestChecksDoNotAllocateForCanonicalHosts(t *testing.T) {
	s := NewSet([]Name{mustParse(t, "alice.pool.example")})
	r := request("alice.pool.example:80")
	if n := testing.AllocsPerRun(100, func() { s.Check(r); s.MatchSNI("alice.pool.example") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzAcceptsOnlyWhatEqualsAName holds the three ways in to one another: a host or SNI passes only when ParseName reads
// it, without a listed port, as exactly the name it passes for, and every name ParseName gives passes as itself.
func FuzzAcceptsOnlyWhatEqualsAName(f *testing.F) {
	for _, seed := range []string{
		"alice.pool.example", "ALICE.pool.example.", "alice.pool.example:80", "alice.pool.example:5002", "alice.pool.example.:80", "b.example",
		"", ".", ":80", "h:abc", "h:", "h%2eexample", "[::1]:80", "[fe80::1%25lo]:80", "127.0.0.1", "a@alice.pool.example", "alice.pool.example..",
		"alice.pool.\u212aexample", "xn--bcher-kva.example", "a_b", "0x7f.1", "alice.pool.example:080", "alice.pool.example:65616",
	} {
		f.Add(seed)
	}
	own := []Name{mustParse(f, "alice.pool.example"), mustParse(f, "b.example"), mustParse(f, "xn--bcher-kva.example")}
	ports := []string{":80", ":5002"}
	s := NewSet(own, 5002)
	f.Fuzz(func(t *testing.T, in string) {
		if n, ok := s.MatchSNI(in); ok {
			if parsed, err := ParseName(in); err != nil || parsed != n || !s.Contains(n) {
				t.Fatalf("MatchSNI(%q) = %q, ParseName gives %q, %v", in, n, parsed, err)
			}
		}
		n, status := s.Check(request(in))
		switch status {
		case 0:
			host := in
			for _, p := range ports {
				host = strings.TrimSuffix(host, p)
			}
			if parsed, err := ParseName(host); err != nil || parsed != n || !s.Contains(n) {
				t.Fatalf("Check(%q) = %q, ParseName gives %q, %v", in, n, parsed, err)
			}
		case http.StatusBadRequest, http.StatusMisdirectedRequest:
			if !n.IsZero() {
				t.Fatalf("Check(%q) refuses with the name %q", in, n)
			}
		default:
			t.Fatalf("Check(%q) = %d", in, status)
		}
		name, err := ParseName(in)
		if err != nil {
			return
		}
		if again, err := ParseName(name.String()); err != nil || again != name {
			t.Fatalf("ParseName(%q) = %q, which reads as %q, %v", in, name, again, err)
		}
		mine := NewSet([]Name{name})
		for _, host := range []string{in, name.String(), fmt.Sprintf("%s:80", name)} {
			if got, status := mine.Check(request(host)); status != 0 || got != name {
				t.Fatalf("the set of %q refuses host %q with %d", name, host, status)
			}
		}
		if got, ok := mine.MatchSNI(in); !ok || got != name {
			t.Fatalf("the set of %q refuses sni %q", name, in)
		}
	})
}
