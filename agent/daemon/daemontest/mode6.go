package daemontest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// Associations asks an NTP daemon by a control message (RFC 9327 §2) for the
// numbers of its associations.
func Associations(addr netip.AddrPort) ([]uint16, error) {
	b, err := control(addr, 1, 0, "")
	if err != nil {
		return nil, err
	}
	var ids []uint16
	for ; len(b) >= 4; b = b[4:] { // a number and the status
		ids = append(ids, binary.BigEndian.Uint16(b))
	}
	return ids, nil
}

// Variables asks an NTP daemon for variables of an association, 0 = of the
// system; no names = those it tells by itself.
func Variables(addr netip.AddrPort, association uint16, names ...string) (map[string]string, error) {
	b, err := control(addr, 2, association, strings.Join(names, ","))
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, v := range strings.Split(string(b), ",") {
		name, value, _ := strings.Cut(v, "=")
		all[strings.TrimSpace(name)] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return all, nil
}

// control sends a control message, and does so again where no answer comes: the
// daemon may stand still for a moment.
func control(addr netip.AddrPort, op byte, association uint16, data string) (b []byte, err error) {
	for wait := 2 * time.Second; wait < patience; wait *= 2 {
		if b, err = controlOnce(addr, op, association, data, wait); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	return b, err
}

// controlOnce sends one control message and joins the parts of the answer.
func controlOnce(addr netip.AddrPort, op byte, association uint16, data string, wait time.Duration) ([]byte, error) {
	const head, response, failed, more = 12, 0x80, 0x40, 0x20
	c, err := net.Dial("udp", addr.String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(wait))
	ask := binary.BigEndian.AppendUint16([]byte{2<<3 | 6, op, 0, 1, 0, 0}, association)
	ask = binary.BigEndian.AppendUint16(append(ask, 0, 0), uint16(len(data)))
	ask = append(ask, data...)
	for len(ask)%4 != 0 {
		ask = append(ask, 0)
	}
	if _, err := c.Write(ask); err != nil {
		return nil, err
	}
	var all []byte
	for {
		b := make([]byte, 2048)
		n, err := c.Read(b)
		if err != nil {
			return nil, fmt.Errorf("control message to %v: %w", addr, err)
		}
		b = b[:n]
		if n < head || b[1]&response == 0 || b[1]&failed != 0 {
			return nil, fmt.Errorf("control message to %v: answer % x", addr, b[:min(n, head)])
		}
		offset, count := int(binary.BigEndian.Uint16(b[8:])), int(binary.BigEndian.Uint16(b[10:]))
		if offset != len(all) || n < head+count {
			return nil, fmt.Errorf("control message to %v: parts out of order", addr)
		}
		all = append(all, b[head:head+count]...)
		if b[1]&more == 0 {
			return all, nil
		}
	}
}
