package client

import (
	"crypto/tls"
	"fmt"
	"testing"

	"ntsagent/ntske"
	"ntsagent/ntske/aead"
	"ntsagent/ntske/cookie"
	"ntsagent/ntske/record"
)

var bothOfChrony = func(c *ntske.Config) { c.Opens = cookie.Chrony{}.Carries }

func TestTheAlgorithmIsTheFirstOfOursThatTheServerHas(t *testing.T) {
	for _, c := range []struct {
		offer []aead.ID
		want  aead.ID
		size  int
	}{
		{nil, 15, 100},
		{[]aead.ID{15, 30}, 15, 100},
		{[]aead.ID{30, 15}, 30, 68},
		{[]aead.ID{17, 30}, 30, 68},
		{[]aead.ID{17, 15}, 15, 100},
	} {
		t.Run(fmt.Sprint(c.offer), func(t *testing.T) {
			w := newWorld(t, "127.0.0.1", bothOfChrony)
			res, err := KeyExchange(patient(t), Config{Addr: w.ke, Name: testName, Roots: w.roots, AEADs: c.offer})
			if err != nil {
				t.Fatal(err)
			}
			if res.Keys.AEAD != c.want || len(res.Keys.C2S) != c.want.KeyLen() || len(res.Cookies[0]) != c.size {
				t.Errorf("%v with cookies of %d octets, want %v and %d", res.Keys.AEAD, len(res.Cookies[0]), c.want, c.size)
			}
			reply, err := Query(patient(t), w.ntp.addr, res.Keys, res.Cookies[0], 2)
			if err != nil || len(reply.Cookies) != 3 {
				t.Fatalf("%d cookies, %v", len(reply.Cookies), err)
			}
			if _, err := Query(patient(t), w.ntp.addr, res.Keys, reply.Cookies[2], 0); err != nil {
				t.Errorf("with a refreshed cookie: %v", err)
			}
		})
	}
}

// chronyd 4.4 to 4.6 choose AES-128-GCM-SIV without record 1024 and name another
// algorithm in the exporter.
func TestTheExporterIsThatOfTheServer(t *testing.T) {
	for _, c := range []struct {
		alg       aead.ID
		compliant bool
		want      aead.ID
	}{{30, true, 30}, {30, false, 15}, {15, false, 15}, {15, true, 15}, {17, false, 17}} {
		got := exporterID(record.Response{AEADs: []aead.ID{c.alg}, Compliant128GCM: c.compliant})
		if got != c.want {
			t.Errorf("AEAD %d, record 1024 %v: %d in the context, want %d", c.alg, c.compliant, got, c.want)
		}
	}
}

func TestRecord1024GoesWithAEAD30Only(t *testing.T) {
	cert, roots := identity(t)
	for _, offer := range [][]aead.ID{{15}, {30}, {17, 15, 30}, {16}} {
		asked := make(chan record.Request, 1)
		addr := scriptFor(t, &tls.Config{NextProtos: []string{"ntske/1"}, Certificates: []tls.Certificate{cert}}, asked)
		if _, err := KeyExchange(patient(t), Config{Addr: addr, Name: testName, Roots: roots, AEADs: offer}); err == nil {
			t.Fatal("Error 2 is no answer")
		}
		req := <-asked
		if with := offer[0] == 30 || len(offer) == 3; req.Compliant128GCM != with || fmt.Sprint(req.AEADs) != fmt.Sprint(offer) {
			t.Errorf("offer %v: %+v", offer, req)
		}
	}
}

func TestCheckWalksTheAlgorithms(t *testing.T) {
	w := newWorld(t, "127.0.0.1", bothOfChrony)
	r := w.check(t, w.ke.Port(), func(c *CheckConfig) { c.Name, c.AEADs = "127.0.0.1", []aead.ID{30, 17, 15} })
	if r.OK || r.Fault() != Server || len(r.Results) != 3 {
		t.Fatalf("%+v", r)
	}
	for i, want := range []struct {
		aead uint16
		good bool
	}{{30, true}, {17, false}, {15, true}} {
		a := r.Results[i]
		if a.AEAD != want.aead || (a.Problem == nil) != want.good || want.good && (a.KE.AEAD != want.aead || a.NTP.Refreshed == 0) {
			t.Errorf("result %d: %+v, %+v", i, a, a.Problem)
		}
	}
}
