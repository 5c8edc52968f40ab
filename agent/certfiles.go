package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"ntsagent/acme/live"
	"ntsagent/agent/config"
	"ntsagent/agent/status"
	"ntsagent/agent/watch"
)

// secondLooks are how long after a refused pair the files are looked at again:
// whoever writes key and certificate one after the other is between the two.
// Only what is still wrong after the last look is logged.
var secondLooks = [...]time.Duration{200 * time.Millisecond, time.Second, 5 * time.Second}

// fileSource keeps one name's certificate as somebody else's files have it. On
// any doubt the last good one stays.
type fileSource struct {
	files  config.CertificateFiles
	live   *live.Set
	log    hclog.Logger
	knock  func()
	events *status.Events
	state  atomic.Pointer[fileState]
}

// fileState is how the last look at the files ended.
type fileState struct {
	installed time.Time // the pair in service was taken then
	err       string    // why the files as they are now are not, or ""
	failures  int
}

func newFileSource(f config.CertificateFiles, set *live.Set, log hclog.Logger, knock func(), events *status.Events) *fileSource {
	s := &fileSource{files: f, live: set, log: log.With("name", f.Name.String()), knock: knock, events: events}
	s.state.Store(&fileState{})
	return s
}

// run loads the files now and whenever they change, until ctx is done.
func (s *fileSource) run(ctx context.Context) error {
	return watch.Files(ctx, []string{s.files.Cert, s.files.Key}, 0, 0, s.log, func() { s.load(ctx) })
}

// load installs the pair, looking again a few times before it calls it bad.
func (s *fileSource) load(ctx context.Context) {
	err := s.install()
	before := s.state.Load()
	none := s.live.Leaf(s.files.Name) == nil
	if err != nil && none { // whoever waits for the first one may know at once
		s.state.Store(&fileState{installed: before.installed, err: s.cause(err), failures: before.failures + 1})
	}
	for _, pause := range secondLooks {
		if err == nil {
			return
		}
		s.log.Debug("certificate files not usable yet", "error", err)
		again := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-again.C:
		}
		err = s.install()
	}
	if err == nil {
		return
	}
	cause := s.cause(err)
	if before.err != cause {
		what := "certificate files not taken, the last good certificate stays"
		if none {
			what = "certificate files not taken, and there is no certificate before them"
		}
		s.log.Error(what, "cause", cause)
		s.events.Add(time.Now(), "certificate "+s.files.Name.String()+": "+cause)
	}
	s.state.Store(&fileState{installed: before.installed, err: cause, failures: before.failures + 1})
}

// cause is what to tell of err where the name stands beside it.
func (s *fileSource) cause(err error) string {
	text := nameless(s.files.Name.String(), err.Error())
	if errors.Is(err, fs.ErrPermission) {
		text += fmt.Sprintf("; fix: let %s, as whom the agent runs, read the file and enter its folders", thisUser())
	}
	return text
}

// nameless is an error about the certificate of a name, to be told beside that name.
func nameless(name, text string) string {
	return strings.TrimPrefix(text, "certificate for "+name+": ")
}

// thisUser is who this process runs as.
func thisUser() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return "user " + u.Username
	}
	return "user " + uid
}

func (s *fileSource) install() error {
	chain, key, err := live.ReadPair(s.files.Cert, s.files.Key)
	if err != nil {
		return err
	}
	changed, err := s.live.Install(s.files.Name, chain, key, time.Now())
	if err != nil {
		return err
	}
	before := s.state.Load()
	now := &fileState{installed: before.installed}
	if changed {
		now.installed = time.Now()
		leaf := s.live.Leaf(s.files.Name)
		s.log.Info("certificate installed", "cert", s.files.Cert, "not_after", leaf.NotAfter.UTC().Format(time.RFC3339))
		s.knock()
	}
	s.state.Store(now)
	return nil
}
