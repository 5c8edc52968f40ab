package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/feed"
	"ntsagent/agent/status"
)

func provenAndOpen(m *member) func(status.Document) bool {
	return func(d status.Document) bool { return d.Keys.State == status.KeysProven && m.ke(d).IsValid() }
}

// rotateEvery is a configuration that differs in the keys part alone.
func rotateEvery(n int) string { return fmt.Sprintf("keys: {rotate_every: %dd}\n", n) }

func (m *member) rotate() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return status.NewClient(m.socket).Rotate(ctx)
}

func TestAReloadOfTheKeysRefusesNoClient(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, rotateEvery(8))
	before := m.wait("it serves", provenAndOpen(m))
	addr := m.ke(before)
	m.under(addr, func() {
		for n := 9; n < 13; n++ {
			m.configure(rotateEvery(n))
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
			m.wait("the new configuration is in effect", func(d status.Document) bool {
				left := time.Until(d.Keys.NextRotation)
				return left > time.Duration(n)*24*time.Hour-time.Hour && left < time.Duration(n)*24*time.Hour+time.Minute
			})
		}
	})
	after := m.wait("the keys are proven", provenAndOpen(m))
	if after.Keys.Current != before.Keys.Current {
		t.Errorf("current key %v became %v", before.Keys.Current, after.Keys.Current)
	}
}

// A daemon that cannot answer proves nothing to the new keyring for seconds, and
// what the old one had proven serves on. Only the daemon's own part must wait.
func TestAReloadOfTheKeysBesideAFrozenDaemonRefusesNoClient(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, rotateEvery(8))
	addr := m.ke(m.wait("it serves", provenAndOpen(m)))
	thaw := m.chronyd.Freeze()
	clients := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := m.keyExchange(ctx, addr)
		if err == nil && len(r.Cookies) != 8 {
			err = fmt.Errorf("%d cookies", len(r.Cookies))
		}
		return err
	}
	m.while(func() {
		for n := 9; n < 12; n++ {
			m.configure(rotateEvery(n))
			if err := m.reload(); err != nil {
				t.Fatal(err)
			}
		}
		m.wait("the daemon is missed", func(d status.Document) bool { return d.Keys.State == status.KeysUnseen && m.ke(d).IsValid() })
	}, clients)
	thaw()
	m.wait("the daemon is back", provenAndOpen(m))
	m.serves(addr, "", 8)
}

// Every number stands for one key for ever, whatever comes between.
func TestRotationsAmongReloadsGiveNoNumberTwice(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, rotateEvery(8))
	addr := m.ke(m.wait("it serves", provenAndOpen(m)))
	seen := map[string]string{}
	rotations := map[string]bool{}
	for n := range 12 {
		d := m.wait("no rotation is pending", func(d status.Document) bool { return provenAndOpen(m)(d) && d.Keys.Why == "" })
		rotations[d.Keys.Current.ID] = true
		asked := make(chan struct{})
		go func() { defer close(asked); _ = m.rotate() }()                     // the reload may come first
		<-time.After(time.Duration(rand.Int64N(int64(20 * time.Millisecond)))) // the reload is to fall anywhere
		m.configure(rotateEvery(9 + n%2))
		if err := m.reload(); err != nil {
			t.Error(err)
		}
		<-asked
		d, err := m.status()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range d.Keys.Held {
			if old, ok := seen[k.ID]; ok && old != k.Fingerprint {
				t.Errorf("key %s was %s and is %s", k.ID, old, k.Fingerprint)
			}
			seen[k.ID] = k.Fingerprint
		}
	}
	if len(rotations) < 5 {
		t.Errorf("only %d rotations among the reloads", len(rotations)-1)
	}
	m.wait("it is proven in the end", provenAndOpen(m))
	m.serves(addr, "", 8)
}

