package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	goversion "go/version"
	"io/fs"
	"path/filepath"
	"runtime"
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
