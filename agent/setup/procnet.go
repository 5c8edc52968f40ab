package setup

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strconv"
)

// socket is one row of /proc/net/udp, udp6, tcp or tcp6.
type socket struct {
	local netip.AddrPort
	state uint8
	inode uint64
}

// listening is the state of a TCP socket that takes connections.
const listening = 0x0a

// parseSockets reads a table of /proc/net (proc_pid_net(5)). Rows that cannot be
// understood are left out, as the kernel may change a table while it is read.
func parseSockets(table []byte) []socket {
	var all []socket
	for line := range bytes.Lines(table) {
		f := bytes.Fields(line)
		if len(f) < 10 {
			continue
		}
		local, ok := parseSocketAddr(f[1])
		if !ok {
			continue
		}
		state, err := strconv.ParseUint(string(f[3]), 16, 8)
		if err != nil {
			continue
		}
		inode, err := strconv.ParseUint(string(f[9]), 10, 64)
		if err != nil {
			continue
		}
		all = append(all, socket{local, uint8(state), inode})
	}
	return all
}

// parseSocketAddr reads "0100007F:007B": 32-bit words in host order, the port in hex.
func parseSocketAddr(s []byte) (netip.AddrPort, bool) {
	host, port, ok := bytes.Cut(s, []byte(":"))
	if !ok || len(port) != 4 {
		return netip.AddrPort{}, false
	}
	n, err := strconv.ParseUint(string(port), 16, 16)
	if err != nil {
		return netip.AddrPort{}, false
	}
	raw := make([]byte, hex.DecodedLen(len(host)))
	if _, err := hex.Decode(raw, host); err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, false
	}
	for w := 0; w < len(raw); w += 4 {
		binary.NativeEndian.PutUint32(raw[w:], binary.BigEndian.Uint32(raw[w:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr, uint16(n)), true
}
