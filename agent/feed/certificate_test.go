package feed_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsagent/agent/config"
	"ntsagent/agent/feed"
)

func certificateVerb(args []string) int {
	o := feed.CertificateOptions{Stdin: os.Stdin}
	flags := flag.NewFlagSet("feed certificate", flag.ContinueOnError)
	flags.StringVar(&o.From, "from", "", "")
	export := flags.String("export", "", "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var err error
	if o.Export, err = config.ParseExport(*export); err == nil {
		err = feed.Certificate(context.Background(), o)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, feed.ErrNotPermitted):
		fmt.Fprintln(os.Stderr, "ntsagent:", err)
		return 4
	}
	fmt.Fprintln(os.Stderr, "ntsagent:", err)
	return 1
}

const exportedName = "alice.example"

// newPair makes a key and a certificate for the name, as the agent leaves them.
func newPair(t *testing.T, name string) []byte {
	t.Helper()
	pair, err := makePair(name)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func makePair(name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...), nil
}

// exportTo is an export to a folder of the test's.
func exportTo(t *testing.T, dir, more string) config.Export {
	t.Helper()
	e, err := config.ParseExport(fmt.Sprintf("{name: %s, cert: %s/cert.pem, key: %s/key.pem%s}", exportedName, dir, dir, more))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func hasPair(t *testing.T, e config.Export, pair []byte) bool {
	t.Helper()
	return content(t, e.Key)+content(t, e.Cert) == string(pair) && strings.Contains(content(t, e.Key), "PRIVATE KEY") == (len(pair) > 0)
}

func TestTheKeyIsReplacedBeforeTheCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := exportTo(t, dir, ", mode: 0600")
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		t.Fatal(err)
	}
	var last syscall.Stat_t
	for range 2 { // the second time in place of what is there
		pair := newPair(t, exportedName)
		must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair}))
		if !hasPair(t, e, pair) {
			t.Fatal("the files are not the pair")
		}
		var st syscall.Stat_t
		must(t, syscall.Stat(e.Cert, &st))
		if st.Mtim.Sec == last.Mtim.Sec && st.Ctim.Sec == last.Ctim.Sec {
			t.Errorf("ntpd would not see that the certificate is another one: %+v, %+v", last, st)
		}
		last = st
		var b [4096]byte
		n, err := unix.Read(fd, b[:])
		if err != nil {
			t.Fatal(err)
		}
		key, cert := bytes.Index(b[:n], []byte("key.pem")), bytes.Index(b[:n], []byte("cert.pem"))
		if key < 0 || cert < key {
			t.Errorf("renamed: %q", b[:n])
		}
	}
	for _, path := range []string{e.Cert, e.Key} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if names := left(t, dir); len(names) != 2 {
		t.Errorf("in the folder: %v", names)
	}
	if s := fmt.Sprintf("%v %+v %#v", feed.CertificateOptions{Export: e, Pair: newPair(t, exportedName)}, e, e); strings.Contains(s, "PRIVATE") || strings.Contains(s, "[45 45") {
		t.Error("printed options hold a key")
	}
}

func TestOnlyAPairForTheNameIsExported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e := exportTo(t, dir, "")
	good := newPair(t, exportedName)
	must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: good}))
	other := newPair(t, exportedName)
	key, cert := bytes.Index(good, []byte("-----BEGIN CERTIFICATE")), bytes.Index(other, []byte("-----BEGIN CERTIFICATE"))
	for sentence, pair := range map[string][]byte{
		"another name":             newPair(t, "bob.example"),
		"another one's key":        append(bytes.Clone(good[:key]), other[cert:]...),
		"no key":                   good[key:],
		"no certificate":           good[:key],
		"cut off":                  good[:len(good)-30],
		"something else behind it": append(bytes.Clone(good), "secret"...),
		"nothing":                  {},
		"far too long":             append(bytes.Clone(good), bytes.Repeat(good[key:], 5000)...),
	} {
		from := filepath.Join(t.TempDir(), "pair")
		put(t, from, string(pair))
		err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, From: from})
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", sentence, err)
		}
		if !hasPair(t, e, good) {
			t.Errorf("%s: the files have changed", sentence)
		}
	}
	if err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, From: filepath.Join(dir, "none")}); !errors.Is(err, feed.ErrNoPair) {
		t.Errorf("nothing is left: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(e.Key, link))
	if err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, From: link}); err == nil {
		t.Error("what a link leads to was taken")
	}
}

