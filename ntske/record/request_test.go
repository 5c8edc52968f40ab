package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"ntsagent/ntske/aead"
)

// msg makes a message of records written in hex, spaces allowed.
func msg(t testing.TB, records ...string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(records, ""), " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parseWhole parses a request that is all there, framed in one go.
func parseWhole(msg []byte) (Request, error) {
	var from, count int
	if _, err := frame(msg, MaxMessage, &from, &count); err != nil {
		return Request{}, asBadRequest(err)
	}
	return parseRequest(msg)
}

// Records in hex, as they are combined in the tables below.
const (
	end       = "8000 0000"
	proto0    = "8001 0002 0000"
	aead15    = "8004 0002 000f"
	compliant = "0400 0000"
)

var plain = Request{Protocols: []Protocol{NTPv4}, AEADs: []aead.ID{aead.SIVCMAC256}}

func TestRequestsThatAreUnderstood(t *testing.T) {
	with := func(change func(*Request)) Request {
		r := plain
		change(&r)
		return r
	}
	for _, c := range []struct {
		name    string
		records []string
		want    Request
	}{
		{"chronyd 4.3 and older", []string{proto0, aead15, end}, plain},
		{"chronyd 4.8 offers 30 and 15 and sends record 1024", []string{proto0, "8004 0004 001e 000f", compliant, end},
			with(func(r *Request) { r.AEADs = []aead.ID{30, 15}; r.Compliant128GCM = true })},
		{"NTPsec sends the AEAD record without the critical bit", []string{proto0, "0004 0002 000f", end}, plain},
		{"ntpd-rs offers NTPv5 before NTPv4 and sends record 13", []string{"8001 0004 8001 0000", "8004 0004 0011 000f", "000d 0003 612e62", end},
			with(func(r *Request) { r.Protocols = []Protocol{0x8001, 0}; r.AEADs = []aead.ID{17, 15} })},
		{"beevik/nts asks for a server and a port", []string{proto0, "8004 0004 001e 000f", compliant, "0006 0003 612e62", "0007 0002 007b", end},
			with(func(r *Request) {
				r.AEADs = []aead.ID{30, 15}
				r.Compliant128GCM = true
				r.Server = "a.b"
				r.Port = 123
			})},
		{"server and port with the critical bit", []string{proto0, aead15, "8006 0003 3a3a31", "8007 0002 1000", end},
			with(func(r *Request) { r.Server = "::1"; r.Port = 4096 })},
		{"records in another order", []string{"0007 0002 007b", compliant, aead15, proto0, end},
			with(func(r *Request) { r.Compliant128GCM = true; r.Port = 123 })},
		{"record 1024 with the critical bit", []string{proto0, aead15, "8400 0000", end},
			with(func(r *Request) { r.Compliant128GCM = true })},
		{"K08 an unknown record that is not critical is ignored", []string{"7fff 0003 616263", proto0, "0009 0000", aead15, "000e 0001 00", end}, plain},
		{"another protocol needs no AEAD record", []string{"8001 0002 8001", end}, Request{Protocols: []Protocol{0x8001}}},
		{"an AEAD offered twice in one list", []string{proto0, "8004 0006 000f 000f 001e", end},
			with(func(r *Request) { r.AEADs = []aead.ID{15, 15, 30} })},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseWhole(msg(t, c.records...))
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("parsed %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

func TestRequestsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []string
		code    Code
	}{
		{"K09 an unknown critical record", []string{proto0, aead15, "ffff 0000", end}, UnrecognizedCritical},
		{"K09 a critical record of a pool", []string{"800a 0000", "8009 0000", end}, UnrecognizedCritical},
		{"K10 no End of Message", []string{proto0, aead15}, BadRequest},
		{"K10 End of Message with a body", []string{proto0, aead15, "8000 0002 0000"}, BadRequest},
		{"K10 End of Message without the critical bit", []string{proto0, aead15, "0000 0000"}, BadRequest},
		{"K10 End of Message twice", []string{proto0, aead15, end, end}, BadRequest},
		{"K10 one octet after End of Message", []string{proto0, aead15, end, "00"}, BadRequest},
		{"K11 no Next Protocol record", []string{aead15, end}, BadRequest},
		{"K11 two Next Protocol records", []string{proto0, proto0, aead15, end}, BadRequest},
		{"K11 Next Protocol without the critical bit", []string{"0001 0002 0000", aead15, end}, BadRequest},
		{"K12 an empty list of protocols", []string{"8001 0000", aead15, end}, BadRequest},
		{"K12 half a protocol", []string{"8001 0001 00", aead15, end}, BadRequest},
		{"K12 a protocol and a half", []string{"8001 0003 000000", aead15, end}, BadRequest},
		{"K14 an Error record", []string{proto0, aead15, "8002 0002 0001", end}, BadRequest},
		{"K14 an Error record without the critical bit", []string{proto0, aead15, "0002 0002 0001", end}, BadRequest},
		{"K14 a Warning record", []string{proto0, aead15, "8003 0002 0000", end}, BadRequest},
		{"K14 a Cookie record", []string{proto0, aead15, "0005 0004 00000000", end}, BadRequest},
		{"K15 nothing at all", nil, BadRequest},
		{"K15 End of Message alone", []string{end}, BadRequest},
		{"K15 a record cut off in its header", []string{proto0, "8004 00"}, BadRequest},
		{"K15 a record cut off in its body", []string{proto0, "8004 0004 000f"}, BadRequest},
		{"K18 NTPv4 without an AEAD record", []string{proto0, end}, BadRequest},
		{"K18 two AEAD records", []string{proto0, aead15, aead15, end}, BadRequest},
		{"K18 an empty list of AEADs", []string{proto0, "8004 0000", end}, BadRequest},
		{"K18 an AEAD and a half", []string{proto0, "8004 0003 000f00", end}, BadRequest},
		{"K23 two Server records", []string{proto0, aead15, "0006 0001 61", "0006 0001 61", end}, BadRequest},
		{"K23 two Port records", []string{proto0, aead15, "0007 0002 007b", "0007 0002 007b", end}, BadRequest},
		{"K23 a server name that is not ASCII", []string{proto0, aead15, "0006 0002 c3a4", end}, BadRequest},
		{"K23 a server name with a line feed", []string{proto0, aead15, "0006 0002 610a", end}, BadRequest},
		{"K23 a server name with a zero octet", []string{proto0, aead15, "0006 0002 6100", end}, BadRequest},
		{"K23 an empty server name", []string{proto0, aead15, "0006 0000", end}, BadRequest},
		{"K23 a server name of 256 octets", []string{proto0, aead15, "0006 0100", strings.Repeat("61", 256), end}, BadRequest},
		{"a port of one octet", []string{proto0, aead15, "0007 0001 7b", end}, BadRequest},
		{"a port of three octets", []string{proto0, aead15, "0007 0003 00007b", end}, BadRequest},
		{"port 0", []string{proto0, aead15, "0007 0002 0000", end}, BadRequest},
		{"record 1024 with a body", []string{proto0, aead15, "0400 0001 00", end}, BadRequest},
		{"record 1024 twice", []string{proto0, aead15, compliant, compliant, end}, BadRequest},
		{"of two faulty records the first in wire order wins", []string{"ffff 0000", "8001 0000", end}, UnrecognizedCritical},
		{"of two faulty records the first in wire order wins, turned round", []string{"8001 0000", "ffff 0000", end}, BadRequest},
		{"a faulty framing wins over a faulty record", []string{"ffff 0000", proto0, aead15, end, "00"}, BadRequest},
		{"a faulty record wins over a missing one", []string{"ffff 0000", end}, UnrecognizedCritical},
		{"more than 4096 octets", []string{proto0, aead15, "7000 0ff0", strings.Repeat("00", 0xff0), end}, BadRequest},
		{"more records than 256", []string{proto0, aead15, strings.Repeat("7000 0000", 254), end}, BadRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := msg(t, c.records...)
			got, err := parseWhole(b)
			var e *Error
			if !errors.As(err, &e) || e.Code != c.code || e.Reason == "" || !reflect.DeepEqual(got, Request{}) {
				t.Errorf("parsed %+v, %v; want error %v", got, err, c.code)
			}
			_, err = ReadRequest(bytes.NewReader(b))
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("read: %v; want error %v", err, c.code)
			}
			_, err = ReadRequest(iotest.OneByteReader(bytes.NewReader(b)))
			if len(b) > 0 && bytes.HasSuffix(b, msg(t, end, "00")) || strings.HasPrefix(c.name, "K10 End of Message twice") {
				return // one octet at a time, what follows the end is never read
			}
			if !errors.As(err, &e) || e.Code != c.code {
				t.Errorf("read octet by octet: %v; want error %v", err, c.code)
			}
		})
	}
}

