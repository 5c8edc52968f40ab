package task

import (
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