func TestACertificateIsExportedToFoldersThatCanBeTrusted(t *testing.T) {
	t.Parallel()
	needRoot(t)
	pair := newPair(t, exportedName)
	for sentence, c := range map[string]struct {
		change func(t *testing.T, dir string)
		says   string
	}{
		"others may write to it":             {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777)) }, "others may write"},
		"others may write to it, sticky":     {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o777|os.ModeSticky)) }, "others may write"},
		"its group may":                      {func(t *testing.T, dir string) { must(t, os.Chmod(dir, 0o770)) }, "others may write"},
		"it is in a folder of somebody else": {func(t *testing.T, dir string) { give(t, filepath.Dir(dir), other, "") }, "belongs to user"},
		"it is in a folder others write to":  {func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Dir(dir), 0o777)) }, "others may write"},
		"it is not there":                    {func(t *testing.T, dir string) { must(t, os.Remove(dir)) }, "no such file"},
		"it leads to such a one": {func(t *testing.T, dir string) {
			must(t, os.Rename(dir, dir+".real"), os.Chmod(dir+".real", 0o777), os.Symlink(dir+".real", dir))
		}, "others may write"},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "between", "etc")
			must(t, os.MkdirAll(dir, 0o755))
			c.change(t, dir)
			e := exportTo(t, dir, "")
			err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair})
			if !errors.Is(err, feed.ErrFolder) || !strings.Contains(err.Error(), c.says) || !hasPair(t, e, nil) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestAnExportHasItsOwnerGroupAndMode(t *testing.T) {
	t.Parallel()
	uid, gid := needRoot(t)
	pair := newPair(t, exportedName)
	victim := filepath.Join(t.TempDir(), "victim")
	put(t, victim, "mine")
	for more, want := range map[string]syscall.Stat_t{
		"":                               {Mode: 0o640},
		", owner: nobody":                {Uid: uint32(uid), Mode: 0o640},
		", group: nogroup, mode: 0440":   {Gid: uint32(gid), Mode: 0o440},
		", owner: \"7\", group: \"8\"":   {Uid: 7, Gid: 8, Mode: 0o640},
		", owner: nobody, group: daemon": {Uid: uint32(uid), Gid: 1, Mode: 0o640},
	} {
		dir := t.TempDir()
		must(t, os.Symlink(victim, filepath.Join(dir, "key.pem")))
		e := exportTo(t, dir, more)
		must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair}))
		for _, path := range []string{e.Cert, e.Key} {
			var st syscall.Stat_t
			must(t, syscall.Lstat(path, &st))
			if st.Uid != want.Uid || st.Gid != want.Gid || st.Mode != want.Mode|syscall.S_IFREG {
				t.Errorf("%s with %q belongs to %d:%d, mode %o", path, more, st.Uid, st.Gid, st.Mode)
			}
		}
	}
	if content(t, victim) != "mine" {
		t.Error("it was written through a link")
	}
	err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: exportTo(t, t.TempDir(), ", owner: no-such-user"), Pair: pair})
	if err == nil || !strings.Contains(err.Error(), "no-such-user") {
		t.Errorf("a user who is not there: %v", err)
	}
}

// In a folder of another user root has no more rights than that one.
func TestRootExportsToAFolderOfAnotherUserAsThatUser(t *testing.T) {
	t.Parallel()
	uid, _ := needRoot(t)
	dir := filepath.Join(t.TempDir(), "theirs")
	must(t, os.Mkdir(dir, 0o755))
	open(t, filepath.Dir(dir))
	give(t, dir, other, other)
	pair := newPair(t, exportedName)
	e := exportTo(t, dir, "")
	must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair}))
	var st syscall.Stat_t
	must(t, syscall.Lstat(e.Key, &st))
	if int(st.Uid) != uid || !hasPair(t, e, pair) {
		t.Errorf("the key belongs to %d", st.Uid)
	}
	asked := filepath.Join(t.TempDir(), "asked")
	pair = newPair(t, exportedName)
	must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: exportTo(t, dir, ", then: restart, command: [/usr/bin/touch, "+asked+"]"), Pair: pair,
		KE: netip.MustParseAddrPort("127.0.0.1:1"), Record: feed.RestartRecord(filepath.Join(t.TempDir(), "state"))}))
	if must(t, syscall.Lstat(asked, &st)); st.Uid != 0 || !hasPair(t, e, pair) {
		t.Errorf("it is restarted by user %d", st.Uid)
	}
	err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: exportTo(t, dir, ", owner: root"), Pair: newPair(t, exportedName)})
	if !errors.Is(err, feed.ErrNotPermitted) || !strings.Contains(err.Error(), "folder of root") || !hasPair(t, e, pair) {
		t.Errorf("for root: %v", err)
	}
}