func TestK07LongestRequestsThatAreRead(t *testing.T) {
	for name, filler := range map[string]string{
		"1024 octets of the shortest records": strings.Repeat("7000 0000", (1024-16)/4),
		"4096 octets":                         "7000 0fec" + strings.Repeat("00", 0xfec),
	} {
		t.Run(name, func(t *testing.T) {
			b := msg(t, proto0, aead15, filler, end)
			for kind, r := range map[string]io.Reader{
				"at once":        bytes.NewReader(b),
				"octet by octet": iotest.OneByteReader(bytes.NewReader(b)),
				"with the end":   iotest.DataErrReader(bytes.NewReader(b)),
			} {
				got, err := ReadRequest(r)
				if err != nil || !reflect.DeepEqual(got, plain) {
					t.Errorf("%s: %+v, %v", kind, got, err)
				}
			}
		})
	}
}

// refusing fails the test when more is read than it holds.
type refusing struct {
	t      *testing.T
	chunks [][]byte
}

func (r *refusing) Read(p []byte) (int, error) {
	if len(r.chunks) == 0 {
		r.t.Error("read on after End of Message")
		return 0, io.EOF
	}
	n := copy(p, r.chunks[0])
	if r.chunks[0] = r.chunks[0][n:]; len(r.chunks[0]) == 0 {
		r.chunks = r.chunks[1:]
	}
	return n, nil
}

