package feed

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"ntsagent/acme/disk"
	"ntsagent/agent/config"
	"ntsagent/agent/daemon"
)

// RestartRecord is where we keep when we restarted a daemon last: beside the
// agent's state, not in it, for that belongs to the user the agent runs as, and
// who can write the record can have root restart the daemon at will.
func RestartRecord(stateDir string) string {
	return filepath.Join(filepath.Clean(stateDir)+"-export", "restarted.json")
}

// How often a daemon is restarted.
const (
	restartEvery = 24 * time.Hour
	restartAgain = time.Hour // after a restart that failed, or where waiting would let what is served end
	restartsADay = 3         // of those that did not fail, whatever is served
)

// restarted is what is known of the last restart.
type restarted struct {
	What string    `json:"what"` // the unit, or the command
	Leaf string    `json:"leaf"` // SHA-256 of the certificate that was to be loaded
	At   time.Time `json:"at"`
	Done bool      `json:"done"` // false = it failed, or we were ended meanwhile
	// Before are the times of those before that did not fail, the latest first: as
	// many as count for restartsADay.
	Before []time.Time `json:"before,omitempty"`
}

// again is what is known when the daemon is restarted now, for the certificate leaf.
func (r restarted) again(what, leaf string, now time.Time) restarted {
	before := r.Before
	if r.Done {
		before = append([]time.Time{r.At}, before...)
	}
	return restarted{What: what, Leaf: leaf, At: now, Before: before[:min(len(before), restartsADay-1)]}
}

// next is when the daemon may be restarted for the certificate leaf, a time that is
// over if it may be at once. What it serves ends then; zero = nobody knows.
//
// That is a day after the last time. It is sooner, but an hour after it at least,
// if that failed, or if the certificate that is served would be over or about to be,
// unless it is this very one that the last restart was for: then another helps no more.
// Nor is it sooner where it would be one too many on a day: who makes the certificates
// has them end when he likes.
func (r restarted) next(leaf string, ends, now time.Time) time.Time {
	if r.At.IsZero() || r.At.After(now) { // a clock that was set back tells nothing
		return now
	}
	day, hour := r.At.Add(restartEvery), r.At.Add(restartAgain)
	switch soon := ends.Add(-restartAgain); {
	case !r.Done:
		return hour
	case r.Leaf == leaf || ends.IsZero() || day.Before(soon):
		return day
	default:
		next := hour
		if soon.After(next) {
			next = soon
		}
		if len(r.Before) >= restartsADay-1 {
			if free := r.Before[restartsADay-2].Add(restartEvery); free.After(next) {
				next = free
			}
		}
		if next.After(day) { // those before are of a clock that was set back
			return day
		}
		return next
	}
}

// Waiting says that the daemon is not restarted before a time.
type Waiting struct {
	What  string
	Until time.Time
}

// Error is one line.
func (w *Waiting) Error() string {
	return fmt.Sprintf("%s was restarted less than a day ago, and is again at %s; the files are written", w.What, w.Until.UTC().Format(time.RFC3339))
}

// Waits is until when the daemon goes on with the certificate served, because it
// was restarted for it a short while ago; zero = nothing is waited for. A restart that
// failed, or did not help, is no reason to wait.
func Waits(o CertificateOptions, leaf, served *x509.Certificate, now time.Time) time.Time {
	r := readRestarted(o.Record, restarts(o.Export))
	if !r.Done || r.Leaf == sum(leaf) {
		return time.Time{}
	}
	if next := r.next(sum(leaf), end(served), now); next.After(now) {
		return next
	}
	return time.Time{}
}

func end(served *x509.Certificate) time.Time {
	if served == nil {
		return time.Time{}
	}
	return served.NotAfter
}

func sum(leaf *x509.Certificate) string {
	s := sha256.Sum256(leaf.Raw)
	return hex.EncodeToString(s[:])
}

// Served is the certificate that a daemon shows for a name, whatever it is.
func Served(ctx context.Context, addr netip.AddrPort, name string) (*x509.Certificate, error) {
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"ntske/1"}, ServerName: name,
		InsecureSkipVerify: true, // it is looked at, nothing is sent
	}}
	nc, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	return nc.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// ErrNotRestarted says that the daemon was not restarted.
