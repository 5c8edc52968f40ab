package daemontest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Connect lays a cable between two networks, whose ends have these addresses,
// each with the length of its prefix.
func Connect(t testing.TB, a, b *Network, atA, atB []netip.Prefix) {
	t.Helper()
	var far *os.File
	var err error
	if b.Do(func() { far, err = os.Open("/proc/thread-self/ns/net") }); err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	a.Do(func() { err = newCable(int(far.Fd())) })
	for _, end := range []struct {
		n     *Network
		addrs []netip.Prefix
	}{{a, atA}, {b, atB}} {
		if err == nil {
			end.n.Do(func() { err = plugIn(end.addrs) })
		}
	}
	if err != nil {
		t.Fatalf("connect two networks: %v", err)
	}
}

// cable is the name of both its ends.
const cable = "cable0"

// newCable makes one from this network to that of a namespace (rtnetlink(7)).
func newCable(far int) error {
	name := attribute(unix.IFLA_IFNAME, append([]byte(cable), 0))
	peer := append(make([]byte, unix.SizeofIfInfomsg), name...)
	peer = append(peer, attribute(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(far)))...)
	info := append(attribute(unix.IFLA_INFO_KIND, []byte("veth")), attribute(unix.IFLA_INFO_DATA, attribute(1, peer))...) // 1: VETH_INFO_PEER
	body := append(make([]byte, unix.SizeofIfInfomsg), name...)
	return netlink(unix.RTM_NEWLINK, append(body, attribute(unix.IFLA_LINKINFO, info)...))
}

// plugIn gives the end in this network its addresses and brings it up.
func plugIn(addrs []netip.Prefix) error {
	link, err := net.InterfaceByName(cable)
	if err != nil {
		return err
	}
	for _, p := range addrs {
		family := byte(unix.AF_INET)
		if p.Addr().Is6() {
			family = unix.AF_INET6
		}
		body := binary.NativeEndian.AppendUint32([]byte{family, byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}, uint32(link.Index))
		octets := p.Addr().AsSlice()
		body = append(append(body, attribute(unix.IFA_LOCAL, octets)...), attribute(unix.IFA_ADDRESS, octets)...)
		if err := netlink(unix.RTM_NEWADDR, body); err != nil {
			return fmt.Errorf("add %v: %w", p, err)
		}
	}
	return linkUp(cable)
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

// netlink sends one request that makes something new, and reads what became of it.
func netlink(kind uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b = append(append(b, make([]byte, 8)...), body...) // sequence and port
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	switch {
	case err != nil:
		return err
	case n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR:
		return fmt.Errorf("netlink answers %d octets", n)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// Route sends what is for a prefix by way of a host at the other end of a cable.
func Route(t testing.TB, n *Network, to netip.Prefix, via netip.Addr) {
	t.Helper()
	body := []byte{unix.AF_INET, byte(to.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	body = append(append(body, attribute(unix.RTA_DST, to.Addr().AsSlice())...), attribute(unix.RTA_GATEWAY, via.AsSlice())...)
	var err error
	if n.Do(func() { err = netlink(unix.RTM_NEWROUTE, body) }); err != nil {
		t.Fatalf("route to %v: %v", to, err)
	}
}
