package agent

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

func TestACrowdLosesItsOldestAndNeverTheNewcomer(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var going sync.WaitGroup
	c := newCrowd(ln, 2, &going)
	defer c.Close()
	come := func() (client, server net.Conn) { return comeFrom(t, c, "127.0.0.1") }
	gone := func(client net.Conn, wait time.Duration) bool {
		_ = client.SetReadDeadline(time.Now().Add(wait))
		_, err := client.Read(make([]byte, 1))
		return err == io.EOF
	}
	first, _ := come()
	second, server := come()
	third, other := come()
	if !gone(first, patience) {
		t.Error("the oldest is still there with one too many")
	}
	if gone(second, time.Millisecond) || gone(third, time.Millisecond) {
		t.Error("another than the oldest had to go")
	}
	// One that closes by itself makes room.
	server.Close()
	server.Close()
	fourth, last := come()
	if gone(third, time.Millisecond) || gone(fourth, time.Millisecond) {
		t.Error("somebody had to go though there was room")
	}
	last.Close()
	other.Close()
	going.Wait() // for nobody
}

func TestAFloodFromOnePlaceCostsNobodyElseHisPlaceInACrowd(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var going sync.WaitGroup
	c := newCrowd(ln, 4, &going)
	defer c.Close()
	come := func(from string) net.Conn { _, server := comeFrom(t, c, from); return server }
	first := come("127.9.9.9")
	for range 40 {
		come("127.0.0.1")
	}
	amid := come("127.8.8.8")
	for range 40 {
		come("127.0.0.1")
	}
	for name, server := range map[string]net.Conn{"first": first, "amid the flood": amid} {
		if _, err := server.Write([]byte("here")); err != nil {
			t.Errorf("who came %s has lost its place: %v", name, err)
		}
	}
}

// comeFrom is a connection from that address to the crowd.
func comeFrom(t *testing.T, c *crowd, from string) (client, server net.Conn) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client, err := d.Dial("tcp4", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = c.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}