func TestNothingIsReadAfterEndOfMessage(t *testing.T) {
	b := msg(t, proto0, aead15, end)
	for at := range b {
		r := &refusing{t: t, chunks: [][]byte{b[:at:at], b[at:]}}
		if at == 0 {
			r.chunks = r.chunks[1:]
		}
		if got, err := ReadRequest(r); err != nil || !reflect.DeepEqual(got, plain) {
			t.Errorf("split at %d: %+v, %v", at, got, err)
		}
	}
}

func TestAnOversizedRequestIsRefusedAtItsHeader(t *testing.T) {
	b := msg(t, proto0, aead15, "7000 ffff")
	r := &refusing{t: t, chunks: [][]byte{b}}
	_, err := ReadRequest(r)
	var e *Error
	if !errors.As(err, &e) || e.Code != BadRequest {
		t.Errorf("read: %v", err)
	}
}

func TestReaderErrorsAreNotToldToThePeer(t *testing.T) {
	broken := errors.New("broken")
	for name, r := range map[string]io.Reader{
		"before the first octet": iotest.ErrReader(broken),
		"in the middle":          io.MultiReader(bytes.NewReader(msg(t, proto0)), iotest.ErrReader(broken)),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ReadRequest(r)
			var e *Error
			if !errors.Is(err, broken) || errors.As(err, &e) {
				t.Errorf("read: %v", err)
			}
		})
	}
	if _, err := ReadRequest(idle{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that returns nothing: %v", err)
	}
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestAParsedRequestSharesNoMemoryWithTheMessage(t *testing.T) {
	b := msg(t, proto0, aead15, "0006 0003 612e62", end)
	got, err := parseWhole(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b)
	want := plain
	want.Server = "a.b"
	if !reflect.DeepEqual(got, want) {
		t.Errorf("after the message was cleared: %+v", got)
	}
}

func TestARequestIsWrittenAsChronydWritesIt(t *testing.T) {
	want := golden(t)["request"]
	got := plain.AppendTo(nil)
	got[6] |= 0x80 // chronyd sets the critical bit of the AEAD record, which RFC 8915 leaves open
	if !bytes.Equal(got, want) {
		t.Errorf("wrote %x, want %x", got, want)
	}
	parsed, err := parseWhole(want)
	if err != nil || !reflect.DeepEqual(parsed, plain) {
		t.Errorf("parsed %+v, %v", parsed, err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(msg(f, proto0, aead15, end))
	f.Add(msg(f, "8001 0004 8001 0000", "0004 0004 001e 000f", compliant, "8006 0003 612e62", "0007 0002 007b", "000d 0001 61", end))
	f.Add(msg(f, "ffff 0000", end))
	f.Add(msg(f, "8001 0001 00", "8000 0000 00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := parseWhole(b)
		read, rerr := ReadRequest(bytes.NewReader(b))
		if (err == nil) != (rerr == nil) || !reflect.DeepEqual(first, read) {
			t.Fatalf("parseWhole %+v, %v; ReadRequest %+v, %v", first, err, read, rerr)
		}
		var e *Error
		if err != nil {
			if !errors.As(err, &e) || e.Code > BadRequest {
				t.Fatalf("refused with %v", err)
			}
			return
		}
		wire := first.AppendTo(nil)
		if len(wire) > len(b) {
			t.Fatalf("%d octets became %d", len(b), len(wire))
		}
		second, err := parseWhole(wire)
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%+v became %+v, %v", first, second, err)
		}
		if again := second.AppendTo(nil); !bytes.Equal(wire, again) {
			t.Fatalf("%x became %x", wire, again)
		}
	})
}
