package agent

import (
	"net"
	"sync"

	"ntsagent/ntske/tcp"
)

// A crowd is a listener that keeps so many of its connections open and no more.
// When one more comes another goes, as the table says: a limit that keeps
// newcomers waiting would let anybody with as many idle connections keep a CA's
// validators out, and one that ends the oldest, anybody with enough new ones.
type crowd struct {
	net.Listener
	table *tcp.Table[*guest]
	going *sync.WaitGroup // its connections
}

// guest is a connection that leaves the crowd when it closes.
type guest struct {
	net.Conn
	crowd *crowd
	leave sync.Once
}

func newCrowd(l net.Listener, limit int, going *sync.WaitGroup) *crowd {
	return &crowd{Listener: l, table: tcp.NewTable[*guest](limit), going: going}
}

func (c *crowd) Accept() (net.Conn, error) {
	nc, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	g := &guest{Conn: nc, crowd: c}
	c.going.Add(1)
	if other := c.table.Add(g); other != nil {
		_ = other.Close()
	}
	return g, nil
}

// CloseWrite lets an http.Server finish its answer to who is still sending.
func (g *guest) CloseWrite() error { return g.Conn.(*net.TCPConn).CloseWrite() }

func (g *guest) Close() error {
	err := g.Conn.Close()
	g.leave.Do(func() {
		g.crowd.table.Remove(g)
		g.crowd.going.Done()
	})
	return err
}