// The old keys are stopped before the new ones are built. When those cannot be,
// the old ones go on, and rotate.
func TestAReloadWhoseKeysCannotBeBuiltLeavesTheOldOnesAtWork(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, rotateEvery(8))
	before := m.wait("it serves", provenAndOpen(m))
	addr := m.ke(before)
	ring := filepath.Join(m.state, "keys", "ring")
	if err := os.Rename(ring, ring+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(ring, 0o700); err != nil {
		t.Fatal(err)
	}
	m.under(addr, func() {
		m.configure(rotateEvery(9))
		if err := m.reload(); err == nil || !strings.Contains(err.Error(), ring) {
			t.Errorf("reload with a key file that cannot be read: %v", err)
		}
	})
	if err := os.Remove(ring); err != nil {
		t.Fatal(err)
	}
	if err := m.rotate(); err != nil {
		t.Fatalf("the old keys no longer rotate: %v", err)
	}
	after := m.wait("they are proven", provenAndOpen(m))
	if after.Keys.Current != before.Keys.Next {
		t.Errorf("rotated from %+v to %+v", before.Keys, after.Keys)
	}
	if left := time.Until(after.Keys.NextRotation); left > 8*24*time.Hour {
		t.Errorf("next rotation in %s: that is not the old configuration", left)
	}
	m.serves(addr, "", 8)
}

// What a killed agent left is swept at the start, and only then: later it may be
// a file that is being written.
func TestTemporaryFilesAreSweptAtTheStartAlone(t *testing.T) {
	t.Parallel()
	var files []string
	plant := func(state string) {
		for _, folder := range []string{"keys", "chrony"} {
			path := filepath.Join(state, folder, ".ntsagent-tmp-x")
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(path, []byte("half a key"), 0o600); err != nil {
				t.Error(err)
			}
			files = append(files, path)
		}
	}
	m := newMember(t, time.Hour, chronytest.Options{})
	plant(m.state)
	m.configure(rotateEvery(8))
	m.start()
	m.wait("it serves", provenAndOpen(m))
	for _, path := range files {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after the start there is %s: %v", path, err)
		}
	}
	plant(m.state)
	m.configure(rotateEvery(9))
	if err := m.reload(); err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("a reload swept: %v", err)
		}
	}
}

func TestADaemonWithARateLimitIsAskedBelowIt(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{ExtraConf: []string{"ratelimit interval 1 burst 1"}})
	m.configure("")
	m.start()
	m.wait("it is proven", provenAndOpen(m))
	if received, dropped := m.chronyd.Dropped(); received < 4 || dropped != 0 {
		t.Errorf("chronyd received %d packets and dropped %d", received, dropped)
	}
}

// chronyd with keys of its own refuses ours: the status names the line.
func TestTheStatusNamesTheLineOfChronysConfiguration(t *testing.T) {
	t.Parallel()
	m := newMember(t, time.Hour, chronytest.Options{ExtraConf: []string{"ntsrotate 604800"}})
	m.configure("")
	m.until("chronyd has written its keys", func() bool { return os.Remove(m.chronyd.KeysFile) == nil }) // else they are taken over
	m.start()
	d := m.wait("it is refused", func(d status.Document) bool { return d.Keys.State == status.KeysRefused })
	conf, err := os.ReadFile(m.chronyd.Conf)
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("`ntsrotate 604800` (%s:%d)", m.chronyd.Conf, strings.Count(string(conf), "\n"))
	if !strings.Contains(d.Keys.Why, line) {
		t.Errorf("the reason %q does not name %s", d.Keys.Why, line)
	}
	// Mended, it is told no longer, though nobody has told the agent.
	m.chronyd.Reconfigure(chronytest.Options{})
	m.wait("it is proven", provenAndOpen(m))
}

// asUserEnv makes this binary play a part under another user.
const asUserEnv = "AGENT_TEST_AS_USER"

