// Package arrows holds the test that reads every import of the module and fails
// on one that the layout in the README does not draw.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "ntsagent/"

// rooms says what each package may import of this module. "x/*" is every
// package below x; a package is ruled by the longest entry that fits it.
var rooms = map[string][]string{
	"cmd/ntsagent":  {"agent", "agent/*", "ntske/client"},
	"cmd/ntslab":    {"agent", "agent/*", "ntske/client", "packaging/parts"},
	"agent":         {"agent/*", "acme", "acme/*", "ntske", "ntske/*", "hostcheck"},
	"agent/*":       {"agent/*", "acme", "acme/*", "ntske", "ntske/*", "hostcheck"},
	"agent/config":  {"hostcheck"},
	"agent/watch":   {},
	"agent/task":    {},
	"acme":          {"acme/store", "acme/live", "hostcheck"},
	"acme/*":        {"acme/disk", "hostcheck"},
	"acme/issuer":   {"acme", "acme/challenge", "acme/store", "acme/disk", "hostcheck"},
	"ntske":         {"ntske/record", "ntske/cookie", "ntske/aead"},
	"ntske/keyring": {"ntske/cookie"},
	"ntske/client":  {"ntske/record", "ntske/packet", "ntske/aead"},
	"ntske/cookie":  {"ntske/aead"},
	"ntske/record":  {"ntske/aead"},
	"ntske/aead":    {},
	"ntske/packet":  {},
	"ntske/tcp":     {},
	"hostcheck":     {},
	"packaging/*":   {},

	// for tests only, so it may need a real daemon
	"agent/daemon/chronytest": {"ntske/client", "packaging/parts"},
}

// owners says who alone may import a package of others, by prefix.
var owners = map[string][]string{
	"github.com/go-acme/lego/":      {"acme/issuer"},
	"github.com/fsnotify/fsnotify":  {"agent/watch"},
	"gopkg.in/yaml.v3":              {"agent/config"},
	"github.com/letsencrypt/":       {"cmd/ntslab"},
	"github.com/jacobsa/":           {},
	"github.com/rogpeppe/":          {},
	"os/exec":                       {"agent/daemon", "agent/feed", "cmd/ntslab", "packaging/parts"},
	"testing":                       {"packaging/parts", "agent/daemon/chronytest"},
	"github.com/coreos/go-systemd/": {"agent", "agent/task"},
	"github.com/spf13/cobra":        {"cmd/ntsagent"},
	"github.com/google/renameio/":   {"acme/disk"},
}

// pure packages transform what they are handed.
var pure = []string{"hostcheck", "ntske/aead", "ntske/record", "ntske/cookie", "ntske/packet"}

// wrong says why pkg may not import imp, "" when it may. Tests are exempt, save
// that acme and ntske never meet and nobody imports cmd.
func wrong(pkg, imp string, inTest bool) string {
	to, ours := strings.CutPrefix(imp, module)
	switch {
	case ours && strings.HasPrefix(to, "cmd/"):
		return "nobody imports cmd"
	case ours && (within("acme", pkg) && within("ntske", to) || within("ntske", pkg) && within("acme", to)):
		return "acme and ntske never meet"
	case inTest:
		return ""
	case ours && !slices.ContainsFunc(rooms[ruleFor(pkg)], func(rule string) bool { return fits(rule, to) }):
		return "the layout draws no such arrow"
	case !ours && slices.Contains(pure, pkg) && (imp == "os" || imp == "io/ioutil" || strings.HasPrefix(imp, "os/") || strings.HasPrefix(imp, "github.com/")):
		return "it does no I/O and needs no library"
	}
	for prefix, may := range owners {
		if strings.HasPrefix(imp, prefix) && !slices.Contains(may, pkg) {
			return fmt.Sprintf("only %v may", may)
		}
	}
	return ""
}

func within(room, pkg string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }

func fits(rule, pkg string) bool {
	below, ok := strings.CutSuffix(rule, "*")
	return rule == pkg || ok && strings.HasPrefix(pkg, below)
}

func ruleFor(pkg string) string {
	best := ""
	for rule := range rooms {
		if fits(rule, pkg) && len(rule) > len(best) {
			best = rule
		}
	}
	return best
}

func TestEveryImportIsAnArrowOfTheLayout(t *testing.T) {
	list := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...")
	list.Dir = "../.."
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath                         string
			Imports, TestImports, XTestImports []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		seen++
		pkg := strings.TrimPrefix(p.ImportPath, module)
		if ruleFor(pkg) == "" {
			t.Errorf("%s is no room of the layout", pkg)
		}
		for _, imp := range p.Imports {
			if why := wrong(pkg, imp, false); why != "" {
				t.Errorf("%s imports %s: %s", pkg, imp, why)
			}
		}
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if why := wrong(pkg, imp, true); why != "" {
				t.Errorf("a test of %s imports %s: %s", pkg, imp, why)
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d packages were read", seen)
	}
}

func TestForbiddenArrowsAreSeen(t *testing.T) {
	for _, row := range []struct {
		pkg, imp       string
		inTest, wanted bool
	}{
		{"acme", "ntsagent/ntske", false, false},
		{"acme/store", "ntsagent/ntske/aead", true, false},
		{"ntske/tcp", "ntsagent/acme/live", false, false},
		{"agent/status", "ntsagent/cmd/ntsagent", true, false},
		{"agent/status", "ntsagent/agent", false, false},
		{"agent/config", "ntsagent/acme", false, false},
		{"ntske/keyring", "ntsagent/ntske/record", false, false},
		{"ntske/record", "os", false, false},
		{"agent", "gopkg.in/yaml.v3", false, false},
		{"acme", "github.com/go-acme/lego/v4/lego", false, false},
		{"ntske", "os/exec", false, false},
		{"agent/status", "testing", false, false},

		{"agent", "ntsagent/ntske/keyring", false, true},
		{"acme/issuer", "github.com/go-acme/lego/v4/lego", false, true},
		{"ntske/client", "ntsagent/packaging/parts", true, true},
		{"cmd/ntslab", "os/exec", false, true},
	} {
		if why := wrong(row.pkg, row.imp, row.inTest); (why == "") != row.wanted {
			t.Errorf("%s imports %s (in a test: %v): judged %q", row.pkg, row.imp, row.inTest, why)
		}
	}
}
