package dnscheck

import (
	"encoding/json"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

var (
	isOK      = Verdict{Finding: OK}
	isGone    = Verdict{Finding: Gone, Sources: 2, Text: "gone"}
	isGone1   = Verdict{Finding: Gone, Sources: 1, Text: "gone"}
	isWrong   = Verdict{Finding: Mismatch, Text: "elsewhere"}
	isDenied  = Verdict{Finding: Denied, Text: "caa"}
	isUnknown = Verdict{Finding: Unknown, Text: "no answer"}
)

// look1 is one look, some minutes after the first.
type look1 struct {
	minute int
	v      Verdict
}

func run(looks ...look1) (s State) {
	for _, l := range looks {
		s = Next(epoch.Add(time.Duration(l.minute)*time.Minute), l.v, s, 0.5)
		b, err := json.Marshal(s) // each look is made by a new process
		if err != nil {
			panic(err)
		}
		s = State{}
		if err := json.Unmarshal(b, &s); err != nil {
			panic(err)
		}
	}
	return s
}

func TestWhereANameStands(t *testing.T) {
	for _, c := range []struct {
		name     string
		looks    []look1
		standing Standing
		order    bool
		held     bool
		next     time.Duration // after the last look
	}{
		{"a name in order may be ordered for", []look1{{0, isOK}}, Allowed, true, false, 6 * time.Hour},
		{"missed once: no order, no alarm yet", []look1{{0, isGone}}, Missing, false, true, 15 * time.Minute},
		{"missed three times within an hour is not confirmed", []look1{{0, isGone}, {15, isGone}, {30, isGone}}, Missing, false, true, 15 * time.Minute},
		{"missed twice over two hours is not confirmed", []look1{{0, isGone}, {120, isGone}}, Missing, false, true, 15 * time.Minute},
		{"missed three times over an hour is withdrawn", []look1{{0, isGone}, {30, isGone}, {60, isGone}}, Withdrawn, false, true, 15 * time.Minute},
		{"missed by one server only is never confirmed", []look1{{0, isGone1}, {60, isGone1}, {120, isGone1}, {900, isGone1}}, Missing, false, true, 15 * time.Minute},
		{"looks by one server do not count among those by two", []look1{{0, isGone1}, {60, isGone}, {70, isGone}, {80, isGone}}, Missing, false, true, 15 * time.Minute},
		{"there again for once: counting begins anew", []look1{{0, isGone}, {30, isGone}, {45, isOK}, {60, isGone}, {75, isGone}}, Missing, false, true, 15 * time.Minute},
		{"SERVFAIL in between neither counts nor clears", []look1{{0, isGone}, {20, isUnknown}, {40, isGone}, {50, isUnknown}}, Missing, false, true, 15 * time.Minute},
		{"missed once, and then SERVFAIL three times", []look1{{0, isGone}, {15, isUnknown}, {30, isUnknown}, {45, isUnknown}}, Missing, false, true, 15 * time.Minute},
		{"missed once, and then SERVFAIL for long: as if it had never been missed", []look1{{0, isGone1}, {15, isUnknown}, {30, isUnknown}, {45, isUnknown}, {60, isUnknown}}, Unclear, false, false, time.Hour},
		{"missed twice, by many servers, is not confirmed either", []look1{{0, isGone}, {15, isGone}, {30, isUnknown}, {45, isUnknown}, {60, isUnknown}, {75, isUnknown}}, Unclear, false, false, time.Hour},
		{"and then one order goes out", []look1{{0, isGone1}, {15, isUnknown}, {30, isUnknown}, {45, isUnknown}, {60, isUnknown}, {61, isUnknown}, {71, isUnknown}, {171, isUnknown}}, Unclear, true, false, time.Hour},
		{"and no second on the same day, though it was missed again", []look1{{0, isUnknown}, {1, isUnknown}, {2, isUnknown}, {3, isUnknown}, {15, isGone1},
			{30, isUnknown}, {45, isUnknown}, {60, isUnknown}, {75, isUnknown}, {76, isUnknown}, {86, isUnknown}, {186, isUnknown}}, Unclear, false, false, time.Hour},
		{"missed again in between: the silence counts anew", []look1{{0, isGone1}, {15, isUnknown}, {30, isUnknown}, {45, isUnknown}, {60, isGone1}, {75, isUnknown}}, Missing, false, true, 15 * time.Minute},
		{"withdrawn and then SERVFAIL for long stays withdrawn", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {75, isUnknown}, {105, isUnknown}, {165, isUnknown}, {285, isUnknown}, {525, isUnknown}}, Withdrawn, false, true, 6 * time.Hour},
		{"SERVFAIL in between does not keep it from being confirmed", []look1{{0, isGone}, {20, isUnknown}, {40, isGone}, {60, isGone}}, Withdrawn, false, true, 15 * time.Minute},
		{"withdrawn and then SERVFAIL stays withdrawn", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {75, isUnknown}}, Withdrawn, false, true, 30 * time.Minute},
		{"withdrawn and then seen missing by one server stays withdrawn", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {75, isGone1}}, Withdrawn, false, true, 30 * time.Minute},
		{"withdrawn and back: orders resume at once", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {75, isOK}}, Allowed, true, false, 6 * time.Hour},
		{"withdrawn and back at another address", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {75, isWrong}}, Elsewhere, false, true, 15 * time.Minute},
		{"a mismatch holds back at once", []look1{{0, isWrong}}, Elsewhere, false, true, 15 * time.Minute},
		{"a mismatch is looked at later and later", []look1{{0, isWrong}, {15, isWrong}, {45, isWrong}}, Elsewhere, false, true, time.Hour},
		{"but every six hours at least", []look1{{0, isWrong}, {1, isWrong}, {2, isWrong}, {3, isWrong}, {4, isWrong}, {5, isWrong}, {6, isWrong}, {7, isWrong}, {8, isWrong}}, Elsewhere, false, true, 6 * time.Hour},
		{"a mismatch and then silence stays a mismatch", []look1{{0, isWrong}, {15, isUnknown}}, Elsewhere, false, true, 30 * time.Minute},
		{"a mismatch that is mended", []look1{{0, isWrong}, {15, isOK}}, Allowed, true, false, 6 * time.Hour},
		{"denied holds back at once", []look1{{0, isDenied}}, Forbidden, false, true, 15 * time.Minute},
		{"denied and then silence stays denied", []look1{{0, isDenied}, {15, isUnknown}}, Forbidden, false, true, 30 * time.Minute},
		{"denied and then allowed", []look1{{0, isDenied}, {15, isOK}}, Allowed, true, false, 6 * time.Hour},
		{"nothing known: no order, and the back-off is the caller's", []look1{{0, isUnknown}}, Unclear, false, false, time.Hour},
		{"nothing known three times: still none", []look1{{0, isUnknown}, {1, isUnknown}, {10, isUnknown}}, Unclear, false, false, time.Hour},
		{"nothing known for long: one order goes out, for it may be us", []look1{{0, isUnknown}, {1, isUnknown}, {10, isUnknown}, {100, isUnknown}}, Unclear, true, false, time.Hour},
		{"and no second on the same day", []look1{{0, isUnknown}, {1, isUnknown}, {10, isUnknown}, {100, isUnknown}, {1500, isUnknown}}, Unclear, false, false, time.Hour},
		{"but one on the next", []look1{{0, isUnknown}, {1, isUnknown}, {10, isUnknown}, {100, isUnknown}, {1541, isUnknown}}, Unclear, true, false, time.Hour},
		{"the clock was set back: what was counted is forgotten, what is known is not", []look1{{0, isGone}, {30, isGone}, {-60, isGone}}, Missing, false, true, 15 * time.Minute},
		{"the clock was set back while withdrawn", []look1{{0, isGone}, {30, isGone}, {60, isGone}, {-60, isUnknown}}, Withdrawn, false, true, 15 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := run(c.looks...)
			last := epoch.Add(time.Duration(c.looks[len(c.looks)-1].minute) * time.Minute)
			next := s.Next.Sub(last)
			if s.Standing != c.standing || s.MayOrder != c.order || s.Held() != c.held || next != c.next {
				t.Errorf("%+v: next look after %s; want %q, order %v, held %v, after %s", s, next, c.standing, c.order, c.held, c.next)
			}
			if s.Due(last, true) || !s.Due(s.Next, false) || !s.Due(last.Add(-time.Hour), false) || !s.Due(last.Add(-100*24*time.Hour), false) {
				t.Errorf("%+v is due at the wrong times", s)
			}
		})
	}
}

