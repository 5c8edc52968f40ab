package keyring

import (
	"testing"
	"time"
)

// round reads a sentence of observations: "1+" key 1 answered, "1!" refused,
// "1." silent, "p+" plain answered, "p." plain silent, "~" the next follows at once.
func round(words ...string) []observation {
	var out []observation
	at := time.Unix(1_000_000, 0)
	for _, w := range words {
		if w == "~" {
			at = at.Add(-silenceApart)
			continue
		}
		o := observation{at: at, plain: w[0] == 'p', answer: map[byte]Answer{'+': Answered, '!': Refused, '.': Silent}[w[1]]}
		if !o.plain {
			o.key = uint32(w[0] - '0')
		}
		out = append(out, o)
		at = at.Add(silenceApart)
	}
	return out
}

func repeat(n int, words ...string) []string {
	var out []string
	for range n {
		out = append(out, words...)
	}
	return out
}

func TestJudge(t *testing.T) {
	both := []uint32{3, 4}
	for _, c := range []struct {
		sentence string
		round    []observation
		need     []uint32
		verdict  verdict
		next     question
	}{
		{"before anything the first key is asked about", nil, both, undecided, question{key: 3}},
		{"an answer to one of two is half a proof", round("3+"), both, undecided, question{key: 4}},
		{"an answer to each is proof", round("3+", "4+"), both, proven, question{}},
		{"an answer to another key proves nothing", round("5+"), []uint32{3}, undecided, question{key: 3}},
		{"nothing in need is proven", nil, nil, proven, question{}},
		{"one NAK is refusal at once", round("3!"), both, refused, question{}},
		{"a NAK after an answer to the other is refusal", round("3+", "4!"), both, refused, question{}},
		{"a NAK after silence is refusal", round("3.", "p+", "3!"), both, refused, question{}},
		{"silence asks the plain question", round("3."), both, undecided, question{plain: true}},
		{"silence to both is not seeing the daemon", round("3.", "p."), both, unseen, question{}},
		{"silence to the plain one is not seeing it, whatever came before", round("3+", "4.", "p+", "4.", "p."), both, unseen, question{}},
		{"NTS silence beside one plain answer asks again", round("3.", "p+"), both, undecided, question{key: 3}},
		{"a lost packet costs nothing", round("3.", "p+", "3+", "4+"), both, proven, question{}},
		{"a silence too few is no refusal", round(repeat(silences-1, "3.", "p+")...), both, undecided, question{key: 3}},
		{"NTS silence beside plain answers, often enough, is refusal", round(repeat(silences, "3.", "p+")...), both, noNTS, question{}},
		{"an answer with NTS begins the count anew", round(append(repeat(silences-1, "3.", "p+"), "3+", "4.", "p+")...), both, undecided, question{key: 4}},
		{"silences at the same moment count once", round(repeat(silences, "3.", "~", "p+", "~")...), both, undecided, question{key: 3}},
		{"the last silence counts only beside a plain answer", round(append(repeat(silences-1, "3.", "p+"), "3.")...), both, undecided, question{plain: true}},
	} {
		t.Run(c.sentence, func(t *testing.T) {
			v, q := judge(c.round, c.need)
			if v != c.verdict || q != c.next {
				t.Errorf("judge = %d, ask %+v; want %d, ask %+v", v, q, c.verdict, c.next)
			}
		})
	}
}

// Whatever the daemon does, asking ends: no answer pattern keeps judge undecided for ever.
func TestJudgeAlwaysDecides(t *testing.T) {
	for pattern := range 1 << 12 {
		var obs []observation
		at := time.Unix(1_000_000, 0)
		v, q := judge(obs, []uint32{1, 2, 3, 4})
		for i := 0; v == undecided; i++ {
			if i > 8*silences {
				t.Fatalf("undecided after %d queries with answers %012b", i, pattern)
			}
			o := observation{at: at, plain: q.plain, key: q.key}
			if pattern>>(i%12)&1 == 1 {
				o.answer = Answered
			}
			obs = append(obs, o)
			at = at.Add(silenceApart)
			v, q = judge(obs, []uint32{1, 2, 3, 4})
		}
	}
}
