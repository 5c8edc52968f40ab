package store

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// FuzzRenewal: whatever is accepted as renewal state can be written, and reads back the same.
func FuzzRenewal(f *testing.F) {
	now := time.Date(2026, 11, 23, 9, 11, 0, 5, time.UTC)
	seed, err := json.Marshal(encodeRenewal(Renewal{Failures: 3, FirstFailure: now, LastFailure: now, NextAttempt: now, LastError: "x", LastSuccess: now,
		Row: map[string]int{"network": 3}, Issued: []time.Time{now}, Validations: []time.Time{now, now}, Window: Window{Certificate: "1", Start: now, End: now, AskAt: now}, LastGood: now}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"schema":1}`))
	f.Add([]byte(`{"schema":1,"row":{},"issued":[],"validations":["2026-11-23T09:11:00+01:00"],"window":{"start":"2026-11-23T09:11:00Z"},"of_the_future":[1]}`))
	f.Add([]byte(`{"schema":1,"row":{"network":-1},"limit":{"until":"0000-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"schema":1,"revoked":[{"certificate":"1-2","at":"2026-11-23T09:11:00Z","reason":"keyCompromise","key":"00"}],"ceased":"2026-11-23T09:11:00+01:00"}`))
	f.Add([]byte(`{"schema":1,"revoked":[{"at":"0000-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"schema":1,"directory":"https://a.example","other":{"directory":"https://b.example","failures":2,"row":{},"issued":["2026-11-23T09:11:00+01:00"]}}`))
	f.Add([]byte(`{"schema":1,"other":{"other":{}}}`))
	f.Add([]byte(`{"schema":1,"left":[{"directory":"https://b.example","row":{},"validations":["2026-11-23T09:11:00+01:00"],"left":[]},{},{},{},{}]}`))
	f.Add([]byte(`{"schema":1,"left":[{"left":[{}]}]}`))
	f.Add([]byte(`{"schema":1,"left":[{"other":{}}]}`))
	f.Add([]byte(`{"schema":1,"left":[{"next_attempt":"0000-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"schema":1,"other":{"failures":-1}}`))
	f.Add([]byte(`{"schema":1,"other":{"next_attempt":"0000-01-01T00:00:00Z"}}`))
	f.Add([]byte(`{"schema":2}`))
	f.Add([]byte(`{"schema":1,"failures":-1}`))
	f.Add([]byte(`{"schema":1,"next_attempt":"9999-12-31T23:59:59-23:59"}`))
	f.Add([]byte(`{"schema":1,"next_attempt":"0000-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseRenewal(b)
		if !ok {
			return
		}
		out, err := json.Marshal(encodeRenewal(r))
		if err != nil {
			t.Fatalf("accepted state cannot be written: %v", err)
		}
		if again, ok := parseRenewal(out); !ok || !reflect.DeepEqual(again, r) {
			t.Fatalf("%+v came back as %+v, %v", r, again, ok)
		}
	})
}

// FuzzDecodeKey: whatever is accepted as a key is written in the one form that reads back the same.
func FuzzDecodeKey(f *testing.F) {
	for _, kind := range []KeyType{P256, P384} {
		key, err := NewKey(kind)
		if err != nil {
			f.Fatal(err)
		}
		b, err := EncodeKey(key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := decodeKey(b)
		if err != nil {
			return
		}
		out, err := EncodeKey(key)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeKey(out)
		if err != nil || !again.Equal(key) {
			t.Fatalf("key did not come back: %v", err)
		}
		if twice, err := EncodeKey(again); err != nil || !bytes.Equal(out, twice) {
			t.Fatalf("key has two forms: %v", err)
		}
	})
}
