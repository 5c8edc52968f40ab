package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	goversion "go/version"
	"io/fs"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What an ACME server had sent reached a shell of acme.sh. The agent starts programs by their arguments alone: nothing in it so
// much as names a shell. Tests, the lab and the bench may; they take nothing from a network.
func TestCVE_2023_38198_TheAgentNamesNoShell(t *testing.T) {
	shells := []string{"sh", "bash", "dash", "ash", "ksh", "zsh"}
	files := 0
	for _, room := range []string{"acme", "agent", "hostcheck", "ntske", filepath.Join("cmd", "ntsagent")} {
		err := filepath.WalkDir(filepath.Join("..", "..", room), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && (strings.HasSuffix(d.Name(), "test") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
				return nil
			}
			files++
			file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil && slices.Contains(shells, filepath.Base(s)) {
						t.Errorf("%s names %q", p, s)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 100 {
		t.Errorf("only %d files read: this test looks in the wrong place", files)
	}
}

// Flaws of Go itself that no code of ours keeps off, such as CVE-2026-56862, CVE-2026-33818 and CVE-2026-39821, ended with 1.26.6.
func TestCVE_2026_56862_TheGoThatBuildsUsHasItsFixes(t *testing.T) {
	if v := runtime.Version(); goversion.IsValid(v) && goversion.Compare(v, "go1.26.6") < 0 {
		t.Errorf("built by %s, want go1.26.6 or later", v)
	}
}

// Labels of a name that decode to ASCII, and other flaws of what is built in and was mended there.
func TestGO_2026_5970_CVE_2026_39821_TheModulesBuiltInHaveTheirFixes(t *testing.T) {
	built, ok := debug.ReadBuildInfo()
	if !ok {
		t.Fatal("it is not known what is built in")
	}
	for path, fixed := range map[string]string{"golang.org/x/net": "v0.55.0", "golang.org/x/text": "v0.39.0"} {
		at := slices.IndexFunc(built.Deps, func(m *debug.Module) bool { return m.Path == path })
		if at < 0 {
			t.Errorf("%s is not built in: this test has nothing to look after", path)
			continue
		}
		m := built.Deps[at]
		if m.Replace != nil {
			m = m.Replace
		}
		if v := "go" + strings.TrimPrefix(m.Version, "v"); !goversion.IsValid(v) || goversion.Compare(v, "go"+strings.TrimPrefix(fixed, "v")) < 0 {
			t.Errorf("%s is %s, want %s or later", path, m.Version, fixed)
		}
	}
}
