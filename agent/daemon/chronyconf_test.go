package daemon

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"ntsagent/packaging/parts"
	"ntsagent/packaging/parts/partstest"
)

// tree writes files; DIR in a text becomes the folder they are in.
func tree(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadChrony(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		sentence string
		text     string
		change   func(*Chrony)
	}{
		{"an empty file has chrony's defaults", "", func(*Chrony) {}},
		{"the last of two wins", "port 1\nport 2\n", func(c *Chrony) { c.Port = 2 }},
		{"case and white space do not matter", " \tPoRt \t 1123 \r\n", func(c *Chrony) { c.Port = 1123 }},
		{"comments begin the line with any of four signs", "# port 1\n! port 2\n; port 3\n% port 4\n", func(*Chrony) {}},
		{"a last line without line feed counts", "port 4461", func(c *Chrony) { c.Port = 4461 }},
		{"unknown directives are passed over", "server a.example iburst\nmakestep 1 3\nleapsectz right/UTC\n", func(*Chrony) {}},
		{"a bare ratelimit has chrony's numbers", "ratelimit\n", func(c *Chrony) { c.RateLimit = &RateLimit{3, 8, 2} }},
		{"ratelimit takes three options", "ratelimit leak 4 interval -2 BURST 1\n", func(c *Chrony) { c.RateLimit = &RateLimit{-2, 1, 4} }},
		{"ratelimit is kept to chrony's bounds", "ratelimit interval 40 burst 0 leak 9\n", func(c *Chrony) { c.RateLimit = &RateLimit{12, 1, 4} }},
		{"cmdratelimit and ntsratelimit are other limits", "cmdratelimit\nntsratelimit interval 6\n", func(*Chrony) {}},
		{"each family has its bindaddress", "bindaddress 192.0.2.1\nbindaddress 2001:db8::1\n", func(c *Chrony) {
			c.BindAddress4, c.BindAddress6 = addr("192.0.2.1"), addr("2001:db8::1")
		}},
		{"bindcmdaddress moves the socket", "bindcmdaddress 127.0.0.1\nbindcmdaddress /run/c.sock\n", func(c *Chrony) { c.CommandSocket = "/run/c.sock" }},
		{"bindcmdaddress / has none", "bindcmdaddress /\n", func(c *Chrony) { c.CommandSocket = "" }},
		{"the rest is taken as it stands", "keyfile /etc/k\nntsdumpdir /v\nntsrotate 0\nallow\nntsserverkey /k\nntsservercert /c\n", func(c *Chrony) {
			c.KeyFile, c.NTSDumpDir, c.NTSRotate, c.Allows, c.NTSServerKey, c.NTSServerCert = "/etc/k", "/v", 0, true, "/k", "/c"
		}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			dir := tree(t, map[string]string{"c": c.text})
			want := defaultChrony()
			c.change(&want)
			got, err := ReadChrony(filepath.Join(dir, "c"))
			got.lines, got.Access = nil, Access{} // have tests of their own
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("ReadChrony = %+v, %v; want %+v", got, err, want)
			}
		})
	}
}

func TestReadChronyRefuses(t *testing.T) {
	for _, c := range []struct {
		sentence string
		files    map[string]string
		err      error
	}{
		{"a port that is none", map[string]string{"c": "port x\n"}, ErrChronyConf},
		{"a port too high", map[string]string{"c": "port 65536\n"}, ErrChronyConf},
		{"a keyfile without a name", map[string]string{"c": "keyfile\n"}, ErrChronyConf},
		{"words after a keyfile, which are no comment", map[string]string{"c": "keyfile /k # mine\n"}, ErrChronyConf},
		{"a word ratelimit does not know", map[string]string{"c": "ratelimit kod 2\n"}, ErrChronyConf},
		{"half an option of ratelimit", map[string]string{"c": "ratelimit burst\n"}, ErrChronyConf},
		{"a file that includes itself", map[string]string{"c": "include DIR/c\n"}, ErrChronyConf},
		{"files that include each other by folder", map[string]string{"c": "confdir DIR/d\n", "d/x.conf": "confdir DIR/d\n"}, ErrChronyConf},
		{"more folders than chronyd takes", map[string]string{"c": "confdir /a /b /c /d /e /f /g /h /i /j /k\n"}, ErrChronyConf},
		{"a missing file", map[string]string{}, fs.ErrNotExist},
		{"a missing included file", map[string]string{"c": "include DIR/none\n"}, fs.ErrNotExist},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			dir := tree(t, c.files)
			if got, err := ReadChrony(filepath.Join(dir, "c")); !errors.Is(err, c.err) {
				t.Errorf("ReadChrony = %+v, %v; want %v", got, err, c.err)
			}
		})
	}
}

