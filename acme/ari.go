package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"ntsagent/acme/store"
)

// RenewalInfo is what a CA says of the time to renew a certificate (RFC 9773).
type RenewalInfo struct {
	Start, End time.Time
	RetryAfter time.Duration // when to ask again; 0 = it did not say
	Why        string        // URL of an explanation, may be empty
}

// ErrNoRenewalInfo is the error of a CA, or for a certificate, that knows no renewal information. It is no failure.
var ErrNoRenewalInfo = errors.New("the CA gives no renewal information")

// askEvery is how often renewal information is asked for where the CA does not say. CAs want it twice a day at least.
const askEvery = 6 * time.Hour

// certificateID names a certificate in the renewal state.
func certificateID(leaf *x509.Certificate) string {
	return fmt.Sprintf("%.80s-%x", leaf.SerialNumber.Text(16), leaf.NotAfter.Unix())
}

// origin is the directory that leaf was ordered from, "" when that is not known.
func origin(leaf *x509.Certificate, r store.Renewal) string {
	if r.Origin.Certificate == certificateID(leaf) {
		return r.Origin.Directory
	}
	return r.Ordered // the agent died between the certificate and its note
}

// imported tells whether leaf was made elsewhere.
func imported(leaf *x509.Certificate, r store.Renewal) bool {
	return r.Origin.Imported && r.Origin.Certificate == certificateID(leaf)
}

// beforeOrder is what goes on disk before an order to directory does: the failure that it is if the agent dies, and what the CA
// may have counted by then.
func beforeOrder(now time.Time, leaf *x509.Certificate, r store.Renewal, directory string, roll float64) store.Renewal {
	cut := &Error{Class: ClassInternal, Err: errors.New("the agent stopped during the attempt"), Validations: mayFail(now, r)}
	after := afterFailure(now, leaf, noted(leaf, r), cut, roll)
	after.Ordered = directory
	return after
}

// noted is r with the origin of leaf written down, before another order makes it doubtful.
func noted(leaf *x509.Certificate, r store.Renewal) store.Renewal {
	if leaf != nil {
		r.Origin = store.Origin{Certificate: certificateID(leaf), Directory: origin(leaf, r), Life: lifetime(leaf), Imported: imported(leaf, r)}
	}
	return r
}

// afterImport is the state after leaf came from nobody knows where: no CA is asked about it. What CAs have counted stays.
func afterImport(now time.Time, leaf *x509.Certificate, r store.Renewal) store.Renewal {
	after := relieved(r, time.Time{})
	after.LastSuccess, after.LastGood, after.Limit, after.Revoked, after.Left = now, r.LastGood, r.Limit, r.Revoked, r.Left
	after.Origin = store.Origin{Certificate: certificateID(leaf), Imported: true}
	if r.Other != nil {
		other := relieved(*r.Other, time.Time{})
		after.Other = &other
	}
	return after
}

// mayAsk tells whether the CA at directory is the one that knows about leaf. An expired certificate must not be asked about.
func mayAsk(now time.Time, leaf *x509.Certificate, r store.Renewal, directory string) bool {
	if leaf == nil || !now.Before(leaf.NotAfter) {
		return false
	}
	return directory != "" && origin(leaf, r) == directory
}

// askAt is when to ask for renewal information on leaf. A wait after a failure goes first.
func askAt(now time.Time, leaf *x509.Certificate, r store.Renewal) time.Time {
	at := r.Window.AskAt
	if r.Window.Certificate != certificateID(leaf) || at.Sub(now) > maxWait {
		at = time.Time{}
	}
	if len(r.Row) > 0 || r.Failures > 0 {
		at = later(at, r.NextAttempt)
	}
	return at
}

// afterRenewalInfo is the state after the CA has told of leaf. The point within the window is drawn once for each window: roll,
// from [0,1), is used up then and its outcome kept.
func afterRenewalInfo(now time.Time, leaf *x509.Certificate, r store.Renewal, info RenewalInfo, roll float64) store.Renewal {
	if !sound(info) {
		return afterNoRenewalInfo(now, leaf, r, info.RetryAfter, roll)
	}
	w := store.Window{Certificate: certificateID(leaf), Start: info.Start.Round(0).UTC(), End: info.End.Round(0).UTC(), Why: oneLine(info.Why)}
	if old := r.Window; old.Certificate == w.Certificate && old.Start.Equal(w.Start) && old.End.Equal(w.End) {
		w.At = old.At
	} else {
		w.At = w.Start.Add(scale(w.End.Sub(w.Start), roll))
	}
	w.AskAt = now.Add(askWait(info.RetryAfter, roll))
	r.Window = w
	return r
}

// afterNoRenewalInfo is the state after an answer that is none. What the CA has said before of leaf stays.
func afterNoRenewalInfo(now time.Time, leaf *x509.Certificate, r store.Renewal, retry time.Duration, roll float64) store.Renewal {
	if id := certificateID(leaf); r.Window.Certificate != id {
		r.Window = store.Window{Certificate: id}
	}
	r.Window.AskAt = now.Add(askWait(retry, roll))
	return r
}

func askWait(retry time.Duration, roll float64) time.Duration {
	if retry <= 0 {
		return scale(askEvery, 0.9+0.2*roll)
	}
	return min(max(retry, minRetryAfter), maxRetryAfter)
}

// sound tells whether info is an answer: a window with a beginning before its end, in times that can be written.
func sound(info RenewalInfo) bool {
	year := func(t time.Time) bool { return t.UTC().Year() >= 1971 && t.UTC().Year() < 9000 }
	return info.End.After(info.Start) && year(info.Start) && year(info.End) && info.End.Sub(info.Start) < 10*365*24*time.Hour
}