func TestWhereANameStandsBetweenOrders(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  State
		looks []look1
		want  Standing
		order bool // what a look before an order, one minute later and finding the same, comes to
		next  time.Duration
	}{
		{"in order", State{}, []look1{{0, isOK}}, Allowed, true, 6 * time.Hour},
		{"nothing known", State{}, []look1{{0, isOK}, {360, isUnknown}, {420, isUnknown}, {480, isUnknown}, {540, isUnknown}}, Allowed, false, time.Hour},
		{"nothing known before an order, and then still nothing", State{Standing: Unclear, Since: epoch, Checks: 2}, []look1{{0, isUnknown}, {60, isUnknown}}, Unclear, false, time.Hour},
		{"a mismatch once", State{}, []look1{{0, isWrong}}, Allowed, false, 15 * time.Minute},
		{"a mismatch three times within an hour", State{}, []look1{{0, isWrong}, {15, isWrong}, {30, isWrong}}, Allowed, false, 15 * time.Minute},
		{"a mismatch over an hour", State{}, []look1{{0, isWrong}, {30, isWrong}, {60, isWrong}}, Elsewhere, false, 15 * time.Minute},
		{"a mismatch twice, in order, a mismatch twice", State{}, []look1{{0, isWrong}, {30, isWrong}, {45, isOK}, {60, isWrong}, {120, isWrong}}, Allowed, false, 15 * time.Minute},
		{"a mismatch, silence, a mismatch, denied", State{}, []look1{{0, isWrong}, {30, isUnknown}, {60, isWrong}, {90, isDenied}}, Forbidden, false, 15 * time.Minute},
		{"missing", State{}, []look1{{0, isGone}}, Missing, false, 15 * time.Minute},
		{"missing over an hour", State{}, []look1{{0, isGone}, {30, isGone}, {60, isGone}}, Withdrawn, false, 15 * time.Minute},
		{"held back and in order", State{Standing: Elsewhere, Since: epoch, Checked: epoch, Checks: 9}, []look1{{60, isOK}}, Allowed, true, 6 * time.Hour},
		{"held back and nothing known", State{Standing: Elsewhere, Since: epoch, Checked: epoch, Checks: 9}, []look1{{60, isUnknown}}, Elsewhere, false, 6 * time.Hour},
		{"the clock was set back: what was counted is forgotten", State{}, []look1{{0, isWrong}, {30, isWrong}, {-90, isWrong}}, Allowed, false, 15 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, now := c.from, epoch
			for _, l := range c.looks {
				now = epoch.Add(time.Duration(l.minute) * time.Minute)
				s = Between(now, l.v, s, 0.5)
			}
			if s.Standing != c.want || s.Next.Sub(now) != c.next || !s.Valid() {
				t.Errorf("%+v: next look after %s; want %q after %s", s, s.Next.Sub(now), c.want, c.next)
			}
			last := c.looks[len(c.looks)-1].v
			if s := Next(now.Add(time.Minute), last, s, 0.5); s.MayOrder != c.order {
				t.Errorf("an order may go out: %v, want %v: %+v", s.MayOrder, c.order, s)
			}
		})
	}
}

