package agent

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsagent/agent/config"
	"ntsagent/agent/daemon/chronytest"
	"ntsagent/agent/daemon/daemontest"
	"ntsagent/agent/daemon/ntpdrstest"
	"ntsagent/agent/feed"
	"ntsagent/agent/status"
)

// restartPart makes this binary the program that restarts a daemon: by its
// arguments alone, for it gets nothing else. It says in a file that it was asked,
// and ends when the test has done it and has removed the file.
const restartPart = "restart-the-daemon"

func init() {
	if len(os.Args) != 3 || os.Args[1] != restartPart {
		return
	}
	if err := os.WriteFile(os.Args[2], nil, 0o600); err != nil {
		ended(err)
	}
	for range time.Tick(5 * time.Millisecond) {
		if _, err := os.Lstat(os.Args[2]); errors.Is(err, fs.ErrNotExist) {
			ended(nil)
		}
	}
}

// restartedKE is where the daemon exchanges keys in its network.
var restartedKE = netip.MustParseAddrPort("127.0.0.1:4460")

// restartedDaemon is a daemon that exchanges keys itself and reads its certificate
// only when it starts, and an agent beside it that renews that.
type restartedDaemon struct {
	*member
	kind   string
	again  func() // restarts it
	as     *syscall.Credential
	export config.Export
	record string
	asked  string // is there while somebody waits for a restart
}

