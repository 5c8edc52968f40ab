package dnscheck

import "time"

const (
	// A name is taken as withdrawn only after it was missed so often, over so long, by so many servers each time.
	confirmSightings = 3
	confirmOver      = time.Hour
	confirmSources   = 2

	// While orders are held back the DNS is looked at again after recheckFirst, then at ever longer waits.
	recheckFirst, recheckLast = 15 * time.Minute, 6 * time.Hour

	// While nothing is known against a name it is looked at between orders, too, so that a removal is told of long before
	// a renewal would miss it. Where nothing could be seen, sooner.
	watchEvery, watchUnseen = 6 * time.Hour, time.Hour

	// A new process or configuration does not wait for the next look of the one before it, but so long at least, or an agent
	// that is started again and again would ask as often.
	restartGap = 5 * time.Minute

	// Where nothing can be seen at all, our own look may be what is broken: after unclearChecks of them, one order a day goes out.
	// What was missed before and never confirmed is forgotten after as many.
	unclearChecks = 3
	letGoEvery    = 24 * time.Hour

	// maxWait is longer than any wait chosen here. A stored time farther off was written under a wrong clock.
	maxWait = 2 * recheckLast
)

// Next is where the name stands after v was found at now, just before an order, before being what was remembered. roll, from
// [0,1), is the jitter of the next look.
//
// A name that is there again stands well at once. What is not known changes nothing: a name that was held back stays so, unless
// it is merely missing.
func Next(now time.Time, v Verdict, before State, roll float64) State {
	before = sinceStep(now, before)
	after := before
	after.Checked, after.Next, after.MayOrder = now, time.Time{}, false
	switch v.Finding {
	case OK:
		return State{Checked: now, Next: now.Add(watchWait(watchEvery, roll)), MayOrder: true, Text: v.Text, Hint: v.Hint}
	case Gone:
		after = sight(now, v, after)
	case Mismatch:
		after = enter(now, after, Elsewhere)
	case Denied:
		after = enter(now, after, Forbidden)
	default:
		return unclear(now, v, after, roll)
	}
	after.Text, after.Hint = v.Text, v.Hint
	if after.Standing == Missing && v.Sources < confirmSources {
		after.Text += " (only one server says so)"
	}
	after.Next = now.Add(wait(after, roll))
	return after
}

// Between is Next for a look that no order waits for. Then there is time to make sure: what one look finds may be a hiccup of
// a resolver, so no name comes to be held back before it was looked at as often, and over as long, as confirms a removal. And
// that nothing can be seen is of no weight at all.
func Between(now time.Time, v Verdict, before State, roll float64) State {
	before = sinceStep(now, before)
	if before.Held() || v.Finding == OK || v.Finding == Gone {
		return Next(now, v, before, roll)
	}
	after := before
	after.Checked = now
	if v.Finding == Unknown {
		after.Next = now.Add(watchWait(watchUnseen, roll))
		return after
	}
	if after.Sighted++; after.Sighted == 1 {
		after.First = now
	}
	if after.Sighted < confirmSightings || now.Sub(after.First) < confirmOver {
		after.Text, after.Hint = v.Text+" (to be confirmed)", v.Hint
		after.Next = now.Add(wait(after, roll))
		return after
	}
	since := after.First
	after = Next(now, v, before, roll)
	after.Since = since
	return after
}

// sinceStep is s as of now: when the clock was set back, what was counted says nothing.
func sinceStep(now time.Time, s State) State {
	if now.Before(s.Since) || now.Before(s.Checked) || now.Before(s.First) {
		return State{Standing: s.Standing, Since: now}
	}
	return s
}

// enter counts one more check in a standing, anew if it is another.
func enter(now time.Time, s State, standing Standing) State {
	if s.Standing != standing {
		s = State{Standing: standing, Since: now, Checked: now, LetGo: s.LetGo}
	}
	s.Checks++
	return s
}

// sight counts one more look that missed the name.
func sight(now time.Time, v Verdict, s State) State {
	if s.Standing == Withdrawn {
		return enter(now, s, Withdrawn)
	}
	s = enter(now, s, Missing)
	s.Silent = 0
	if v.Sources < confirmSources {
		return s
	}
	if s.Sighted++; s.Sighted == 1 {
		s.First = now
	}
	if s.Sighted >= confirmSightings && now.Sub(s.First) >= confirmOver {
		return State{Standing: Withdrawn, Since: s.Since, Checked: now, Checks: 1}
	}
	return s
}

// unclear is the state after a look that saw nothing to go by.
func unclear(now time.Time, v Verdict, s State, roll float64) State {
	if s.Standing == Missing {
		s.Silent++
	}
	if s.Held() && s.Silent <= unclearChecks {
		s.Checks++
		s.Next = now.Add(wait(s, roll))
		return s
	}
	s = enter(now, s, Unclear)
	s.Text, s.Hint = v.Text, v.Hint
	letGo := s.LetGo
	if letGo.After(now) {
		letGo = time.Time{}
	}
	s.Next = now.Add(watchWait(watchUnseen, roll))
	if s.Checks > unclearChecks && now.Sub(letGo) >= letGoEvery {
		s.MayOrder, s.LetGo = true, now
	}
	return s
}

// wait is the time until the next look: short while a removal is being confirmed.
func wait(s State, roll float64) time.Duration {
	d := recheckFirst
	if s.Standing != Missing || s.Checks > 2*confirmSightings {
		for n := 1; n < s.Checks && d < recheckLast; n++ {
			d *= 2
		}
	}
	return time.Duration(float64(min(d, recheckLast)) * (0.95 + 0.1*roll))
}

// watchWait is d, give or take a quarter: many agents that started together must not go on asking together.
func watchWait(d time.Duration, roll float64) time.Duration {
	return time.Duration(float64(d) * (0.75 + 0.5*roll))
}

// Due tells whether it is time to look again, though there is no order that would need it. anew says that whoever asks has not
// looked yet.
func (s State) Due(now time.Time, anew bool) bool {
	if !s.Next.After(now) || s.Next.Sub(now) > maxWait || now.Before(s.Checked) {
		return true
	}
	return anew && now.Sub(s.Checked) >= restartGap
}

// Held tells whether orders are held back until the DNS says otherwise. An alarm is due for all of these at once but for Missing,
// which is not confirmed yet.
func (s State) Held() bool {
	switch s.Standing {
	case Missing, Withdrawn, Elsewhere, Forbidden:
		return true
	}
	return false
}

// Valid tells whether a State read from a disk can be one of ours, and be written again.
func (s State) Valid() bool {
	switch s.Standing {
	case Allowed, Missing, Withdrawn, Elsewhere, Forbidden, Unclear:
	default:
		return false
	}
	for _, t := range []time.Time{s.Since, s.Checked, s.First, s.Next, s.LetGo} {
		if y := t.Year(); !t.IsZero() && (y < 1970 || y > 9000) {
			return false
		}
	}
	return s.Checks >= 0 && s.Sighted >= 0 && s.Silent >= 0
}
