package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/daemon/daemontest"
	"ntsagent/packaging/parts"
)

// The main job: a real chronyd client gets its cookies from the agent, and an
// unmodified chronyd server or the agent's gateway opens them.
func TestAChronydClientAuthenticates(t *testing.T) {
	needNamespaces(t)
	for name, way := range map[string]struct{ daemon, challenge string }{
		"chrony, http-01":     {"chrony", "http-01"},
		"chrony, tls-alpn-01": {"chrony", "tls-alpn-01"},
		"the gateway":         {"gateway", "http-01"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := startLab(t, way.challenge, "--daemon", way.daemon)
			_, ntpPort, _ := strings.Cut(lab.env["NTP"], ":")
			for _, row := range []struct {
				release parts.Release
				address string
			}{{parts.Debian12, loopback4}, {parts.Debian12, loopback6}, {parts.Debian13, loopback4}} {
				t.Run(row.release.String()+" "+row.address, func(t *testing.T) {
					address := row.address
					client := startChronyClient(t, lab, row.release, address)
					if way.daemon == "gateway" && row.release == parts.Debian13 {
						client.aead = "30" // both like it better
					}
					await(t, clientPatience, "authenticated answers", func(ctx context.Context) error {
						return client.authenticated(ctx, address, ntpPort, 4)
					})
					for _, report := range []string{"authdata", "sources"} {
						text, err := client.chronyc(t.Context(), report)
						if err != nil {
							t.Error(err)
						}
						t.Logf("chronyc %s, %s:\n%s", report, name, text)
					}
				})
			}
		})
	}
}

func TestALabTellsItsStory(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		daemon, challenge string
		server, keys      string // its lines about the daemon and about the keys
	}{
		"gateway, http-01":     {"gateway", "http-01", "a plain NTP server without NTS, in this process", "made by the agent for its gateway and proven"},
		"gateway, tls-alpn-01": {"gateway", "tls-alpn-01", "a plain NTP server without NTS, in this process", "made by the agent for its gateway and proven"},
		"chrony, http-01":      {"chrony", "http-01", "chronyd 4.3, unmodified", "handed over to chronyd and proven"},
		"chrony, tls-alpn-01":  {"chrony", "tls-alpn-01", "chronyd 4.3, unmodified", "handed over to chronyd and proven"},
		"NTPsec":               {"ntpsec", "http-01", "ntpd 1.2.2 of NTPsec, unmodified, in a network of its own", "read from ntpd's own key file and proven"},
		"another NTPsec":       {"ntpsec", "http-01", "ntpd 1.2.2 of NTPsec, unmodified, in a network of its own", "read from ntpd's own key file and proven"},
		"ntpd-rs":              {"ntpd-rs", "http-01", "ntp-daemon 1.4.0 of ntpd-rs, unmodified", "read from ntp-daemon's own key file and proven"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntslab"), "--once", "--daemon", row.daemon, "--challenge", row.challenge)
			start := time.Now()
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("ntslab --once: %v\n%s", err, out)
			}
			if took := time.Since(start); took > 2*time.Minute { // it takes seconds
				t.Errorf("it took %v", took)
			}
			text := string(out)
			for _, want := range []string{
				" lab  ", "is 127.0.0.1 and ::1", row.server, "pebble is the certificate authority", "ntsagent runs",
				row.challenge + ": the authority ", "and was convinced", "obtained for " + memberName, row.keys,
				"authenticated by cookies of that key", "OK        authenticated on IPv4 and IPv6", " done  ",
			} {
				_, after, found := strings.Cut(text, want)
				if !found {
					t.Fatalf("%q is not told, or not in its turn:\n%s", want, out)
				}
				text = after
			}
			wantGone(t, pidsIn(string(out)))
		})
	}
}

// Nothing is unpacked and no program is run but ours: there is neither a
// repository nor a path to look in.
func TestAGatewayNeedsNoPackage(t *testing.T) {
	t.Parallel()
	nowhere := t.TempDir()
	for daemon, good := range map[string]bool{"gateway": true, "chrony": false, "ntpsec": false, "ntpd-rs": false} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntslab"), "--once", "--daemon", daemon)
		cmd.Dir, cmd.Env = nowhere, []string{"PATH=" + nowhere}
		out, err := cmd.CombinedOutput()
		if (err == nil) != good {
			t.Errorf("%s: %v\n%s", daemon, err, out)
		}
		if !good && !strings.Contains(string(out), "ntslab: find the repository: no go.mod in ") {
			t.Errorf("%s does not say what is missing:\n%s", daemon, out)
		}
	}
}

func TestALabThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	silent, err := exec.LookPath("false")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(binaries, "ntslab"), "--once", "--agent", silent)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	if code := cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1:\n%s", code, &out)
	}
	if got, want := errs.String(), "ntslab: ntsagent: exit status 1; it said nothing\n"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	wantGone(t, pidsIn(out.String()))
}

// pidsIn are the processes the story names.
func pidsIn(story string) []string {
	var pids []string
	for _, m := range regexp.MustCompile(`\(pid (\d+)\)`).FindAllStringSubmatch(story, -1) {
		pids = append(pids, m[1])
	}
	return pids
}