// startRestarted starts a daemon of that kind with a certificate of another
// authority. It has to be in a network of its own, for it serves at port 4460.
func startRestarted(t *testing.T, kind, as string) (m *restartedDaemon, before string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test needs root: chronyd, the helper and the agent are of several users")
	}
	dir, err := os.MkdirTemp("", "restarted") // the names of sockets are limited to 107 octets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m = &restartedDaemon{kind: kind, as: credential(t, as), member: &member{
		t: t, ca: newAuthority(t), dir: dir, state: filepath.Join(dir, "state"), cert: filepath.Join(dir, "fullchain.pem"), key: filepath.Join(dir, "privkey.pem"),
		conf: filepath.Join(dir, "ntsagent.yaml"), socket: filepath.Join(dir, "state", "control.sock"), ended: make(chan error, 1),
	}}
	m.asked, m.record = filepath.Join(dir, "asked"), feed.RestartRecord(m.state)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(dir, "theirs")
	var rs *ntpdrstest.Server
	if kind == config.KindNTPDRS {
		rs = ntpdrstest.Start(t, ntpdrstest.Options{OwnPorts: true})
		theirs = rs.Dir
	}
	line := fmt.Sprintf("{name: %s, cert: %s/%s, key: %s/%s, group: nogroup, then: restart, command: [%s, %s, %s]}",
		memberName, theirs, daemontest.CertFile, theirs, daemontest.KeyFile, self, restartPart, m.asked)
	if m.export, err = config.ParseExport(line); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o755, theirs: 0o755, m.state: 0o711} {
		if err := errors.Join(os.MkdirAll(path, mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	cert, key, before := newAuthority(t).issue(time.Hour)
	for path, b := range map[string][]byte{m.export.Cert: cert, m.export.Key: key} {
		if err := errors.Join(os.WriteFile(path, b, 0o644), os.Chmod(path, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	addr := netip.AddrPort{}
	if rs != nil {
		rs.Restart()
		addr, m.again = rs.Addr, rs.Restart
	} else {
		s := chronytest.Start(t, chronytest.Options{User: chronysUser, ExtraConf: []string{
			"ntsport 4460", "ntsservercert " + m.export.Cert, "ntsserverkey " + m.export.Key}})
		addr, m.again = s.Addr, s.StartAgain
	}
	m.ca.last = 100
	m.renew(30 * 24 * time.Hour)
	m.write(m.conf, fmt.Appendf(nil, `names: [%s]
certificate: {source: files, cert: %s, key: %s, export: [%s]}
daemon: {kind: %s, mode: certificate, address: %s}
observe: {socket: %s, self_check: 1s}
state_dir: %s
`, memberName, m.cert, m.key, line, kind, addr, m.socket, m.state))
	for _, path := range []string{m.state, m.conf} {
		if err := os.Chown(path, int(m.as.Uid), int(m.as.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return m, before
}

// run starts the agent; end kills it.
func (m *restartedDaemon) run() (end func()) {
	m.t.Helper()
	cmd := asUser(m.t, m.as, "agent", m.conf)
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	end = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	}
	m.t.Cleanup(end)
	return end
}

// renew puts a new certificate where the agent takes it from, and returns its serial.
func (m *restartedDaemon) renew(life time.Duration) string {
	m.t.Helper()
	cert, key, serial := m.ca.issue(life)
	for path, b := range map[string][]byte{m.key: key, m.cert: cert} {
		m.write(path+".new", b)
		if err := errors.Join(os.Chown(path+".new", int(m.as.Uid), int(m.as.Gid)), os.Rename(path+".new", path)); err != nil {
			m.t.Fatal(err)
		}
	}
	return serial
}

// meets is what a client of the daemon, which has few seconds for him, meets.
func (m *restartedDaemon) meets() (serial string, cookies int, err error) {
	err = patiently(func() error { serial, cookies, err = m.exchange(restartedKE); return err })
	return serial, cookies, err
}

// shown is the serial of the certificate that a client meets, whoever it is of.
func (m *restartedDaemon) shown() string {
	serial := ""
	err := patiently(func() error {
		served, err := feed.Served(m.t.Context(), restartedKE, memberName)
		if err == nil {
			serial = served.SerialNumber.Text(16)
		}
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return serial
}

// until waits for what the status does not tell.
func (m *restartedDaemon) until(what string, ok func() bool) {
	m.t.Helper()
	m.wait(what, func(status.Document) bool { return ok() })
}

func (m *restartedDaemon) isAsked() bool { _, err := os.Lstat(m.asked); return err == nil }

// restart does what the program that restarts the daemon is asked for.
func (m *restartedDaemon) restart() {
	m.t.Helper()
	m.until("a restart is asked for", m.isAsked)
	m.again()
	if err := os.Remove(m.asked); err != nil {
		m.t.Fatal(err)
	}
}

// left waits until the agent has left that certificate for the helper.
func (m *restartedDaemon) left() string {
	path := ExportFile(m.state, m.export.Name)
	m.until("the certificate is left", func() bool {
		want, err := os.ReadFile(m.cert)
		got, err2 := os.ReadFile(path)
		return errors.Join(err, err2) == nil && bytes.HasSuffix(got, want)
	})
	return path
}

// help is the helper, as the path unit of the agent would start it.
func (m *restartedDaemon) help() *exec.Cmd {
	return asUser(m.t, credential(m.t, "root"), "certificate", m.left(), m.export.String(), restartedKE.String(), m.record)
}

func (m *restartedDaemon) wasADayAgo() {
	m.t.Helper()
	var r map[string]any
	b, err := os.ReadFile(m.record)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || r["done"] != true {
		m.t.Fatalf("the record is %s, %v", b, err)
	}
	r["at"] = time.Now().Add(-24 * time.Hour)
	if b, err = json.Marshal(r); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.record, b, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// serves waits until the status says that the daemon serves that certificate, and asks.
func (m *restartedDaemon) serves(sentence, serial string) {
	m.t.Helper()
	begin := time.Now()
	d := m.wait(sentence, func(d status.Document) bool {
		return len(d.Exports) == 1 && d.Exports[0].Serial == serial && d.Exports[0].Why() == "" && d.Exports[0].Waits.IsZero() && d.Exports[0].Served.After(begin)
	})
	if d.State == status.Unhealthy || d.Keys.Mode != status.ModeCertificate || len(d.Listeners) > 0 || !strings.Contains(status.Text(d), m.kind+" serves it with our certificate") {
		m.t.Errorf("%s: %+v", sentence, d)
	}
	if got, cookies, err := m.meets(); got != serial || cookies != 8 || err != nil {
		m.t.Errorf("%s: a client meets the certificate %s and gets %d cookies, %v; want %s", sentence, got, cookies, err, serial)
	}
}

// waits waits until the status says that it waits, and until when.
func (m *restartedDaemon) waits(sentence, old, serial string) time.Time {
	m.t.Helper()
	d := m.wait(sentence, func(d status.Document) bool {
		return len(d.Exports) == 1 && d.Exports[0].Serial == serial && !d.Exports[0].Waits.IsZero() &&
			!d.Exports[0].Written.IsZero() && d.Exports[0].Asked.After(d.Exports[0].Written) // it has exported all there is
	})
	if d.State == status.Unhealthy || d.Exports[0].Why() != "" || !strings.Contains(status.Text(d), "it is restarted for the new one, once a day at most, in 23h") {
		m.t.Errorf("%s: %+v\n%s", sentence, d, status.Text(d))
	}
	if got, _, err := m.meets(); got != old || err != nil {
		m.t.Errorf("%s: a client meets the certificate %s, %v; want %s", sentence, got, err, old)
	}
	return d.Exports[0].Waits
}

func TestChronydIsRestartedForANewCertificateOnceADay(t *testing.T) {
	t.Parallel()
	if daemontest.Isolated(t, nil) {
		restartedOnceADay(t, config.KindChrony)
	}
}

func TestNtpDaemonIsRestartedForANewCertificateOnceADay(t *testing.T) {
	t.Parallel()
	if daemontest.Isolated(t, nil) {
		restartedOnceADay(t, config.KindNTPDRS)
	}
}

func restartedOnceADay(t *testing.T, kind string) {
	m, before := startRestarted(t, kind, "root")
	m.member.until("the daemon listens, and shows its own", func() bool { return m.shown() == before }) // no agent runs yet
	end := m.run()
	first := fmt.Sprintf("%x", m.ca.last)
	m.until("a restart is asked for", m.isAsked)
	if _, err := tls.LoadX509KeyPair(m.export.Cert, m.export.Key); err != nil || m.shown() != before {
		t.Errorf("when it is asked for: %s, %v", m.shown(), err)
	}
	m.restart()
	m.serves("the first certificate is served after the restart", first)
	checkOwner(t, m.export.Key, 0o640, 0, credential(t, chronysUser).Gid)

	second := m.renew(30 * 24 * time.Hour)
	until := m.waits("the second has to wait", first, second)
	end()
	m.run()
	if again := m.waits("and so it does when the agent is another one", first, second); !again.Equal(until) {
		t.Errorf("it is restarted at %v, and after a restart of the agent at %v", until, again)
	}
	if m.isAsked() {
		t.Error("a second restart on one day")
	}
	m.wasADayAgo()
	m.restart()
	m.serves("the second is served on the next day", second)
}

// As it is installed: the agent may neither write where chronyd reads nor restart
// it, and leaves the pair for a helper that is root.
func TestTheHelperRestartsChronydForAnAgentWithoutRights(t *testing.T) {
	t.Parallel()
	if !daemontest.Isolated(t, nil) {
		return
	}
	m, before := startRestarted(t, config.KindChrony, agentsUser)
	m.run()
	first := fmt.Sprintf("%x", m.ca.last)
	d := m.wait("another certificate is told of", func(d status.Document) bool {
		return len(d.Exports) == 1 && strings.Contains(d.Exports[0].Problem, "chronyd still serves another certificate at 127.0.0.1:4460 (serial "+before+",")
	})
	if p := d.Exports[0].Problem; !strings.Contains(p, "`ntsservercert "+m.export.Cert+"`") || !strings.Contains(p, "`ntsagent feed certificate`") {
		t.Errorf("problem %q", p)
	}
	help := m.help()
	if err := help.Start(); err != nil {
		t.Fatal(err)
	}
	m.restart()
	if err := help.Wait(); err != nil {
		t.Fatalf("the helper: %v", err)
	}
	m.serves("the first certificate is served after the restart", first)

	second := m.renew(30 * 24 * time.Hour)
	out, err := m.help().CombinedOutput()
	if err == nil || !strings.Contains(string(out), "was restarted less than a day ago, and is again at ") || m.isAsked() {
		t.Errorf("the helper on the same day: %v: %s", err, out)
	}
	m.waits("the second has to wait", first, second)
	m.wasADayAgo()
	help = m.help()
	if err := help.Start(); err != nil {
		t.Fatal(err)
	}
	m.restart()
	if err := help.Wait(); err != nil {
		t.Fatalf("the helper: %v", err)
	}
	m.serves("the second is served on the next day", second)

	// A daemon that serves it already is not restarted again, whatever is on record.
	m.wasADayAgo()
	if out, err := m.help().CombinedOutput(); err != nil || m.isAsked() {
		t.Errorf("the helper for what is served: %v: %s", err, out)
	}
}
