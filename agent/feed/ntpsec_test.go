package feed_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"ntsagent/agent/feed"
)

func exportVerb(args []string) int {
	var o feed.ExportOptions
	flags := flag.NewFlagSet("feed ntpsec", flag.ContinueOnError)
	flags.StringVar(&o.From, "from", "", "")
	flags.StringVar(&o.To, "to", "", "")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch err := feed.NTPsec(ctx, o); {
	case err == nil:
		return 0
	case errors.Is(err, feed.ErrNoKeys):
		fmt.Fprintln(os.Stderr, "ntsagent:", err)
		return 5
	default:
		fmt.Fprintln(os.Stderr, "ntsagent:", err)
		return 1
	}
}

// ntpsecKeys is a key file of ntpd with keys of that one octet each.
func ntpsecKeys(fill ...string) string {
	s := "T: 1700000000\nL: 32\n"
	for i, f := range fill {
		s += fmt.Sprintf("I: %d\nK: %s\n", 4_000_000_000-i, strings.Repeat(f, 32))
	}
	return s
}

// exporting are folders as they are installed, but for their user.
func exporting(t *testing.T) feed.ExportOptions {
	t.Helper()
	top := t.TempDir()
	o := feed.ExportOptions{From: filepath.Join(top, "lib", "nts-keys"), To: filepath.Join(top, "state", "ntpsec", "nts-keys")}
	for dir, mode := range map[string]os.FileMode{filepath.Dir(o.From): 0o700, filepath.Dir(o.To): 0o750 | os.ModeSetgid} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

func TestAnExportIsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	good := ntpsecKeys("aa")
	whole := ntpsecKeys("bb", "aa")
	old := strings.Replace(whole, "4000000000", "17", 1) // in place over the longer one
	for sentence, c := range map[string]struct {
		now  string // the original as it is now; "" = it is gone
		want string // the copy, which was good before
		kind error
	}{
		"a whole file is copied":                        {whole, whole, nil},
		"one that ntpd never rotates is":                {strings.Replace(whole, "T: 1700000000", "T: 0", 1), strings.Replace(whole, "T: 1700000000", "T: 0", 1), nil},
		"one that 1.2.1 wrote over a longer one is":     {old + "aaaaaaa\n", old + "aaaaaaa\n", nil},
		"one that is cut leaves the copy":               {whole[:len(whole)-9], good, feed.ErrSource},
		"an empty one leaves the copy":                  {"\n", good, feed.ErrSource},
		"something else leaves the copy":                {"root:x:0:0:secret", good, feed.ErrSource},
		"one that is far too long leaves the copy":      {whole + strings.Repeat("a", 5000), good, feed.ErrSource},
		"one that is gone takes the copy with it":       {"", "", feed.ErrNoKeys},
		"one that did not change leaves the very copy":  {good, good, nil},
		"one in chronyd's format leaves the good copy":  {"NKS0\n15 0.0\n0a0b0c0d 00\n", good, feed.ErrSource},
		"half of a pair more leaves the copy as it was": {good + "I: 7\n", good, feed.ErrSource},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			o := exporting(t)
			put(t, o.From, good)
			if err := feed.NTPsec(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			before, err := os.Stat(o.To)
			if err != nil || before.Mode() != 0o640 {
				t.Fatalf("the copy has mode %v, %v", before.Mode(), err)
			}
			if c.now == "" {
				err = os.Remove(o.From)
			} else {
				put(t, o.From, c.now)
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time nothing is left to do
				err := feed.NTPsec(t.Context(), o)
				if !errors.Is(err, c.kind) || c.kind == nil && err != nil {
					t.Fatalf("error %v", err)
				}
				if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "aaaa") || strings.Contains(err.Error(), "\n")) {
					t.Errorf("error %q", err)
				}
			}
			if got := content(t, o.To); got != c.want {
				t.Errorf("the copy is %q", got)
			}
			after, err := os.Stat(o.To)
			if same := err == nil && os.SameFile(before, after); same != (c.want == good) {
				t.Errorf("the very same file: %v", same)
			}
			if names := left(t, filepath.Dir(o.To)); len(names) > 1 {
				t.Errorf("beside the copy: %v", names)
			}
		})
	}
}

// ntpd up to 1.2.1 writes in place: who looks in the middle looks again.
func TestAnExportWaitsForTheRestOfAFile(t *testing.T) {
	t.Parallel()
	o := exporting(t)
	whole := ntpsecKeys("bb", "aa")
	put(t, o.From, whole[:40])
	synctest.Test(t, func(t *testing.T) {
		done := make(chan error, 1)
		go func() { done <- feed.NTPsec(t.Context(), o) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("it has not waited: %v", err)
		default:
		}
		put(t, o.From, whole)
		if err := <-done; err != nil || content(t, o.To) != whole {
			t.Errorf("error %v, copy %q", err, content(t, o.To))
		}
	})
}

