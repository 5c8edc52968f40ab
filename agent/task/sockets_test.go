package task

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestWhatTheServiceManagerHandsOver(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pid, fds, names string
		want            []string
		problem         string
	}{
		"nothing at all":                        {"", "", "", nil, ""},
		"one socket with its name":              {"7", "1", "http-01", []string{"http-01"}, ""},
		"two with one name and one more":        {"7", "3", "ntske:ntske:http-01", []string{"ntske", "ntske", "http-01"}, ""},
		"no names":                              {"7", "2", "", []string{"unknown", "unknown"}, ""},
		"for another process":                   {"8", "1", "http-01", nil, ""},
		"for another process, and malformed":    {"8", "x", "", nil, ""},
		"for nobody":                            {"", "1", "http-01", nil, ""},
		"a process written in another way":      {"07", "1", "http-01", nil, ""},
		"no number":                             {"7", "", "", nil, "LISTEN_FDS"},
		"words for a number":                    {"7", "two", "a:b", nil, "LISTEN_FDS"},
		"a number written in another way":       {"7", "+1", "http-01", nil, "LISTEN_FDS"},
		"none":                                  {"7", "0", "", nil, "LISTEN_FDS"},
		"fewer than none":                       {"7", "-1", "", nil, "LISTEN_FDS"},
		"more than there can be":                {"7", "2147483647", "", nil, "LISTEN_FDS"},
		"more than any machine has":             {"7", "99999999999999999999", "", nil, "LISTEN_FDS"},
		"fewer names than sockets":              {"7", "2", "http-01", nil, "LISTEN_FDNAMES"},
		"more names than sockets":               {"7", "1", "http-01:ntske", nil, "LISTEN_FDNAMES"},
		"a name that is empty is one":           {"7", "2", "http-01:", []string{"http-01", ""}, ""},
		"a name that nobody here knows is one":  {"7", "1", "ntsagent.socket", []string{"ntsagent.socket"}, ""},
		"words that do not belong into a line ": {"7", "1\n[ERROR]", "a", nil, "LISTEN_FDS"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.fds, "LISTEN_FDNAMES": c.names}
			got, err := parseListen(func(k string) string { return env[k] }, 7)
			if !slices.Equal(got, c.want) || (err != nil) != (c.problem != "") {
				t.Fatalf("%q, %v; want %q", got, err, c.want)
			}
			if err != nil && (!strings.HasPrefix(err.Error(), c.problem) || strings.Contains(err.Error(), "\n")) {
				t.Errorf("%q does not begin with %q, or is not one line", err, c.problem)
			}
		})
	}
}

func FuzzParseListen(f *testing.F) {
	f.Add("7", "2", "http-01:ntske", 7)
	f.Add("7", "1", "", 7)
	f.Fuzz(func(t *testing.T, pid, fds, list string, own int) {
		env := map[string]string{"LISTEN_PID": pid, "LISTEN_FDS": fds, "LISTEN_FDNAMES": list}
		names, err := parseListen(func(k string) string { return env[k] }, own)
		switch {
		case err != nil && len(names) > 0, len(names) > maxSockets:
			t.Fatalf("%d names, %v", len(names), err)
		case len(names) > 0 && (strconv.Itoa(len(names)) != fds || strconv.Itoa(own) != pid):
			t.Fatalf("%q from %q for %q", names, fds, pid)
		case len(names) > 0 && list != "" && strings.Join(names, ":") != list: // they say again what was said
			t.Fatalf("%q from %q", names, list)
		}
	})
}

const inheritEnv = "TASK_TEST_INHERIT"

// TestMain is the process that inherits, and runs another, where it is told so.
func TestMain(m *testing.M) {
	if os.Getenv(inheritEnv) == "" {
		os.Exit(m.Run())
	}
	in := Inherit()
	fmt.Println(in.Problem, in.Sockets)
	cmd := exec.Command("sh", "-c", `env | grep LISTEN_; readlink /proc/self/fd/3 /proc/self/fd/4; true`)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		fmt.Println(err)
	}
	if again := Inherit(); again.Problem != nil || len(again.Sockets) > 0 {
		fmt.Println("taken twice:", again)
	}
}

func TestWhatAChildOfTheAgentInherits(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ rule, env, want string }{
		{"nothing of what was handed over", `LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=http-01:ntske LISTEN_PIDFDID=7`, "<nil> [{http-01 3} {ntske 4}]\n"},
		{"no variables that are for another", `LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=http-01:ntske`, "<nil> []\nsocket socket\n"},
		{"no variables that are wrong", `LISTEN_PID=$$ LISTEN_FDS=two`, `LISTEN_FDS is "two"`},
	} {
		t.Run(c.rule, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", c.env+` exec "$0"`, os.Args[0])
			cmd.Env = append(os.Environ(), inheritEnv+"=1")
			cmd.ExtraFiles = []*os.File{f, f}
			out, err := cmd.CombinedOutput()
			got := regexp.MustCompile(`socket:\[\d+\]\n`).ReplaceAllString(string(out), "socket ")
			got = strings.ReplaceAll(got, "socket socket ", "socket socket\n")
			if err != nil || !strings.HasPrefix(got, c.want) || strings.Contains(got, "LISTEN_PID") || strings.Contains(got, "twice") ||
				c.want[0] == '<' && got != c.want {
				t.Errorf("%v:\n%s\nwant\n%s", err, got, c.want)
			}
		})
	}
}