// SIGHUP ends a program that does not expect it.
func TestOnlyAnNtpdIsSentASignal(t *testing.T) {
	t.Parallel()
	sleeper := exec.CommandContext(t.Context(), "sleep", "100")
	must(t, sleeper.Start())
	ended := make(chan error, 1)
	go func() { ended <- sleeper.Wait() }()
	gone := exec.Command("true")
	must(t, gone.Run())
	pair := newPair(t, exportedName)
	for said, says := range map[string]string{
		"":                                  "no number",
		"0\n":                               "no number",
		"1\n":                               "no number",
		"-1\n":                              "no number",
		"99999999999\n":                     "no number",
		"12 34\n":                           "no number",
		fmt.Sprint(gone.Process.Pid) + "\n": "has ended",
		fmt.Sprint(sleeper.Process.Pid):     `it is "sleep", not ntpd`,
		"none":                              "no such file",
	} {
		dir := t.TempDir()
		pidFile := filepath.Join(dir, "ntpd.pid")
		e := exportTo(t, dir, ", then: sighup, pid_file: "+pidFile)
		put(t, pidFile, said)
		if said == "none" {
			must(t, os.Remove(pidFile))
		}
		err := feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, Pair: pair})
		if !errors.Is(err, feed.ErrNotThere) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "the files are written") {
			t.Errorf("%q: %v", said, err)
		}
		if !hasPair(t, e, pair) {
			t.Errorf("%q: the files are not written", said)
		}
	}
	select {
	case err := <-ended:
		t.Errorf("another program was ended: %v", err)
	default:
	}
	must(t, sleeper.Process.Kill())
	<-ended
}