func TestAnExportRefusesFoldersThatOthersCouldUse(t *testing.T) {
	t.Parallel()
	for sentence, c := range map[string]struct {
		change func(t *testing.T, o *feed.ExportOptions)
		says   string
	}{
		"a link in its place": {func(t *testing.T, o *feed.ExportOptions) {
			dir := filepath.Dir(o.To)
			must(t, os.Rename(dir, dir+".gone"), os.Symlink(dir+".gone", dir))
		}, "not a directory"},
		"others may write to it":         {func(t *testing.T, o *feed.ExportOptions) { must(t, os.Chmod(filepath.Dir(o.To), 0o757)) }, "others may write"},
		"its group may write to it":      {func(t *testing.T, o *feed.ExportOptions) { must(t, os.Chmod(filepath.Dir(o.To), 0o770)) }, "others may write"},
		"it is not there":                {func(t *testing.T, o *feed.ExportOptions) { must(t, os.Remove(filepath.Dir(o.To))) }, "install -d"},
		"a file in its place":            {func(t *testing.T, o *feed.ExportOptions) { o.To = filepath.Join(o.From, "x") }, "not a directory"},
		"it is the folder of ntpd's own": {func(t *testing.T, o *feed.ExportOptions) { o.To = o.From }, "folder of the original"},
		"it is that one by another path": {func(t *testing.T, o *feed.ExportOptions) { o.To = filepath.Dir(o.From) + "/../lib/copy" }, "folder of the original"},
		"it belongs to somebody else":    {func(t *testing.T, o *feed.ExportOptions) { give(t, filepath.Dir(o.To), "daemon", "") }, "belongs to user"},
		"the copy would not get its group": {func(t *testing.T, o *feed.ExportOptions) {
			give(t, filepath.Dir(o.To), "", "daemon")
			must(t, os.Chmod(filepath.Dir(o.To), 0o750))
		}, "would not get its group"},
	} {
		t.Run(sentence, func(t *testing.T) {
			t.Parallel()
			needRoot(t)
			o := exporting(t)
			put(t, o.From, ntpsecKeys("aa"))
			c.change(t, &o)
			err := feed.NTPsec(t.Context(), o)
			if !errors.Is(err, feed.ErrFolder) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "install -d -o") {
				t.Errorf("error %v", err)
			}
			if _, err := os.Lstat(o.To); err == nil && o.To != o.From {
				t.Error("it was written")
			}
			if content(t, o.From) != ntpsecKeys("aa") {
				t.Error("the original has changed")
			}
		})
	}
}

func TestAnExportFollowsNoLinks(t *testing.T) {
	t.Parallel()
	o := exporting(t)
	victim := filepath.Join(t.TempDir(), "victim")
	put(t, victim, "mine")
	put(t, o.From, ntpsecKeys("aa"))
	must(t, os.Symlink(victim, o.To))
	if err := feed.NTPsec(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(o.To); err != nil || !info.Mode().IsRegular() || content(t, victim) != "mine" {
		t.Errorf("the copy is %v, %v; what it was a link to holds %q", info, err, content(t, victim))
	}
	put(t, victim, ntpsecKeys("bb"))
	must(t, os.Remove(o.From), os.Symlink(victim, o.From))
	if err := feed.NTPsec(t.Context(), o); err == nil || content(t, o.To) != ntpsecKeys("aa") {
		t.Errorf("what the original is a link to was exported: %v", err)
	}
	must(t, os.Remove(o.From), syscall.Mkfifo(o.From, 0o600))
	if err := feed.NTPsec(t.Context(), o); err == nil || content(t, o.To) != ntpsecKeys("aa") {
		t.Errorf("a pipe was exported: %v", err)
	}
}

// As root beside an ntpd of another user all is done as that user, who can do
// no harm but to itself.
func TestRootExportsAsTheUserOfNtpd(t *testing.T) {
	t.Parallel()
	uid, _ := needRoot(t)
	o := exporting(t)
	open(t, filepath.Dir(filepath.Dir(o.From)))
	put(t, o.From, ntpsecKeys("aa"))
	give(t, o.From, other, other)
	give(t, filepath.Dir(o.From), other, other)
	err := feed.NTPsec(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "permission denied") || content(t, o.To) != "" {
		t.Fatalf("in a folder of root: %v", err)
	}
	give(t, filepath.Dir(o.To), other, "daemon")
	must(t, os.Chmod(filepath.Dir(o.To), 0o750|os.ModeSetgid))
	if err := feed.NTPsec(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	must(t, syscall.Stat(o.To, &st))
	group, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	if strconv.Itoa(int(st.Gid)) != group.Gid || int(st.Uid) != uid || st.Mode != syscall.S_IFREG|0o640 {
		t.Errorf("the copy belongs to %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	// The folder is exchanged for a link to one of ntpd's own, as the agent could.
	dir := filepath.Dir(o.To)
	must(t, os.Rename(dir, dir+".away"), os.Symlink(filepath.Dir(o.From), dir))
	put(t, o.From, ntpsecKeys("bb"))
	if err := feed.NTPsec(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("through a link: %v", err)
	}
	must(t, os.Remove(dir), os.Rename(dir+".away", dir))
	// ntpd is gone for good, its folder too.
	must(t, os.RemoveAll(filepath.Dir(o.From)))
	if err := feed.NTPsec(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no key file") || content(t, o.To) != "" {
		t.Errorf("without the original: %v", err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// give changes the owner and the group of a file; "" leaves it.
func give(t *testing.T, path, owner, group string) {
	t.Helper()
	uid, gid := -1, -1
	if owner != "" {
		u, err := user.Lookup(owner)
		if err != nil {
			t.Fatal(err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		if group == owner {
			gid, _ = strconv.Atoi(u.Gid)
		}
	}
	if group != "" && group != owner {
		g, err := user.LookupGroup(group)
		if err != nil {
			t.Fatal(err)
		}
		gid, _ = strconv.Atoi(g.Gid)
	}
	must(t, os.Chown(path, uid, gid))
}

// open lets others pass through dir and all above it that is the test's.
func open(t *testing.T, dir string) {
	t.Helper()
	for ; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
}
