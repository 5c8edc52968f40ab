package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"ntsagent/acme"
	"ntsagent/agent/status"
)

func TestWhatAWishCameToIsToldInOneLineAndWhetherTryingAgainHelps(t *testing.T) {
	at := time.Date(2026, 12, 1, 10, 0, 0, 0, time.UTC)
	down := func(c acme.Class) error {
		return &acme.Error{Class: c, Err: errors.New("certificate for alice.example: no\nway"), Hint: "open port 80"}
	}
	for _, c := range []struct {
		name  string
		err   error
		class error
		says  string
	}{
		{"a budget that is used up", &acme.Refused{Why: "used up", Hint: "wait", Until: at}, status.ErrTemporary, "certificate not ordered before 2026-12-01T10:00Z: used up; fix: wait"},
		{"a staging CA", &acme.Refused{Why: "staging", Hint: "--force"}, status.ErrFailed, "certificate not ordered: staging; fix: --force"},
		{"a name that was taken out of the DNS", &acme.Refused{Why: "withdrawn", Hint: "bring it back", Until: at, Mend: true}, status.ErrFailed, "before 2026-12-01T10:00Z: withdrawn; fix: bring it back"},
		{"a clock that is wrong", &acme.Refused{Why: "1970", Clock: true}, status.ErrTemporary, "certificate not ordered: 1970"},
		{"a CA that is away", down(acme.ClassNetwork), status.ErrTemporary, "not done: no way; fix: open port 80"},
		{"a CA that wants us to wait", down(acme.ClassRateLimited), status.ErrTemporary, "not done: no way; fix: open port 80"},
		{"a port that is closed", down(acme.ClassConnection), status.ErrFailed, "not done: no way; fix: open port 80"},
		{"a reload meanwhile", acme.ErrStopped, status.ErrTemporary, "ask again"},
		{"nobody who waits", context.Canceled, status.ErrTemporary, "not done: "},
		{"a chain that is there", acme.ErrInUse, status.ErrPointless, "in use already"},
		{"a chain that is not ours", errors.New("certificate for alice.example: expired"), status.ErrFailed, "not done: expired"},
	} {
		err := told("alice.example", "not done", c.err)
		if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %q of class %v, want %q of class %v", c.name, err, errors.Unwrap(err), c.says, c.class)
		}
	}
}

func TestNothingIsWishedOfCertificatesThatOthersRenew(t *testing.T) {
	t.Parallel()
	m := startMember(t, time.Hour, "")
	c := status.NewClient(m.socket)
	for verb, do := range map[string]func(context.Context, status.Wish) (status.Outcome, error){
		"renew": c.Renew, "revoke": c.Revoke, "request": c.Request, "import": c.Import,
	} {
		if _, err := do(t.Context(), status.Wish{Name: memberName, Force: true, Serial: "2"}); !errors.Is(err, status.ErrPointless) || !strings.Contains(err.Error(), "certificate.source is files") {
			t.Errorf("%s: %v", verb, err)
		}
	}
}
