package acme

import (
	"context"
	"slices"
	"time"

	"ntsagent/acme/store"
)

// Fault is something in what strangers are shown of a name on this host that an operator has to mend. Both are one line.
type Fault struct {
	What string
	Hint string // may be long: it has what a web server's configuration needs
}

const (
	// Where strangers are answered by others than us, this is how often they are asked like one: before each order, and between.
	aroundEvery  = 6 * time.Hour
	aroundFaulty = 15 * time.Minute // nobody who mends something likes to wait

	// maxInVain is how often in a row it keeps us from asking the CA that others would not show it a proof. What we are answered
	// need not be what the CA is, and a certificate must not lapse for it; by then the next attempts are a day apart.
	maxInVain = 3
	inVain    = "in vain: " // and a challenge: a Row of store.Renewal
)

// insist lists the challenges that are to be tried whatever a look around shows.
func insist(r store.Renewal) (challenges []string) {
	for row, n := range r.Row {
		if len(row) > len(inVain) && row[:len(inVain)] == inVain && n >= maxInVain {
			challenges = append(challenges, row[len(inVain):])
		}
	}
	slices.Sort(challenges)
	return challenges
}

// twice are the faults in now that were there before, too: one alone may come of a web server, or of us, just starting.
func twice(before, now []Fault) (confirmed []Fault) {
	for _, f := range now {
		if has(before, f) {
			confirmed = append(confirmed, f)
		}
	}
	return confirmed
}

func has(faults []Fault, f Fault) bool {
	return slices.ContainsFunc(faults, func(o Fault) bool { return o.What == f.What })
}

// againAround is the wait until the next look around.
func againAround(seen, confirmed []Fault, roll float64) time.Duration {
	switch {
	case len(seen) > len(confirmed):
		return tick
	case len(confirmed) > 0:
		return scale(aroundFaulty, 0.75+0.5*roll)
	}
	return scale(aroundEvery, 0.75+0.5*roll)
}

func (m *Manager) watchAround(ctx context.Context) {
	if !m.around.After(time.Now()) {
		m.lookAround(ctx)
	}
}

// lookAround asks what strangers are shown, and tells once of what is new.
func (m *Manager) lookAround(ctx context.Context) {
	if m.cfg.LookAround == nil {
		return
	}
	seen := m.cfg.LookAround(ctx, m.cfg.Name)
	if ctx.Err() != nil {
		return
	}
	was, confirmed := m.faults, twice(m.before, seen)
	m.around = time.Now().Add(againAround(seen, confirmed, m.cfg.Roll()))
	m.before, m.faults = seen, confirmed
	for _, f := range confirmed {
		if !has(was, f) {
			m.log.Error("strangers are shown what must be mended", "cause", oneLine(f.What), "hint", hintLine(f.Hint))
			m.event(Exposed, oneLine(f.What))
		}
	}
	for _, f := range was {
		if !has(seen, f) {
			m.log.Info("mended", "what", oneLine(f.What))
		}
	}
}
