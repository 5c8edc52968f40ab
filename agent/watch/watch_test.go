package watch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// patienceOfTests is when a test gives up; a good run never waits that long.
const patienceOfTests = time.Minute

// noPoll keeps the backstop out of a test: what is seen was seen by inotify.
const noPoll = time.Hour

// follow runs Files on path and hands out, for every call of changed, what the
// file held at that moment ("" = nothing to be read).
func follow(t *testing.T, path string, debounce, poll time.Duration) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan string, 1000)
	done := make(chan error, 1)
	go func() {
		done <- Files(ctx, []string{path}, debounce, poll, hclog.NewNullLogger(), func() {
			b, _ := os.ReadFile(path)
			seen <- string(b)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Files ended with %v", err)
		}
	})
	return seen
}

// await waits until a call of changed finds want in the file.
func await(t *testing.T, seen <-chan string, want string) {
	t.Helper()
	limit := time.After(patienceOfTests)
	for {
		select {
		case got := <-seen:
			if got == want {
				return
			}
		case <-limit:
			t.Fatalf("nobody was told that the file holds %q", want)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// changes are the ways others replace a file: how it lies there at first, and
// what makes it another one. The sizes differ, for some kernels stamp files that are
// written within a few milliseconds with the same times.
var changes = []struct {
	name   string
	file   string // below the test's folder
	lay    func(t *testing.T, dir string)
	change func(t *testing.T, dir string)
}{
	{"a new file renamed over the old one", "cert.pem",
		func(t *testing.T, dir string) { write(t, dir+"/cert.pem", "the old one") },
		func(t *testing.T, dir string) {
			write(t, dir+"/.tmp", "new")
			must(t, os.Rename(dir+"/.tmp", dir+"/cert.pem"))
		}},
	{"written in place", "cert.pem",
		func(t *testing.T, dir string) { write(t, dir+"/cert.pem", "the old one") },
		func(t *testing.T, dir string) { write(t, dir+"/cert.pem", "new") }},
	{"a symlink replaced, as certbot does", "live/name/cert.pem",
		func(t *testing.T, dir string) {
			write(t, dir+"/archive/cert1.pem", "the old one")
			must(t, os.MkdirAll(dir+"/live/name", 0o755))
			must(t, os.Symlink("../../archive/cert1.pem", dir+"/live/name/cert.pem"))
		},
		func(t *testing.T, dir string) {
			write(t, dir+"/archive/cert2.pem", "new")
			must(t, os.Remove(dir+"/live/name/cert.pem"))
			must(t, os.Symlink("../../archive/cert2.pem", dir+"/live/name/cert.pem"))
		}},
	{"the target of a symlink written in place", "live/cert.pem",
		func(t *testing.T, dir string) {
			write(t, dir+"/archive/cert.pem", "the old one")
			must(t, os.Mkdir(dir+"/live", 0o755))
			must(t, os.Symlink(dir+"/archive/cert.pem", dir+"/live/cert.pem"))
		},
		func(t *testing.T, dir string) { write(t, dir+"/archive/cert.pem", "new") }},
	{"..data swapped, as a Kubernetes secret is", "cert.pem",
		func(t *testing.T, dir string) {
			write(t, dir+"/..1/cert.pem", "the old one")
			must(t, os.Symlink("..1", dir+"/..data"))
			must(t, os.Symlink("..data/cert.pem", dir+"/cert.pem"))
		},
		func(t *testing.T, dir string) {
			write(t, dir+"/..2/cert.pem", "new")
			must(t, os.Symlink("..2", dir+"/..data_tmp"))
			must(t, os.Rename(dir+"/..data_tmp", dir+"/..data"))
			must(t, os.RemoveAll(dir+"/..1"))
		}},
	{"a folder that is a symlink, relinked", "current/cert.pem",
		func(t *testing.T, dir string) {
			write(t, dir+"/1/cert.pem", "the old one")
			must(t, os.Symlink(dir+"/1", dir+"/current"))
		},
		func(t *testing.T, dir string) {
			write(t, dir+"/2/cert.pem", "new")
			must(t, os.Symlink(dir+"/2", dir+"/next"))
			must(t, os.Rename(dir+"/next", dir+"/current"))
		}},
	{"the folder moved away and made again", "certs/cert.pem",
		func(t *testing.T, dir string) { write(t, dir+"/certs/cert.pem", "the old one") },
		func(t *testing.T, dir string) {
			must(t, os.Rename(dir+"/certs", dir+"/away"))
			write(t, dir+"/certs/cert.pem", "new")
		}},
	{"a file in folders that did not exist", "a/b/c/cert.pem",
		func(*testing.T, string) {},
		func(t *testing.T, dir string) { write(t, dir+"/a/b/c/cert.pem", "new") }},
}

func TestEveryWayToReplaceAFileIsSeen(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c.lay(t, dir)
			first := ""
			if b, err := os.ReadFile(filepath.Join(dir, c.file)); err == nil {
				first = string(b)
			}
			seen := follow(t, filepath.Join(dir, c.file), 20*time.Millisecond, noPoll)
			await(t, seen, first)
			c.change(t, dir)
			await(t, seen, "new")
			// The watches must have moved on to what lies there now.
			write(t, filepath.Join(dir, c.file), "newer")
			await(t, seen, "newer")
		})
	}
}

