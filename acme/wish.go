package acme

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Refused is the error of a wish that no order came of: nothing was tried, and nothing has failed.
type Refused struct {
	Why   string    // one line
	Hint  string    // one line: what to do; may be empty
	Until time.Time // when it may be wished for again; zero = that is not known
	Early bool      // for no other reason than that it is not due
	Clock bool      // because the clock is wrong
	Mend  bool      // time will not do: somebody has to mend something first, whatever Until says
}

// Error is one line.
func (r *Refused) Error() string {
	if r.Until.IsZero() {
		return "certificate not ordered: " + r.Why
	}
	return "certificate not ordered before " + minute(r.Until) + ": " + r.Why
}

// ErrStopped is the answer of a Manager that has ended, as it does at a reload that changes it.
var ErrStopped = errors.New("the agent stopped looking after this certificate meanwhile: ask again")

// A wish is an operator's, for an order now.
type wish struct {
	force  bool
	answer chan error // has room for one
}

// Renew wishes for an order now and waits for what it comes to: nil when a new certificate is in service, a *Refused when no
// order went out, an *Error when one failed. An order need not wait for the time after the last failure, but it must be due;
// force lifts that, and the guard against staging CAs. Nothing lifts what a CA allows, what the DNS says, or a clock that
// is wrong. The end of ctx ends the waiting and not the order.
func (m *Manager) Renew(ctx context.Context, force bool) error {
	w := wish{force: force, answer: make(chan error, 1)}
	select {
	case m.wishes <- w:
	case <-m.over:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	return m.await(ctx, w.answer)
}

// await waits for the answer to what Run has taken up.
func (m *Manager) await(ctx context.Context, answer <-chan error) error {
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-m.over:
	}
	select {
	case err := <-answer: // the last it did
		return err
	default:
		return ErrStopped
	}
}

// An errand is done between two orders, by whoever makes them.
type errand struct {
	do     func(context.Context) error
	answer chan error // has room for one
}

// run has an errand done and waits for its end. Once it has begun it is brought to an end, whether anybody waits or not.
func (m *Manager) run(ctx context.Context, do func(context.Context) error) error {
	e := errand{do: do, answer: make(chan error, 1)}
	select {
	case m.errands <- e:
	case <-m.over:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
	return m.await(ctx, e.answer)
}

// hear takes up the wishes that wait.
func (m *Manager) hear() {
	for {
		select {
		case w := <-m.wishes:
			m.wished = append(m.wished, w)
		default:
			return
		}
	}
}

// answer tells everybody who wished for an order what came of it.
func (m *Manager) answer(err error) {
	for _, w := range m.wished {
		w.answer <- err
	}
	m.wished = nil
}

// forced tells whether one of the wishes is to be granted although no order is due.
func (m *Manager) forced() bool {
	return slices.ContainsFunc(m.wished, func(w wish) bool { return w.force })
}

// refuse is the answer to a wish that must not be granted.
func (m *Manager) refuse(why, hint string, until time.Time) *Refused {
	if len(m.wished) > 0 {
		m.log.Warn("certificate not ordered", "cause", why, "hint", hint)
	}
	return &Refused{Why: oneLine(why), Hint: oneLine(hint), Until: until}
}
