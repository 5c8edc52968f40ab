package keyring

import (
	"slices"
	"time"
)

// observation is one query to the daemon and what came back.
type observation struct {
	at     time.Time
	plain  bool   // without NTS
	key    uint32 // the key its cookie was sealed under, unless plain
	answer Answer // Answered or Silent if plain
}

// verdict is what a round of observations says of the daemon.
type verdict uint8

const (
	undecided verdict = iota
	proven            // it opened a cookie under each key in question
	refused           // it refuses: stop minting
	noNTS             // refused by silence: plain queries are answered, none with NTS is
	unseen            // it cannot be seen from here; says nothing about its keys
)

func (v verdict) isRefusal() bool { return v == refused || v == noNTS }

// question is the next query to send while undecided.
type question struct {
	plain bool
	key   uint32
}

// silences is how many NTS queries in a row must go unanswered, each beside an
// answered plain query, before silence counts as refusal. chronyd drops by
// `allow` and `ratelimit` before it looks at NTS; a rate limit used up by others
// on this host drops most queries but not all, of either kind.
const silences = 5

// silenceApart is the least time between two silences that both count.
const silenceApart = time.Second

// judge reads one round of observations, oldest first, about the keys in need.
// A NAK is believed at once. Silence is believed only as far as it goes: a
// silent plain query beside it means we cannot see the daemon, not that it
// refuses. While undecided, judge says what to ask next.
func judge(round []observation, need []uint32) (verdict, question) {
	left := slices.Clone(need)
	var last observation
	silent, lastSilence := 0, time.Time{}
	for _, o := range round {
		switch {
		case !o.plain && o.answer == Refused && slices.Contains(need, o.key):
			return refused, question{}
		case !o.plain && o.answer == Answered:
			left = slices.DeleteFunc(left, func(id uint32) bool { return id == o.key })
			silent, lastSilence = 0, time.Time{}
		case !o.plain:
			// Counted when the plain query beside it is answered.
		case o.answer == Silent:
			return unseen, question{}
		case !last.plain && last.answer == Silent && last.at.Sub(lastSilence) >= silenceApart:
			silent, lastSilence = silent+1, last.at
		}
		last = o
	}
	switch {
	case len(left) == 0:
		return proven, question{}
	case silent >= silences:
		return noNTS, question{}
	case len(round) > 0 && !last.plain && last.answer == Silent:
		return undecided, question{plain: true}
	}
	return undecided, question{key: left[0]}
}