func TestThePollSeesWhatInotifyMissed(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c.lay(t, dir)
			// A debounce of an hour makes events worthless: only the poll is left.
			seen := follow(t, filepath.Join(dir, c.file), time.Hour, 10*time.Millisecond)
			<-seen
			c.change(t, dir)
			await(t, seen, "new")
		})
	}
}

func TestAFileThatMovesAwayAndComesBackLaterIsSeenEachTime(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "certs", "cert.pem")
	write(t, path, "one")
	seen := follow(t, path, 20*time.Millisecond, noPoll)
	await(t, seen, "one")
	for _, text := range []string{"two", "three"} {
		must(t, os.Rename(dir+"/certs", dir+"/away-"+text))
		await(t, seen, "")
		write(t, path, text)
		await(t, seen, text)
	}
}

func TestAHalfWrittenFileIsLookedAtAgainWhenItIsComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cert.pem")
	write(t, path, "old")
	seen := follow(t, path, 20*time.Millisecond, noPoll)
	await(t, seen, "old")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("half")
	must(t, err)
	await(t, seen, "half")
	_, err = f.WriteString(" whole")
	must(t, err)
	await(t, seen, "half whole")
}

func TestABurstOfEventsIsOneCall(t *testing.T) {
	t.Parallel()
	const debounce = time.Second
	path := filepath.Join(t.TempDir(), "cert.pem")
	write(t, path, "old")
	seen := follow(t, path, debounce, noPoll)
	await(t, seen, "old")
	for n := 0; ; n++ {
		last := fmt.Sprint("new", n)
		begun := time.Now()
		for _, text := range []string{"a", "ab", "abc", last} {
			write(t, path, text)
		}
		if time.Since(begun) > debounce/2 { // we stood still, and it may have been quiet: another burst
			await(t, seen, last)
			continue
		}
		if got := <-seen; got != last {
			t.Errorf("was called while the file held %q, want only when all was quiet", got)
		}
		return
	}
}

func TestAnUnendingStreamOfEventsDoesNotHoldBackTheCallForEver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	write(t, path, "old")
	seen := follow(t, path, 300*time.Millisecond, noPoll)
	await(t, seen, "old")
	write(t, path, "newer")
	limit := time.After(patienceOfTests)
	tick := time.NewTicker(time.Millisecond) // never quiet for a debounce
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			write(t, dir+"/noise", "x")
		case <-seen:
			return
		case <-limit:
			t.Fatal("nobody was told while another file kept changing")
		}
	}
}

func TestOtherFilesInTheFolderAreNoChange(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.pem")
	write(t, path, "old")
	seen := follow(t, path, 10*time.Millisecond, noPoll)
	await(t, seen, "old")
	for range 3 {
		write(t, dir+"/noise", "x")
	}
	write(t, dir+"/other", "new")
	must(t, os.Rename(dir+"/other", path)) // whole at once: no moment shows half of it
	if got := <-seen; got != "new" {
		t.Errorf("was called for another file, while this one held %q", got)
	}
}

func TestWithoutInotifyTheFilesAreStillPolledAndThatIsSaidOnce(t *testing.T) {
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "cert.pem")
	write(t, path, "old")
	w := &watcher{paths: []string{path}, watched: map[string]identity{},
		log: hclog.New(&hclog.LoggerOptions{Output: &out})}
	for range 3 {
		w.pollOnly(os.ErrPermission)
	}
	if !w.look() || w.look() {
		t.Error("the first look is a change, the second none")
	}
	write(t, path, "new!")
	if !w.look() {
		t.Error("a change went unseen")
	}
	w.close()
	if n := strings.Count(out.String(), "inotify failed"); n != 1 {
		t.Errorf("warned %d times, want once:\n%s", n, &out)
	}
}

func TestFoldersOfAPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	write(t, dir+"/archive/x/cert.pem", "")
	must(t, os.MkdirAll(dir+"/live/x", 0o755))
	must(t, os.Symlink("../../archive/x/cert.pem", dir+"/live/x/cert.pem"))
	must(t, os.Symlink("live", dir+"/link"))
	must(t, os.Symlink("loop", dir+"/loop"))
	for _, c := range []struct {
		name, path string
		want       []string
	}{
		{"a plain file: its folder", "/archive/x/cert.pem", []string{"/archive/x"}},
		{"a symlink: its folder and the target's", "/live/x/cert.pem", []string{"/live/x", "/archive/x"}},
		{"a symlinked folder on the way: the folder of that link too", "/link/x/cert.pem", []string{"", "/live/x", "/archive/x"}},
		{"a missing file: its folder", "/archive/x/other.pem", []string{"/archive/x"}},
		{"a missing folder: the last one there is", "/archive/y/z/cert.pem", []string{"/archive"}},
		{"a symlink to itself: its folder", "/loop", []string{""}},
		{"dots on the way", "/live/../archive/./x/cert.pem", []string{"/archive/x"}},
		{"a file where a folder should be", "/archive/x/cert.pem/more", []string{"/archive/x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, f := range folders(dir + c.path) {
				got = append(got, strings.TrimPrefix(f, dir))
			}
			if got = slices.Compact(got); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
