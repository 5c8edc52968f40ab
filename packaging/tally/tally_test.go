package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each row is a whole module given to the real `go test -json`.
func TestWhatGoTestSaysBecomesOneLine(t *testing.T) {
	for name, row := range map[string]struct {
		source string
		code   int
		last   string
		says   []string
		silent []string
	}{
		"all pass, subtests and seeds count": {
			source: `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Log("noise") }); t.Run("y", func(*testing.T) {}) }
				func FuzzB(f *testing.F) { f.Add(1); f.Fuzz(func(*testing.T, int) {}) }`,
			code: 0, last: "tests: 5 passed, 0 failed, 0 skipped,",
			says: []string{"ok   probe"}, silent: []string{"noise"},
		},
		"a failed test shows its own output": {
			source: `func TestA(t *testing.T) { t.Log("noise") }
				func TestB(t *testing.T) { t.Error("the reason") }`,
			code: 1, last: "tests: 1 passed, 1 failed, 0 skipped,",
			says: []string{"--- FAIL probe TestB", "the reason", "FAIL probe"}, silent: []string{"noise", "--- FAIL: "},
		},
		"a failed subtest fails its parent": {
			source: `func TestA(t *testing.T) { t.Run("x", func(t *testing.T) { t.Error("the reason") }) }`,
			code:   1, last: "tests: 0 passed, 2 failed, 0 skipped,",
			says: []string{"--- FAIL probe TestA/x", "the reason"}, silent: []string{"--- FAIL: "},
		},
		"a test that passes shows its table and nothing else": {
			source: `func TestA(t *testing.T) {
					t.Log("noise")
					t.Run("x", func(t *testing.T) { t.Parallel(); t.Output().Write([]byte("| of a | subtest |\nnoise | here\n")) })
					t.Output().Write([]byte("noise\n| swaps | failed |\n|---|---|\n| 1000 | 0 |\n"))
				}`,
			code: 0, last: "tests: 2 passed, 0 failed, 0 skipped,",
			says: []string{"\n| swaps | failed |\n|---|---|\n| 1000 | 0 |\n", "| of a | subtest |\n"}, silent: []string{"noise"},
		},
		"a failed test shows its table among the rest": {
			source: `func TestA(t *testing.T) { t.Error("the reason"); t.Output().Write([]byte("| swaps |\n")) }`,
			code:   1, last: "tests: 0 passed, 1 failed, 0 skipped,",
			says: []string{"the reason", "| swaps |"},
		},
		"a skip is not a pass": {
			source: `func TestA(t *testing.T) {}
				func TestB(t *testing.T) { t.Skip("no daemon") }`,
			code: 1, last: "tests: 1 passed, 0 failed, 1 skipped,",
			says: []string{"--- SKIP probe TestB", "no daemon", "SKIP probe"},
		},
		"a package that does not build is a failure": {
			source: `func TestA(t *testing.T) { undefinedName() }`,
			code:   1, last: "tests: 0 passed, 1 failed, 0 skipped,",
			says: []string{"undefined: undefinedName", "FAIL probe"},
		},
		"a package that vet refuses is a failure": {
			source: `func TestA(t *testing.T) { t.Logf("%d", "text") }`,
			code:   1, last: "tests: 0 passed, 1 failed, 0 skipped,",
			says: []string{"wrong type", "FAIL probe"},
		},
		"a test that kills the process is a failure": {
			source: `func TestA(t *testing.T) {}
				func TestB(t *testing.T) { t.Log("was here"); os.Exit(3) }`,
			code: 1, last: "tests: 1 passed, 1 failed, 0 skipped,",
			says: []string{"FAIL probe"},
		},
		"a panic is shown": {
			source: `func TestA(t *testing.T) { panic("the reason") }`,
			code:   1, last: "tests: 0 passed, 1 failed, 0 skipped,",
			says: []string{"the reason"},
		},
		"no test at all is not a pass": {
			source: `func helper(*testing.T) {}`,
			code:   1, last: "tests: 0 passed, 0 failed, 0 skipped,",
			says: []string{"no tests"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "go.mod"), "module probe\n\ngo 1.26\n")
			write(t, filepath.Join(dir, "a_test.go"), "package probe\n\nimport (\n\"os\"\n\"testing\"\n)\n\nvar _ = os.Exit\n\n"+row.source+"\n")
			cmd := exec.CommandContext(t.Context(), "go", "test", "-json", "./...")
			cmd.Dir = dir
			events, _ := cmd.Output() // its exit code is what tally has to notice by itself
			code, out := tallyOf(string(events))
			if code != row.code {
				t.Errorf("exit code %d, want %d", code, row.code)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if last := lines[len(lines)-1]; !strings.HasPrefix(last, row.last) || !strings.HasSuffix(last, " s") {
				t.Errorf("last line %q, want %q", last, row.last)
			}
			for _, want := range row.says {
				if !strings.Contains(out, want) {
					t.Errorf("%q is not said", want)
				}
			}
			for _, not := range row.silent {
				if strings.Contains(out, not) {
					t.Errorf("%q is said", not)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

func TestAStreamThatBreaksOffIsAFailure(t *testing.T) {
	for name, in := range map[string]string{
		"nothing at all":              "",
		"the go command's own error":  "go: cannot find main module\n",
		"a package that never ended":  `{"Action":"start","Package":"p"}` + "\n" + `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n",
		"a line that breaks off":      `{"Action":"start","Package":"p"}` + "\n" + `{"Action":"pa`,
		"a package that fails silent": `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n",
	} {
		if code, out := tallyOf(in); code != 1 {
			t.Errorf("%s: exit code %d\n%s", name, code, out)
		}
	}
}

func tallyOf(in string) (int, string) {
	var out strings.Builder
	code := run(strings.NewReader(in), &out, time.Now())
	return code, out.String()
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
