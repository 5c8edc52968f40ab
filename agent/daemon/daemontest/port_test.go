package daemontest

import (
	"net"
	"testing"
)

func TestAPortIsKeptUntilTheEndOfItsTest(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		again := false
		for range 3 { // another test may come for one just then
			var port uint16
			t.Run(network, func(t *testing.T) {
				port = FreePort(t, network)
				if keep(t, network, int(port)) {
					t.Errorf("%s port %d was given twice", network, port)
				}
			})
			again = again || keep(t, network, int(port))
		}
		if !again {
			t.Errorf("no %s port can be had again", network)
		}
	}
}

func TestAPortThatSomebodyHasIsPassedOver(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for network, port := range map[string]int{"tcp": l.Addr().(*net.TCPAddr).Port, "udp": c.LocalAddr().(*net.UDPAddr).Port} {
		if keep(t, network, port) {
			t.Errorf("%s port %d was given", network, port)
		}
	}
}