func TestTheNextLookIsNeitherSoonNorFarWhateverTheJitter(t *testing.T) {
	for _, roll := range []float64{0, 0.999} {
		for _, v := range []Verdict{isOK, isGone, isGone1, isWrong, isDenied, isUnknown} {
			var s State
			for now := epoch; now.Before(epoch.AddDate(0, 0, 30)); now = s.Next {
				s = Between(now, v, s, roll)
				if d := s.Next.Sub(now); d < 14*time.Minute || d > 8*time.Hour || s.Due(now, false) || s.Due(now.Add(restartGap-1), true) || !s.Due(now.Add(restartGap), true) {
					t.Fatalf("after %s: %+v, next look after %s", v.Finding, s, d)
				}
			}
		}
	}
}

// TestARemovalIsConfirmedByItsOwnTimes follows the looks the state asks for, with the earliest and the latest jitter.
func TestARemovalIsConfirmedByItsOwnTimes(t *testing.T) {
	for _, roll := range []float64{0, 0.999} {
		var s State
		now, looks := epoch, 0
		for ; s.Standing != Withdrawn; looks++ {
			if looks > 10 {
				t.Fatalf("not confirmed after %d looks: %+v", looks, s)
			}
			s = Next(now, isGone, s, roll)
			if s.MayOrder {
				t.Fatal("an order may go out")
			}
			if s.Standing != Withdrawn {
				now = s.Next
			}
		}
		if over := now.Sub(epoch); over < time.Hour || over > 90*time.Minute {
			t.Errorf("confirmed after %s", over)
		}
		if !s.Since.Equal(epoch) {
			t.Errorf("withdrawn since %s, want since it was missed first", s.Since)
		}
	}
}