var ErrNotRestarted = errors.New("it was not restarted")

// lookWithin is for a handshake on the same host, restartWithin for a daemon that
// ends slowly: systemd gives it a minute and a half.
const (
	lookWithin    = 5 * time.Second
	restartWithin = 2 * time.Minute
)

// restart restarts the daemon unless it serves the certificate already. It is a
// *Waiting if it is too soon. That it happens is written down first: whatever ends
// us, it does not happen twice.
func (o CertificateOptions) restart(ctx context.Context, leaf *x509.Certificate) error {
	ctx, cancel := context.WithTimeout(ctx, restartWithin)
	defer cancel()
	looking, looked := context.WithTimeout(ctx, lookWithin)
	served, err := Served(looking, o.KE, o.Name.String())
	looked()
	if err == nil && served.Equal(leaf) {
		return nil
	}
	what := restarts(o.Export)
	failed := func(err error, fix string) error {
		return &Failure{What: "restart " + what, Kind: ErrNotRestarted, Err: err, Fix: fix + "; the files are written"}
	}
	fix := "see that " + filepath.Dir(o.Record) + " and all folders above it belong to root, that nobody else may write to them, and that there is room"
	dir, err := disk.MkdirTrusted(filepath.Dir(o.Record), 0o755)
	if err != nil {
		return failed(err, fix)
	}
	defer dir.Close()
	unlock, err := lock(ctx, dir, dir.Name())
	if err != nil {
		return failed(err, "see what holds it")
	}
	defer unlock()
	if err := disk.Sweep(dir.Name()); err != nil {
		return failed(err, fix)
	}
	now := time.Now()
	last := readRestarted(o.Record, what)
	switch next := last.next(sum(leaf), end(served), now); {
	case next.After(now) && last.Done:
		return &Waiting{what, next}
	case next.After(now):
		return failed(fmt.Errorf("that failed, or was broken off, at %s, and is tried again at %s", last.At.UTC().Format(time.RFC3339), next.UTC().Format(time.RFC3339)), "see why, and restart it")
	}
	r := last.again(what, sum(leaf), now)
	if err := r.write(o.Record); err != nil {
		return failed(err, fix)
	}
	if err := run(ctx, restartCommand(o.Export)); err != nil {
		return failed(err, "see why, and restart it; this is tried again in an hour")
	}
	r.Done = true
	if err := r.write(o.Record); err != nil {
		return fmt.Errorf("%s was restarted, but that could not be written down: %w; fix: %s", what, err, fix)
	}
	return nil
}

// restarts says what is restarted.
func restarts(e config.Export) string {
	if e.Unit != "" {
		return e.Unit
	}
	return strings.Join(e.Command, " ")
}

// restartCommand is what restarts a daemon; one that the operator has stopped
// stays so.
func restartCommand(e config.Export) []string {
	if e.Unit != "" {
		return []string{"systemctl", "--no-ask-password", "try-restart", "--", e.Unit}
	}
	return e.Command
}

// run runs a program, with nothing of ours and no shell.
func run(ctx context.Context, argv []string) error {
	program := argv[0]
	if !filepath.IsAbs(program) { // ours alone, and not where PATH says
		program = filepath.Join("/usr/bin", argv[0])
		if _, err := os.Stat(program); err != nil {
			program = filepath.Join("/bin", argv[0])
		}
	}
	said, err := daemon.Output(exec.CommandContext(ctx, program, argv[1:]...))
	if err == nil {
		return nil
	}
	if words := strings.Join(strings.Fields(string(said)), " "); words != "" {
		return fmt.Errorf("%w: %.400q", err, words)
	}
	return errors.Join(err, ctx.Err())
}

const maxRecord = 4096

// readRestarted is nothing where no restart of what is on record: then there was
// none, or somebody has taken the record away.
func readRestarted(path, what string) (r restarted) {
	b, err := readUpTo(path, maxRecord)
	if err != nil || json.Unmarshal(b, &r) != nil || r.What != what {
		return restarted{}
	}
	return r
}

// write makes r the record, for all to read.
func (r restarted) write(path string) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return disk.WriteFile(path, append(b, '\n'), 0o644)
}
