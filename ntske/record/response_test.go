package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"ntsagent/ntske/aead"
)

// golden reads the octets a real chronyd sent, by name.
func golden(t testing.TB) map[string][]byte {
	t.Helper()
	text, err := os.ReadFile("testdata/chronyd.txt")
	if err != nil {
		t.Fatal(err)
	}
	m := map[string][]byte{}
	for line := range strings.Lines(string(text)) {
		name, octets, _ := strings.Cut(strings.TrimSpace(line), " ")
		if m[name], err = hex.DecodeString(octets); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func eight(n int) [][]byte {
	var list [][]byte
	for i := range 8 {
		list = append(list, bytes.Repeat([]byte{byte(i + 1)}, n))
	}
	return list
}

func TestAResponseOfChronydIsReadAndWrittenBack(t *testing.T) {
	b := golden(t)["response"]
	got, err := ReadResponse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Cookies) != 8 || len(got.Cookies[7]) != 100 || got.Port != 34123 || got.Server != "" ||
		!reflect.DeepEqual(got.Protocols, []Protocol{NTPv4}) || !reflect.DeepEqual(got.AEADs, []aead.ID{aead.SIVCMAC256}) {
		t.Errorf("read %+v", got)
	}
	if wire := got.AppendTo(nil); !bytes.Equal(wire, b) {
		t.Errorf("wrote %x, chronyd %x", wire, b)
	}
}

func TestResponsesAsTheyAreWritten(t *testing.T) {
	for _, c := range []struct {
		name string
		resp Response
		want []string
	}{
		{"K06 the order that satisfies every client is 1, 4, 1024, 7, 6, 5, 0",
			Response{[]Protocol{NTPv4}, []aead.ID{30}, true, "a.b", 11123, [][]byte{{1, 2, 3, 4}, {5, 6, 7, 8}}},
			[]string{proto0, "8004 0002 001e", compliant, "8007 0002 2b73", "8006 0003 612e62", "0005 0004 01020304", "0005 0004 05060708", end}},
		{"K12 no protocol in common gives an empty Next Protocol record", Response{}, []string{"8001 0000", end}},
		{"K19 no AEAD in common gives an empty AEAD record", Response{Protocols: []Protocol{NTPv4}}, []string{proto0, "8004 0000", end}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wire := c.resp.AppendTo([]byte("before"))
			if want := append([]byte("before"), msg(t, c.want...)...); !bytes.Equal(wire, want) {
				t.Errorf("wrote %x, want %x", wire, want)
			}
			got, err := ReadResponse(iotest.OneByteReader(bytes.NewReader(wire[6:])))
			if err != nil || !bytes.Equal(got.AppendTo(nil), wire[6:]) {
				t.Errorf("read back %+v, %v", got, err)
			}
		})
	}
}

func TestK13AnErrorIsWrittenAndReadBack(t *testing.T) {
	for code, want := range map[Code]string{UnrecognizedCritical: "8002 0002 0000", BadRequest: "8002 0002 0001", InternalError: "8002 0002 0002", 0xf000: "8002 0002 f000"} {
		wire := AppendError(nil, code)
		if !bytes.Equal(wire, msg(t, want, end)) {
			t.Errorf("%v is written %x", code, wire)
		}
		_, err := ReadResponse(bytes.NewReader(wire))
		var e *Error
		if !errors.As(err, &e) || e.Code != code || e.Reason != "" {
			t.Errorf("%v is read %v", code, err)
		}
	}
}

