package gateway

import (
	"bytes"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// message is a control message of any kind.
func message(level, kind int32, data ...byte) []byte {
	b := make([]byte, cmsgHeader+len(data)+cmsgAlign)
	return b[:putControl(b, level, kind, 0, data, 0)]
}

func TestControlMessagesAreRead(t *testing.T) {
	stamp := message(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0)
	v4 := message(unix.IPPROTO_IP, unix.IP_PKTINFO, 7, 0, 0, 0, 192, 0, 2, 1, 192, 0, 2, 255)
	address := func(first ...byte) []byte {
		return append(append(first, make([]byte, 15-len(first))...), 1, 7, 0, 0, 0)
	}
	v6 := message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, address(0x20, 1, 0xd, 0xb8)...)
	local := message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, address(0xfe, 0x80)...)
	for _, c := range []struct {
		name   string
		b      []byte
		stamp  int64
		source []byte // data of the message that is sent
	}{
		{"none", nil, 0, nil},
		{"a stamp", stamp, 2_000_000_003, nil},
		{"a stamp behind a destination", slices.Concat(v4, stamp), 2_000_000_003, []byte{0, 0, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0}},
		{"a destination behind a stamp", slices.Concat(stamp, v6), 2_000_000_003, append(address(0x20, 1, 0xd, 0xb8)[:16], 0, 0, 0, 0)},
		{"a link-local destination keeps its interface", local, 0, address(0xfe, 0x80)},
		{"a stamp that is too short", message(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS, 1, 2, 3), 0, nil},
		{"a destination that is too short", message(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, 2, 3), 0, nil},
		{"another message", message(unix.SOL_SOCKET, unix.SCM_RIGHTS, make([]byte, 16)...), 0, nil},
		{"a length of 0", make([]byte, 48), 0, nil},
		{"a length beyond the end", stamp[:24], 0, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := arrivalStamp(c.b); got != c.stamp {
				t.Errorf("stamp %d, want %d", got, c.stamp)
			}
			var dst [controlRoom]byte
			n := source(dst[:], c.b)
			_, _, data, rest, _ := nextControl(dst[:n])
			if !bytes.Equal(data, c.source) || len(rest) != 0 {
				t.Errorf("source %x, want %x", data, c.source)
			}
		})
	}
}

func FuzzControlMessages(f *testing.F) {
	f.Add(message(unix.IPPROTO_IP, unix.IP_PKTINFO, make([]byte, 12)...))
	f.Add(message(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, make([]byte, 20)...))
	f.Add(message(unix.SOL_SOCKET, unix.SCM_TIMESTAMPNS, make([]byte, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		arrivalStamp(b)
		var dst [controlRoom]byte
		if n := source(dst[:], b); n > 0 {
			var again [controlRoom]byte
			if m := source(again[:], dst[:n]); m != n || again != dst {
				t.Fatalf("%x became %x", dst, again)
			}
		}
	})
}
