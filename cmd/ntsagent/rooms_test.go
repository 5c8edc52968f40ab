package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of all rooms. A room is a folder below the module's
// root; "" is no room but the standard library and what others wrote.
const module = "ntsagent/"

// mayEnter lists, for every room, the rooms it may import. A name ending in
// "/*" is a room with all below it. A room that is missing here fails.
var mayEnter = map[string][]string{
	"hostcheck": {},

	"acme":           {"acme/store", "acme/live", "acme/dnscheck", "hostcheck"},
	"acme/disk":      {},
	"acme/live":      {"acme/disk", "hostcheck"},
	"acme/store":     {"acme/disk", "acme/dnscheck", "hostcheck"},
	"acme/challenge": {"acme/disk", "hostcheck"},
	"acme/dnscheck":  {"hostcheck"},
	"acme/front":     {"hostcheck"},
	"acme/pebble":    {},
	"acme/issuer":    {"acme", "acme/store", "acme/challenge", "acme/front", "acme/disk", "hostcheck"},

	"ntske":          {"ntske/record", "ntske/cookie", "ntske/aead", "hostcheck"},
	"ntske/aead":     {},
	"ntske/packet":   {"ntske/registry"},
	"ntske/registry": {},
	"ntske/record":   {"ntske/aead"},
	"ntske/cookie":   {"ntske/aead"},
	"ntske/keyring":  {"ntske/cookie"},
	"ntske/tcp":      {},
	"ntske/client":   {"ntske/record", "ntske/packet", "ntske/aead", "ntske/registry", "hostcheck"},
	"ntske/gateway":  {"ntske/packet", "ntske/cookie", "ntske/aead"},
	"ntske/monitor":  {"ntske/tcp", "ntske/registry"},

	"agent/config": {"hostcheck"},
	"agent/task":   {},
	"agent/watch":  {},
	"agent/status": {"agent/config", "hostcheck"},
	"agent/daemon": {"agent/config", "acme/*", "ntske/*", "hostcheck"},
	"agent/feed":   {"agent/config", "agent/daemon", "acme/*", "ntske/*", "hostcheck"},
	"agent/doctor": {"agent/config", "agent/daemon", "agent/status", "acme/*", "ntske/*", "hostcheck"},
	"agent/setup":  {"agent/config", "agent/daemon", "agent/status", "agent/doctor", "acme/*", "ntske/*", "hostcheck"},
	"agent/enroll": {"agent/config", "agent/daemon", "agent/status", "acme/*", "ntske/*", "hostcheck"},
	"agent":        {"agent/*", "acme/*", "ntske/*", "hostcheck"},

	"cmd/ntsagent": {"agent/*", "ntske/client", "ntske/registry"},
	"cmd/ntslab":   {"agent/*", "acme/*", "ntske/*", "hostcheck", "packaging/parts"},

	"cmd/ntsbench":       {"cmd/ntsbench/*", "agent/*", "ntske/*", "packaging/parts"},
	"cmd/ntsbench/load":  {"ntske/client", "ntske/packet", "ntske/aead", "ntske/record"},
	"cmd/ntsbench/floor": {},

	"packaging/parts": {},
	"packaging/tally": {},
}

// onlyIn lists what only some rooms may import, by the longest prefix that
// fits; an empty list leaves it to tests.
var onlyIn = map[string][]string{
	"github.com/go-acme/lego/":         {"acme/issuer"},
	"github.com/fsnotify/fsnotify":     {"agent/watch"},
	"gopkg.in/yaml.v3":                 {"agent/config"},
	"github.com/miekg/dns":             {"acme/dnscheck", "ntske/client", "acme/pebble"},
	"os/exec":                          {"agent/daemon", "agent/feed", "agent/setup", "cmd/ntslab", "cmd/ntsbench", "packaging/parts"},
	"github.com/spf13/cobra":           {"cmd/ntsagent"},
	"github.com/coreos/go-systemd/":    {"agent", "agent/task"},
	"github.com/letsencrypt/":          {"cmd/ntslab", "acme/pebble"},
	"github.com/jacobsa/crypto/":       {},
	"github.com/rogpeppe/go-internal/": {},
	"testing":                          {},
}

// standardOnly rooms import the standard library alone, and what is named.
var standardOnly = map[string][]string{
	"hostcheck":      nil,
	"ntske/aead":     {"golang.org/x/sys/cpu"},
	"ntske/packet":   nil,
	"ntske/record":   nil,
	"ntske/cookie":   nil,
	"ntske/registry": nil,
	"ntske/tcp":      {"github.com/hashicorp/go-hclog", "golang.org/x/sys/unix"},
	"acme/disk":      {"golang.org/x/sys/unix"},

	"cmd/ntsbench/load":  {"golang.org/x/sys/unix"},
	"cmd/ntsbench/floor": {"golang.org/x/sys/unix"},
}