// init, for the package has its TestMain: the parts of the next test.
func init() {
	switch os.Getenv(asUserEnv) {
	case "agent":
		log := hclog.New(&hclog.LoggerOptions{Level: hclog.Debug, Output: os.Stderr})
		ended(Run(context.Background(), Options{ConfigPath: os.Args[1], Log: log, Version: "test"}))
	case "helper":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended(feed.Chrony(ctx, feed.Options{From: os.Args[1], KeysFile: os.Args[2], CommandSocket: os.Args[3], ChronyConf: os.Args[4]}))
	case "certificate":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		e, err := config.ParseExport(os.Args[2])
		if err == nil {
			o := feed.CertificateOptions{Export: e, From: os.Args[1]}
			if len(os.Args) > 3 {
				o.KE, o.Record = netip.MustParseAddrPort(os.Args[3]), os.Args[4]
			}
			err = feed.Certificate(ctx, o)
		}
		ended(err)
	case "export":
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended(feed.NTPsec(ctx, feed.ExportOptions{From: os.Args[1], To: os.Args[2]}))
	}
}

func ended(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// The users of the next test: chronyd's and its helper's, and the agent's.
const (
	chronysUser = "nobody"
	agentsUser  = "daemon"
)

// As it is installed: the agent may do nothing of chronyd's and leaves its keys
// in a folder of chronyd's group, where the helper takes them.
func TestAnAgentWithoutRightsLeavesTheKeysWhereTheHelperReadsThem(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: it runs chronyd and the helper as user " + chronysUser + ", and the agent as user " + agentsUser)
	}
	theirs, ours := credential(t, chronysUser), credential(t, agentsUser)
	// Closed to the agent, as chrony's folder is.
	m := newMember(t, time.Hour, chronytest.Options{User: chronysUser})
	s := m.chronyd
	conf, err := os.ReadFile(s.Conf)
	if err != nil {
		t.Fatal(err)
	}
	s.Conf = filepath.Join(m.dir, "chrony.conf")
	if err := os.WriteFile(s.Conf, conf, 0o644); err != nil {
		t.Fatal(err)
	}
	m.configure("")
	handed := filepath.Join(m.state, "chrony")
	// Whoever packages us makes this folder, and the kernel keeps its group.
	if err := os.MkdirAll(handed, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(handed, int(ours.Uid), int(theirs.Gid)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(handed, 0o750|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	// It stands in a state_dir as the agent makes it.
	made := filepath.Join(m.dir, "made")
	lock, err := lockState(made)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
	info, err := os.Stat(made)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(m.state, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{m.dir, m.state, m.conf, m.cert, m.key} {
		if err := os.Chown(path, int(ours.Uid), int(ours.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		t.Fatal(err)
	}

	agent := asUser(t, ours, "agent", m.conf)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		agent.Process.Kill()
		agent.Wait()
	})
	file := filepath.Join(handed, "ntskeys")
	m.wait("the keys are left for the helper", func(status.Document) bool { _, err := os.Lstat(file); return err == nil })
	checkOwner(t, handed, os.ModeDir|os.ModeSetgid|0o750, ours.Uid, theirs.Gid)
	checkOwner(t, file, 0o640, ours.Uid, theirs.Gid)
	if out, err := asUser(t, theirs, "helper", file, s.KeysFile, s.Socket, s.Conf).CombinedOutput(); err != nil {
		t.Fatalf("the helper: %v: %s", err, out)
	}
	d := m.wait("the keys are proven", provenAndOpen(m))
	m.serves(m.ke(d), "", 8)

	entries, err := os.ReadDir(m.state)
	if err != nil || len(entries) < 3 {
		t.Fatalf("in state_dir: %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || e.Name() != "chrony" && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s in state_dir is open to others: %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// asUser is this binary in another part. By the kernel's own link, for the other
// user may not reach its path.
func asUser(t *testing.T, c *syscall.Credential, part string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), asUserEnv+"="+part)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c}
	if part == "agent" {
		cmd.Stderr = testWriter{t: t}
	}
	return cmd
}

func checkOwner(t *testing.T, path string, mode os.FileMode, uid, gid uint32) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	if info.Mode() != mode || st.Uid != uid || st.Gid != gid {
		t.Errorf("%s has mode %v and belongs to %d:%d; want %v and %d:%d", path, info.Mode(), st.Uid, st.Gid, mode, uid, gid)
	}
}