func TestResponsesAClientRefuses(t *testing.T) {
	const cookie = "0005 0004 01020304"
	for _, c := range []struct {
		name    string
		records []string
	}{
		{"no End of Message", []string{proto0, aead15, cookie}},
		{"End of Message without the critical bit", []string{proto0, aead15, cookie, "0000 0000"}},
		{"End of Message with a body", []string{proto0, aead15, cookie, "8000 0001 00"}},
		{"octets after End of Message", []string{proto0, aead15, cookie, end, "00"}},
		{"no Next Protocol record", []string{aead15, cookie, end}},
		{"two Next Protocol records", []string{proto0, proto0, aead15, cookie, end}},
		{"two protocols", []string{"8001 0004 0000 8001", aead15, cookie, end}},
		{"Next Protocol without the critical bit", []string{"0001 0002 0000", aead15, cookie, end}},
		{"NTPv4 without an AEAD record", []string{proto0, end}},
		{"two AEADs", []string{proto0, "8004 0004 000f 001e", cookie, end}},
		{"two AEAD records", []string{proto0, aead15, aead15, cookie, end}},
		{"an AEAD and no cookie", []string{proto0, aead15, end}},
		{"cookies and no AEAD", []string{proto0, "8004 0000", cookie, end}},
		{"cookies and no protocol", []string{"8001 0000", cookie, end}},
		{"an AEAD and no protocol", []string{"8001 0000", aead15, end}},
		{"a critical cookie", []string{proto0, aead15, "8005 0004 01020304", end}},
		{"an empty cookie", []string{proto0, aead15, "0005 0000", end}},
		{"a cookie of 5 octets, which no extension field can carry", []string{proto0, aead15, "0005 0005 0102030405", end}},
		{"a cookie of 1028 octets", []string{proto0, aead15, "0005 0404", strings.Repeat("00", 1028), end}},
		{"a Warning", []string{proto0, aead15, cookie, "8003 0002 0000", end}},
		{"an Error of three octets", []string{"8002 0003 000000", end}},
		{"an Error without the critical bit", []string{"0002 0002 0001", end}},
		{"an unknown critical record", []string{proto0, aead15, cookie, "ffff 0000", end}},
		{"a server name with a space", []string{proto0, aead15, cookie, "8006 0003 612062", end}},
		{"a server name of 256 octets", []string{proto0, aead15, cookie, "8006 0100", strings.Repeat("61", 256), end}},
		{"two Server records", []string{proto0, aead15, cookie, "8006 0001 61", "8006 0001 61", end}},
		{"two Port records", []string{proto0, aead15, cookie, "8007 0002 007b", "8007 0002 007b", end}},
		{"port 0", []string{proto0, aead15, cookie, "8007 0002 0000", end}},
		{"record 1024 with a body", []string{proto0, aead15, cookie, "0400 0001 00", end}},
		{"more than 16384 octets", []string{proto0, aead15, cookie, "7000 3fff", strings.Repeat("00", 0x3fff), end}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ReadResponse(bytes.NewReader(msg(t, c.records...)))
			var e *Error
			if err == nil || errors.As(err, &e) || !reflect.DeepEqual(got, Response{}) {
				t.Errorf("read %+v, %v; want an error that the peer did not send", got, err)
			}
		})
	}
}

func TestResponsesAClientTakes(t *testing.T) {
	const cookie = "0005 0004 01020304"
	want := Response{Protocols: []Protocol{NTPv4}, AEADs: []aead.ID{15}, Cookies: [][]byte{{1, 2, 3, 4}}}
	for name, records := range map[string][]string{
		"one cookie":                        {proto0, aead15, cookie, end},
		"an unknown record not critical":    {proto0, aead15, cookie, "0008 0000", end},
		"an AEAD record not critical":       {proto0, "0004 0002 000f", cookie, end},
		"records in another order":          {cookie, aead15, proto0, end},
		"an unknown record of 4000 octets":  {proto0, "7000 0fa0", strings.Repeat("00", 4000), aead15, cookie, end},
		"an unknown record of 16000 octets": {proto0, "7000 3e80", strings.Repeat("00", 16000), aead15, cookie, end},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadResponse(iotest.HalfReader(bytes.NewReader(msg(t, records...))))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("read %+v, %v", got, err)
			}
		})
	}
}

func TestWritingAllocatesNothing(t *testing.T) {
	resp := Response{[]Protocol{NTPv4}, []aead.ID{15}, true, "ntp.example.org", 11123, eight(100)}
	dst := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(200, func() { dst = resp.AppendTo(dst[:0]) }); n != 0 {
		t.Errorf("Response.AppendTo allocates %v times", n)
	}
	if n := testing.AllocsPerRun(200, func() { dst = AppendError(dst[:0], BadRequest) }); n != 0 {
		t.Errorf("AppendError allocates %v times", n)
	}
}

func TestEightCookiesOfChronyFitTheSmallestClient(t *testing.T) {
	resp := Response{[]Protocol{NTPv4}, []aead.ID{15}, true, strings.Repeat("a", 255), 11123, eight(104)}
	if n := len(resp.AppendTo(nil)); n > 2048 {
		t.Errorf("%d octets; NTPsec reads 2048", n)
	}
}

func FuzzResponse(f *testing.F) {
	f.Add(golden(f)["response"])
	f.Add(msg(f, proto0, "8004 0000", end))
	f.Add(msg(f, "8001 0000", end))
	f.Add(AppendError(nil, InternalError))
	f.Add(msg(f, "8001 0002 3030", end)) // another protocol, which needs no AEAD record
	f.Add((&Response{[]Protocol{NTPv4}, []aead.ID{30}, true, "a.b", 11123, eight(8)}).AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := ReadResponse(bytes.NewReader(b))
		if err != nil {
			return
		}
		wire := first.AppendTo(nil)
		second, err := ReadResponse(iotest.OneByteReader(bytes.NewReader(wire)))
		if err != nil || !reflect.DeepEqual(first, second) {
			t.Fatalf("%+v became %+v, %v", first, second, err)
		}
		if again := second.AppendTo(nil); !bytes.Equal(wire, again) {
			t.Fatalf("%x became %x", wire, again)
		}
	})
}