// pure rooms do no I/O, start no goroutine and read no clock.
var pure = map[string]bool{
	"hostcheck": true, "ntske/aead": true, "ntske/record": true, "ntske/cookie": true, "ntske/packet": true, "ntske/registry": true,
}

// impure are the imports that no pure room has, and clock the names of package
// time that read it or wait for it.
var (
	impure = []string{"net", "os", "os/*", "syscall", "log", "log/slog", "crypto/rand", "math/rand", "math/rand/v2", "crypto/tls", "net/*"}
	clock  = map[string]bool{"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
		"NewTimer": true, "NewTicker": true, "Tick": true}
)

// TestRoomsKeepToTheirFloors reads every Go file of the module.
func TestRoomsKeepToTheirFloors(t *testing.T) {
	root := filepath.Join("..", "..")
	files := 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		files++
		for _, problem := range problemsOf(t, filepath.ToSlash(rel), nil) {
			t.Error(problem)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files read: this test looks in the wrong place", files)
	}
}

// problemsOf checks one file of the module; src is its text, nil = read it.
func problemsOf(t *testing.T, rel string, src any) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, filepath.Join("..", "..", rel), src, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	room := path.Dir(rel)
	// A folder named ...test is a test's helper, as net/http/httptest is.
	helper := strings.HasSuffix(room, "test")
	test := helper || strings.HasSuffix(rel, "_test.go")
	var problems []string
	for _, spec := range file.Imports {
		to, _ := strconv.Unquote(spec.Path.Value)
		if why := forbidden(room, to, test); why != "" {
			problems = append(problems, fmt.Sprintf("%s imports %s: %s", rel, to, why))
		}
	}
	if pure[room] && !test {
		for _, why := range impureActs(file) {
			problems = append(problems, rel+": "+why)
		}
	}
	return problems
}

// forbidden says why a file of room may not import to; "" = it may.
func forbidden(room, to string, test bool) string {
	inner, ours := strings.CutPrefix(to, module)
	switch {
	case ours && fits(inner, "cmd/*") && !fits(room, program(inner)+"/*"):
		return "nobody imports cmd, but a program its own rooms"
	case ours && (fits(room, "acme/*") && fits(inner, "ntske/*") || fits(room, "ntske/*") && fits(inner, "acme/*")):
		return "acme and ntske never meet, not even in tests"
	case test:
		return ""
	case ours && strings.HasSuffix(inner, "test"):
		return "only tests import a test's helper"
	}
	rooms, known := mayEnter[room]
	switch {
	case !known:
		return "this room is not in the list of rooms"
	case ours && !fitsAny(inner, rooms):
		return "the house has no such arrow"
	case ours:
		return ""
	}
	return forbiddenThirdParty(room, to)
}

// program is the folder of the program that a room below cmd belongs to.
func program(room string) string {
	parts := strings.SplitN(room, "/", 3)
	return path.Join(parts[:min(2, len(parts))]...)
}

func forbiddenThirdParty(room, to string) string {
	for prefix, rooms := range onlyIn {
		if (to == prefix || strings.HasSuffix(prefix, "/") && strings.HasPrefix(to, prefix)) && !fitsAny(room, rooms) {
			return fmt.Sprintf("only in %q", rooms)
		}
	}
	if allowed, ok := standardOnly[room]; ok && strings.Contains(strings.Split(to, "/")[0], ".") && !fitsAny(to, allowed) {
		return "this room has the standard library alone"
	}
	pureNet := to == "net/netip" || room == "hostcheck" && to == "net/http"
	if pure[room] && fitsAny(to, impure) && !pureNet {
		return "this room does no I/O"
	}
	return ""
}

// fits says whether name is pattern, or is or lies below pattern's "x/*".
func fits(name, pattern string) bool {
	below, ok := strings.CutSuffix(pattern, "/*")
	return name == pattern || ok && (name == below || strings.HasPrefix(name, below+"/"))
}

func fitsAny(name string, patterns []string) bool {
	for _, p := range patterns {
		if fits(name, p) {
			return true
		}
	}
	return false
}

// impureActs finds goroutines and looks at the clock.
func impureActs(file *ast.File) []string {
	timeName := ""
	for _, spec := range file.Imports {
		if spec.Path.Value == `"time"` {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
	}
	var acts []string
	if timeName == "." {
		acts = append(acts, "imports time without its name")
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			acts = append(acts, "starts a goroutine")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && timeName != "" && x.Name == timeName && clock[n.Sel.Name] {
				acts = append(acts, "reads the clock by time."+n.Sel.Name)
			}
		}
		return true
	})
	return acts
}