func TestReadChronyEndsOnHugeFilesAndPipes(t *testing.T) {
	dir := tree(t, map[string]string{"c": "confdir DIR\n", "big": strings.Repeat("# x\n", maxConfBytes/4+1)})
	if _, err := ReadChrony(filepath.Join(dir, "big")); err == nil {
		t.Error("a huge file was read")
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "x.conf"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadChrony(filepath.Join(dir, "c")); err == nil {
		t.Error("a pipe was read")
	}
}

// A bomb of ever doubling includes ends at the cap of files.
func TestReadChronyEndsOnManyIncludes(t *testing.T) {
	files := map[string]string{"9": ""}
	for i := range 9 {
		files[string(rune('0'+i))] = strings.Repeat("include DIR/"+string(rune('1'+i))+"\n", 8)
	}
	dir := tree(t, files)
	if _, err := ReadChrony(filepath.Join(dir, "0")); !errors.Is(err, ErrChronyConf) {
		t.Errorf("ReadChrony: %v", err)
	}
}

// chronyd itself, printing what it reads (-p), is the oracle for the order in
// which directives come out of nested files.
func TestReadChronyReadsInChronydsOrder(t *testing.T) {
	dir := tree(t, map[string]string{
		"c": "  Port   1234  \n# c\n! c\n; c\n% c\nKEYFILE /x/y\ninclude DIR/inc*.x\ninclude DIR/none*\n" +
			"confdir DIR/b DIR/a DIR/none\nkeyfile /last\nRateLimit Interval 2 BURST 1\nratelimit\n",
		"inc1.x": "ntsdumpdir /one\nkeyfile /one\n", "inc2.x": "ntsdumpdir /two\ninclude DIR/deep\n", "deep": "keyfile /deep\nport 5\n",
		"a/1.conf": "keyfile /a1\n", "b/1.conf": "keyfile /b1\nntsserverkey /b1\n", "b/0.conf": "ntsrotate 5\n", "a/9.conf": "ntsrotate 9\n", "a/x.txt": "junk\n",
	})
	path := filepath.Join(dir, "c")
	out, err := partstest.Chrony(t, parts.Debian12).Command(t.Context(), "chronyd", "-p", "-f", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	flat := filepath.Join(dir, "flat")
	if err := os.WriteFile(flat, out, 0o644); err != nil {
		t.Fatal(err)
	}
	r := confReader{conf: defaultChrony()}
	if err := r.file(path, 1); err != nil {
		t.Fatal(err)
	}
	nested := r.conf
	want, err := ReadChrony(flat)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.files) != 7 || nested.KeyFile != "/last" || nested.NTSServerKey != "/b1" || nested.NTSRotate != 9 || nested.Port != 5 || nested.NTSDumpDir != "/two" {
		t.Errorf("read %+v", nested)
	}
	nested.lines, want.lines = nil, nil // the same lines, in other files
	if !reflect.DeepEqual(nested, want) {
		t.Errorf("we read %+v\nchronyd reads %+v", nested, want)
	}
}

func FuzzParseDirective(f *testing.F) {
	for _, seed := range []string{"", "port 123", " \tRateLimit  interval 3 burst 1\r\n", "# comment", "bindaddress ::1", "keyfile /k # x", "ratelimit burst", "\xff\xfe port 1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		d, ok := parseDirective(line)
		if !ok {
			return
		}
		again, ok := parseDirective(d.String())
		if !ok || !reflect.DeepEqual(again, d) && len(d.args) > 0 {
			t.Fatalf("%q became %+v, then %+v", line, d, again)
		}
		c := defaultChrony()
		if err := c.apply(d); err != nil && !errors.Is(err, ErrChronyConf) {
			t.Fatalf("apply(%q): %v", line, err)
		}
		if c.Spacing() < unlimited {
			t.Fatalf("%q: spacing %s", line, c.Spacing())
		}
	})
}