// Where a daemon has to be restarted, no shell sees a word of it, and what is not
// done says why.
func TestCVE_2023_38198_ARestartIsByArgumentsAlone(t *testing.T) {
	t.Parallel()
	needRoot(t)
	pair := newPair(t, exportedName)
	state := func(t *testing.T) string { return filepath.Join(t.TempDir(), "state") }
	certificate := func(t *testing.T, dir, then, record string) error {
		return feed.Certificate(t.Context(), feed.CertificateOptions{Export: exportTo(t, dir, ", then: restart, "+then), Pair: pair,
			KE: netip.MustParseAddrPort("127.0.0.1:1"), Record: record})
	}
	t.Run("arguments come as they are", func(t *testing.T) {
		t.Parallel()
		dir, record := t.TempDir(), feed.RestartRecord(state(t))
		const name = "a b;$(false)`false`|&>'\"*$HOME"
		command := fmt.Sprintf("command: [/usr/bin/touch, %q]", filepath.Join(dir, name))
		must(t, certificate(t, dir, command, record))
		if names := left(t, dir); len(names) != 3 || names[0] != name {
			t.Errorf("in the folder: %v", names)
		}
		info, err := os.Stat(record)
		if err != nil || info.Mode() != 0o644 || !strings.Contains(content(t, record), `"done":true`) {
			t.Errorf("record %s, %v", content(t, record), err)
		}
		waiting := (*feed.Waiting)(nil)
		if err := certificate(t, dir, command, record); !errors.As(err, &waiting) || time.Until(waiting.Until) < 23*time.Hour {
			t.Errorf("at once once more: %v", err)
		}
	})
	t.Run("a unit that is not there", func(t *testing.T) {
		t.Parallel()
		dir, record := t.TempDir(), feed.RestartRecord(state(t))
		err := certificate(t, dir, "unit: ntsagent-has-no-such.service", record)
		if !errors.Is(err, feed.ErrNotRestarted) || !strings.Contains(err.Error(), "restart ntsagent-has-no-such.service") || !strings.Contains(err.Error(), "the files are written") {
			t.Errorf("error %v", err)
		}
		if err := certificate(t, dir, "unit: ntsagent-has-no-such.service", record); !errors.Is(err, feed.ErrNotRestarted) || !strings.Contains(err.Error(), "is tried again at ") {
			t.Errorf("at once once more: %v", err)
		}
	})
	t.Run("what says why is told on one line", func(t *testing.T) {
		t.Parallel()
		err := certificate(t, t.TempDir(), "command: [/usr/bin/env, --no-such-option]", feed.RestartRecord(state(t)))
		if !errors.Is(err, feed.ErrNotRestarted) || strings.ContainsAny(err.Error(), "\n\x1b") {
			t.Errorf("error %q", err)
		}
	})
	for sentence, spoil := range map[string]func(t *testing.T, record string){
		"others may write the record's folder": func(t *testing.T, record string) {
			must(t, os.Mkdir(filepath.Dir(record), 0o777), os.Chmod(filepath.Dir(record), 0o777))
		},
		"the record's folder is somebody else's": func(t *testing.T, record string) {
			must(t, os.Mkdir(filepath.Dir(record), 0o755))
			give(t, filepath.Dir(record), other, "")
		},
		"the record's folder is a file": func(t *testing.T, record string) { put(t, filepath.Dir(record), "") },
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			dir, record := t.TempDir(), feed.RestartRecord(state(t))
			spoil(t, record)
			asked := filepath.Join(dir, "asked")
			err := certificate(t, dir, "command: [/usr/bin/touch, "+asked+"]", record)
			if !errors.Is(err, feed.ErrNotRestarted) || !strings.Contains(err.Error(), "; fix: see that "+filepath.Dir(record)) {
				t.Errorf("error %v", err)
			}
			if _, err := os.Lstat(asked); err == nil {
				t.Error("restarted though that could not be written down")
			}
			if !hasPair(t, exportTo(t, dir, ""), pair) {
				t.Error("the files are not written")
			}
		})
	}
}

// Nothing is written through a link, whoever has put it there.
func TestCVE_2020_14367_NoLinkIsFollowedWhereAnExportWrites(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, to := range []string{"a file", "nothing", "a folder", "itself"} {
		t.Run("to "+to, func(t *testing.T) {
			t.Parallel()
			dir, elsewhere := t.TempDir(), t.TempDir()
			record, leave := feed.RestartRecord(filepath.Join(t.TempDir(), "state")), filepath.Join(t.TempDir(), "left.pem")
			e := exportTo(t, dir, ", then: restart, command: [/bin/true]")
			must(t, os.Mkdir(filepath.Dir(record), 0o755))
			links := []string{e.Cert, e.Key, record, leave}
			for i, path := range links {
				target := filepath.Join(elsewhere, fmt.Sprint(i))
				switch to {
				case "a file":
					put(t, target, "mine")
				case "a folder":
					must(t, os.Mkdir(target, 0o755))
				case "itself":
					target = path
				}
				must(t, os.Symlink(target, path))
			}
			before := fmt.Sprint(left(t, elsewhere))
			pair := newPair(t, exportedName)
			must(t, feed.Leave(leave, pair))
			must(t, feed.Certificate(t.Context(), feed.CertificateOptions{Export: e, From: leave, KE: netip.MustParseAddrPort("127.0.0.1:1"), Record: record}))
			for i, path := range links {
				if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
				if to == "a file" && content(t, filepath.Join(elsewhere, fmt.Sprint(i))) != "mine" {
					t.Errorf("written through the link at %s", path)
				}
				if to == "a folder" && len(left(t, filepath.Join(elsewhere, fmt.Sprint(i)))) > 0 {
					t.Errorf("written into the folder that %s led to", path)
				}
			}
			if !hasPair(t, e, pair) || fmt.Sprint(left(t, elsewhere)) != before {
				t.Errorf("elsewhere there are %q, and there were %s", left(t, elsewhere), before)
			}
		})
	}
}