// TestTheCheckOfRoomsCanFail shows the checker arrows and acts of both kinds.
func TestTheCheckOfRoomsCanFail(t *testing.T) {
	for _, c := range []struct {
		file, imports string
		allowed       bool
	}{
		{"ntske/server.go", "ntsagent/acme/live", false},
		{"acme/acme_test.go", "ntsagent/ntske/client", false},
		{"ntske/client/client_test.go", "ntsagent/acme", false},
		{"agent/agent.go", "ntsagent/cmd/ntsagent", false},
		{"agent/agent_test.go", "ntsagent/cmd/ntslab", false},
		{"agent/agent_test.go", "ntsagent/cmd/ntsbench/load", false},
		{"cmd/ntslab/lab.go", "ntsagent/cmd/ntsbench/load", false},
		{"cmd/ntsbench/load/ke.go", "ntsagent/cmd/ntsbench/floor", false},
		{"hostcheck/hostcheck.go", "ntsagent/ntske/aead", false},
		{"ntske/cookie/chrony.go", "ntsagent/ntske/keyring", false},
		{"ntske/keyring/keyring.go", "ntsagent/agent/config", false},
		{"acme/live/live.go", "ntsagent/acme", false},
		{"agent/config/config.go", "ntsagent/ntske/aead", false},
		{"agent/watch/watch.go", "ntsagent/acme/live", false},
		{"agent/status/status.go", "ntsagent/agent", false},
		{"cmd/ntsagent/x.go", "ntsagent/acme/store", false},
		{"agent/agent.go", "ntsagent/packaging/parts", false},
		{"agent/daemon/chrony.go", "ntsagent/agent/daemon/chronytest", false},
		{"unheard/of.go", "fmt", false},
		{"acme/acme.go", "github.com/go-acme/lego/v4/certificate", false},
		{"agent/agent.go", "github.com/fsnotify/fsnotify", false},
		{"cmd/ntslab/lab.go", "gopkg.in/yaml.v3", false},
		{"agent/agent.go", "os/exec", false},
		{"agent/agent.go", "testing", false},
		{"acme/issuer/issuer.go", "github.com/letsencrypt/pebble/v2/ca", false},
		{"ntske/tcp/tcp.go", "golang.org/x/time/rate", false},
		{"ntske/aead/siv.go", "github.com/jacobsa/crypto/siv", false},
		{"ntske/record/record.go", "net", false},
		{"ntske/cookie/chrony.go", "crypto/rand", false},
		{"ntske/packet/packet.go", "net/http", false},
		{"hostcheck/hostcheck.go", "os", false},

		{"hostcheck/hostcheck.go", "net/http", true},
		{"ntske/aead/siv_test.go", "github.com/jacobsa/crypto/siv", true},
		{"agent/agent.go", "ntsagent/ntske/keyring", true},
		{"agent/agent.go", "ntsagent/acme", true},
		{"acme/issuer/issuer.go", "github.com/go-acme/lego/v4/certificate", true},
		{"agent/feed/feed.go", "os/exec", true},
		{"cmd/ntsagent/check.go", "ntsagent/ntske/client", true},
		{"agent/feed/feed_test.go", "ntsagent/packaging/parts", true},
		{"cmd/ntsbench/bench.go", "ntsagent/cmd/ntsbench/load", true},
		{"cmd/ntsbench/floor/udp_test.go", "ntsagent/cmd/ntsbench/load", true},
	} {
		problems := problemsOf(t, c.file, fmt.Sprintf("package x\nimport _ %q\n", c.imports))
		if allowed := len(problems) == 0; allowed != c.allowed {
			t.Errorf("%s importing %s: allowed %v, want %v %q", c.file, c.imports, allowed, c.allowed, problems)
		}
	}
	for text, want := range map[string]int{
		`import "time"; var _ = time.Now()`:                          1,
		`import "time"; var now = time.Now`:                          1,
		`import clock "time"; var _ = clock.Since(clock.Time{})`:     1,
		`import . "time"; var _ = Now()`:                             1,
		`func f() { go f() }`:                                        1,
		`import "time"; func f(now time.Time) { _ = now.Add(1) }`:    0,
		`type clock struct{}; func (clock) Now() {}; var time clock`: 0,
	} {
		if got := problemsOf(t, "ntske/packet/x.go", "package x\n"+text); len(got) != want {
			t.Errorf("%s: %q, want %d problems", text, got, want)
		}
		if got := problemsOf(t, "agent/x.go", "package x\n"+text); len(got) != 0 {
			t.Errorf("%s is fine in a room that may act: %q", text, got)
		}
	}
}