func TestNothingOutlivesALab(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		daemon   string
		pids     int // in the story
		signal   syscall.Signal
		toDaemon bool
		code     int // exit code
	}{
		"Ctrl-C":            {"chrony", 2, syscall.SIGINT, false, 0},
		"SIGKILL":           {"chrony", 2, syscall.SIGKILL, false, -1},
		"SIGKILL, gateway":  {"gateway", 1, syscall.SIGKILL, false, -1},
		"SIGKILL, NTPsec":   {"ntpsec", 2, syscall.SIGKILL, false, -1},
		"SIGKILL, ntpd-rs":  {"ntpd-rs", 2, syscall.SIGKILL, false, -1},
		"a dead daemon":     {"chrony", 2, syscall.SIGKILL, true, 1},
		"a dead ntpd":       {"ntpsec", 2, syscall.SIGKILL, true, 1},
		"a dead ntp-daemon": {"ntpd-rs", 2, syscall.SIGKILL, true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := startLab(t, "http-01", "--daemon", row.daemon)
			pids := pidsIn(lab.told.String())
			if len(pids) != row.pids || slices.ContainsFunc(pids, func(pid string) bool { return !alive(pid) }) {
				t.Fatalf("the story names the processes %v", pids)
			}
			victim := lab.cmd.Process.Pid
			if row.toDaemon {
				victim, _ = strconv.Atoi(pids[0])
			}
			if err := syscall.Kill(victim, row.signal); err != nil {
				t.Fatal(err)
			}
			<-lab.done
			if code := lab.cmd.ProcessState.ExitCode(); code != row.code {
				t.Errorf("the lab ended with %d, want %d:\n%s", code, row.code, &lab.told)
			}
			if _, err := os.Stat(filepath.Join(lab.dir, envName)); err == nil && row.code >= 0 {
				t.Error("lab.env still says that the lab is up")
			}
			wantGone(t, pids)
		})
	}
}

// In a network of its own: elsewhere somebody takes a port of an agent that is dead, sooner or later.
func TestAKilledAgentComesBackWithWhatItHad(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	for _, daemon := range []string{"chrony", "gateway"} {
		t.Run(daemon, func(t *testing.T) {
			t.Parallel()
			killedAgent(t, startLab(t, "http-01", "--daemon", daemon), daemon)
		})
	}
}

func killedAgent(t *testing.T, lab *runningLab, daemon string) {
	client := startChronyClient(t, lab, parts.Debian12, loopback4)
	_, ntpPort, _ := strings.Cut(lab.env["NTP"], ":")
	await(t, clientPatience, "authenticated answers", func(ctx context.Context) error {
		return client.authenticated(ctx, loopback4, ntpPort, 2)
	})
	before, err := lab.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	asked := authorityLog(t, lab)

	pid, err := strconv.Atoi(lab.env["AGENT_PID"])
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wantGone(t, []string{lab.env["AGENT_PID"]})
	// And killed again, at any moment of its start.
	const kills = 10
	for range kills {
		again := startProgram(t, syscall.SIGKILL, "ntsagent", "run", "--config", lab.env["CONFIG"])
		select {
		case <-again.done:
			t.Fatalf("an agent did not start after a kill:\n%s", &again.told)
		case <-time.After(rand.N(1500 * time.Millisecond)):
		}
		if err := again.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-again.done
	}
	fmt.Fprintf(t.Output(), "| %d kills beside %s: 1 agent that served, %d that started\n", 1+kills, daemon, kills)
	again := startProgram(t, syscall.SIGKILL, "ntsagent", "run", "--config", lab.env["CONFIG"])
	defer func() {
		_ = again.cmd.Process.Signal(syscall.SIGTERM) // if it is gone, how it ended tells
		<-again.done
		if code := again.cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("the last agent ended with %d", code)
		}
		if t.Failed() {
			t.Logf("the last agent said:\n%s", &again.told)
		}
	}()
	await(t, time.Minute, "the last agent to serve", lab.check)
	after, err := lab.status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := after.Certificates[0].Serial, before.Certificates[0].Serial; a != b || a == "" {
		t.Errorf("it serves certificate %q, before the kill %q", a, b)
	}
	if after.Keys.Current != before.Keys.Current || after.Keys.Next != before.Keys.Next {
		t.Errorf("its keys are %v and %v, before the kill %v and %v", after.Keys.Current, after.Keys.Next, before.Keys.Current, before.Keys.Next)
	}
	if now := authorityLog(t, lab); now != asked {
		t.Errorf("it asked the authority again:\n%s", strings.TrimPrefix(now, asked))
	}
	await(t, clientPatience, "the client to go on", func(ctx context.Context) error {
		return client.authenticated(ctx, loopback4, ntpPort, 6)
	})
	if err := filepath.WalkDir(filepath.Join(lab.dir, "state"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".ntsagent-tmp-") {
			t.Errorf("%s is left behind", path)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// authorityLog is what pebble wrote about accounts and orders.
func authorityLog(t *testing.T, lab *runningLab) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(lab.dir, "log/pebble.log"))
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "accounts in memory") || strings.Contains(line, "orders in the db") {
			kept.WriteString(line)
		}
	}
	if kept.Len() == 0 {
		t.Fatal("pebble's log shows no account")
	}
	return kept.String()
}
